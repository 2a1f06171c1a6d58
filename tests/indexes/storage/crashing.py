"""What a process does that changes an index until it is killed (see `tests.forking`).

It prints a line after each commit it was told of, so that the test knows what must be there.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from embedkit.retrieval.vectors import Vectors
from indexes import Index, build, build_ann, compact
from tests.indexes.fakes import create, create_tokens, documents, embed, embed_tokens
from tests.indexes.sparse.made_up import embed_terms, settings

COUNT = 120
EMBEDS: dict[str, Callable[[Sequence[str]], Vectors]] = {
    "dense": embed,
    "multi-vector": embed_tokens,
    "sparse": embed_terms,
}


def create_kind(folder: Path, kind: str, count: int = 0) -> Index:
    if kind == "dense":
        return create(folder, count)
    if kind == "multi-vector":
        return create_tokens(folder, count)
    index = Index.create(folder, settings(metric="cosine"))
    if count:
        docs = documents(count)
        index.add(docs, embed_terms([f"{doc.title} {doc.text}" for doc in docs]))
    return index


def work_on(place: str, work: str, kind: str) -> None:
    folder = Path(place)
    there = (folder / "index.sqlite").exists()
    index = Index.open(folder, writable=True) if there else create_kind(folder, kind)
    tell("ready")
    if work == "build":
        for report in build(index, documents(COUNT), embed=EMBEDS[kind], commit_every=8):
            tell(f"committed {report.passages}")
    else:
        change(index, kind)
    tell("done")


def tell(line: str) -> None:
    """Print a line by one write, which no kill can cut in two, also where Python's output is unbuffered."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def change(index: Index, kind: str) -> None:
    """Add, replace, delete and compact, over and over, ending in the same state each time round."""
    docs = documents(COUNT)
    for round_number in range(1000):
        for start in range(0, COUNT, 40):
            part = docs[start : start + 40]
            index.add(part, EMBEDS[kind]([f"{doc.title} {doc.text}" for doc in part]))
        tell(f"committed {round_number}")
        index.delete([doc.doc_id for doc in docs[:60:2]])
        for _ in compact(index):
            pass
        for _ in build_ann(index, "ivf-flat" if kind == "dense" else "flat"):
            pass

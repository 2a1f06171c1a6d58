"""A process that changes an index until it is killed: `python -m tests.indexes.storage.crashing FOLDER SEED`.

It prints a line after each commit it was told of, so that the test knows what must be there.
"""

import sys
from pathlib import Path

from indexes import Index, build, build_ann, compact
from tests.indexes.fakes import create, documents, embed

COUNT = 120


def main(folder: Path, work: str) -> None:
    index = Index.open(folder, writable=True) if (folder / "index.sqlite").exists() else create(folder)
    tell("ready")
    if work == "build":
        for report in build(index, documents(COUNT), embed=embed, commit_every=8):
            tell(f"committed {report.passages}")
    else:
        change(index)
    tell("done")


def tell(line: str) -> None:
    """Print a line by one write, which no kill can cut in two, also where Python's output is unbuffered."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def change(index: Index) -> None:
    """Add, replace, delete and compact, over and over, ending in the same state each time round."""
    docs = documents(COUNT)
    for round_number in range(1000):
        for start in range(0, COUNT, 40):
            part = docs[start : start + 40]
            index.add(part, embed([f"{doc.title} {doc.text}" for doc in part]))
        tell(f"committed {round_number}")
        index.delete([doc.doc_id for doc in docs[:60:2]])
        for _ in compact(index):
            pass
        for _ in build_ann(index, "ivf-flat"):
            pass


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

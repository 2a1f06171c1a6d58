"""Write the index of one format version that must load for ever: `python -m tests.indexes.make_format_fixture`.

Run it once when the format changes, never again for the same version: with the storages that are new, as
`python -m tests.indexes.make_format_fixture 2-bit 4-bit`.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from embedkit.data.places import Mark
from embedkit.data.records import Document
from embedkit.retrieval.vectors import Vectors
from indexes import Index, Passage, Settings, build_ann
from indexes.storage.codes import TOKEN_BITS
from indexes.storage.schema import version_of
from indexes.types import Storage, VectorKind
from tests.indexes.fakes import DIMENSION, embed, embed_tokens

FIXTURES = Path(__file__).parent / "fixtures"
MARKS = (Mark(0, "lines", 4), Mark(0, "heading", "Title", 1))
TEXTS = ["The first note.", "Второй, в Unicode: naïve 日本", "The third. It has two passages."]


def main() -> None:
    for storage in get_args(Storage):
        if storage not in sys.argv[1:]:
            continue
        kind: VectorKind = "multi-vector" if storage in TOKEN_BITS else "dense"
        make: Callable[[Sequence[str]], Vectors] = embed if kind == "dense" else embed_tokens
        folder = FIXTURES / f"v{version_of(kind)}-{storage}"
        shutil.rmtree(folder, ignore_errors=True)
        settings = Settings(
            dimension=DIMENSION,
            storage=storage,
            fingerprint={"weights": "abc", "max_seq_length": 256},
            kind=kind,
        )
        with Index.create(folder, settings) as index:
            docs = [
                Document(f"d{n}", text, f"Title {n}", {"n": n}, f"/notes/d{n}", marks=MARKS)
                for n, text in enumerate(TEXTS)
            ]
            cuts = [[Passage(0, -1)], [Passage(0, -1)], [Passage(0, 10), Passage(11, 31)]]
            index.add(
                docs,
                make(["a x", "b y z", "c", "d"]) if kind == "multi-vector" else embed(["a", "b", "c", "d"]),
                passages=cuts,
            )
            index.add([Document("gone", "Deleted.")], make(["e"]))
            index.delete(["gone"])
            for _ in build_ann(index, "hnsw" if kind == "dense" else "flat"):
                pass
        (folder / "index.lock").unlink()


if __name__ == "__main__":
    main()

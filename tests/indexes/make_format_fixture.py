"""Write the index of one format version that must load for ever: `python -m tests.indexes.make_format_fixture`.

Run it once when the format changes, never again for the same version.
"""

import shutil
from pathlib import Path

from embedkit.data.places import Mark
from embedkit.data.records import Document
from indexes import Index, Passage, Settings, build_ann
from indexes.storage.codes import STORAGES
from indexes.storage.schema import FORMAT_VERSION
from tests.indexes.fakes import DIMENSION, embed

FIXTURES = Path(__file__).parent / "fixtures"
MARKS = (Mark(0, "lines", 4), Mark(0, "heading", "Title", 1))
TEXTS = ["The first note.", "Второй, в Unicode: naïve 日本", "The third. It has two passages."]


def main() -> None:
    for storage in STORAGES:
        folder = FIXTURES / f"v{FORMAT_VERSION}-{storage}"
        shutil.rmtree(folder, ignore_errors=True)
        settings = Settings(
            dimension=DIMENSION, storage=storage, fingerprint={"weights": "abc", "max_seq_length": 256}
        )
        with Index.create(folder, settings) as index:
            docs = [
                Document(f"d{n}", text, f"Title {n}", {"n": n}, f"/notes/d{n}", marks=MARKS)
                for n, text in enumerate(TEXTS)
            ]
            cuts = [[Passage(0, -1)], [Passage(0, -1)], [Passage(0, 10), Passage(11, 31)]]
            index.add(docs, embed(["a", "b", "c", "d"]), passages=cuts)
            index.add([Document("gone", "Deleted.")], embed(["e"]))
            index.delete(["gone"])
            for _ in build_ann(index, "hnsw"):
                pass
        (folder / "index.lock").unlink()


if __name__ == "__main__":
    main()

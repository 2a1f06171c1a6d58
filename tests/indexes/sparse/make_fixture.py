"""Write fixtures/v4-sparse, an index as this version writes it: `python -m tests.indexes.sparse.make_fixture`. Never write it again."""

from __future__ import annotations

from pathlib import Path

from indexes import Index
from tests.indexes.sparse.made_up import make_documents, make_vectors, settings

FIXTURE = Path(__file__).parent.parent / "fixtures" / "v4-sparse"


def main() -> None:
    vectors = make_vectors(40, dimension=60, terms=6)
    with Index.create(FIXTURE, settings(60)) as index:
        index.add(make_documents(25), vectors.take(range(25)))
        index.add(make_documents(15, first=25), vectors.take(range(25, 40)))
        index.delete(["d3", "d30"])
    (FIXTURE / "index.lock").unlink()


if __name__ == "__main__":
    main()

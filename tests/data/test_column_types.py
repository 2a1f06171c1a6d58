"""The types of CSV columns: told by the column, never by the cell alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedkit.data import column_types
from embedkit.data.column_types import typed
from embedkit.data.reading import read_documents
from embedkit.data.records import Document
from embedkit.errors import RecordError


def column(*cells: str) -> list[object]:
    """Return what becomes of the cells of one column."""
    documents = [Document(str(number), "text", "", {"c": cell}) for number, cell in enumerate(cells)]
    return [document.metadata["c"] for document in typed(documents)]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (("1", "-2", "", " 30 ", "0"), [1, -2, None, 30, 0]),
        (("1", "2.50", ".5", "1e-05", "-0.1"), [1, 2.5, 0.5, 1e-05, -0.1]),
        (("true", "False", "", "TRUE"), [True, False, None, True]),
        (("94110", "02139"), ["94110", "02139"]),  # one postal code makes the column text
        (("1", "n/a"), ["1", "n/a"]),
        (("+49", "30"), ["+49", "30"]),
        (("12345678901234567890", "1"), ["12345678901234567890", "1"]),  # beyond 64 bits
        (("1e400", "1"), ["1e400", "1"]),
        (("NaN", "1"), ["NaN", "1"]),
        (("1_000", "1"), ["1_000", "1"]),
        (("\u0661", "1"), ["\u0661", "1"]),  # a digit, and none of ours
        (("e5", "1"), ["e5", "1"]),
        (("-", "1"), ["-", "1"]),
        (("true", "yes"), ["true", "yes"]),
        (("true", "1"), ["true", "1"]),
        (("", ""), ["", ""]),
    ],
)
def test_a_column_has_the_type_that_all_its_cells_have(cells: tuple[str, ...], values: list[object]) -> None:
    found = column(*cells)
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


def test_types_are_told_by_the_first_rows_and_what_does_not_fit_later_stays_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(column_types, "SAMPLE_ROWS", 2)
    assert column("1", "2", "n/a", "4", "") == [1, 2, "n/a", 4, None]
    assert column("a", "2", "3") == ["a", "2", "3"]


def test_only_so_much_is_held_in_memory() -> None:
    read = 0

    def documents() -> Iterator[Document]:
        nonlocal read
        for number in range(3000):
            read += 1
            yield Document(str(number), "x" * (6 * 2**20 if number < 10 else 1), "", {"c": "1"})

    rows = typed(documents())
    assert next(rows).metadata == {"c": 1}
    assert read == 3  # 18 of 16 million characters
    assert sum(1 for _ in rows) == 2999


@pytest.mark.parametrize(("name", "sign"), [("a.csv", ","), ("a.tsv", "\t")])
def test_metadata_columns_have_types_and_id_title_and_text_stay_text(
    tmp_path: Path, name: str, sign: str
) -> None:
    lines = ["id,title,text,year,zip", "1,2,3,2021,02139", "4,5,6,,94110", "7,8"]
    (tmp_path / name).write_text("\n".join(lines).replace(",", sign), encoding="utf-8")
    documents = read_documents([str(tmp_path / name)])
    first, second = next(documents), next(documents)
    assert (first.doc_id, first.title, first.text) == ("1", "2", "3")
    assert first.metadata == {"year": 2021, "zip": "02139"}
    assert second.metadata == {"year": None, "zip": "94110"}
    with pytest.raises(RecordError, match=r":4: 2 columns where the header has 5"):
        next(documents)

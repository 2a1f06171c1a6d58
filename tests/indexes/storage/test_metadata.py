"""Metadata as strict JSON: what is stored, what is refused by its place, and what earlier versions stored."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from embedkit.data.records import Document
from embedkit.errors import IndexFileError, RecordError
from indexes import Index, build, export_records, merge_indexes, repair, verify
from indexes.storage.hashes import content_hash
from indexes.storage.metadata import metadata_json, strict_json
from tests.indexes.fakes import create, embed

UTC = datetime.UTC


def stored(**metadata: Any) -> Any:  # Any: whatever JSON holds
    return json.loads(metadata_json(Document("d", "text", "", metadata)))


def test_dates_are_iso_text_and_decimals_numbers() -> None:
    assert stored(
        day=datetime.date(2024, 1, 31),
        when=datetime.datetime(2024, 1, 31, 12, 30),
        there=datetime.datetime(2024, 1, 31, tzinfo=UTC),
        at=datetime.time(8),
        price=Decimal("1.50"),
        count=Decimal("12345678901234567890"),
        nested={"list": [datetime.date(2024, 2, 1), ("a", None, True)]},
    ) == {
        "day": "2024-01-31",
        "when": "2024-01-31T12:30:00",
        "there": "2024-01-31T00:00:00+00:00",
        "at": "08:00:00",
        "price": 1.5,
        "count": 12345678901234567890,
        "nested": {"list": ["2024-02-01", ["a", None, True]]},
    }


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"year": float("nan")}, "the field 'year' is NaN; JSON has finite numbers only. Write null"),
        ({"f": float("inf")}, "the field 'f' is Infinity, or a number beyond 1.8e308; JSON"),
        ({"a": {"b": [1, -float("inf")]}}, "the field 'a.b[1]' is -Infinity"),
        ({"price": Decimal("NaN")}, "the field 'price' is NaN"),
        ({"user": "half an emoji \ud83d"}, "the field 'user' holds the lone surrogate U+D83D"),
        ({"k\ud83d": 1}, "holds the lone surrogate U+D83D"),
        ({"blob": b"x"}, "the field 'blob' is of the type bytes; metadata holds text, numbers, true, false"),
        ({"took": datetime.timedelta(1)}, "the field 'took' is of the type timedelta"),
    ],
)
def test_what_json_cannot_hold_is_refused_with_place_and_field(metadata: Any, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        metadata_json(Document("d", "text", "", metadata, "c.jsonl", 2))
    assert str(caught.value).startswith("c.jsonl:2: ")
    assert message in str(caught.value)
    with pytest.raises(RecordError, match=r"^document 'd': "):
        metadata_json(Document("d", "text", "", metadata))


@pytest.mark.parametrize("depth", [201, 100_000])
def test_what_lies_deeper_than_readers_follow_is_refused(depth: int) -> None:
    """Of a list in a list in a list … a server could write no answer."""
    content: Any = []
    for _ in range(198):
        content = [content]
    assert stored(field=content, brackets="[" * 300)["field"] == content
    for _ in range(depth - 200):
        content = {"inner": content}
    with pytest.raises(RecordError, match=r"^c\.jsonl:2: lists and objects .* more than 200 deep\. Flatten"):
        metadata_json(Document("d", "text", "", {"field": [content]}, "c.jsonl", 2))


@pytest.mark.parametrize("key", ["_id", "x"])
def test_a_build_refuses_before_anything_of_the_document_is_stored(tmp_path: Path, key: str) -> None:
    documents = [Document("a", "one"), Document("b", "two", "", {key: float("nan")}, "c.jsonl", 2)]
    with create(tmp_path / "i") as index:
        with pytest.raises(RecordError, match=r"c\.jsonl:2: the field"):
            list(build(index, documents, embed=embed))
        with pytest.raises(RecordError, match=r"c\.jsonl:2: the field"):
            index.add(documents, embed(["one", "two"]))
        assert len(index) == 0


@pytest.fixture
def old_index(tmp_path: Path) -> Path:
    """An index with a NaN and an infinity in its metadata, as earlier versions let it in."""
    folder = tmp_path / "old"
    rows: list[dict[str, Any]] = [{"year": 2021}, {"year": 0, "lang": "en", "x": [0.5]}, {"year": 2020}]
    with create(folder) as index:
        index.add([Document(f"d{n}", "word", "", row) for n, row in enumerate(rows)], embed(["a", "b", "c"]))
        metadata = '{"lang": "en", "x": [Infinity, 0.5], "year": NaN}'
        index.database.execute(
            "UPDATE documents SET metadata = ?, content_hash = ? WHERE doc_id = 'd1'",
            (metadata, content_hash("d1", "", "word", metadata)),
        )
    return folder


def found(index: Index, where: str) -> list[str]:
    by_words = [hit.doc_id for hit in index.search_text(["word"], where=where)[0]]
    assert sorted(hit.doc_id for hit in index.search(embed(["a"]), where=where)[0]) == sorted(by_words)
    return sorted(by_words)


def test_an_index_that_holds_nan_is_filtered_all_the_same(old_index: Path) -> None:
    with Index.open(old_index) as index:
        assert found(index, "year > 2000") == ["d0", "d2"]
        assert found(index, "year is null") == ["d1"]
        assert found(index, "lang = 'en' and x contains 0.5") == ["d1"]
        (hit,) = index.search_text(["word"], where="lang = 'en'")[0]
        assert hit.metadata == {"lang": "en", "x": [None, 0.5], "year": None}
        exported = [json.loads(row["metadata"], parse_constant=pytest.fail) for row in export_records(index)]
        assert exported[1] == hit.metadata


def test_an_index_that_holds_nan_is_named_by_verify_and_mended_by_repair(old_index: Path) -> None:
    (finding,) = verify(old_index)
    assert finding.problem == (
        "document 'd1' holds what JSON cannot: 'x[0]' is Infinity, 'year' is NaN. Filters and hits take it for null"
    )
    done = [step.done for step in repair(old_index)]
    assert done[0] == "stored null for what JSON cannot hold in the metadata of 1 documents: 'd1'"
    assert list(verify(old_index)) == []
    with Index.open(old_index) as index:
        assert len(index) == 3
        assert found(index, "x contains 0.5") == ["d1"]


def test_a_merge_refuses_nan_and_takes_what_repair_made_of_it(old_index: Path, tmp_path: Path) -> None:
    with create(tmp_path / "new") as target, Index.open(old_index) as source:
        with pytest.raises(
            IndexFileError,
            match=r"the metadata of 1 documents hold what JSON cannot, such as 'x\[0\]' is Infinity, 'year' is NaN in 'd1'\. "
            "Store null in its place with: embedkit index repair",
        ):
            merge_indexes(target, source)
        assert len(target) == 0
    list(repair(old_index))
    with Index.open(tmp_path / "new", writable=True) as target, Index.open(old_index) as source:
        for expected in ((3, 0), (0, 3)):
            *_, report = merge_indexes(target, source)
            assert (report.added, report.unchanged) == expected
        assert found(target, "year > 2000") == ["d0", "d2"]
    assert list(verify(tmp_path / "new")) == []


def test_a_merge_takes_no_damaged_document(old_index: Path, tmp_path: Path) -> None:
    list(repair(old_index))
    with Index.open(old_index, writable=True) as index:
        index.database.execute("UPDATE documents SET text = 'other' WHERE doc_id = 'd2'")
    with create(tmp_path / "new") as target, Index.open(old_index) as source:
        with pytest.raises(IndexFileError, match="document 'd2' is not what was written: its hash differs"):
            list(merge_indexes(target, source))
        assert len(target) == 0


def test_damaged_metadata_stays_damage(old_index: Path) -> None:
    with Index.open(old_index, writable=True) as index:
        index.database.execute("""UPDATE documents SET metadata = '{"year": NaN' WHERE doc_id = 'd1'""")
    (finding,) = verify(old_index)
    assert finding.problem == "document 'd1' is not what was written: its hash differs"
    assert strict_json('{"year": NaN') == '{"year": NaN'

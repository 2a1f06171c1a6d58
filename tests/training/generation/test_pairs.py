from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from embedkit.errors import RecordError
from embedkit.training.generation.pairs import Side, parse_sides, read_source_targets


def write(path: Path, rows: Sequence[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("row", "source", "target"),
    [
        ({"query": "a", "positive": "b"}, "positive", "query"),
        ({"title": "a", "lead": "b"}, "lead", "title"),
        ({"question": "a", "answer": "b"}, "answer", "question"),
        ({"source": "b", "target": "a", "text": "c"}, "source", "target"),
        ({"sentence1": "b", "sentence2": "a"}, "sentence1", "sentence2"),
        ({"text": "b", "summary": "a", "title": "c"}, "text", "summary"),
    ],
)
def test_columns_tell_what_is_read_and_what_is_written(
    row: dict[str, object], source: str, target: str, tmp_path: Path
) -> None:
    found = read_source_targets([write(tmp_path / "p.jsonl", [row])])
    assert (found.sources, found.targets) == (["b"], [["a"]])
    assert found.described == f"source = {source!r}, target = {target!r}"


def test_equal_sources_are_one_with_all_their_targets(tmp_path: Path) -> None:
    first = write(
        tmp_path / "a.jsonl", [{"passage": "p", "query": "one"}, {"passage": "q", "query": ["x", "y"]}]
    )
    second = write(
        tmp_path / "b.jsonl", [{"document": "p", "query": "two"}, {"document": "p", "query": "one"}]
    )
    found = read_source_targets([first, second])
    assert (found.sources, found.targets) == (["p", "q"], [["one", "two"], ["x", "y"]])
    assert (len(found), found.num_targets) == (2, 4)
    assert found.described == "source = 'passage', target = 'query'; source = 'document', target = 'query'"


def test_the_user_says_which_column_is_which(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [{"de": "Hund", "en": "dog", "text": "x"}])
    columns: dict[Side, str] = parse_sides(["source=de", "target=en"])
    found = read_source_targets([path], columns=columns)
    assert (found.sources, found.targets) == (["Hund"], [["dog"]])
    with pytest.raises(
        RecordError, match=r"p\.jsonl:1: missing column 'fr' \(for target\); columns here: de, en, text"
    ):
        read_source_targets([path], columns={"target": "fr"})
    with pytest.raises(RecordError, match="--column 'src=de': wanted source=NAME or target=NAME"):
        parse_sides(["src=de"])


def test_a_retrieval_sets_queries_are_the_targets_of_their_documents(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    write(folder / "corpus.jsonl", [{"_id": "d", "title": "T", "text": "x"}, {"_id": "e", "text": "y"}])
    write(folder / "queries.jsonl", [{"_id": "1", "text": "one"}, {"_id": "2", "text": "two"}])
    lines = ["query-id\tcorpus-id\tscore", "1\td\t1", "2\td\t1", "2\te\t0"]
    (folder / "qrels" / "train.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = read_source_targets([str(folder)])
    assert (found.sources, found.targets) == (["T x"], [["one", "two"]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"p\.jsonl: there is no row in it"),
        ([{"words": "a"}], r"p\.jsonl:1: columns here: words; none of them is known as the source"),
        ([{"passage": "a"}], r"p\.jsonl:1: columns here: passage; none of them is known as the target"),
        ([{"passage": "a", "query": "b"}, {"passage": "a"}], r"p\.jsonl:2: 'query' is NoneType None; it must be a text"),
        ([{"passage": " ", "query": "b"}], r"p\.jsonl:1: 'passage' is empty; it must be a text"),
        ([{"passage": "a", "query": []}], r"p\.jsonl:1: 'query' is an empty list; it must hold a text"),
        ([{"passage": "a", "query": "b"}, {"query": "b"}], r"p\.jsonl:2: missing column 'passage'; columns here: query"),
    ],
)  # fmt: skip
def test_rows_that_are_no_pairs_are_told(rows: list[dict[str, object]], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=message):
        read_source_targets([write(tmp_path / "p.jsonl", rows)])


def test_no_source_is_on_both_sides_of_the_split(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"passage": f"p{i % 20}", "query": f"q{i}"} for i in range(60)]
    pairs = read_source_targets([write(tmp_path / "p.jsonl", rows)])
    train, held_out = pairs.split(0.25, most=3)
    assert (len(train), len(held_out)) == (17, 3)
    assert set(train.sources).isdisjoint(held_out.sources)
    assert train.num_targets + held_out.num_targets == 60
    assert pairs.split(0.25, most=3)[1].sources == held_out.sources
    with pytest.raises(RecordError, match="1 distinct source in the training data; at least 2 are needed"):
        pairs.take([0]).split(0.5, most=9)

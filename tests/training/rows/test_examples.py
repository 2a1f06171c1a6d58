from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import RecordError
from embedkit.training.contrastive.data_sets import read_data_set
from embedkit.training.contrastive.recipe import LossRecipe
from embedkit.training.rows.columns import parse_columns
from embedkit.training.rows.reading import read_examples
from tests.training.contrastive_runs import rows_of, write_rows


@pytest.mark.parametrize(
    ("rows", "kind", "described", "loss"),
    [
        ("pairs", "pairs", "first = 'query', second = 'positive'", "info_nce"),
        ("triplets", "triplets", "first = 'query', second = 'positive', negatives = 'negatives'", "info_nce"),
        ("scored", "scored", "first = 'sentence1', second = 'sentence2', score = 'score'", "cosent"),
        (
            "classified",
            "classified",
            "first = 'premise', second = 'hypothesis', label = 'label'",
            "pair_classification",
        ),
        (
            "alike",
            "classified",
            "first = 'sentence1', second = 'sentence2', label = 'label'",
            "online_contrastive",
        ),
        ("labelled", "labelled", "text = 'text', label = 'label'", "batch_hard_triplet"),
        ("texts", "texts", "text = 'text'", "simcse"),
        ("vectors", "vectors", "text = 'text', vector = 'vector'", "embedding_mse"),
        (
            "distilled",
            "distilled",
            "first = 'query', second = 'positive', negatives = 'negatives', margins = 'margins'",
            "margin_mse",
        ),
    ],
)
def test_the_columns_choose_the_kind_and_the_loss(
    tmp_path: Path, rows: str, kind: str, described: str, loss: str
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", rows_of(rows))
    found = read_data_set(str(path), {}, LossRecipe())
    assert (found.examples.kind, found.examples.described, found.loss.name) == (kind, described, loss)
    assert len(found.examples) == 60
    assert len(found.why) > 20


def test_each_text_is_kept_once_and_rows_are_numbers(tmp_path: Path) -> None:
    """Ragged negatives are filled up with -1; the second row's query is the first one's positive."""
    rows = [
        {"query": "a", "positive": "b", "negatives": ["c", "d"]},
        {"query": "b", "positive": "e", "negative_1": "c", "negatives": []},
    ]
    examples = read_examples(str(write_rows(tmp_path / "rows.jsonl", rows)))
    assert list(examples.texts) == ["a", "b", "c", "d", "e"]
    np.testing.assert_array_equal(examples.text_columns, [[0, 1, 2, 3], [1, 4, -1, -1]])
    taken = examples.take(np.array([1]))
    np.testing.assert_array_equal(taken.text_columns, [[1, 4, -1, -1]])
    assert taken.fingerprint != examples.fingerprint


def test_numbered_negative_columns_stand_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("negative_10,negative_2,anchor,positive\nten,two,a,p\n,only,b,q\n", encoding="utf-8")
    examples = read_examples(str(path))
    assert [[examples.texts[n] for n in row if n >= 0] for row in examples.text_columns] == [
        ["a", "p", "two", "ten"],
        ["b", "q", "only"],
    ]


def test_formats_give_the_same_rows(tmp_path: Path) -> None:
    rows = [
        {"sentence1": "a b", "sentence2": "c", "score": 1.5},
        {"sentence1": "d", "sentence2": "e", "score": 2},
    ]
    one = write_rows(tmp_path / "rows.jsonl", rows)
    lines = ["sentence1\tsentence2\tscore", *("\t".join(map(str, row.values())) for row in rows)]
    other = tmp_path / "rows.tsv"
    other.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert read_examples(str(one)).fingerprint == read_examples(str(other)).fingerprint
    text = tmp_path / "rows.txt"
    text.write_text("first line\n\nsecond line\n", encoding="utf-8")
    assert list(read_examples(str(text)).texts) == ["first line", "second line"]


def test_parquet_and_zst_are_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet
    import zstandard

    table = pyarrow.table({"text": ["a", "b"], "vector": [[1.0, 2.0], [3.0, 4.0]]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    examples = read_examples(str(tmp_path / "rows.parquet"))
    assert examples.vectors is not None
    np.testing.assert_array_equal(examples.vectors, [[1, 2], [3, 4]])
    packed = tmp_path / "rows.jsonl.zst"
    packed.write_bytes(zstandard.ZstdCompressor().compress(b'{"text": "a"}\n'))
    assert list(read_examples(str(packed)).texts) == ["a"]


def test_a_retrieval_set_becomes_pairs_and_what_was_judged_0_becomes_negatives(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "qrels").mkdir(parents=True)
    write_rows(
        folder / "corpus.jsonl", [{"_id": f"d{i}", "title": f"t{i}", "text": f"x{i}"} for i in range(4)]
    )
    write_rows(folder / "queries.jsonl", [{"_id": "q1", "text": "one"}, {"_id": "q2", "text": "two"}])
    qrels = "query-id\tcorpus-id\tscore\nq1\td0\t1\nq1\td1\t2\nq1\td2\t0\nq2\td3\t1\n"
    (folder / "qrels" / "train.tsv").write_text(qrels, encoding="utf-8")
    examples = read_examples(str(folder))
    rows = [[examples.texts[n] for n in row if n >= 0] for row in examples.text_columns]
    assert rows == [["one", "t0 x0", "t2 x2"], ["one", "t1 x1", "t2 x2"], ["two", "t3 x3"]]
    (folder / "qrels" / "dev.tsv").write_text(qrels.replace("d3", "d9"), encoding="utf-8")
    with pytest.raises(RecordError, match=r"1 judged documents are not in it, such as 'd9'"):
        read_examples(f"{folder}:dev")
    (folder / "qrels" / "train.tsv").rename(folder / "qrels" / "test.tsv")
    with pytest.raises(RecordError, match=r"qrels/ holds dev, test; which one to train on\? Name it: .*:dev"):
        read_examples(str(folder))


def test_columns_can_be_named_and_ignored(tmp_path: Path) -> None:
    rows = [
        {"title": "t", "body": "b", "votes": 3, "score": 0.4},
        {"title": "u", "body": "c", "votes": 5, "score": 0.6},
    ]
    path = str(write_rows(tmp_path / "rows.jsonl", rows))
    assert read_examples(path).kind == "scored"
    assert read_examples(path, columns=parse_columns(["score="])).kind == "pairs"
    named = read_examples(path, columns=parse_columns(["score=votes", "first=body", "second=title"]))
    assert named.described == "first = 'body', second = 'title', score = 'votes'"
    with pytest.raises(
        RecordError, match=r"rows\.jsonl:1: missing column 'texte' \(for first\); columns here: title, body"
    ):
        read_examples(path, columns=parse_columns(["first=texte"]))
    with pytest.raises(
        RecordError, match="--column 'frist=a': wanted ROLE=NAME with a role of first, second, negatives"
    ):
        parse_columns(["frist=a"])


BAD_ROWS = [
    ([{"query": "a", "positive": ""}], r"rows\.jsonl:1: 'positive' is empty; it must be a text"),
    ([{"query": "a", "positive": 3}], r"rows\.jsonl:1: 'positive' is int 3; it must be a text"),
    (
        [{"query": "a", "positive": "b"}, {"query": "a"}],
        r"rows\.jsonl:2: missing column 'positive' \(second\); columns here: query",
    ),
    (
        [{"sentence1": "a", "sentence2": "b", "score": math.nan}],
        r"rows\.jsonl:1: 'score' is nan; it must be a finite number",
    ),
    (
        [{"sentence1": "a", "sentence2": "b", "score": "high"}],
        r"rows\.jsonl:1: 'score' is 'high'; it must be a finite number",
    ),
    (
        [{"sentence1": "a", "sentence2": "b", "score": 2}, {"sentence1": "a", "sentence2": "c", "score": 2}],
        "all 2 scores are 2; there is nothing to order",
    ),
    (
        [{"text": "a", "label": "x"}, {"text": "b", "label": "x"}],
        "all 2 rows have the label 'x'; there is nothing to tell apart",
    ),
    ([{"text": "a", "label": None}], r"rows\.jsonl:1: 'label' is None; it must be a word or a number"),
    (
        [{"text": "a", "vector": [1.0, math.inf]}],
        r"rows\.jsonl:1: 'vector' is inf; it must be a finite number",
    ),
    (
        [{"text": "a", "vector": [1.0]}, {"text": "b", "vector": [1.0, 2.0]}],
        "vectors of 1 and of 2 dimensions; all must be as long",
    ),
    (
        [{"query": "a", "positive": "b", "negatives": ["c"], "margins": [1, 2]}],
        r"rows\.jsonl:1: 1 negatives and 2 margins; each negative needs one",
    ),
    ([], "there is no row in it"),
]


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS)
def test_a_bad_row_is_told_with_its_place(
    tmp_path: Path, rows: list[dict[str, object]], message: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(RecordError, match=message):
        read_examples(str(path))


def test_missing_columns_say_what_is_there_and_what_it_would_do_for(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", rows_of("scored"))
    with pytest.raises(
        RecordError,
        match="columns here: sentence1, sentence2, score; they make scored rows, pairs rows; loss 'margin_mse' needs "
        "first \\+ second \\+ negatives \\+ margins",
    ):
        read_data_set(str(path), {}, LossRecipe(name="margin_mse"))
    strange = write_rows(tmp_path / "strange.jsonl", [{"foo": "a", "bar": "b"}])
    with pytest.raises(
        RecordError, match=r"columns here: foo, bar; training needs .*Say which column is what with --column"
    ):
        read_examples(str(strange))


def test_a_named_loss_uses_the_columns_that_it_needs_alone(tmp_path: Path) -> None:
    """Pairs with a score serve as plain pairs, too."""
    path = write_rows(tmp_path / "rows.jsonl", rows_of("scored"))
    found = read_data_set(str(path), {}, LossRecipe(name="info_nce"))
    assert (found.examples.kind, found.loss.name, found.why) == ("pairs", "info_nce", "as asked for")


def test_columns_go_by_their_usual_names_in_large_letters_too(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("Question;Answer\nwho runs;the dog\n", encoding="utf-8")
    examples = read_examples(str(path))
    assert (examples.kind, examples.described) == ("pairs", "first = 'Question', second = 'Answer'")

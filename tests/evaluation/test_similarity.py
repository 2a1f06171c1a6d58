from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from embedkit.errors import EvaluationError, RecordError
from embedkit.evaluation.similarity import (
    CLUSTERING_COLUMNS,
    PAIR_COLUMNS,
    evaluate_pairs,
    evaluate_similarity,
    evaluate_triplets,
    read_columns,
    read_scored_pairs,
    unit_vectors,
)


def _by_angle(texts: Sequence[str]) -> NDArray[np.float32]:
    """Embed a text that is an angle in degrees; its length, which a cosine ignores, grows with it."""
    angles = np.array([float(text) for text in texts])
    directions = np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1)
    vectors: NDArray[np.float32] = ((1 + angles / 90)[:, None] * directions).astype(np.float32)
    return vectors


def test_similarity_by_hand() -> None:
    """Angles 60, 90, 0 between the pairs: cosines 0.5, 0, 1, in the order of the scores but not in a line."""
    pairs = [("0", "60", 2.0), ("0", "90", 1.0), ("30", "30", 5.0)]
    found = evaluate_similarity(pairs, _by_angle)
    assert found.spearman == pytest.approx(1.0)
    assert found.pearson == pytest.approx(np.corrcoef([0.5, 0, 1], [2, 1, 5])[0, 1], abs=1e-6)
    assert found.num_pairs == 3


def test_each_text_is_embedded_once() -> None:
    seen: list[str] = []

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        seen.extend(texts)
        return _by_angle(texts)

    evaluate_similarity([("0", "60", 1.0), ("0", "30", 2.0), ("60", "30", 3.0)], embed)
    assert sorted(seen) == ["0", "30", "60"]


def test_pairs_by_hand() -> None:
    """Cosines 0.87, 0.5, 0 with labels 1, 0, 1: AP (1 + 2/3)/2; F1 best with all three called: 0.8."""
    found = evaluate_pairs([("0", "30", 1.0), ("0", "60", 0.0), ("0", "90", 1.0)], _by_angle)
    assert found.average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert [found.f1, found.f1_threshold] == pytest.approx([0.8, 0.0], abs=1e-6)
    assert [found.accuracy, found.accuracy_threshold] == pytest.approx([2 / 3, (0.5 + math.sqrt(3) / 2) / 2])
    assert (found.num_pairs, found.num_positives) == (3, 2)


def test_a_triplet_that_ties_is_not_won() -> None:
    found = evaluate_triplets(
        [("0", "30", "60"), ("0", "60", "30"), ("0", "45", "45"), ("45", "0", "90")], _by_angle
    )
    assert (found.accuracy, found.num_ties, found.num_triplets) == (0.25, 2, 4)


def test_vectors_that_are_not_finite_are_an_error() -> None:
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.ones((len(texts), 2), np.float32)
        vectors[1] = math.nan
        return vectors

    pairs = [("a", "b" * 70, 1.0), ("c", "d", 2.0)]
    with pytest.raises(
        EvaluationError, match=r"1 of 4 vectors have NaN or infinity in it, the first for 'b{60}…'"
    ):
        evaluate_similarity(pairs, embed)


def test_a_text_without_tokens_has_the_cosine_0_to_every_other() -> None:
    """(1, 0) and (3, 4): 0.6; (1, 0) and (0, 0): 0, so that the positive wins."""
    rows = np.array([[1, 0], [3, 4], [0, 0]], np.float32)
    unit = unit_vectors(["a", "b", ""], lambda texts: rows).tolist()
    assert unit == [[1, 0], pytest.approx([0.6, 0.8]), [0, 0]]
    found = evaluate_triplets([("a", "b", "")], lambda texts: rows)
    assert (found.accuracy, found.num_ties) == (1.0, 0)


def test_scores_that_are_all_alike_are_refused_before_anything_is_encoded() -> None:
    def embed(texts: Sequence[str]) -> NoReturn:
        raise AssertionError

    with pytest.raises(
        EvaluationError, match=r"all 3 scores are 1; a correlation needs at least two different ones"
    ):
        evaluate_similarity([("a", "b", 1.0), ("c", "d", 1.0), ("e", "f", 1.0)], embed)


def test_a_model_that_gives_every_text_one_vector_is_an_error() -> None:
    with pytest.raises(EvaluationError, match=r"all 2 cosines are 1"):
        evaluate_similarity(
            [("a", "b", 1.0), ("c", "d", 2.0)], lambda texts: np.eye(4, dtype=np.float32)[[0] * 4]
        )


def test_too_few_vectors_are_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"embed returned shape \(1, 2\) for 2 texts; it must be \(N, E\)"):
        evaluate_similarity([("a", "b", 1.0)], lambda texts: np.ones((1, 2), np.float32))


def test_no_texts_are_an_error() -> None:
    with pytest.raises(EvaluationError, match=r"there are no texts to compare"):
        evaluate_triplets([], _by_angle)


def test_scored_pairs_are_read_from_tab_separated_and_json_lines(tmp_path: Path) -> None:
    tsv, jsonl = tmp_path / "sts.tsv", tmp_path / "pairs.jsonl"
    tsv.write_text('sentence1\tsentence2\tscore\tgenre\na "b"\tc\t2.500\tx\n', encoding="utf-8")
    jsonl.write_text('{"sentence1": "a", "sentence2": "b", "label": 1}\n', encoding="utf-8")
    assert read_scored_pairs(tsv) == [('a "b"', "c", 2.5)]
    assert read_scored_pairs(jsonl, PAIR_COLUMNS) == [("a", "b", 1.0)]


def test_a_column_may_be_called_title(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    path.write_text("text\ttitle\na\tb\n", encoding="utf-8")
    assert read_columns(path, ("title", "text")) == [("b", "a")]
    assert read_columns(path, ("text", "title")) == [("a", "b")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sentence1\tsentence2\nа\tb\n",
            r"x.tsv:2: missing column 'score'; columns here: sentence1, sentence2",
        ),
        (
            "sentence2\tscore\na\t1\n",
            r"x.tsv:2: missing column 'sentence1'; columns here: sentence2, score. Name another",
        ),
        (
            "sentence1\tsentence2\tscore\na\tb\t1\na\tb\tnan\n",
            r"x.tsv:3: 'score' is 'nan'; it must be a finite",
        ),
        (
            "sentence1\tsentence2\tscore\na\tb\thigh\n",
            r"x.tsv:2: 'score' is 'high'; it must be a finite number",
        ),
        ("sentence1\tsentence2\tscore\n", r"x.tsv: there is no row in it; each needs the columns sentence1"),
    ],
)
def test_pairs_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=message):
        read_scored_pairs(path)


def test_a_value_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": ["b"]}\n', encoding="utf-8")
    with pytest.raises(RecordError, match=r"x.jsonl:1: 'label' is list; it must be text or a number"):
        read_columns(path, CLUSTERING_COLUMNS)

"""`embedkit pairs`: the most similar pairs, near-duplicates and clusters from a file or an index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.cli.index.test_index import invoke


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    path = tmp_path / "s.txt"
    lines = ["the dog runs", "a girl plays guitar", "the dog runs", "water is blue", "the dog runs ."]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def rows(*arguments: object) -> list[dict[str, object]]:
    return [json.loads(line) for line in invoke("pairs", *arguments).splitlines()]


def test_equal_sentences_are_the_most_similar_pair(sentences: Path, tiny_model: Path) -> None:
    (best,) = rows(sentences, "--model", tiny_model, "--top-k", 1)
    assert best["score"] == pytest.approx(1, abs=1e-5)
    assert (best["first"], best["second"]) == (
        {"id": f"{sentences}:1", "text": "the dog runs"},
        {"id": f"{sentences}:3", "text": "the dog runs"},
    )


def test_dedup_keeps_the_first_of_each_group(sentences: Path, tiny_model: Path) -> None:
    found = rows(sentences, "--model", tiny_model, "--dedup", 0.9999)
    assert [(row["keep"]["id"][-1], row["drop"]["id"][-1]) for row in found] == [("1", "3")]  # type: ignore[index] # JSON


def test_an_index_serves_in_place_of_a_file(sentences: Path, tiny_model: Path, tmp_path: Path) -> None:
    index = tmp_path / "i"
    invoke("index", "build", sentences, "--text-unit", "line", "--index", index, "--model", tiny_model)
    from_index = rows("--index", index, "--top-k", 3)
    from_file = rows(sentences, "--model", tiny_model, "--top-k", 3)
    assert [row["first"] for row in from_index] == [row["first"] for row in from_file]


def test_blank_texts_are_no_pairs(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.txt"
    path.write_text("the dog runs\n\na girl plays\n  \n", encoding="utf-8")
    (best,) = rows(path, "--model", tiny_model)
    assert {best["first"]["id"][-1], best["second"]["id"][-1]} == {"1", "3"}  # type: ignore[index] # JSON


def test_clusters_hold_every_text_once(sentences: Path, tiny_model: Path) -> None:
    found = rows(sentences, "--model", tiny_model, "--cluster", 2)
    assert sum(row["size"] for row in found) == 5  # type: ignore[misc] # JSON


def test_choices_that_exclude_each_other_are_wrong_usage(sentences: Path) -> None:
    result = CliRunner().invoke(app, ["pairs", str(sentences), "--dedup", "0.9", "--cluster", "2"])
    assert result.exit_code == 2
    assert "exclude each other" in result.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dedup", "2"], "2.0 is not in the range"),
        (["--communities", "-1.5"], "-1.5 is not in the range"),
        (["--dedup", "nan"], "'nan'"),
        (["--min-score", "nan"], "'nan' is not a number"),
        (["--cluster", "6"], "--cluster is 6; the number of texts is 5"),
    ],
)
def test_numbers_that_no_cosine_and_no_grouping_can_have_are_wrong_usage(
    sentences: Path, tiny_model: Path, words: list[str], message: str
) -> None:
    result = CliRunner().invoke(app, ["pairs", str(sentences), "--model", str(tiny_model), *words])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())

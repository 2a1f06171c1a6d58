from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedkit.data.records import Hit
from embedkit.errors import OutputError, TrainingError
from embedkit.training.mining.audit import audit
from embedkit.training.mining.cosine import CosineMeasure
from embedkit.training.mining.mining import MiningReport, mine
from embedkit.training.mining.recipe import MiningRecipe
from embedkit.training.rows.examples import Examples
from embedkit.training.rows.reading import read_examples
from tests.full_disk import files_limited_to
from tests.training.contrastive_runs import rows_of, write_rows

WORLD = {"q": ["near", "right", "close", "far", "farther"], "r": ["right", "far"]}
SCORES = {"near": 0.9, "right": 0.8, "other right": 0.85, "close": 0.75, "far": 0.4, "farther": 0.1}


def search(queries: Sequence[str], depth: int) -> list[list[Hit]]:
    return [[Hit(text, SCORES[text], text) for text in WORLD[query]][:depth] for query in queries]


def score(queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[list[float]]:
    return [[SCORES[text] for text in own] for own in texts]


def examples_of(folder: Path, rows: Sequence[tuple[str, str]] = (("q", "right"),)) -> Examples:
    path = write_rows(folder / "pairs.jsonl", [{"query": q, "positive": p} for q, p in rows])
    return read_examples(str(path))


def mined(examples: Examples, folder: Path, recipe: MiningRecipe, **tools: object) -> list[dict[str, object]]:
    output = folder / "mined.jsonl"
    searches = tools.get("searches", [search])
    judge = tools.get("score", score)
    list(mine(examples, searches, judge, recipe, output, manifest={}))  # type: ignore[arg-type] # test doubles
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("settings", "negatives", "too_near"),
    [
        ({}, ["close", "far", "farther"], 1),
        ({"margin": None}, ["near", "close", "far", "farther"], 0),
        ({"margin": 0.1}, ["far", "farther"], 2),
        ({"margin": None, "relative_margin": 0.1}, ["far", "farther"], 2),
        ({"margin": None, "relative_margin": 0.05}, ["close", "far", "farther"], 1),
        ({"first_rank": 2, "last_rank": 3, "margin": None}, ["close", "far"], 0),
        ({"num_negatives": 1}, ["close"], 1),
    ],
)
def test_a_worked_example(
    tmp_path: Path, settings: dict[str, object], negatives: list[str], too_near: int
) -> None:
    """The positive scores 0.8: near (0.9) exceeds it, close (0.75) is within 0.1 and within 10 % of it."""
    (row,) = mined(examples_of(tmp_path), tmp_path, MiningRecipe(**settings))  # type: ignore[arg-type] # of the recipe
    assert row["negatives"] == negatives
    assert row["too_near"] == too_near
    assert row["likely_positive"] == ("near" if too_near else None)
    assert row["positive_score"] == 0.8


def test_what_is_known_to_be_right_is_never_a_negative_of_its_query(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, [("q", "right"), ("q", "near"), ("r", "right")])
    rows = mined(examples, tmp_path, MiningRecipe(margin=None))
    assert [row["negatives"] for row in rows] == [["close", "far", "farther"]] * 2 + [["far"]]


def test_space_around_a_text_does_not_make_a_negative_of_what_is_right(tmp_path: Path) -> None:
    """A search gives texts as they are encoded, without it; rows are read as they are."""
    examples = examples_of(tmp_path, [("q", "right"), ("q", "near \n"), ("r", "right")])
    (row, *_) = mined(examples, tmp_path, MiningRecipe(margin=None), score=None)
    assert row["negatives"] == ["close", "far", "farther"]


def test_several_searches_take_turns_and_random_picks_are_seeded(tmp_path: Path) -> None:
    def words(queries: Sequence[str], depth: int) -> list[list[Hit]]:
        return [[Hit("farther", 9.0, "farther"), Hit("near", 8.0, "near")] for _ in queries]

    examples = examples_of(tmp_path)
    (row,) = mined(examples, tmp_path, MiningRecipe(margin=None), searches=[search, words])
    assert row["negatives"] == ["near", "farther", "close", "far"]
    picks: list[tuple[str, ...]] = []
    for seed in (0, 0, 1, 2, 3):
        (tmp_path / "mined.jsonl").unlink()
        recipe = MiningRecipe(margin=None, num_negatives=2, pick="random", seed=seed)
        (row,) = mined(examples, tmp_path, recipe)
        picks.append(tuple(row["negatives"]))  # type: ignore[arg-type] # a list of texts
    assert picks[0] == picks[1]
    assert len(set(picks)) > 1


def test_a_stopped_run_goes_on_and_gives_the_same_file(tmp_path: Path) -> None:
    """600 rows are three windows; the crash comes after the first and leaves half a line."""
    rows = rows_of("pairs", 600)
    examples = read_examples(str(write_rows(tmp_path / "pairs.jsonl", rows)))
    texts = list(examples.texts)
    searched: list[int] = []

    def find(queries: Sequence[str], depth: int) -> list[list[Hit]]:
        searched.append(len(queries))
        return [[Hit(t, 0.5, t) for t in texts[len(query) :: 97][:depth]] for query in queries]

    recipe = MiningRecipe(margin=None)
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    list(mine(examples, [find], None, recipe, whole, manifest={"a": 1}))
    list(islice(mine(examples, [find], None, recipe, stopped, manifest={"a": 1}), 2))
    with (tmp_path / "stopped.jsonl.part").open("ab") as stream:
        stream.write(b'{"query": "ha')
    with pytest.raises(TrainingError, match=r"stopped\.jsonl\.part: was mined with other data or settings"):
        mine(examples, [find], None, recipe, stopped, manifest={"a": 2}, resume=True)
    searched.clear()
    reports = list(mine(examples, [find], None, recipe, stopped, manifest={"a": 1}, resume=True))
    assert reports[0] == MiningReport(256, 600)
    assert len(searched) == 2
    assert stopped.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "stopped.jsonl.part").exists()
    mined_rows = read_examples(str(whole))  # what was mined can be trained on
    assert (mined_rows.kind, len(mined_rows)) == ("triplets", 600)
    with pytest.raises(OutputError, match=r"whole\.jsonl: already exists"):
        mine(examples, [find], None, recipe, whole, manifest={})


def test_rows_are_written_through_a_full_disk_and_a_link_is_no_place_for_them(tmp_path: Path) -> None:
    examples = read_examples(str(write_rows(tmp_path / "pairs.jsonl", rows_of("pairs", 600))))
    recipe, output = MiningRecipe(margin=None), tmp_path / "mined.jsonl"

    def find(queries: Sequence[str], depth: int) -> list[list[Hit]]:
        return [[Hit("x" * 100, 0.5, "x" * 100)] for _ in queries]

    job = mine(examples, [find], None, recipe, output, manifest={})
    with (
        files_limited_to(100_000),
        pytest.raises(
            OutputError, match=r"mined\.jsonl: cannot be written .*mined\.jsonl\.part; make room, and"
        ),
    ):
        list(job)
    list(mine(examples, [find], None, recipe, output, manifest={}, resume=True))
    assert output.read_bytes().count(b"\n") == 600
    with pytest.raises(OutputError, match=r"pairs\.jsonl/mined: cannot be written"):
        mine(examples, [find], None, recipe, tmp_path / "pairs.jsonl" / "mined", manifest={})
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match=r"link: already exists"):
        mine(examples, [find], None, recipe, tmp_path / "link", manifest={})


def test_the_audit_counts_and_shows_what_looks_right(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, [("q", "right"), ("r", "far"), ("r", "right")])
    mined(examples, tmp_path, MiningRecipe())
    found = audit(tmp_path / "mined.jsonl", examples=1)
    # q: near is too near, three are left; r has no unknown hits at all: both of its hits are its positives.
    assert (found.rows, found.rows_without, found.negatives, found.too_near) == (3, 2, 3, 1)
    (suspect,) = found.suspects
    assert (suspect["query"], suspect["likely_positive"], suspect["exceeds_by"]) == ("q", "near", 0.1)
    assert dict(found.table())["left out as likely right"] == "1 (25.0%)"


def test_only_texts_that_the_search_did_not_find_are_encoded_for_their_cosine() -> None:
    vectors = {"q": [1.0, 0.0], "known": [3.0, 4.0], "new": [0.0, 2.0]}
    encoded: list[str] = []

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        encoded.extend(texts)
        return np.array([vectors[text] for text in texts], np.float32)

    measure = CosineMeasure(embed, embed, lambda queries, depth: [[Hit("known", 0.6, "known")]])
    measure.search(["q"], 5)
    np.testing.assert_allclose(
        measure.score(["q"], [["known", "new", "known"]]), [[0.6, 0.0, 0.6]], atol=1e-6
    )
    assert encoded == ["q", "new"]
    measure.search(["q"], 5)
    measure.score(["q"], [["new"]])
    assert encoded == ["q", "new", "q"]  # the text is remembered from one window of queries to the next


def test_wrong_settings_and_rows_are_refused(tmp_path: Path) -> None:
    examples = examples_of(tmp_path)
    with pytest.raises(
        TrainingError, match="margins compare scores of one measure, and words alone have none"
    ):
        mine(examples, [search], None, MiningRecipe(), tmp_path / "o", manifest={})
    texts = read_examples(str(write_rows(tmp_path / "t.jsonl", rows_of("texts"))))
    with pytest.raises(
        TrainingError, match=r"t\.jsonl: texts rows have no positives; mining needs pairs of texts"
    ):
        mine(texts, [search], score, MiningRecipe(), tmp_path / "o", manifest={})
    with pytest.raises(ValueError, match="ranks are 5 to 4; they must start at 1 or later"):
        MiningRecipe(first_rank=5, last_rank=4)
    with pytest.raises(ValueError, match=r"relative_margin is 1\.0; it must be at least 0 and below 1"):
        MiningRecipe(relative_margin=1.0)

"""Training a cross-encoder: every loss learns, batches depend on the step alone, a resumed run ends with the same bits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from embedkit.errors import RecipeError, TrainingError
from embedkit.recipe import load_recipe
from embedkit.reranking.calibration import read_calibration
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.reporting import Evaluated, Report, Saved, Step
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.loss_table import fitting
from embedkit.training.reranker.ranked_lists import MEANINGS, RankedLists
from embedkit.training.reranker.reading import read_ranked_lists
from embedkit.training.reranker.recipe import RerankerRecipe, resolve_loss
from embedkit.training.reranker.start import start_from
from embedkit.training.reranker.training import RerankerTraining
from tests.tiny import ROUTED_SHAPES, tiny_config, write_tiny_model
from tests.tiny_cross_encoder import write_tiny_cross_encoder

ANIMALS = ("cat", "dog", "horse", "boy", "girl", "man", "woman", "ball", "book", "guitar", "piano", "hair")


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def task_rows(count: int = 48) -> list[dict[str, object]]:
    """Queries about a thing; the text in which something runs is relevant, three in which others sleep are not."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for i in range(count):
        one, *others = rng.permutation(ANIMALS)[:4]
        rows.append(
            {
                "query": f"the {one} {i}",
                "positive": f"a {one} runs",
                "negatives": [f"a {other} sleeps" for other in others],
            }
        )
    return rows


def as_kind(rows: list[dict[str, object]], kind: str) -> list[dict[str, object]]:
    """The same task as rows of another kind."""
    if kind == "binary":
        return rows
    if kind == "class":
        return [
            {"sentence1": row["query"], "sentence2": text, "label": label}
            for row in rows
            for text, label in ((row["positive"], "same"), (row["negatives"][0], "other"))  # type: ignore[index] # a list
        ]
    key = "labels" if kind == "graded" else "scores"
    return [
        {"query": row["query"], "texts": [row["positive"], *row["negatives"]], key: [2, 0, 0, 0]}  # type: ignore[misc] # a list
        for row in rows
    ]


def recipe(*settings: str, steps: int = 4) -> RerankerRecipe:
    fast = ("optim.lr=3e-3", "optim.warmup_steps=1", "batch_queries=8", "held_out=0.2", "run.precision=fp32")
    return load_recipe(RerankerRecipe, overrides=[f"run.steps={steps}", *fast, *settings])


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RankedLists]:
    folder = tmp_path_factory.mktemp("lists")
    return {
        kind: read_ranked_lists([write_rows(folder / f"{kind}.jsonl", as_kind(task_rows(), kind))])
        for kind in MEANINGS
    }


def journey(model: Path, data: RankedLists, wanted: RerankerRecipe, parts: int = 1) -> RerankerTraining:
    start = start_from(model, num_labels=max(1, len(data.classes)), seed=wanted.run.seed)
    return RerankerTraining(start, data, wanted, parts=parts)


# The grades here run to 2, which bce refuses (shown below).
FITS = [
    (meaning, loss.name)
    for meaning in MEANINGS
    for loss in fitting("reranker", meaning)
    if (meaning, loss.name) != ("graded", "bce")
]


@pytest.mark.parametrize(("kind", "loss"), FITS)
def test_every_loss_learns_from_every_kind_of_data_that_fits_it(
    kind: str, loss: str, lists: dict[str, RankedLists], tiny_model: Path, tmp_path: Path
) -> None:
    wanted = recipe(f"loss={loss}", steps=8)
    trained = journey(tiny_model, lists[kind], wanted)
    steps = [
        report
        for report in train(trained, wanted.run, wanted.optim, RunFolder(tmp_path / "run"))
        if isinstance(report, Step)
    ]
    first, last = (np.mean([step.loss for step in part]) for part in (steps[:3], steps[-3:]))
    assert last < first


def test_a_trained_reranker_ranks_queries_it_has_not_seen(
    lists: dict[str, RankedLists], tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = recipe(steps=20)
    trained = journey(tiny_model, lists["binary"], wanted)
    reports = list(train(trained, wanted.run, wanted.optim, RunFolder(tmp_path / "run")))
    (evaluated,) = (report for report in reports if isinstance(report, Evaluated))
    assert evaluated.values["mrr"] > 0.9  # by chance (1 + 1/2 + 1/3 + 1/4) / 4 = 0.52
    assert isinstance(reports[-1], Saved)
    model = CrossEncoder.load(tmp_path / "run", device="cpu")
    wins = [
        np.argmax(model.score(f"the {one}", [f"a {one} runs", f"a {other} sleeps"])) == 0
        for one, other in pairwise(ANIMALS)
    ]
    assert np.mean(wins) > 0.9
    assert (
        "no calibration was written" in caplog.text
    )  # it makes no mistake, so that no finite temperature fits
    assert "without a mistake" in caplog.text


def test_held_out_pairs_give_a_calibration(tiny_model: Path, tmp_path: Path) -> None:
    rows = task_rows()
    for row in rows[::4]:  # judged the wrong way round, so that no model is always right
        row["positive"], row["negatives"] = row["negatives"][0], [row["positive"]]  # type: ignore[index] # a list
    data = read_ranked_lists([write_rows(tmp_path / "noisy.jsonl", rows)])
    wanted = recipe("held_out=0.4", steps=15)
    trained = journey(tiny_model, data, wanted)
    list(train(trained, wanted.run, wanted.optim, RunFolder(tmp_path / "run")))
    calibration = read_calibration(tmp_path / "run")
    assert calibration.num_pairs == trained.held_out.num_candidates
    assert calibration.error_after < calibration.error_before
    model = CrossEncoder.load(tmp_path / "run", device="cpu", probabilities=True)
    relevant, irrelevant = model.score("the cat 1", ["a cat runs", "a dog sleeps"])
    assert 0 < irrelevant < relevant < 1


def test_resumed_run_ends_with_the_same_bits(
    lists: dict[str, RankedLists], tiny_model: Path, tmp_path: Path
) -> None:
    wanted = recipe("run.save_every=2", "random_negatives=2", "exits=[1]", steps=6)

    def run(name: str, resume: bool = False) -> Iterator[Report]:
        return train(
            journey(tiny_model, lists["binary"], wanted),
            wanted.run,
            wanted.optim,
            RunFolder(tmp_path / name),
            resume=resume,
        )

    list(run("whole"))
    assert (
        sum(isinstance(report, Step) for report in islice(run("broken"), 4)) == 3
    )  # stopped after a third step
    list(run("broken", resume=True))
    whole, broken = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken"))
    assert whole == broken


@pytest.mark.parametrize("loss", ["softmax", "bce", "ranknet", "lambda"])
def test_parts_of_a_batch_add_up_to_the_whole(
    loss: str, lists: dict[str, RankedLists], tmp_path: Path
) -> None:
    model = write_tiny_cross_encoder(tmp_path / "model")
    gradients = []
    for parts in (1, 4):
        wanted = recipe(
            f"loss={loss}", f"run.accumulate={parts}", "random_negatives=1", "batch_queries=6"
        )  # four parts of 2, 2, 1 and 1
        trained = journey(model, lists["binary"], wanted, parts)
        shares = trained.backward(
            trained.module.eval(), 0, alone(precision="fp32")
        )  # evaluation mode: no dropout
        flat = torch.cat([p.grad.flatten() for p in trained.module.parameters() if p.grad is not None])
        gradients.append((float(shares.values["loss"]), flat))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("routed", ["experts", "token choice"])
def test_parts_of_a_batch_add_up_where_tokens_are_routed(
    routed: str, lists: dict[str, RankedLists], tmp_path: Path
) -> None:
    shape = ROUTED_SHAPES[routed] | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = write_tiny_model(tmp_path / "model", config=tiny_config(**shape))
    gradients = []
    for parts in (1, 4):
        wanted = recipe(
            f"run.accumulate={parts}",
            "random_negatives=1",
            "batch_queries=6",
            "routing.balance_weight=2",
            "routing.z_weight=1",
        )
        trained = journey(model, lists["binary"], wanted, parts)
        shares = trained.backward(
            trained.module.eval(), 0, alone(precision="fp32")
        )  # evaluation mode: no noise
        flat = torch.cat([p.grad.flatten() for p in trained.module.parameters() if p.grad is not None])
        gradients.append(({name: float(value) for name, value in shares.values.items()}, flat))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=1e-3, atol=1e-5)


def test_an_epoch_takes_every_list_once(lists: dict[str, RankedLists], tiny_model: Path) -> None:
    trained = journey(tiny_model, lists["binary"], recipe("batch_queries=3", "held_out=0.25"))
    assert len(trained.train) == 36
    seen = np.concatenate([trained.batch(step).queries for step in range(12)])
    assert sorted(seen) == sorted(trained.train.queries)
    again = trained.batch(5)
    np.testing.assert_array_equal(trained.batch(5).candidates, again.candidates)
    assert not np.array_equal(trained.batch(12).queries, trained.batch(0).queries)


def test_no_query_is_both_trained_on_and_held_out(lists: dict[str, RankedLists], tiny_model: Path) -> None:
    trained = journey(tiny_model, lists["class"], recipe())
    assert not set(trained.train.queries) & set(trained.held_out.queries)
    assert len(trained.train) + len(trained.held_out) == len(lists["class"])


def test_random_negatives_are_texts_of_other_queries(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"query": f"the {name}", "positive": f"a {name} runs"} for name in ANIMALS]
    data = read_ranked_lists([write_rows(tmp_path / "pairs.jsonl", rows)])
    batch = journey(tiny_model, data, recipe("random_negatives=3")).batch(0)
    assert batch.candidates.shape == (8, 4)
    np.testing.assert_array_equal(batch.relevance, [[1, 0, 0, 0]] * 8)
    for query, own in zip(batch.queries, batch.candidates, strict=True):
        assert data.texts[own[0]] == "a " + data.texts[query].removeprefix("the ") + " runs"
        assert own[0] not in own[1:]
    with pytest.raises(TrainingError, match="none of the 12 queries has candidates of different relevance"):
        journey(tiny_model, data, recipe())


def test_queries_without_a_contrast_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"query": f"q {i}", "texts": ["a", "b"], "labels": [1, int(i % 3 == 0)]} for i in range(12)]
    data = read_ranked_lists([write_rows(tmp_path / "l.jsonl", rows)])
    trained = journey(tiny_model, data, recipe())
    assert trained.num_unusable == 4
    assert len(trained.train) + len(trained.held_out) == 8


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("binary", "softmax"), ("graded", "lambda"), ("teacher", "margin_mse"), ("class", "classes")],
)
def test_loss_goes_by_the_data(kind: str, wanted: str, lists: dict[str, RankedLists]) -> None:
    assert resolve_loss("auto", lists[kind]).name == wanted
    assert recipe("loss=auto").loss == "auto"  # also where a recipe says so


def test_scored_pairs_are_learnt_one_by_one(tmp_path: Path) -> None:
    rows = [{"sentence1": f"s {i}", "sentence2": f"t {i}", "score": i / 4} for i in range(5)]
    data = read_ranked_lists([write_rows(tmp_path / "sts.jsonl", rows)])
    assert (data.meaning, resolve_loss("auto", data).name) == ("graded", "bce")
    rows[4]["score"] = 5.0
    assert resolve_loss("auto", read_ranked_lists([write_rows(tmp_path / "sts5.jsonl", rows)])).name == "mse"


def test_loss_that_does_not_fit_is_refused(
    lists: dict[str, RankedLists], tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        TrainingError, match="loss is 'softmax'; the data says a teacher's scores, which does for margin_mse"
    ):
        resolve_loss("softmax", lists["teacher"])
    with pytest.raises(TrainingError, match="loss is 'bce'; the labels run from 0 to 2, it needs 0 to 1"):
        resolve_loss("bce", lists["graded"])
    with pytest.raises(
        TrainingError, match="candidates is 1 and random_negatives 0; loss 'softmax' compares at least 2"
    ):
        journey(tiny_model, lists["binary"], recipe("candidates=1"))
    with pytest.raises(TrainingError, match="batch_queries is 8 for 9 parts"):
        journey(tiny_model, lists["binary"], recipe(), parts=9)
    with pytest.raises(TrainingError, match=r"exits is \[3\]; the model has 2 layers"):
        journey(tiny_model, lists["binary"], recipe("exits=[3]"))
    with pytest.raises(TrainingError, match=r"the cross-encoder has 1 labels \(LABEL_0\); the data needs 2"):
        journey(write_tiny_cross_encoder(tmp_path / "one"), lists["class"], recipe())
    with pytest.raises(RecipeError, match=r"held_out is 0\.0; it must be above 0 and below 1"):
        recipe("held_out=0")


def test_class_names_and_activation_are_written(
    lists: dict[str, RankedLists], tiny_model: Path, tmp_path: Path
) -> None:
    wanted = recipe(steps=1)
    list(
        train(
            journey(tiny_model, lists["class"], wanted), wanted.run, wanted.optim, RunFolder(tmp_path / "c")
        )
    )
    assert CrossEncoder.load(tmp_path / "c", device="cpu").folder.labels == ("other", "same")
    scores = recipe("loss=bce", steps=1)
    list(
        train(
            journey(tiny_model, lists["binary"], scores), scores.run, scores.optim, RunFolder(tmp_path / "b")
        )
    )
    assert CrossEncoder.load(tmp_path / "b", device="cpu").folder.activation == "sigmoid"

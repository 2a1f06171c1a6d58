from __future__ import annotations

import shutil
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from embedkit.encoding.encoder import Encoder
from embedkit.errors import TrainingError
from embedkit.model.config import SentenceConfig
from embedkit.training.contrastive.entries import delete_words
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.reporting import Evaluated, Resumed, Step
from embedkit.training.engine.run_folder import RunFolder
from tests.tiny import ROUTED_SHAPES, tiny_config, write_tiny_model
from tests.training import contrastive_runs
from tests.training.contrastive_runs import make_journey, make_recipe, rows_of, write_rows
from tests.training.processes import exit_code

# What the issue of rounding leaves between two ways to sum the same numbers in float32, after three steps at most.
AFTER_THREE_STEPS = 1e-6
# The last loss is that of weights which differ so much already.
LOSS_ROUNDING = 1e-5

LOSSES = [
    ("pairs", "info_nce", ()),
    ("pairs", "info_nce", ("loss.symmetric=true", "loss.learn_temperature=true")),
    ("triplets", "info_nce", ("loss.false_negatives=margin",)),
    ("triplets", "triplet", ()),
    ("triplets", "triplet", ("loss.soft_margin=true",)),
    ("scored", "cosent", ()),
    ("scored", "angle", ()),
    ("scored", "cosine_regression", ("loss.matryoshka=[8,16]",)),
    ("alike", "contrastive", ()),
    ("alike", "online_contrastive", ()),
    ("classified", "pair_classification", ()),
    ("labelled", "batch_hard_triplet", ("data.held_out=0.3",)),
    ("labelled", "batch_all_triplet", ("data.held_out=0.3",)),
    ("labelled", "batch_semi_hard_triplet", ("data.held_out=0.3",)),
    ("texts", "simcse", ()),
    ("texts", "tsdae", ("data.micro_tokens=32",)),
    ("vectors", "embedding_mse", ()),
    ("distilled", "margin_mse", ()),
    ("distilled", "kl_distillation", ()),
    ("pairs", "info_nce", ("loss.matryoshka=[8,16]", "loss.adaptive_layers=true")),
]


def trained(
    model: Path, rows: Path, output: Path, *overrides: str
) -> tuple[dict[str, Tensor], list[float], list[Evaluated]]:
    """Run to the end and return the weights of the last state, the losses and the evaluations."""
    recipe = make_recipe(*overrides)
    journey = make_journey(model, [rows], recipe)
    reports = list(train(journey, recipe.run, recipe.optim, RunFolder(output)))
    losses = [report.loss for report in reports if isinstance(report, Step)]
    return last_weights(output), losses, [r for r in reports if isinstance(r, Evaluated)]


def last_weights(output: Path) -> dict[str, Tensor]:
    run = RunFolder(output)
    return load_file(run.states / f"{run.saved_steps()[-1]:08d}" / "weights.safetensors")


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, atol=tolerance, rtol=0, msg=name)


@pytest.mark.parametrize(("kind", "loss", "extra"), LOSSES)
def test_cached_gradients_train_the_weights_that_the_full_batch_does_with_dropout_on(
    tiny_model: Path, tmp_path: Path, kind: str, loss: str, extra: tuple[str, ...]
) -> None:
    """The full batch goes through in parts, too, for dropout draws its numbers part by part; one graph holds them all.

    That is, the parts are the same and only the caching differs.
    """
    rows = write_rows(tmp_path / "rows.jsonl", rows_of(kind))
    settings = ("run.steps=2", f"loss.name={loss}", "data.micro_tokens=64", *extra)
    cached, losses, evaluated = trained(tiny_model, rows, tmp_path / "cached", *settings)
    start, full, full_losses = one_graph(tiny_model, rows, *settings)
    np.testing.assert_allclose(losses, full_losses, rtol=LOSS_ROUNDING)
    assert_close(full, cached, AFTER_THREE_STEPS)
    assert any(not torch.equal(start[name], tensor) for name, tensor in cached.items())
    assert all(np.isfinite(report.values["loss"]) for report in evaluated)


def one_graph(
    model: Path, rows: Path, *overrides: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    """Do by plain autograd what the run does: all parts in one graph, one backward, the same optimizer.

    Returns:
        The weights before and after, and the loss of each step.
    """
    from embedkit.training.engine.loop import seeded
    from embedkit.training.engine.micro_batches import forward
    from embedkit.training.engine.optim import learning_rate, make_optimizer

    recipe = make_recipe(*overrides)
    journey = make_journey(model, [rows], recipe)
    optimizer = make_optimizer(journey.module, recipe.optim)
    start = weights_of(journey.module)
    losses = []
    journey.module.train()
    for step in range(recipe.run.steps):
        optimizer.zero_grad()
        each, entries = journey.entries(step)
        with seeded(recipe.run.seed, step, alone(precision="fp32")):
            parts, order, _ = journey._parts(entries, alone(precision="fp32"))
            assert len(parts) > 1
            vectors = torch.cat(
                [forward(journey.module, part.tokens, alone(precision="fp32")) for part in parts]
            )
            loss = journey._whole_loss(each, entries, vectors, order, alone(precision="fp32"))
            torch.autograd.backward(loss)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.run.steps, recipe.optim)
        optimizer.step()
        losses.append(loss.item())
    return start, weights_of(journey.module), losses


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def work(folder: Path, *overrides: str, ranks: int = 1) -> int:
    return exit_code(contrastive_runs.main, folder, [*overrides], ranks=ranks)


# In training without dropout, so that parts and devices draw nothing of their own.
STILL: dict[str, object] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ROUTED = ["experts, one of few tokens", "experts in a recursion", "expert choice"]
HEAVY = ("routing.balance_weight=2", "routing.z_weight=1", "routing.selection_weight=2")


@pytest.mark.parametrize("routed", ROUTED)
def test_routed_tokens_learn_the_same_however_a_batch_is_cut(tmp_path: Path, routed: str) -> None:
    """At once, and in parts through cached gradients: the auxiliary losses are those of the whole batch."""
    model = write_tiny_model(tmp_path / "model", config=tiny_config(**ROUTED_SHAPES[routed] | STILL))
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    once, losses, evaluated = trained(model, rows, tmp_path / "once", *HEAVY, "data.micro_tokens=4096")
    parts, other, _ = trained(model, rows, tmp_path / "parts", *HEAVY, "data.micro_tokens=64")
    np.testing.assert_allclose(other, losses, rtol=LOSS_ROUNDING)
    assert_close(once, parts, 1e-5)  # gradients are larger by their weights than in the other tests
    plain, _, _ = trained(model, rows, tmp_path / "plain", "routing.balance_weight=0", "routing.z_weight=0")
    assert any((plain[name] - weight).abs().max() > 1e-4 for name, weight in once.items())
    values = evaluated[-1].values
    assert ("router_entropy" in values, "depth" in values, "depth_word" in values) == (
        "experts" in routed,
        *["recursion" in routed or "choice" in routed] * 2,
    )


@pytest.mark.slow
def test_two_ranks_with_routed_tokens_equal_one(tmp_path: Path) -> None:
    """Ranks have unlike numbers of texts and of parts; each has its own share of the losses of the whole batch."""
    shape = ROUTED_SHAPES["experts in a recursion"] | STILL
    model = write_tiny_model(tmp_path / "model", config=tiny_config(**shape))
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("triplets"))
    settings = ("data.micro_tokens=256", "data.batch_size=7", *HEAVY)
    wanted, _, _ = trained(model, rows, tmp_path / "alone", *settings)
    assert work(tmp_path, *settings, ranks=2) == 0
    assert_close(wanted, last_weights(tmp_path / "run"), 1e-5)


@pytest.fixture
def without_dropout(tmp_path: Path) -> Path:
    """A tiny model whose two devices cannot differ by their dropout."""
    import json

    folder = write_tiny_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_two_ranks_with_gathered_negatives_equal_one(without_dropout: Path, tmp_path: Path) -> None:
    """Odd numbers of texts and of negatives, cached parts, a learned temperature."""
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("triplets"))
    settings = ("data.micro_tokens=64", "data.batch_size=7", "loss.learn_temperature=true")
    wanted, losses, _ = trained(without_dropout, rows, tmp_path / "alone", *settings)
    assert work(tmp_path, *settings, ranks=2) == 0
    assert_close(wanted, last_weights(tmp_path / "run"), AFTER_THREE_STEPS)
    logged = (tmp_path / "run" / "training" / "log.jsonl").read_text(encoding="utf-8")
    assert f'"step": 1, "loss": {losses[0]:.4f}'[:-1] in logged


@pytest.mark.slow
def test_a_run_that_crashed_or_was_killed_goes_on_to_the_same_bits(tiny_model: Path, tmp_path: Path) -> None:
    """Dropout is on; a crash after step 3 of 6 loses one step, a kill at some moment whatever it loses."""
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    settings = ("run.steps=6", "data.micro_tokens=64")
    wanted, losses, _ = trained(tiny_model, rows, tmp_path / "whole", *settings)
    recipe = make_recipe(*settings)
    crashed = make_journey(tiny_model, [rows], recipe)
    list(islice(train(crashed, recipe.run, recipe.optim, RunFolder(tmp_path / "crashed")), 5))
    resumed = make_journey(tiny_model, [rows], recipe)
    reports = list(train(resumed, recipe.run, recipe.optim, RunFolder(tmp_path / "crashed"), resume=True))
    assert reports[0] == Resumed(2)
    assert [r.loss for r in reports if isinstance(r, Step)] == losses[2:]
    assert_close(wanted, last_weights(tmp_path / "crashed"), 0)
    shutil.copytree(tiny_model, tmp_path / "model")
    assert work(tmp_path, *settings, "run.steps=400", "kill=0.05") == -9
    killed = RunFolder(tmp_path / "run").saved_steps()
    shutil.rmtree(tmp_path / "run")
    assert work(tmp_path, *settings, "kill=0.01") in (0, -9)
    assert work(tmp_path, *settings) == 0
    assert_close(wanted, last_weights(tmp_path / "run"), 0)
    assert killed == sorted(killed)


def test_the_loss_of_pairs_falls_and_the_model_written_is_the_one_trained(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs", 24))
    # Adam as usual here: the loss is to fall.
    settings = ("run.steps=60", "run.evaluate_every=20", "optim.lr=5e-3", "optim.eps=1e-8", "optim.beta1=0.9")
    prompts = ('prompts.first="query: "', 'prompts.second="document: "')
    recipe = make_recipe(*settings, *prompts)
    journey = make_journey(tiny_model, [rows], recipe)
    reports = list(train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / "run")))
    losses = [report.loss for report in reports if isinstance(report, Step)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    encoder = Encoder.load(tmp_path / "run", device="cpu")
    assert encoder.folder.modules.prompts == {"query": "query: ", "document": "document: "}
    texts = ["the dog sleeps", "a girl sings in the water"]
    ours = journey.embedder(journey.module, alone(precision="fp32"))(texts, "query")
    np.testing.assert_allclose(encoder.encode_queries(texts), ours, atol=1e-6)


def test_prompts_that_are_not_pooled_are_left_out_while_training_too(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", sentence=SentenceConfig(normalize=True, pool_prompt=False))
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    recipe = make_recipe("prompts.first=the song", "data.micro_tokens=64")
    journey = make_journey(model, [rows], recipe)
    reports = list(train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / "run")))
    assert len([report for report in reports if isinstance(report, Step)]) == 3
    texts = ["the dog sleeps in the water"]
    ours = journey.embedder(journey.module, alone(precision="fp32"))(texts, "query")
    np.testing.assert_allclose(
        Encoder.load(tmp_path / "run", device="cpu").encode_queries(texts), ours, atol=1e-6
    )


def test_all_dimensions_are_trained_of_a_model_that_cuts_its_vectors_and_the_one_written_cuts_them(
    tmp_path: Path,
) -> None:
    model = write_tiny_model(tmp_path / "model", truncate_dim=8)
    recipe = make_recipe()
    journey = make_journey(model, [write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))], recipe)
    list(train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / "run")))
    texts = ["the dog sleeps in the water"]
    ours = journey.embedder(journey.module, alone(precision="fp32"))(texts, "query")
    assert ours.shape == (1, 32)
    encoder = Encoder.load(tmp_path / "run", device="cpu")
    np.testing.assert_allclose(encoder.encode_queries(texts), ours[:, :8], atol=1e-6)


def test_several_data_sets_take_turns_each_with_its_own_loss(tiny_model: Path, tmp_path: Path) -> None:
    data = [write_rows(tmp_path / f"{kind}.jsonl", rows_of(kind)) for kind in ("pairs", "scored", "labelled")]
    recipe = make_recipe("run.steps=12", "data.mixing=0.0")
    journey = make_journey(tiny_model, data, recipe)
    assert [entry["loss"] for entry in journey.manifest()["data"]["sets"]] == [
        "info_nce",
        "cosent",
        "batch_hard_triplet",
    ]
    assert {journey.entries(step)[0].loss.name for step in range(12)} == {
        "info_nce",
        "cosent",
        "batch_hard_triplet",
    }
    assert len(list(train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / "run")))) > 12


def test_a_guide_takes_false_negatives_out_of_the_loss(tiny_model: Path, tmp_path: Path) -> None:
    """With the model itself as guide and a margin of 2, every in-batch negative is out: nothing is left but the positive."""
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    guided = ("loss.false_negatives=guide", f"loss.guide={tiny_model}")
    _, losses, _ = trained(tiny_model, rows, tmp_path / "all", *guided, "loss.false_negative_margin=3.0")
    assert losses == [0.0, 0.0, 0.0]
    _, some, _ = trained(tiny_model, rows, tmp_path / "some", *guided)
    _, plain, _ = trained(tiny_model, rows, tmp_path / "plain")
    assert 0 < some[0] < plain[0]


def test_the_evaluation_sets_decide_what_is_best_and_when_to_end(tiny_model: Path, tmp_path: Path) -> None:
    """The rate is next to nothing, so that no evaluation is better than the first: patience ends the run after two more."""
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    pairs = write_rows(tmp_path / "dev.jsonl", rows_of("scored", 20, seed=1))
    recipe = make_recipe("run.steps=50", "run.patience=2", "optim.lr=1e-30")
    journey = make_journey(tiny_model, [rows], recipe, evaluate=[str(pairs)])
    reports = list(train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / "run")))
    evaluated = [report for report in reports if isinstance(report, Evaluated)]
    assert [(report.step, report.best) for report in evaluated] == [(2, True), (4, False), (6, False)]
    name = f"{tmp_path.name}/dev spearman"
    assert evaluated[0].values.keys() == {"loss", "held_out_loss", name}
    assert evaluated[0].values["loss"] > 0  # that of the held-out rows; what decides is no loss
    position, _ = RunFolder(tmp_path / "run").read_state(4)
    assert position.best_loss == -evaluated[0].values[name]
    assert (tmp_path / "run" / "config.json").is_file()
    again = make_journey(tiny_model, [rows], recipe, evaluate=[str(pairs)])
    resumed = list(train(again, recipe.run, recipe.optim, RunFolder(tmp_path / "run"), resume=True))
    assert not any(isinstance(report, Step) for report in resumed)  # it had ended


BAD_RUNS = [
    (
        "vectors",
        [{"text": "a", "vector": [1.0, 2.0]}] * 30,
        (),
        "the teacher's vectors have 2 dimensions, the model's 32",
    ),
    (
        "pairs",
        None,
        ("loss.matryoshka=[64]",),
        "loss.matryoshka names 64 dimensions; the model's vectors have 32",
    ),
    (
        "pairs",
        [{"query": f"q{i}", "positive": "one and the same"} for i in range(30)],
        (),
        "27 rows with 1 distinct positives make no batch of 8, in which no text may stand twice.*With a single one",
    ),
    (
        "pairs",
        None,
        ("data.batch_size=100",),
        "54 rows to train on; a batch takes 100. Lower data.batch_size",
    ),
    (
        "pairs",
        [{"query": "q", "positive": "p"}],
        (),
        r"0 rows to train on; a batch takes 8\. Give more rows$",
    ),
    (
        "scored",
        [{"sentence1": "a", "sentence2": "b", "score": i / 4} for i in range(30)],
        ("loss.name=cosine_regression",),
        r"row 6 has the score 1\.25; cosine_regression takes scores from -1 to 1\. Say their range",
    ),
    (
        "scored",
        [{"sentence1": "a", "sentence2": "b", "score": i / 4} for i in range(30)],
        ("loss.name=cosine_regression", "loss.score_range=[0,5]"),
        r"row 22 has the score 5\.25; cosine_regression takes scores from 0 to 5",
    ),
    (
        "classified",
        None,
        ("loss.name=contrastive",),
        "loss 'contrastive' needs the labels 0 and 1; there are 3: a, b, c. Take pair_classification",
    ),
    (
        "distilled",
        [
            {
                "query": f"q{i}",
                "positive": f"p{i}",
                "negatives": ["n"] * (1 + i % 2),
                "margins": [1.0] * (1 + i % 2),
            }
            for i in range(30)
        ],
        (),
        "rows have 1 to 2 negatives; margin_mse needs as many in every row. Take kl_distillation",
    ),
    (
        "triplets",
        [{"query": f"q{i}", "positive": f"p{i}", "negatives": ["n"] * (i != 4)} for i in range(30)],
        ("loss.name=triplet",),
        "row 5 has no negative; triplet needs one in every row",
    ),
    (
        "labelled",
        [{"text": f"t{i}", "label": f"l{i}"} for i in range(30)],
        (),
        "no batch of 8 rows has two texts of one label and one of another; 30 rows have 30 labels",
    ),
]


@pytest.mark.parametrize(("kind", "rows", "settings", "message"), BAD_RUNS)
def test_data_that_cannot_teach_are_refused_at_the_start(
    tiny_model: Path,
    tmp_path: Path,
    kind: str,
    rows: list[dict[str, object]] | None,
    settings: tuple[str, ...],
    message: str,
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", rows_of(kind) if rows is None else rows)
    with pytest.raises(TrainingError, match=message):
        make_journey(tiny_model, [path], make_recipe(*settings))


def test_a_run_needs_something_to_measure_with(tiny_model: Path, tmp_path: Path) -> None:
    """Of 60 rows of 5 labels, 2 are held out: they have no two texts of one label and one of another."""
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("labelled"))
    recipe = make_recipe("data.held_out=0.01")
    with pytest.raises(TrainingError, match=r"the held-out rows \(2\) make no batch to measure the loss on"):
        make_journey(tiny_model, [rows], recipe)


def test_words_are_deleted_but_never_all() -> None:
    rng = np.random.default_rng(0)
    assert {delete_words("one", 0.99, rng) for _ in range(20)} == {"one"}
    kept = [len(delete_words("a b c d e f g h i j", 0.6, rng).split()) for _ in range(300)]
    assert 3.7 < np.mean(kept) < 4.3

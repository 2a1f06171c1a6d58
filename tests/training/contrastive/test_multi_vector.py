"""Multi-vector models in training: cached gradients, resuming, what is saved, evaluation by MaxSim, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from embedkit.checkpoint.multi_vector import read_multi_vector_folder
from embedkit.encoding.multi_vector import MultiVectorEncoder
from embedkit.errors import CheckpointError, TrainingError
from embedkit.reranking.maxsim import MaxSim
from embedkit.training.contrastive.data_sets import make_data_set, read_data_set
from embedkit.training.contrastive.start import load_start
from embedkit.training.contrastive.training import Contrastive
from embedkit.training.engine.evaluation_sets import EvaluationSet
from embedkit.training.engine.loop import seeded, train
from embedkit.training.engine.optim import learning_rate, make_optimizer
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.reporting import Step
from embedkit.training.engine.run_folder import RunFolder
from tests.tiny import ROUTED_SHAPES, tiny_config, write_tiny_model
from tests.tiny_multi_vector import ON_CPU, write_tiny_multi_vector
from tests.training.contrastive.test_training import (
    AFTER_THREE_STEPS,
    LOSS_ROUNDING,
    assert_close,
    last_weights,
    weights_of,
)
from tests.training.contrastive_runs import make_recipe, rows_of, write_rows

# The tiny vocabulary has no unused tokens: two of its words are the markers.
NEW = (
    "multi_vector.dimension=8",
    "multi_vector.query_tokens=10",
    "multi_vector.query_marker=which",
    "multi_vector.document_marker=that",
)
LOSSES = [
    ("pairs", "info_nce"),
    ("triplets", "info_nce"),
    ("triplets", "triplet"),
    ("scored", "cosent"),
    ("texts", "simcse"),
    ("distilled", "margin_mse"),
    ("distilled", "kl_distillation"),
]
SET = EvaluationSet(
    name="set",
    files=(),
    queries={"q1": "the dog", "q2": "an old song"},
    documents={"a": "a dog runs", "b": "the girl sings an old song", "c": "red", "d": "green horse"},
    qrels={"q1": {"a": 1}, "q2": {"b": 1}},
)


def journey_of(
    model: Path, rows: Path, *settings: str, evaluation: Sequence[EvaluationSet] = ()
) -> Contrastive:
    recipe = make_recipe(*settings)
    folder, encoder, tokens = load_start(model, recipe)
    assert tokens is not None
    made = make_data_set(
        read_data_set(str(rows), {}, recipe.loss), recipe, folder, encoder, number=0, maxsim=tokens.similarity
    )
    return Contrastive(folder, encoder, [made], recipe, origin="test", evaluation=evaluation, tokens=tokens)


def go(
    model: Path, rows: Path, output: Path, *settings: str, reports: int | None = None, resume: bool = False
) -> list[float]:
    recipe = make_recipe(*settings)
    journey = journey_of(model, rows, *settings)
    run = train(journey, recipe.run, recipe.optim, RunFolder(output), resume=resume)
    return [report.loss for report in islice(run, reports) if isinstance(report, Step)]


def one_graph(
    model: Path, rows: Path, *settings: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[float]]:
    """Do by plain autograd what the run does: all parts in one graph, one backward, the same optimizer.

    Returns:
        The weights before and after, and the loss of each step.
    """
    recipe, ranks = make_recipe(*settings), alone(precision="fp32")
    journey = journey_of(model, rows, *settings)
    optimizer = make_optimizer(journey.module, recipe.optim)
    start = weights_of(journey.module)
    losses = []
    journey.module.train()
    for step in range(recipe.run.steps):
        optimizer.zero_grad()
        each, entries = journey.entries(step)
        with seeded(recipe.run.seed, step, ranks):
            parts, order, width = journey._parts(entries, ranks)
            assert len(parts) > 1
            vectors = [journey._vectors(journey.module, part, entries, ranks, width) for part in parts]
            loss = journey._whole_loss(each, entries, torch.cat(vectors), order, ranks)
            torch.autograd.backward(loss)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe.run.steps, recipe.optim)
        optimizer.step()
        losses.append(loss.item())
    return start, weights_of(journey.module), losses


@pytest.mark.parametrize(("kind", "loss"), LOSSES)
def test_cached_gradients_train_what_the_full_batch_does_with_dropout_on(
    tiny_model: Path, tmp_path: Path, kind: str, loss: str
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of(kind))
    settings = ("run.steps=2", f"loss.name={loss}", "data.micro_tokens=64", *NEW)
    losses = go(tiny_model, rows, tmp_path / "cached", *settings)
    start, full, full_losses = one_graph(tiny_model, rows, *settings)
    np.testing.assert_allclose(losses, full_losses, rtol=LOSS_ROUNDING)
    assert_close(full, last_weights(tmp_path / "cached"), AFTER_THREE_STEPS)
    assert not torch.equal(start["model.dense.0.0.weight"], full["model.dense.0.0.weight"])


def test_a_stopped_run_goes_on_to_the_same_bits(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("triplets"))
    settings = ("run.steps=4", "run.save_every=2", *NEW)
    whole = go(tiny_model, rows, tmp_path / "whole", *settings)
    go(tiny_model, rows, tmp_path / "stopped", *settings, reports=3)
    rest = go(tiny_model, rows, tmp_path / "stopped", *settings, resume=True)
    assert whole[-len(rest) :] == rest
    wanted, found = last_weights(tmp_path / "whole"), last_weights(tmp_path / "stopped")
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def test_what_is_trained_is_saved_and_searches_as_it_was_measured(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    journey = journey_of(tiny_model, rows, *NEW, evaluation=[SET])
    recipe = make_recipe(*NEW)
    list(train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / "run")))
    with torch.no_grad():
        measured = journey.evaluate(journey.module.eval(), alone(precision="fp32"))
    read = read_multi_vector_folder(tmp_path / "run")
    assert (read.dimension, read.modules.prompts) == (8, {"query": "which ", "document": "that "})
    reranker = MaxSim(MultiVectorEncoder.load(tmp_path / "run", computing=ON_CPU))
    tokens = journey._tokens
    assert tokens is not None
    ranks = alone(precision="fp32")
    run = tokens.search(journey.module, ranks, SET.queries, SET.documents, k=10, budget=1024)
    for query_id, query in SET.queries.items():
        scores = reranker.score(query, list(SET.documents.values()))
        found = [run[query_id][doc_id] for doc_id in SET.documents]
        np.testing.assert_allclose(found, scores, atol=1e-5)
    wanted = SET.measure_retrieval(lambda queries, documents, *, k: run)
    assert measured.values["set ndcg@10"] == pytest.approx(wanted)
    assert measured.criterion == pytest.approx(-wanted)


def test_a_multi_vector_model_is_trained_further_as_it_is(tmp_path: Path) -> None:
    model = write_tiny_multi_vector(tmp_path / "model")
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    recipe = make_recipe()
    journey = journey_of(model, rows)
    list(train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / "run")))
    before, after = read_multi_vector_folder(model), read_multi_vector_folder(tmp_path / "run")
    same = ("weights",)
    assert {k: v for k, v in before.fingerprint.items() if k not in same} == {
        k: v for k, v in after.fingerprint.items() if k not in same
    }
    assert before.fingerprint["weights"] != after.fingerprint["weights"]
    with pytest.raises(TrainingError, match="the recipe sets multi_vector"):
        load_start(model, make_recipe("multi_vector.dimension=4"))
    with pytest.raises(TrainingError, match="the recipe sets prompts"):
        load_start(model, make_recipe("prompts.first=ask "))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("head.pooling=cls",), "head is of models that give a text one vector"),
        (("loss.matryoshka=[4]",), "loss.matryoshka is of models that give a text one vector"),
        (("loss.similarity=dot",), "loss.similarity is of models"),
        (("multi_vector.query_marker=[none]",), r"the marker '\[none\]' is not in the vocabulary"),
        (("multi_vector.query_marker=",), "they must be two tokens, or both empty"),
        (("multi_vector.query_tokens=65",), "query_tokens is 65; the encoder reads 64"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tiny_model: Path, settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        load_start(tiny_model, make_recipe(*NEW, *settings))


def test_losses_of_single_vectors_and_scored_pairs_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("scored"))
    with pytest.raises(TrainingError, match=r"takes one vector a text, and a multi-vector model has several"):
        journey_of(tiny_model, rows, "loss.name=angle", *NEW)
    pairs = EvaluationSet(name="sts", files=(), pairs=[("a", "b", 1.0)])
    with pytest.raises(TrainingError, match="sts holds scored pairs, which single vectors are compared by"):
        journey_of(tiny_model, rows, *NEW, evaluation=[pairs])


def test_encoders_that_leave_no_token_unattended_are_refused(tmp_path: Path) -> None:
    routed = write_tiny_model(
        tmp_path / "r", config=tiny_config(**ROUTED_SHAPES["experts, one of few tokens"])
    )
    with pytest.raises(TrainingError, match="experts, with which no multi-vector model is trained"):
        load_start(routed, make_recipe(*NEW))
    with pytest.raises(CheckpointError, match="nowhere"):
        load_start("nowhere", make_recipe(*NEW))

"""Training of learned sparse models: the penalty, the journey, its log, resuming, and what it writes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from embedkit.checkpoint.sparse import read_sparse_folder
from embedkit.encoding.sparse import SparseEncoder
from embedkit.errors import TrainingError
from embedkit.training.contrastive.data_sets import make_data_set, read_data_set
from embedkit.training.contrastive.recipe import ContrastiveRecipe, SparseRecipe
from embedkit.training.contrastive.sparse import SparseContrastive, flops, start_sparse
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.reporting import Step
from embedkit.training.engine.run_folder import RunFolder
from embedkit.types import Computing
from tests.tiny import write_tiny_model
from tests.tiny_masked_lm import write_tiny_masked_lm
from tests.training.contrastive_runs import make_recipe, rows_of, write_rows

SPARSE = (
    "loss.temperature=1.0",
    "loss.score_scale=1.0",
    "loss.similarity=dot",
    "sparse.flops_warmup_steps=4",
)


def make_sparse_journey(model: Path, rows: Path, recipe: ContrastiveRecipe) -> SparseContrastive:
    folder, encoder, _ = start_sparse(str(model), recipe)
    read = read_data_set(str(rows), {}, recipe.loss)
    made = [make_data_set(read, recipe, folder, encoder, number=0)]
    return SparseContrastive(folder, encoder, made, recipe, origin="tiny")


def gradients(journey: SparseContrastive) -> dict[str, Tensor]:
    ranks = alone("cpu", precision="fp32")
    journey.module.eval()  # without dropout the parts of a batch do not matter
    journey.backward(journey.module, 2, ranks)
    return {
        name: parameter.grad.clone()
        for name, parameter in journey.module.named_parameters()
        if parameter.grad is not None
    }


def test_the_penalty_is_that_of_its_worked_example() -> None:
    assert flops(torch.tensor([[1.0, 0.0], [1.0, 2.0]])) == 2.0


def test_its_weight_grows_with_the_square_of_the_step() -> None:
    recipe = SparseRecipe(flops_warmup_steps=10)
    np.testing.assert_allclose([recipe.share(step) for step in (0, 4, 9, 50)], [0.01, 0.25, 1.0, 1.0])


@pytest.mark.parametrize("kind", ["pairs", "triplets", "distilled"])
@pytest.mark.parametrize("weigh", ["false", "true"])
def test_a_run_writes_a_model_and_logs_its_terms(kind: str, weigh: str, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of(kind))
    recipe = make_recipe(*SPARSE, f"sparse.weigh_queries={weigh}", "sparse.max_active_dims=50")
    journey = make_sparse_journey(write_tiny_masked_lm(tmp_path / "mlm"), rows, recipe)
    reports = list(train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / "run")))
    steps = [report for report in reports if isinstance(report, Step)]
    assert len(steps) == 3
    for name in ("query_terms", "document_terms", "query_flops", "document_flops"):
        assert all(step.values[name] > 0 for step in steps)
    encoder = SparseEncoder.load(tmp_path / "run", computing=Computing(device="cpu", precision="fp32"))
    assert encoder.max_active_dims == 50
    assert (read_sparse_folder(tmp_path / "run").sides["query"].model is None) == (weigh == "true")
    assert encoder.encode_documents(["the dog runs"]).counts[0] > 0
    # Trained on, it begins where it ended.
    again = make_sparse_journey(tmp_path / "run", rows, recipe)
    for name, weights in journey.module.state_dict().items():
        assert torch.equal(weights, again.module.state_dict()[name])


def test_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    recipe = make_recipe(*SPARSE, "sparse.weigh_queries=true", "run.save_every=1")
    model = write_tiny_masked_lm(tmp_path / "mlm")
    whole = make_sparse_journey(model, rows, recipe)
    list(train(whole, recipe.run, recipe.optim, RunFolder(tmp_path / "whole")))
    stopped = make_sparse_journey(model, rows, recipe)
    list(islice(train(stopped, recipe.run, recipe.optim, RunFolder(tmp_path / "run")), 3))
    resumed = make_sparse_journey(model, rows, recipe)
    list(train(resumed, recipe.run, recipe.optim, RunFolder(tmp_path / "run"), resume=True))
    for name, weights in whole.module.state_dict().items():
        assert torch.equal(weights, resumed.module.state_dict()[name])


@pytest.mark.parametrize("weigh", ["false", "true"])
def test_cached_gradients_are_those_of_the_whole_batch(weigh: str, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("triplets"))
    model = write_tiny_masked_lm(tmp_path / "mlm")
    wanted = (*SPARSE, f"sparse.weigh_queries={weigh}", "sparse.query_flops=0.1", "sparse.document_flops=0.1")
    whole = gradients(make_sparse_journey(model, rows, make_recipe(*wanted)))
    parts = gradients(make_sparse_journey(model, rows, make_recipe(*wanted, "data.micro_tokens=32")))
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-5, rtol=1e-4)


def test_the_penalty_makes_texts_have_fewer_terms(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    model = write_tiny_masked_lm(tmp_path / "mlm")
    found = []
    for weight in ("0.0", "5.0"):
        recipe = make_recipe(
            *SPARSE, "run.steps=20", f"sparse.document_flops={weight}", f"sparse.query_flops={weight}"
        )
        journey = make_sparse_journey(model, rows, recipe)
        reports = train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / weight))
        found.append([each.values["document_terms"] for each in reports if isinstance(each, Step)][-1])
    assert found[1] < 0.8 * found[0]


def test_adapted_layers_are_written_merged(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    model = write_tiny_masked_lm(tmp_path / "mlm")
    recipe = make_recipe(*SPARSE, "lora.rank=2", "optim.lr=0.05")
    journey = make_sparse_journey(model, rows, recipe)
    list(train(journey, recipe.run, recipe.optim, RunFolder(tmp_path / "run")))
    trained = SparseEncoder.load(tmp_path / "run", computing=Computing(device="cpu", precision="fp32"))
    texts = ["the cat sat", "a dog ran"]
    with torch.no_grad():
        tokens = trained.tokenizer.encode(texts)
        wanted = journey.module.eval()(torch.from_numpy(tokens.input_ids), tokens.lengths.tolist())
    found = np.zeros(wanted.shape, np.float32)
    vectors = trained.encode_documents(texts)
    for row in range(len(vectors)):
        terms, weights = vectors.row(row)
        found[row, terms] = weights
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)


def test_no_adapter_is_written_of_a_sparse_model(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    recipe = make_recipe(*SPARSE, "lora.rank=2", "lora.save=adapter")
    with pytest.raises(
        TrainingError, match=r"a learned sparse model is written whole\. Take lora\.save=merged"
    ):
        make_sparse_journey(write_tiny_masked_lm(tmp_path / "mlm"), rows, recipe)


def test_an_encoder_without_a_head_gets_one_that_passes_vectors_on(tmp_path: Path) -> None:
    recipe = make_recipe(*SPARSE)
    _, model, fresh = start_sparse(str(write_tiny_model(tmp_path / "model")), recipe)
    assert fresh == ("masked-language-model head",)
    torch.testing.assert_close(model.mlm.dense.weight, torch.eye(32))
    assert float(model.mlm.bias[0].detach()) != 0  # with which texts begin with about a hundred terms
    assert len(set(model.mlm.bias.tolist())) == 1


@pytest.mark.parametrize(
    "setting",
    [
        "loss.matryoshka=[8]",
        "loss.adaptive_layers=true",
        "head.pooling=cls",
        "loss.similarity=cosine",
        "multi_vector.dimension=8",
    ],
)
def test_settings_of_other_kinds_of_models_are_refused(setting: str, tmp_path: Path) -> None:
    recipe = make_recipe(*SPARSE, setting)
    with pytest.raises(
        TrainingError, match=r"is of other kinds of models, and this trains a learned sparse one"
    ):
        start_sparse(str(write_tiny_masked_lm(tmp_path / "mlm")), recipe)

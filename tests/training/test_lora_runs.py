"""Training by low-rank adaptation: merged models and adapters, resumed to the same bits; rerankers too."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embedkit.checkpoint.folder import read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import TrainingError
from embedkit.recipe import load_recipe
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.reranker.reading import read_ranked_lists
from embedkit.training.reranker.recipe import RerankerRecipe
from embedkit.training.reranker.start import start_from
from embedkit.training.reranker.training import RerankerTraining
from tests.cli.index.test_index import invoke
from tests.tiny import FAMILY_SHAPES, tiny_config, write_tiny_model
from tests.tiny_cross_encoder import write_tiny_cross_encoder
from tests.training.contrastive_runs import make_journey, make_recipe, rows_of, write_rows
from tests.training.reranker.test_training import task_rows

TEXTS = ["the dog sleeps", "a girl sings in the water"]
LORA = ("lora.rank=2", "lora.alpha=4", "run.steps=3", "optim.lr=0.5")


def run(model: Path, rows: Path, output: Path, *overrides: str, steps: int | None = None) -> Path:
    recipe = make_recipe(*LORA, *overrides)
    journey = make_journey(model, [rows], recipe)
    resume = (output / "training").exists()
    list(islice(train(journey, recipe.run, recipe.optim, RunFolder(output), resume=resume), steps))
    if steps is None:
        wanted = journey.embedder(journey.module, alone(precision="fp32"))(TEXTS, "query")
        np.testing.assert_allclose(Encoder.load(output, device="cpu").encode(TEXTS), wanted, atol=1e-5)
    return output


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "qwen3", "gpt2"])
def test_a_merged_model_and_an_adapter_are_the_model_that_was_trained(family: str, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "base", config=tiny_config(**FAMILY_SHAPES[family]))
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    merged = run(model, rows, tmp_path / "merged")
    adapter = run(model, rows, tmp_path / "adapter", "lora.save=adapter")
    assert not (adapter / "config.json").exists()
    assert not (adapter / "model.safetensors").exists()
    told = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    assert (told["r"], told["lora_alpha"], told["base_model_name_or_path"]) == (2, 4, str(model))
    weights = load_file(adapter / "adapter_model.safetensors")
    assert {name.rpartition(".lora_")[0].removeprefix("base_model.model.") for name in weights} == set(
        told["target_modules"]
    )
    both = [Encoder.load(folder, device="cpu").encode(TEXTS) for folder in (merged, adapter)]
    np.testing.assert_allclose(both[0], both[1], atol=1e-5)
    assert np.abs(both[0] - Encoder.load(model, device="cpu").encode(TEXTS)).max() > 1e-3


def test_a_run_that_was_stopped_goes_on_to_the_same_bits(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    whole = run(tiny_model, rows, tmp_path / "whole", "lora.dropout=0.1")
    run(tiny_model, rows, tmp_path / "stopped", "lora.dropout=0.1", steps=5)
    stopped = run(tiny_model, rows, tmp_path / "stopped", "lora.dropout=0.1")
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one)


def rerankers(start: Path, output: Path, *overrides: str) -> CrossEncoder:
    rows = output.parent / "lists.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in task_rows()), encoding="utf-8")
    recipe = load_recipe(
        RerankerRecipe, preset=None, overrides=("run.steps=4", "run.precision=fp32", *overrides)
    )
    lists = read_ranked_lists([str(rows)])
    journey = RerankerTraining(start_from(start, num_labels=1, seed=0), lists, recipe)
    list(train(journey, recipe.run, recipe.optim, RunFolder(output)))
    return CrossEncoder.load(output, device="cpu")


def test_rerankers(tiny_model: Path, tmp_path: Path) -> None:
    settings = ("lora.rank=2", "optim.lr=0.05", "optim.warmup_steps=0")
    pairs = ["the dog", "a cat runs"], ["a dog runs", "the cat"]
    judge = write_tiny_cross_encoder(tmp_path / "judge")
    merged = rerankers(judge, tmp_path / "merged", *settings)
    adapter = rerankers(judge, tmp_path / "adapter", *settings, "lora.save=adapter")
    assert (tmp_path / "adapter" / "adapter_config.json").is_file()
    scores = [
        model.score_pairs(*pairs) for model in (CrossEncoder.load(judge, device="cpu"), merged, adapter)
    ]
    np.testing.assert_allclose(scores[1], scores[2], atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 1e-3
    with pytest.raises(TrainingError, match="no classification head"):
        rerankers(tiny_model, tmp_path / "fresh", *settings, "lora.save=adapter")
    rerankers(tiny_model, tmp_path / "whole", *settings)


def test_what_cannot_be_is_refused_before_anything_is_trained(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    adapter = run(tiny_model, rows, tmp_path / "adapter", "lora.save=adapter")
    with pytest.raises(TrainingError, match="is an adapter itself"):
        run(adapter, rows, tmp_path / "second", "lora.save=adapter")
    run(adapter, rows, tmp_path / "merged")  # of a model that an adapter changes
    deberta = write_tiny_model(tmp_path / "deberta", config=tiny_config(**FAMILY_SHAPES["deberta-v2"]))
    with pytest.raises(TrainingError, match="train all of them"):
        run(deberta, rows, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_command_line_takes_a_rank_and_presets(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", rows_of("pairs"))
    output = tmp_path / "run"
    common = ("--model", tiny_model, "--output", output, "--steps", 2, "--set", "data.batch_size=8")
    invoke("train", "contrastive", rows, *common, "--recipe", "contrastive-lora", "--lora-rank", 4)
    recipe = json.loads((output / "training" / "run.json").read_text(encoding="utf-8"))["recipe"]
    assert recipe["lora"]["rank"] == 4
    assert recipe["optim"]["lr"] == 5e-4
    assert read_model_folder(output).adapter is None


def test_a_rank_alone_takes_the_rate_of_low_rank_adaptation(tiny_model: Path, tmp_path: Path) -> None:
    pairs = write_rows(tmp_path / "pairs.jsonl", rows_of("pairs"))
    ranked = write_rows(tmp_path / "ranked.jsonl", task_rows())
    for task, data, rate in (("contrastive", pairs, 5e-4), ("reranker", ranked, 3e-4)):
        output = tmp_path / task
        common = ("--model", tiny_model, "--output", output, "--steps", 1)
        smaller = ("--set", "data.batch_size=8") if task == "contrastive" else ()
        invoke("train", task, data, *common, *smaller, "--lora-rank", 2)
        recipe = json.loads((output / "training" / "run.json").read_text(encoding="utf-8"))["recipe"]
        assert (recipe["lora"]["rank"], recipe["optim"]["lr"]) == (2, rate)

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from embedkit.errors import DeviceError, TrainingError
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import alone, check_world, launched, prepared
from embedkit.training.engine.run_folder import RunFolder
from tests.training.corpora import ROUTED, make_corpus, make_journey, make_recipe
from tests.training.engine import worker
from tests.training.processes import FORKSERVER, exit_code

# Sums over two ranks are taken in another order than over one; Adam scales such differences up where a gradient is nearly zero.
ACROSS_RANKS = 2e-5


@pytest.fixture
def folder(texts: Path, tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """What a worker process needs: texts, tokenizer and the token cache."""
    shutil.copy(texts, tmp_path / "texts.jsonl")
    (tmp_path / "tokenizer").mkdir()
    tokenizer.save(tmp_path / "tokenizer")
    make_corpus(tmp_path / "cache", tmp_path / "texts.jsonl", Tokenizer.load(tmp_path / "tokenizer"))
    return tmp_path


def alone_weights(folder: Path, *overrides: str) -> dict[str, Tensor]:
    """Run the same recipe in this process and return its weights after the last step."""
    recipe = make_recipe(*overrides)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    corpus = make_corpus(folder / "cache", folder / "texts.jsonl", tokenizer)
    journey = make_journey(corpus, tokenizer, recipe)
    list(train(journey, recipe.run, recipe.optim, RunFolder(folder / "alone")))
    return last_weights(folder / "alone")


def last_weights(run: Path) -> dict[str, Tensor]:
    state = RunFolder(run).states / f"{RunFolder(run).saved_steps()[-1]:08d}"
    return load_file(state / "weights.safetensors")


def work(folder: Path, *overrides: str, ranks: int = 1) -> int:
    return exit_code(worker.main, folder, [*overrides], ranks=ranks)


def work_by_torchrun(folder: Path, *overrides: str) -> None:
    """Start two ranks by what `torchrun --standalone --nproc-per-node 2` calls, from the server that has loaded torch already."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        start_method=FORKSERVER.get_start_method(),
        max_restarts=0,
        monitor_interval=0.05,
    )
    elastic_launch(config, worker.main)(folder, [*overrides])


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_ranks_equal_one_with_the_same_whole_batch(folder: Path, strategy: str) -> None:
    """Each rank takes half of the batch; two parts a rank, so that gradients are exchanged after the second only."""
    settings = (
        "run.steps=5",
        "model.dropout=0.0",
        "run.accumulate=2",
        "masking.next_sentence=next",
        "run.ema_decay=0.5",
    )
    wanted = alone_weights(folder, *settings)
    shared = (*settings, f"run.strategy={strategy}")
    if strategy == "ddp":  # the other tests start ranks themselves, which is faster
        work_by_torchrun(folder, *shared)
    else:
        assert work(folder, *shared, ranks=2) == 0
    found = last_weights(folder / "run")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=ACROSS_RANKS, rtol=0, msg=name)
    assert (folder / "run" / "config.json").is_file()
    logs = [(folder / run / "training" / "log.jsonl").read_text(encoding="utf-8") for run in ("alone", "run")]
    assert logs[0].count("\n") == logs[1].count("\n")  # rank 0 alone wrote


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_with_a_penalty_on_heads_and_relative_positions_equal_one(
    folder: Path, strategy: str
) -> None:
    settings = ("run.steps=5", "model.dropout=0.0", "head_diversity=0.5", "model.position=relative")
    wanted = alone_weights(folder, *settings)
    assert work(folder, *settings, f"run.strategy={strategy}", ranks=2) == 0
    for name, tensor in last_weights(folder / "run").items():
        torch.testing.assert_close(tensor, wanted[name], atol=ACROSS_RANKS, rtol=0, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("routed", "accumulate"),
    [("experts", 1), ("experts", 2), ("expert choice", 1), ("token choice", 2)],
)
def test_two_ranks_equal_one_where_tokens_are_routed(folder: Path, routed: str, accumulate: int) -> None:
    """The balance of experts is that of the whole batch, however it is cut; experts stay the same on both ranks.

    Alone the batch is one part; here it is two or four.
    """
    settings = ("run.steps=4", "model.dropout=0.0", *ROUTED[routed])
    wanted = alone_weights(folder, *settings)
    assert work(folder, *settings, f"run.accumulate={accumulate}", ranks=2) == 0
    found = last_weights(folder / "run")
    ranks = [load_file(folder / f"rank-{rank}.safetensors") for rank in range(2)]
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=ACROSS_RANKS, rtol=0, msg=name)
        assert torch.equal(ranks[0][name], ranks[1][name]), name
    entries = [
        [json.loads(line) for line in (folder / run / "training" / "log.jsonl").read_text().splitlines()]
        for run in ("alone", "run")
    ]
    for one, two in zip(*entries, strict=True):
        if one["kind"] in ("step", "evaluated"):
            assert two["values"] == pytest.approx(one["values"], rel=1e-3, abs=1e-3)
            assert len(one["values"]) > 2


@pytest.mark.slow
@pytest.mark.parametrize("routed", ROUTED)
def test_sharded_and_recomputed_layers_route_tokens_as_whole_ones_do(folder: Path, routed: str) -> None:
    """What is computed again in the backward pass is neither counted twice nor chosen otherwise."""
    settings = ("run.steps=3", "model.dropout=0.0", *ROUTED[routed])
    wanted = alone_weights(folder, *settings)
    sharded = ("run.accumulate=2", "run.strategy=fsdp", "run.gradient_checkpointing=true")
    assert work(folder, *settings, *sharded, ranks=2) == 0
    found = last_weights(folder / "run")
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=ACROSS_RANKS, rtol=0, msg=name)


def killed_and_resumed(folder: Path, kills: int, seed: int) -> None:
    """Dropout is on and a state is written after every second step, so that many kills fall into one."""
    settings = ("run.steps=16", "run.save_every=2", "run.evaluate_every=4")
    wanted = alone_weights(folder, *settings)
    rng = random.Random(seed)
    codes = [
        work(folder, *settings, f"kill={rng.uniform(0, 0.4 / math.sqrt(kills)):.3f}") for _ in range(kills)
    ]
    assert -9 in codes
    assert work(folder, *settings) == 0
    found = last_weights(folder / "run")
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []
    assert (folder / "run" / "config.json").is_file()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(folder: Path) -> None:
    killed_and_resumed(folder, kills=1, seed=0)


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_goes_on_to_the_same_bits(folder: Path) -> None:
    killed_and_resumed(folder, kills=10, seed=1)


def test_without_torchrun_a_process_stands_alone() -> None:
    with launched("cpu") as ranks:
        assert (ranks.rank, ranks.world, ranks.first) == (0, 1, True)
        assert ranks.total({"a": 1, "b": torch.tensor(2.5)}) == {"a": 1.0, "b": 2.5}


def test_a_cuda_device_that_is_not_there_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(DeviceError, match="process 0 wants CUDA device 0; there are 0"), launched("cuda"):
        pass


def test_a_device_that_nothing_is_trained_on_is_refused_and_not_replaced_by_the_cpu() -> None:
    with (
        pytest.raises(DeviceError, match=r"device 'mps': training computes on CUDA devices"),
        launched("mps"),
    ):
        pass


def test_sharding_needs_several_processes() -> None:
    with pytest.raises(TrainingError, match=r"run\.strategy is 'fsdp' with one process"):
        check_world("fsdp", 1)


def test_recomputing_layers_changes_no_gradient(folder: Path) -> None:
    """Dropout is on: what is computed again draws the same numbers."""
    tokenizer = Tokenizer.load(folder / "tokenizer")
    corpus = make_corpus(folder / "cache", folder / "texts.jsonl", tokenizer)
    gradients = []
    for setting in ("false", "true"):
        recipe = make_recipe(f"run.gradient_checkpointing={setting}")
        journey = make_journey(corpus, tokenizer, recipe)
        module = prepared(journey.module, alone(precision="fp32"), recipe.run)
        module.train()
        torch.manual_seed(1)
        journey.backward(module, 0, alone(precision="fp32"))
        gradients.append({name: p.grad for name, p in journey.module.named_parameters()})
    for name, gradient in gradients[0].items():
        other = gradients[1][name]
        assert gradient is not None
        assert other is not None
        assert torch.equal(gradient, other), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler about torch
def test_compiled_layers_give_the_same_gradients(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder / "tokenizer")
    corpus = make_corpus(folder / "cache", folder / "texts.jsonl", tokenizer)
    gradients = []
    for setting in ("false", "true"):
        recipe = make_recipe(f"run.compile={setting}", "model.dropout=0.0")
        journey = make_journey(corpus, tokenizer, recipe)
        journey.backward(
            prepared(journey.module, alone(precision="fp32"), recipe.run), 0, alone(precision="fp32")
        )
        gradients.append({name: p.grad for name, p in journey.module.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=0, msg=name)

"""Two ranks that gather their embeddings have the gradients of one with the whole batch."""

import datetime
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embedkit.training import losses
from embedkit.training.engine.gather import gather_rows
from embedkit.training.engine.grad_cache import cached_backward
from tests.training.processes import exit_code

RANKS = 2
PER_RANK = 3
BATCH = RANKS * PER_RANK
STEPS = 3
# Sums of float64 numbers in another order.
TOLERANCE = 1e-12

SCORES = torch.linspace(0, 1, BATCH, dtype=torch.float64)
WHOLE_BATCH: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "info_nce": lambda q, p, n: losses.info_nce(q, torch.cat([p, n]), temperature=0.1, symmetric=True),
    "cosent": lambda q, p, n: losses.cosent(q, p, SCORES),
    "triplet": lambda q, p, n: losses.batch_hard_triplet(
        torch.cat([q, p]), torch.arange(BATCH).repeat(2), margin="soft"
    ),
}


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def columns() -> list[Tensor]:
    """Queries, positives and negatives of the whole batch, (B, 5) each."""
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(3, BATCH, 5, dtype=torch.float64, generator=generator))


def own_rows(rank: int) -> slice:
    return slice(rank * PER_RANK, (rank + 1) * PER_RANK)


def train(loss_backward: Callable[[nn.Module], None]) -> dict[str, Tensor]:
    """Take a few steps with gradients averaged over ranks, and return the weights."""
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_backward(model)
        for parameter in model.parameters():
            if dist.is_initialized() and parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()
        optimizer.step()
    return {name: weights.detach().clone() for name, weights in model.named_parameters()}


def encode(model: nn.Module, texts: Tensor) -> Tensor:
    return F.normalize(model(texts), dim=1)


def whole_loss(name: str, rows: slice, model: nn.Module) -> None:
    """Every rank computes the loss of the whole gathered batch."""
    gathered = [gather_rows(encode(model, column[rows])) for column in columns()]
    WHOLE_BATCH[name](*gathered).backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped


def own_queries_loss(rows: slice, model: nn.Module) -> None:
    """Every rank takes its own queries against the documents of all."""
    queries, positives, _ = (encode(model, column[rows]) for column in columns())
    logits = queries @ gather_rows(positives).T / 0.1
    F.cross_entropy(logits, torch.arange(BATCH)[rows]).backward()  # type: ignore[no-untyped-call]  # as above


def cached_loss(rows: slice, model: nn.Module) -> None:
    """Gathered and cached: the loss gathers what the micro-batches gave."""
    count = len(range(BATCH)[rows])
    micro_batches = torch.split(torch.cat([column[rows] for column in columns()]), 4)

    def loss(embeddings: Tensor) -> Tensor:
        return WHOLE_BATCH["info_nce"](*(gather_rows(part) for part in torch.split(embeddings, count)))

    cached_backward(partial(encode, model), micro_batches, loss)


def all_runs(rows: slice) -> dict[str, Tensor]:
    runs: dict[str, Callable[[nn.Module], None]] = {
        name: partial(whole_loss, name, rows) for name in WHOLE_BATCH
    }
    runs["own queries"] = partial(own_queries_loss, rows)
    runs["cached"] = partial(cached_loss, rows)
    return {
        f"{run}/{name}": tensor for run, backward in runs.items() for name, tensor in train(backward).items()
    }


def run_rank(folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    rank = dist.get_rank()
    results = all_runs(own_rows(rank))
    results["gathered"] = gather_rows(torch.full((2, 3), float(rank)))
    save_file(results, folder / f"rank{rank}.safetensors")
    try:
        gather_rows(torch.zeros(2 + rank, 3))
    except ValueError as exc:
        (folder / f"rank{rank}.error").write_text(str(exc), encoding="utf-8")
    dist.barrier()  # a rank that leaves while the other still talks to it is terminated
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    assert exit_code(run_rank, folder, ranks=RANKS) == 0
    return folder


@pytest.mark.parametrize("run", [*WHOLE_BATCH, "own queries", "cached"])
def test_two_ranks_equal_one(ranks: Path, run: str) -> None:
    expected = {k: v for k, v in all_runs(slice(0, BATCH)).items() if k.startswith(f"{run}/")}
    assert expected
    for rank in range(RANKS):
        weights = load_file(ranks / f"rank{rank}.safetensors")
        for name, tensor in expected.items():
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=TOLERANCE)


def test_gathering_matters() -> None:
    """Half the batch alone trains other weights, so the test above can fail."""
    whole, half = all_runs(slice(0, BATCH)), train(partial(own_half, slice(0, PER_RANK)))
    assert (whole["info_nce/0.weight"] - half["0.weight"]).abs().max() > 1e-4


def own_half(rows: slice, model: nn.Module) -> None:
    queries, positives, negatives = (encode(model, column[rows]) for column in columns())
    loss = WHOLE_BATCH["info_nce"](queries, positives, negatives)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped


def test_rows_come_in_the_order_of_ranks(ranks: Path) -> None:
    for rank in range(RANKS):
        gathered = load_file(ranks / f"rank{rank}.safetensors")["gathered"]
        assert gathered.tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2


def test_unequal_shapes_are_an_error_on_every_rank(ranks: Path) -> None:
    for rank in range(RANKS):
        message = (ranks / f"rank{rank}.error").read_text(encoding="utf-8")
        assert "shapes differ over ranks (rank 0: (2, 3), rank 1: (3, 3))" in message


def test_without_a_process_group_rows_are_returned_as_they_are() -> None:
    rows = torch.zeros(2, 3)
    assert gather_rows(rows) is rows

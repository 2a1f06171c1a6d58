"""One device or many: who this process is among its peers, and how a module and its numbers are shared.

`torchrun --nproc-per-node N $(which embedkit) train …` starts N processes that find each other by the environment it sets.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from embedkit.errors import DeviceError, TrainingError
from embedkit.model.decoder_layers import DecoderLayer
from embedkit.model.feed_forward import FeedForward
from embedkit.model.layers import EncoderLayer
from embedkit.training.engine.memory import keep_freed_memory
from embedkit.training.engine.native_linear import use_kernels
from embedkit.training.engine.precision import ChosenPrecision, Format
from embedkit.training.engine.recipes import RunRecipe, Strategy


@dataclass(frozen=True)
class Ranks:
    """Which of `world` processes this is, its device and what it computes in; rank 0 writes files and speaks.

    `precision` is None until it is settled (`embedkit.training.engine.run_precision`); until then nothing is computed.
    """

    rank: int
    world: int
    device: torch.device
    precision: ChosenPrecision | None = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def computes_bf16(self) -> bool:
        if self.precision is None:
            raise ValueError(
                "the precision is not settled; call with_precision first, or stand `alone` with one"
            )
        return self.precision.format == "bf16"

    def in_fp32(self) -> Ranks:
        """Return the same, computing as a finished model does, whatever the run trains in."""
        return replace(self, precision=ChosenPrecision("fp32"))

    def total(self, values: Mapping[str, Tensor | float]) -> dict[str, float]:
        """Add each number up over all ranks, in one exchange."""
        numbers = torch.stack(
            [
                value.detach().double().to(self.device)
                if isinstance(value, Tensor)
                else torch.tensor(value, dtype=torch.float64, device=self.device)
                for value in values.values()
            ]
        )
        if self.world > 1:
            dist.all_reduce(numbers)
        return dict(zip(values, numbers.tolist(), strict=True))

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def launched(device: str = "auto") -> Iterator[Ranks]:
    """Join the processes that torchrun started, or stand alone where it started none.

    Raises:
        DeviceError: a CUDA device was asked for and there is none, or there are fewer than processes; or the device is
            neither CUDA nor the CPU.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local = int(os.environ.get("LOCAL_RANK", 0))
    kind = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if kind.startswith("cuda"):
        if torch.cuda.device_count() <= local:
            raise DeviceError(
                f"process {local} wants CUDA device {local}; there are {torch.cuda.device_count()}. "
                "Start as many processes as there are devices, or pass --device cpu"
            )
        place = torch.device("cuda", local) if world > 1 or kind == "cuda" else torch.device(kind)
        torch.cuda.set_device(place)
    elif kind == "cpu":
        place = torch.device("cpu")
    else:
        raise DeviceError(
            f"device {kind!r}: training computes on CUDA devices and on the CPU. Pass --device cpu"
        )
    if world == 1:
        yield Ranks(0, 1, place)
        return
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", rank=rank, world_size=world)
    try:
        yield Ranks(rank, world, place)
    finally:
        dist.destroy_process_group()


def alone(device: str | torch.device = "cpu", precision: Format | None = None) -> Ranks:
    """Stand alone on a device; without a `precision` a run settles it by its recipe."""
    return Ranks(0, 1, torch.device(device), None if precision is None else ChosenPrecision(precision))


def prepared(module: nn.Module, ranks: Ranks, run: RunRecipe) -> nn.Module:
    """Move a module to its device; take our kernels where they fit; compile, recompute and share what the recipe asks for.

    Where there are peers, gradients are averaged over them: `ddp` keeps all weights on every device; `fsdp` (FSDP2) shards
    them layer by layer, for models that do not fit one. The module itself keeps its parameters' names.
    """
    module.to(ranks.device)
    if ranks.device.type == "cpu":
        keep_freed_memory()
        if not ranks.computes_bf16 and run.strategy == "ddp" and not run.compile:
            use_kernels(module)
    layers = [child for child in module.modules() if isinstance(child, EncoderLayer | DecoderLayer)]
    if run.compile:  # attention sees new shapes in every batch; what works token by token does not
        for child in module.modules():
            if isinstance(child, FeedForward):
                child.compile(dynamic=True)
    if run.gradient_checkpointing:
        for layer in layers:
            _recompute(layer)
    if ranks.world == 1:
        return module
    if run.strategy == "ddp":
        ids = [ranks.device] if ranks.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids)
    for layer in layers:
        fully_shard(layer)
    fully_shard(module)
    return module


def _recompute(layer: EncoderLayer | DecoderLayer) -> None:
    """Keep only the layer's input for the backward pass and compute the rest again (Chen et al. 2016, arXiv:1604.06174)."""
    forward = layer.forward

    def recomputed(*given: object) -> Tensor:
        result: Tensor = checkpoint(forward, *given, use_reentrant=False)
        return result

    layer.forward = recomputed  # type: ignore[method-assign,assignment] # of this one layer, so that names stay as they are


def synchronized(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Within it, exchange the gradients of a backward pass only where it is the step's last."""
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor in one piece on the CPU; where it is sharded, every rank must take part."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu()


def placed(value: Tensor, like: Tensor) -> Tensor:
    """Lay a whole tensor as another one lies: on its device, sharded where it is."""
    value = value.to(like.device)
    if isinstance(like, DTensor):
        return distribute_tensor(value, like.device_mesh, like.placements)
    return value


def autocast(ranks: Ranks) -> AbstractContextManager[None]:
    """Compute products in bf16 within it, if that is the precision; weights stay fp32."""
    if not ranks.computes_bf16:
        return nullcontext()
    return torch.autocast(ranks.device.type, dtype=torch.bfloat16)


def check_world(strategy: Strategy, world: int) -> None:
    """Refuse to shard where there is nothing to shard over.

    Raises:
        TrainingError: strategy fsdp on one process.
    """
    if strategy == "fsdp" and world == 1:
        raise TrainingError(
            "run.strategy is 'fsdp' with one process; start several with torchrun --nproc-per-node N, or set it to 'ddp'"
        )

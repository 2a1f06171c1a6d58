"""What of a run changes from step to step, as whole tensors on the CPU: collected, and put back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from embedkit.training.engine.optim import AveragedWeights
from embedkit.training.engine.ranks import placed, whole


def state_bytes(module: nn.Module, *, keep_last: int, averaged: bool) -> int:
    """Estimate what the states of a run take at most: those kept, one being written, the best and the model itself."""
    weights = sum(p.numel() for p in module.parameters()) * 4
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad) * 4
    return (keep_last + 1) * (weights + trained * (3 if averaged else 2)) + 3 * weights


def gather_state(
    module: nn.Module, optimizer: torch.optim.Optimizer, averaged: AveragedWeights | None
) -> dict[str, dict[str, Tensor]]:
    """Collect everything that changes from step to step, whole, on the CPU; every rank must call it."""
    moments: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{name}|{key}"] = whole(value).clone()
    groups = {"weights": gather_weights(module), "optimizer": moments}
    if averaged is not None:
        groups["averaged"] = {name: whole(mean).clone() for name, mean in averaged.means.items()}
    return groups


def gather_weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: whole(tensor).clone().contiguous() for name, tensor in module.state_dict().items()}


def restore_state(
    groups: Mapping[str, dict[str, Tensor]],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    averaged: AveragedWeights | None,
) -> None:
    """Put back what `gather_state` collected."""
    restore_weights(groups["weights"], module)
    for name, parameter in module.named_parameters():
        own = {
            key.partition("|")[2]: value
            for key, value in groups["optimizer"].items()
            if key.partition("|")[0] == name
        }
        if own:
            optimizer.state[parameter] = {
                key: placed(value, parameter) if value.ndim else value.to(parameter.device)
                for key, value in own.items()
            }
    if averaged is not None:
        for name, mean in averaged.means.items():
            mean.copy_(placed(groups["averaged"][name], mean))


def unsharded(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a module whole weights, also where its own are spread over the ranks: from then on one rank alone can use it."""
    restore_weights(weights, module)
    for name, parameter in list(module.named_parameters()):
        if isinstance(parameter, DTensor):
            owner, _, leaf = name.rpartition(".")
            module.get_submodule(owner).register_parameter(leaf, nn.Parameter(weights[name]))


@torch.no_grad()
def restore_weights(weights: Mapping[str, Tensor], module: nn.Module) -> None:
    for name, own in module.state_dict().items():
        own.copy_(placed(weights[name], own))

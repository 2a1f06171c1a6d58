"""The loop: as many steps as fit into some seconds, with a rate that rises and falls over them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from data import CUDA
from progress import rounded, say
from torch import Tensor, nn

REPORT_SECONDS = 10
LEAST_RATE = 0.02  # of the highest


@dataclass(frozen=True)
class Step:
    """The loss of a batch, what to report, and how many tokens were computed."""

    loss: Tensor
    parts: dict[str, Tensor]
    tokens: int


def adamw(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """AdamW with a decay of .01 for matrices (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101)."""
    matrices = [each for each in model.parameters() if each.requires_grad and each.ndim > 1]
    vectors = [each for each in model.parameters() if each.requires_grad and each.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), eps=1e-6, fused=CUDA)


def trapezoid(highest: float, warmup: float) -> Callable[[float], float]:
    """Rise over a share of the time, then fall to nothing, but never below a fiftieth."""

    def rate(done: float) -> float:
        slope = done / warmup if done < warmup else (1 - done) / (1 - warmup)
        return highest * max(slope, LEAST_RATE)

    return rate


def train(
    model: nn.Module,
    step: Callable[[], Step],
    optimizer: torch.optim.Optimizer,
    rate: Callable[[float], float],
    *,
    name: str,
    seconds: float,
    steps: int | None = None,
    clip: float = 1.0,
) -> dict[str, float]:
    """Train for some seconds, or a number of steps; return how many steps, tokens and seconds it took.

    `clip` is the length that the gradient is cut to.
    """
    model.train()
    began = reported = time.time()
    count = tokens = 0
    recent: dict[str, list[Tensor]] = {}
    while True:
        now = time.time()
        done = (now - began) / seconds if steps is None else count / steps
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(done)
        found = step()
        _update(found.loss, optimizer, clip)
        count += 1
        tokens += found.tokens
        for part, lost in found.parts.items():
            recent[part] = [*recent.get(part, [])[-99:], lost]
        if CUDA and count % 20 == 0:
            torch.cuda.synchronize()  # so that the clock tells the truth
        if now - reported > REPORT_SECONDS:
            say(name, f"step {count}, {tokens / 1e6:.1f} M tokens", rounded(_means(recent)))
            reported = now
    if CUDA:
        torch.cuda.synchronize()
    model.eval()
    spent = time.time() - began
    say(name, f"done: {count} steps, {tokens / 1e6:.1f} M tokens in {spent:.0f} s", rounded(_means(recent)))
    return {"steps": count, "tokens": tokens, "seconds": spent}


def _update(loss: Tensor, optimizer: torch.optim.Optimizer, clip: float) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [each for group in optimizer.param_groups for each in group["params"]]
    nn.utils.clip_grad_norm_(parameters, clip, foreach=True)
    optimizer.step()


def _means(recent: dict[str, Iterable[Tensor]]) -> dict[str, float]:
    return {part: torch.stack(list(losses)).mean().item() for part, losses in recent.items()}

"""Cached gradients: the gradient of a large batch in the memory of a small one.

An in-batch loss needs all embeddings at once, but not all activations. In the four steps of the paper:
1. graph-less forward: encode every micro-batch without a graph; keep its embeddings and its random state;
2. representation gradients: compute the loss of all embeddings, and its gradient with respect to them;
3. gradient accumulation: encode each micro-batch again from its random state, now with a graph, and send its cached
   gradients backward into the parameters;
4. optimization: the caller's `optimizer.step()`.

Source: Gao et al. 2021, https://arxiv.org/abs/2101.06983, section 3.2. Beyond the paper, step 3 repeats the dropout of
step 1 exactly, so that the result is that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

MicroBatch = TypeVar("MicroBatch")

# How far two encodings of the same micro-batch may differ, as a share of the largest number in them: with and without
# a graph, kernels may round differently (bfloat16 has 2^-8), but other dropout differs by far more.
REPLAY_TOLERANCE = 0.03


@dataclass(frozen=True)
class RandomState:
    """The state of torch's default generators, on the CPU and on every CUDA device in use."""

    cpu: Tensor
    cuda: tuple[Tensor, ...]

    @classmethod
    def capture(cls) -> RandomState:
        cuda = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return cls(torch.get_rng_state(), cuda)

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


def cached_backward(
    encode: Callable[[MicroBatch], Tensor],
    micro_batches: Sequence[MicroBatch],
    loss: Callable[[Tensor], Tensor],
    *,
    auxiliary: Callable[[], Tensor | None] = lambda: None,
) -> Tensor:
    """Do what `loss(torch.cat([encode(m) for m in micro_batches])).backward()` does, one micro-batch in memory at a time.

    Gradients add up in `.grad`, as with backward: those of the encoder's parameters, and those of whatever else the
    loss holds, such as a learned temperature. Afterwards the random state is that of the plain computation. Randomness
    inside `encode` must come from torch's default generators; autocast belongs inside `encode`, loss scaling inside
    `loss`. Where parameters are averaged over ranks, do that once, after this returns: with
    DistributedDataParallel, call it under `no_sync()`. `auxiliary` is asked after each micro-batch's second encoding for a loss of that
    encoding itself, such as a router's, which goes backward with it and is not part of the value returned.

    Shapes:
        encode: micro-batch -> (N, ...), any number of rows each; all dimensions but the first alike
        loss: (sum of N, ...), rows in the order of the micro-batches -> (); auxiliary: -> ()
        returns: () the loss value, detached
    Raises:
        ValueError: there are no micro-batches, the loss is not one number, or a second encoding differs from the first.
    """
    if not micro_batches:
        raise ValueError("cached_backward: 0 micro-batches; give at least 1")
    embeddings, states = graphless_forward(encode, micro_batches)
    value, gradients = representation_gradients(loss, embeddings)
    after_loss = RandomState.capture()
    accumulate_gradients(encode, micro_batches, states, embeddings, gradients, auxiliary=auxiliary)
    after_loss.restore()
    return value


def graphless_forward(
    encode: Callable[[MicroBatch], Tensor], micro_batches: Sequence[MicroBatch]
) -> tuple[list[Tensor], list[RandomState]]:
    """Step 1: the embeddings of each micro-batch, and the random state that each began with."""
    embeddings: list[Tensor] = []
    states: list[RandomState] = []
    for micro_batch in micro_batches:
        states.append(RandomState.capture())
        with torch.no_grad():
            embeddings.append(encode(micro_batch).detach())
    return embeddings, states


def representation_gradients(
    loss: Callable[[Tensor], Tensor], embeddings: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Step 2: the loss, and its gradient with respect to the embeddings, cut up as the micro-batches were."""
    leaf = torch.cat(list(embeddings)).requires_grad_()
    value = loss(leaf)
    if value.dim():
        raise ValueError(
            f"cached_backward: the loss has shape {tuple(value.shape)}; it needs (): take a mean or sum"
        )
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
    gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    return value.detach(), torch.split(gradient, [len(part) for part in embeddings])


def accumulate_gradients(
    encode: Callable[[MicroBatch], Tensor],
    micro_batches: Sequence[MicroBatch],
    states: Sequence[RandomState],
    embeddings: Sequence[Tensor],
    gradients: Sequence[Tensor],
    *,
    auxiliary: Callable[[], Tensor | None] = lambda: None,
) -> None:
    """Step 3: encode again, with a graph and the dropout of step 1, and go backward from the cached gradients."""
    for number, micro_batch in enumerate(micro_batches):
        states[number].restore()
        again = encode(micro_batch)
        if number == 0:  # once is enough to catch an encoder that cannot be repeated, and spares later syncs
            _check_replay(embeddings[0], again.detach())
        more = auxiliary()
        if more is None:
            torch.autograd.backward(again, gradients[number])
        else:
            torch.autograd.backward((again, more), (gradients[number], torch.ones_like(more)))


def _check_replay(first: Tensor, again: Tensor) -> None:
    if again.shape != first.shape:
        raise ValueError(
            f"cached_backward: micro-batch 0 was encoded to {tuple(first.shape)} and then to {tuple(again.shape)}; "
            "encode must give the same twice"
        )
    largest = float(first.abs().max())
    difference = float((again - first).abs().max())
    if difference > REPLAY_TOLERANCE * largest:
        raise ValueError(
            f"cached_backward: two encodings of micro-batch 0 differ by {difference:.3g} where the largest number is "
            f"{largest:.3g}; encode must draw from torch's default generators only, and keep no state between calls"
        )

"""The one check that every loss makes before it computes: do the shapes fit together?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# How two sets of embeddings are compared, where a loss is not to take its own way: of all rows with all, (B, E), (N, E) -> (B, N), or of
# each with its partner, (B, E), (B, E) -> (B,). Higher is more alike.
Compare = Callable[[Tensor, Tensor], Tensor]


def check_shape(name: str, tensor: Tensor, wanted: tuple[int | str, ...], because: str) -> None:
    """Hold `tensor` against a wanted shape; an int must match, a letter stands for any length of at least 1.

    Raises:
        ValueError: the shapes differ; the message shows both and ends with `because`.
    """
    shape = tuple(tensor.shape)
    fits = len(shape) == len(wanted) and all(
        size >= 1 if isinstance(want, str) else size == want for size, want in zip(shape, wanted, strict=True)
    )
    if not fits:
        letters = ", ".join(map(str, wanted)) + ("," if len(wanted) == 1 else "")
        raise ValueError(f"{name} has shape {shape}; it needs ({letters}): {because}")


def check_bool(name: str, tensor: Tensor, meaning: str) -> None:
    """Refuse a mask or label that is not bool, for 0/1 numbers would be taken as row numbers or weights.

    Raises:
        TypeError: the tensor is of another type.
    """
    if tensor.dtype != torch.bool:
        raise TypeError(
            f"{name} is {tensor.dtype}; it needs torch.bool, True for {meaning}. Convert it with x.bool()"
        )


def check_positive(name: str, value: float) -> None:
    """Refuse a scale, temperature or width that is not a finite number above zero.

    Raises:
        ValueError: the value is out of range.
    """
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}; it must be a finite number above 0")

"""Gradients beside finite differences, along one random direction of each input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def assert_gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
    """Compare the gradients of a function with finite differences; all inputs are of float64.

    Every number of an input takes part in its direction, and every output is weighed: an error in any of them shows in the one product
    that is compared, for which the tolerances are a thousandth of torch's own. Number by number the same takes a hundred times as long.
    """
    check: Callable[..., bool] = torch.autograd.gradcheck
    assert check(function, tuple(inputs), fast_mode=True, atol=1e-8, rtol=1e-6)

"""Modules whose weights take no memory and are not drawn: they are replaced by those of a file at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# What torch's own layers draw their first weights with. On the meta device it would do so in Python, for which it first imports its
# compiler: two seconds of work.
_DRAWS = frozenset(
    [nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, Tensor.normal_, Tensor.uniform_]
)


class _NothingDrawn(TorchFunctionMode):
    """Leave tensors as they are where they would be drawn."""

    def __torch_function__(
        self,
        func: Callable[..., Any],  # Any: whatever torch calls, with what that takes and gives
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextmanager
def unfilled() -> Iterator[None]:
    """Make modules on the meta device, and draw nothing."""
    with torch.device("meta"), _NothingDrawn():
        yield

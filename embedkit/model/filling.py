"""Whole multiples of rows, which products on a CPU want."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

# oneDNN compiles a kernel for every number of rows it meets and keeps a thousand of them: without this, encoding grew by
# 30 MB for every thousand texts and a training run by gigabytes, and each new size cost milliseconds.
CPU_ROWS_MULTIPLE = 64


def fill_up(
    input_ids: Tensor, lengths: Sequence[int], token_type_ids: Tensor | None = None, *, max_tokens: int
) -> tuple[Tensor, Sequence[int], Tensor | None]:
    """On a CPU, add one sequence of zeros that makes the number of tokens a multiple of 64; elsewhere change nothing.

    What comes of that sequence, always the last, is to be dropped. It is no longer than the model's `max_tokens`.

    Shapes:
        input_ids, token_type_ids: (N,), N = sum(lengths)
        returns: the same of B + 1 sequences, or of the B given
    """
    missing = -len(input_ids) % min(CPU_ROWS_MULTIPLE, max_tokens)
    if input_ids.device.type != "cpu" or not missing:
        return input_ids, lengths, token_type_ids
    types = None if token_type_ids is None else F.pad(token_type_ids, (0, missing))
    return F.pad(input_ids, (0, missing)), [*lengths, missing], types

"""The bounds of token merging, which the kernels and numpy share (see `embedkit.inference.token_merging`)."""

from __future__ import annotations

FEWEST_TOKENS = 32  # FEWEST_TOKENS in embedkit/native/kernels/common/merge.h
LARGEST_SHARE = 0.5  # one of the two sets


def check_share(share: float) -> None:
    """Refuse a share of tokens that cannot be merged in a layer.

    Raises:
        ValueError: it is not from 0 to 0.5.
    """
    if not 0.0 <= share <= LARGEST_SHARE:
        raise ValueError(
            f"merge_tokens is {share}; it is the share of tokens that each layer merges, from 0 to {LARGEST_SHARE}"
        )

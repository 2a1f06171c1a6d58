"""The bounds of token merging, which the kernels and numpy share (see `embedkit.inference.token_merging`)."""

from __future__ import annotations

from embedkit.model.config import EncoderConfig

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


def why_not_merging(config: EncoderConfig) -> str | None:
    """Say why tokens of a model cannot be merged; None where they can."""
    if config.relative_attention_num_buckets or config.position == "alibi" or config.disentangled is not None:
        return "merged tokens have no distance, on which this model's attention depends"
    if config.position == "rope" or config.local_attention:
        return "merged tokens have no position, on which this model's attention depends"
    if config.causal:
        return "merged tokens have no place, and in this model each token attends to those before it"
    if config.query_size != config.hidden_size:
        return "tokens are compared by the heads' part of their vectors, and this model's heads are of another size"
    if config.norm_first:
        return "tokens are compared behind a norm, and this model's come before its layers"
    return None


def check_merging(share: float, config: EncoderConfig) -> None:
    """Refuse a share of tokens that cannot be merged in a layer of a model.

    Raises:
        ValueError: it is not from 0 to 0.5, or not 0 for a model whose tokens cannot be merged.
    """
    check_share(share)
    if share and (reason := why_not_merging(config)):
        raise ValueError(f"merge_tokens is {share}; {reason}. Leave it out")

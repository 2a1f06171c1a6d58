"""What each form of attention costs. No torch here."""

from __future__ import annotations

from embedkit.model.config import EncoderConfig


def attention_flops(config: EncoderConfig, tokens: float, pairs: float) -> float:
    """Count the work of one layer's attention between its projections, as it is computed; a tanh counts as one.

    `tokens` are those of all sequences, `pairs` the sum of their lengths' squares. Local attention counts in full: all scores are
    computed, and those beyond the window left out.
    """
    size = config.query_size
    match config.attention:
        case "low_rank":  # keys and values become mixtures; each token has the score of each mixture, and takes their values
            return 8 * size * config.attention_rank * tokens
        case (
            "random_features"
        ):  # of queries and keys; sums over keys and values; what each query takes of them
            return 8 * size * config.attention_features * tokens
        case (
            "additive"
        ):  # a sum, a tanh and the product with the score for each pair and dimension, then the values
            return 6 * size * pairs
        case "dot" | "bilinear":
            turned = 2 * size * config.head_size * tokens if config.attention == "bilinear" else 0.0
            distances = 2 * config.max_relative_position + 1 if config.position == "relative" else 0
            return 4 * size * (pairs + distances * tokens) + turned

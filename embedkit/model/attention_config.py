"""The shape of attention's own pieces, and which of them go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DisentangledConfig:
    """Scores of contents and of distances apart: each distance has a vector, which queries and keys are compared with.

    | field | meaning |
    |---|---|
    | `position_buckets` | distances are told apart one by one up to half of it, then by their logarithm; 0: all one by one |
    | `max_relative_positions` | the largest distance that is told apart |
    | `content_to_position`, `position_to_content` | which of the two products there are |
    | `share_att_key` | the layer's own projections make queries and keys of distances, too |
    | `norm_rel_ebd` | the distances' vectors are normed |
    | `conv_kernel_size` | the first layer is followed by a convolution of so many tokens; 0: by none |
    | `conv_groups`, `conv_act` | of that convolution |

    Raises:
        ValueError: a field is out of range.
    Source: He et al. 2021, https://arxiv.org/abs/2006.03654, section 3.1; buckets and convolution as in its second release.
    """

    position_buckets: int = 256
    max_relative_positions: int = 512
    content_to_position: bool = True
    position_to_content: bool = True
    share_att_key: bool = True
    norm_rel_ebd: bool = True
    conv_kernel_size: int = 0
    conv_groups: int = 1
    conv_act: str = "tanh"

    def __post_init__(self) -> None:
        for name, least in (("position_buckets", 0), ("max_relative_positions", 1), ("conv_groups", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.conv_kernel_size and self.conv_kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size is {self.conv_kernel_size}; it must be odd, or 0 for none")
        if self.conv_act not in ("tanh", "gelu"):
            raise ValueError(f"conv_act is {self.conv_act!r}; it must be one of tanh, gelu")

    @property
    def span(self) -> int:
        """How many distances to each side have a vector."""
        return self.position_buckets or self.max_relative_positions

    @property
    def num_parts(self) -> int:
        """How many products a score is the sum of."""
        return 1 + self.content_to_position + self.position_to_content


def alibi_slopes(num_heads: int) -> tuple[float, ...]:
    """Return how much the scores of each head fall with every token that a key is farther away.

    Of 8 heads: 1/2, 1/4 … 1/256. Where their number is no power of 2, those of the next smaller one come first, then every other one
    of the next larger, as in the authors' code.

    Source: Press et al. 2022, https://arxiv.org/abs/2108.12409, section 3.
    """
    whole = 1 << (num_heads.bit_length() - 1)
    first, more = (
        [2.0 ** (-8 * head / count) for head in range(1, count + 1)] for count in (whole, 2 * whole)
    )
    return (*first, *more[::2][: num_heads - whole])


def check_heads(hidden_size: int, heads: int, head_dim: int | None, key_value_heads: int | None) -> None:
    """Refuse heads that do not come out even.

    Raises:
        ValueError: they do not.
    """
    if head_dim is None and hidden_size % heads:
        raise ValueError(f"hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}")
    if head_dim is not None and head_dim < 1:
        raise ValueError(f"head_dim is {head_dim}; it must be at least 1")
    if key_value_heads is not None and (key_value_heads < 1 or heads % key_value_heads):
        raise ValueError(
            f"num_attention_heads {heads} is not a multiple of num_key_value_heads {key_value_heads}"
        )


def check_form(
    attention: str, position: str, *, needs_scores: Sequence[str], needs_dot: Sequence[str]
) -> None:
    """Refuse a form of attention that lacks what other pieces need of it: scores of single keys, or plain products.

    Raises:
        ValueError: it does.
    """
    if position in ("rope", "relative") and attention == "additive":
        raise ValueError(
            f"position {position!r} changes the product of query and key, and additive attention has none; "
            "use learned or sinusoidal positions"
        )
    if needs_scores and attention not in ("dot", "bilinear", "additive"):
        raise ValueError(
            f"{needs_scores[0]} changes the scores of single keys, and attention {attention!r} has none; "
            "use attention 'dot' or 'bilinear'"
        )
    if needs_dot and (attention != "dot" or position == "relative"):
        raise ValueError(f"{needs_dot[0]} goes with attention 'dot' alone, without relative positions")

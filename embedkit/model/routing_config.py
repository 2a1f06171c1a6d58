"""The shape of what routes tokens: experts in feed-forward layers, and a block of layers that is run several times."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

RecursionRouting = Literal["fixed", "expert_choice", "token_choice"]


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """A mixture of experts in the feed-forward part of every n-th layer: each token goes to a few of them.

    A router gives each token a probability for each expert; the `num_experts_per_tok` most probable compute it, and their outputs
    are added up, weighted by these probabilities (`norm_topk_prob`: by the chosen ones scaled to a sum of 1).

    | field | meaning |
    |---|---|
    | `every_n_layers` | 2: the second, fourth … layer has experts (Nussbaum and Duderstadt 2025, https://arxiv.org/abs/2502.07972) |
    | `intermediate_size` | width of an expert; None: the encoder's own |
    | `shared_intermediate_size` | width of one more expert that computes every token (Dai et al. 2024, https://arxiv.org/abs/2401.06066); 0: none |
    | `shared_bias` | one bias behind the sum of all experts, which have none of their own, as in that model |
    | `noisy` | in training the router's scores get noise of a learned size (Shazeer et al. 2017, https://arxiv.org/abs/1701.06538, eq. 4) |
    | `capacity_factor` | in training an expert takes at most ⌈factor · k · T / E⌉ tokens of a sequence of T; None: any number |

    A token beyond an expert's capacity gets nothing from it; its residual goes on (Fedus et al. 2021, https://arxiv.org/abs/2101.03961,
    section 2.2). Capacity is counted in each sequence by itself, as the groups of Lepikhin et al. 2021
    (https://arxiv.org/abs/2006.16668), so that what is dropped depends on no other text; outside of training nothing is dropped.

    Raises:
        ValueError: a field is out of range, or two do not fit together.
    """

    num_experts: int = 8
    num_experts_per_tok: int = 2
    every_n_layers: int = 2
    intermediate_size: int | None = None
    shared_intermediate_size: int = 0
    norm_topk_prob: bool = False
    shared_bias: bool = False
    noisy: bool = False
    capacity_factor: float | None = None

    def __post_init__(self) -> None:
        if self.num_experts < 2:
            raise ValueError(f"num_experts is {self.num_experts}; there must be at least 2 to choose from")
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise ValueError(
                f"num_experts_per_tok is {self.num_experts_per_tok}; there are {self.num_experts} experts. "
                f"Choose from 1 to {self.num_experts}"
            )
        if self.num_experts_per_tok == 1 and self.norm_topk_prob:
            raise ValueError(
                "norm_topk_prob is true with num_experts_per_tok 1: the weight would always be 1, and the router learn nothing. "
                "Set it to false"
            )
        if self.every_n_layers < 1:
            raise ValueError(f"every_n_layers is {self.every_n_layers}; it must be at least 1")
        if self.intermediate_size is not None and self.intermediate_size < 1:
            raise ValueError(f"intermediate_size is {self.intermediate_size}; it must be at least 1")
        if self.shared_intermediate_size < 0:
            raise ValueError(
                f"shared_intermediate_size is {self.shared_intermediate_size}; it must be at least 0"
            )
        if self.capacity_factor is not None and not 0 < self.capacity_factor < math.inf:
            raise ValueError(
                f"capacity_factor is {self.capacity_factor:g}; it must be above 0, such as 1.25, or none, which drops no token"
            )

    def capacity(self, length: int) -> int:
        """Return how many tokens of a sequence an expert takes at most in training.

        With 8 experts, 2 a token and factor 1.25, of 32 tokens: 1.25 · 2 · 32 / 8 = 10.
        """
        if self.capacity_factor is None:
            return length
        share = self.capacity_factor * self.num_experts_per_tok * length / self.num_experts
        return math.ceil(share - 1e-9)  # 1.1 · 10 is a little more than 11 as a float


@dataclass(frozen=True, kw_only=True)
class RecursionConfig:
    """A block of layers that is run several times, with the same weights: as often for every token, or as a router says.

    Of an encoder's layers the first `num_first_layers` come before the block, `num_recursions` × `num_block_layers` are the block's,
    and the others follow it ("middle-cycle" in the paper). `routing` says how many recursions a token takes:

    | routing | recursions of a token |
    |---|---|
    | `fixed` | all, as in ALBERT, whose block is one layer |
    | `expert_choice` | each recursion takes the tokens of highest score among those of the one before: of a sequence (R - r) / R in recursion r of R, from 0 |
    | `token_choice` | those that the token's most probable depth says, chosen before the first |

    Tokens that stopped keep their vectors and are no longer attended to. `trained_recursions` is set where a model runs with fewer
    recursions than it was trained with.

    Raises:
        ValueError: a field is out of range, or two do not fit together.
    Source: Bae et al. 2025, https://arxiv.org/abs/2507.10524, sections 2.2 and 2.3.
    """

    routing: RecursionRouting = "expert_choice"
    num_recursions: int = 3
    num_block_layers: int = 1
    num_first_layers: int = 1
    trained_recursions: int | None = None

    def __post_init__(self) -> None:
        if self.routing not in get_args(RecursionRouting):
            raise ValueError(
                f"routing is {self.routing!r}; it must be one of {', '.join(get_args(RecursionRouting))}"
            )
        for name, least in (("num_recursions", 1), ("num_block_layers", 1), ("num_first_layers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.trained_recursions is not None and self.trained_recursions < self.num_recursions:
            raise ValueError(
                f"num_recursions is {self.num_recursions}; the model was trained with {self.trained_recursions}. Choose no more"
            )

    def check(self, *, num_hidden_layers: int, max_tokens: int, norm_first: bool, apart: bool) -> None:
        """Refuse an encoder that the block does not fit into; `apart` says that attention asks where tokens stand.

        Raises:
            ValueError: it does not.
        """
        if self.end > num_hidden_layers:
            raise ValueError(
                f"recursion.num_recursions is {self.num_recursions}: {self.num_first_layers} layers and "
                f"{self.num_recursions} × {self.num_block_layers} are {self.end}; num_hidden_layers is "
                f"{num_hidden_layers}, which counts layers as often as they are run. Raise it, or recur less"
            )
        if self.num_recursions > max_tokens:
            raise ValueError(
                f"recursion.num_recursions is {self.num_recursions}; a sequence has at most {max_tokens} tokens, "
                "and each recursion takes fewer. Recur less, or raise max_position_embeddings"
            )
        if norm_first and not self.num_first_layers:
            raise ValueError(
                "recursion.num_first_layers is 0; with norm_first the first layer has one norm less, so it cannot recur. Set 1"
            )
        if self.routed and apart:
            raise ValueError(
                f"recursion.routing is {self.routing!r}: attention is among some tokens of a text, whose places and distances are "
                "not known to it. It goes with learned and sinusoidal positions and global attention that is not low-rank; else set "
                "routing to fixed"
            )

    def fewer(self, count: int) -> RecursionConfig:
        """Return the same block run fewer times.

        Raises:
            ValueError: it was trained with fewer.
        """
        if not 1 <= count <= self.num_depths:
            raise ValueError(
                f"recursions is {count}; the model was trained with {self.num_depths}. Choose from 1 to {self.num_depths}"
            )
        if count == self.num_recursions:
            return self
        return replace(self, num_recursions=count, trained_recursions=self.num_depths)

    @property
    def routed(self) -> bool:
        """Say whether a router decides how many recursions a token takes."""
        return self.routing != "fixed"

    @property
    def num_depths(self) -> int:
        """How many recursions the router knows, whatever is run."""
        return self.trained_recursions or self.num_recursions

    @property
    def num_repeated_layers(self) -> int:
        """How many layers have the weights of an earlier one."""
        return (self.num_recursions - 1) * self.num_block_layers

    @property
    def end(self) -> int:
        """The number of the first layer behind the block's last recursion."""
        return self.num_first_layers + self.num_recursions * self.num_block_layers

    def step_of(self, layer: int) -> int | None:
        """Return the recursion, from 0, that a layer belongs to; None outside of the block."""
        inside = self.num_first_layers <= layer < self.end
        return (layer - self.num_first_layers) // self.num_block_layers if inside else None

    def module_of(self, layer: int) -> int:
        """Return the number of the module that computes a layer.

        With one layer before a block of 2 that is run 3 times: 0, 1 2, 1 2, 1 2, then 3 …
        """
        if layer < self.num_first_layers:
            return layer
        if layer < self.end:
            return self.num_first_layers + (layer - self.num_first_layers) % self.num_block_layers
        return layer - self.num_repeated_layers

    def num_selected(self, length: int, step: int) -> int:
        """Return how many tokens of a sequence take a recursion, by expert choice.

        Of 10 tokens and 3 recursions: 10, 7 and 4.
        """
        return -(-length * (self.num_depths - step) // self.num_depths)

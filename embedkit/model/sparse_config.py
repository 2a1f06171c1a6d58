"""How the logits of a masked language model become one weight for each term of the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

TermStrategy = Literal["max", "sum"]
TermActivation = Literal["relu", "log1p_relu"]


@dataclass(frozen=True, kw_only=True)
class TermPooling:
    """The weight of a term: the maximum, or sum, of log(1 + ReLU(logit)) over a text's tokens.

    With "log1p_relu" the logarithm is taken twice: log(1 + log(1 + ReLU(logit))).

    Source: Formal et al. 2021, https://arxiv.org/abs/2107.05720, eq. 1 (sum); https://arxiv.org/abs/2109.10086, eq. 6 (max); Geng et al.
    2024, https://arxiv.org/abs/2411.04403 (the second logarithm).

    Raises:
        ValueError: a field is none of its values.
    """

    strategy: TermStrategy = "max"
    activation: TermActivation = "relu"

    def __post_init__(self) -> None:
        for name, values in (("strategy", get_args(TermStrategy)), ("activation", get_args(TermActivation))):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(values)}")

"""What a text generator returns: texts with what there is to say about them, and likelihoods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Output:
    """A generated text. `score` compares outputs of one text; a `finished` one ended by itself; a `copied` one repeats its source."""

    text: str
    score: float
    finished: bool
    copied: bool


@dataclass(frozen=True)
class Generated:
    """What came of N texts. An encoder has nothing to read in an `empty` one, of which there are no outputs.

    Shapes:
        truncated, empty: (N,) bool; unknown: (N,) share of the tokens that the vocabulary does not know
    """

    outputs: list[list[Output]]
    truncated: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    unknown: NDArray[np.float64]
    num_tokens: int


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds texts: negative log-likelihood in nats, and over how many tokens."""

    nats: float
    tokens: int
    truncated: int = 0

    @property
    def perplexity(self) -> float:
        """The exponential of the mean over tokens, ends of texts among them."""
        return float(np.exp(self.nats / self.tokens))

    @property
    def bits(self) -> float:
        return self.nats / float(np.log(2))

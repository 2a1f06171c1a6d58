"""How rotary positions are scaled so that texts may be longer than those a model was trained with first. No torch here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args

FloatsT = TypeVar("FloatsT")  # a tensor or an array
RopeScaling = Literal["yarn", "llama3", "dynamic"]


@dataclass(frozen=True, kw_only=True)
class RopeScalingConfig:
    """Frequencies of rotary positions that are scaled unequally; all alike is `EncoderConfig.rope_factor`.

    | kind | frequencies |
    |---|---|
    | `yarn` | high ones stay, low ones are divided by `factor`, those between in part; queries and keys are multiplied by `attention_factor` |
    | `llama3` | the same with other bounds, and nothing multiplied |
    | `dynamic` | all of a larger base, the longer the text is beyond the first length |

    | field | meaning |
    |---|---|
    | `factor` | how many times longer texts may become |
    | `original_max_position_embeddings` | how many tokens texts had at most before |
    | `beta_fast`, `beta_slow` | of yarn: turns over that length above which a frequency stays, and below which it is divided whole |
    | `truncate` | of yarn: the bounds are rounded to whole frequencies |
    | `low_freq_factor`, `high_freq_factor` | of llama3: the same two numbers of turns, the low one first |

    Raises:
        ValueError: a field is out of range.
    Sources: Peng et al. 2023 (YaRN), https://arxiv.org/abs/2309.00071, section 3; Grattafiori et al. 2024 (Llama 3),
    https://arxiv.org/abs/2407.21783, section 3.2; emozilla 2023 (dynamic NTK), named in the first, section 3.3.
    """

    kind: RopeScaling
    factor: float
    original_max_position_embeddings: int
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(RopeScaling):
            raise ValueError(
                f"rope_scaling.kind is {self.kind!r}; it must be one of {', '.join(get_args(RopeScaling))}"
            )
        if self.original_max_position_embeddings < 1:
            raise ValueError(
                f"original_max_position_embeddings is {self.original_max_position_embeddings}; it must be at least 1"
            )
        if self.factor < 1:
            raise ValueError(f"factor of the rotary positions is {self.factor}; it must be at least 1")
        for name in ("attention_factor", "beta_fast", "beta_slow", "low_freq_factor", "high_freq_factor"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        for low, high in (("beta_slow", "beta_fast"), ("low_freq_factor", "high_freq_factor")):
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(
                    f"{low} is {getattr(self, low)}; it must be below {high}, {getattr(self, high)}"
                )

    @property
    def max_tokens(self) -> int:
        """How many tokens a text may have."""
        return int(self.factor * self.original_max_position_embeddings)

    def scaled(self, frequency: FloatsT, *, theta: float) -> FloatsT:
        """Return the frequencies of the pairs of a head, (d/2,), each divided by the factor in the share that the kind says.

        Those of `dynamic` stay as they are: there it is `theta` that depends on the text.
        """
        plain: Any = frequency  # whose arithmetic is the same for both
        if self.kind == "yarn":
            head_size, length = 2 * len(plain), self.original_max_position_embeddings
            low, high = (
                head_size * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))
                for turns in (self.beta_fast, self.beta_slow)
            )
            if self.truncate:
                low, high = math.floor(low), math.ceil(high)
            low, high = max(low, 0), min(high, head_size - 1)
            high += 0.001 if low == high else 0  # as the authors' code does: no division by zero
            place = (plain * 0 + 1).cumsum(0) - 1  # 0, 1, 2 …
            share = ((place - low) / (high - low)).clip(0, 1)
        elif self.kind == "llama3":
            turns_made = self.original_max_position_embeddings * plain / (2 * math.pi)
            share = (self.high_freq_factor - turns_made) / (self.high_freq_factor - self.low_freq_factor)
            share = share.clip(0, 1)
        else:
            return frequency
        return cast("FloatsT", plain * (1 - share) + plain / self.factor * share)

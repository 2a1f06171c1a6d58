"""How texts are generated. No torch here: recipes and the command line read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from embedkit.errors import CheckpointError, RecipeError
from embedkit.recipe import build

Method = Literal["greedy", "beam", "sample"]


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How outputs are chosen, and how many of each text.

    `greedy` takes the likeliest token each time. `beam` keeps the `num_beams` best beginnings; outputs are compared by their
    log-likelihood over their length to the power of `length_penalty`. `sample` draws tokens: probabilities are sharpened by a
    `temperature` below 1, then cut to the `top_k` likeliest, then to the fewest that make up `top_p` (Holtzman et al. 2020,
    https://arxiv.org/abs/1904.09751); what is drawn depends on `seed` and the text's place in the input alone.
    `no_repeat_ngram` of n lets no n tokens come twice in a row; 0 lets them.

    Raises:
        ValueError: a field is out of range, or two do not fit together.
    """

    method: Method = "beam"
    num_outputs: int = 1
    num_beams: int = 4
    length_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    min_new_tokens: int = 1
    max_new_tokens: int = 64
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        for name, least in (("num_outputs", 1), ("num_beams", 1), ("max_new_tokens", 1), ("top_k", 1)):
            self._check_least(name, least)
        for name in ("min_new_tokens", "no_repeat_ngram", "seed"):
            self._check_least(name, 0)
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; it must be above 0")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"min_new_tokens is {self.min_new_tokens}; it must be at most max_new_tokens {self.max_new_tokens}"
            )
        if self.method == "greedy" and self.num_outputs > 1:
            raise ValueError(
                f"num_outputs is {self.num_outputs} with method greedy, which gives one; take sample, or beam"
            )
        if self.method == "beam" and self.num_outputs > self.num_beams:
            raise ValueError(
                f"num_outputs is {self.num_outputs} of {self.num_beams} beams; it must be at most num_beams"
            )

    def _check_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")

    @property
    def rows(self) -> int:
        """How many sequences of each text are decoded side by side."""
        return self.num_beams if self.method == "beam" else self.num_outputs


def resolve_options(
    own: Mapping[str, Any], given: Mapping[str, object], where: str
) -> GenerationOptions:  # Any: JSON values
    """Lay what the user gave over what the model's folder says, over the defaults; None counts as not given.

    More outputs than the folder's beams widen the search, unless the user says how wide it is.

    Raises:
        CheckpointError: the folder has an unknown option.
        RecipeError: a value is out of range, or two do not fit together.
    """
    known = {field.name for field in fields(GenerationOptions)}
    if unknown := sorted(set(own) - known):
        raise CheckpointError(
            f"{where}: generation has {unknown[0]!r}, which is no option here; known are {', '.join(sorted(known))}. Upgrade embedkit"
        )
    values = {**own, **{name: value for name, value in given.items() if value is not None}}
    wanted = int(values.get("num_outputs", 1))
    if given.get("num_beams") is None and wanted > values.get("num_beams", GenerationOptions.num_beams):
        values["num_beams"] = wanted
    try:
        return build(GenerationOptions, values, where)
    except RecipeError as exc:
        raise RecipeError(f"{exc}. Change the option") from exc

"""The shapes of what learns how token vectors become a sentence's, and how two of those are compared. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Combine = Literal["mean", "concat"]
LearnedKind = Literal["bilinear", "additive", "fields"]
SimilarityKind = Literal["cosine", "dot", "scaled", "bilinear", "additive"]
# Of a field of documents. Vectors of queries are as long as the weights: smaller ones would be lost in their rounding.
LEAST_LOG_WEIGHT = -20.0


@dataclass(frozen=True, kw_only=True)
class AttentionPoolingConfig:
    """Pooling by attention: each of `aspects` weighs the tokens by two layers, the inner one of `size`.

    One aspect is additive attention over the tokens, several are the structured self-attention of Lin et al. 2017. Their vectors are
    averaged (`mean`) or concatenated (`concat`); a dense layer after that projects them.
    """

    aspects: int = 1
    size: int = 128
    combine: Combine = "mean"

    def __post_init__(self) -> None:
        for name in ("aspects", "size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.combine not in get_args(Combine):
            raise ValueError(f"combine is {self.combine!r}; it must be one of {', '.join(get_args(Combine))}")

    def pooled_size(self, hidden_size: int) -> int:
        return hidden_size * (self.aspects if self.combine == "concat" else 1)


@dataclass(frozen=True, kw_only=True)
class SimilarityConfig:
    """A similarity of sentence vectors with weights of its own; `size` is the width of the additive one's inner layer.

    That of `fields` compares queries with documents that have several of these, each by an expert of its own.
    """

    kind: LearnedKind
    size: int = 128
    fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(LearnedKind):
            raise ValueError(
                f"similarity is {self.kind!r}; it must be one of {', '.join(get_args(LearnedKind))}"
            )
        if (self.kind == "fields") != bool(self.fields):
            raise ValueError(
                f"fields are {list(self.fields)} of a {self.kind} similarity; that of 'fields' alone has some"
            )
        check_fields(self.fields)
        if self.size < 1:
            raise ValueError(f"similarity size is {self.size}; it must be at least 1")


def check_fields(fields: tuple[str, ...]) -> None:
    """Refuse names of fields that are empty or stand twice.

    Raises:
        ValueError: one does.
    """
    for number, name in enumerate(fields):
        if not name.strip():
            raise ValueError(f"fields are {list(fields)}; number {number + 1} has no name")
        if name in fields[:number]:
            raise ValueError(f"fields are {list(fields)}; {name!r} stands there twice")

"""How to search: plain values, which the command line, a server and a program hand to a `Retriever`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import Literal, get_args

Mode = Literal["dense", "text", "hybrid"]
Fusion = Literal["scores", "ranks"]

# Of words, when a folder is searched: amid the weights among which the half of the questions that is for choosing knows no difference
# (`benchmarks/grep_quality.py weights`).
FOLDER_TEXT_WEIGHT = 0.3


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How to search.

    `candidates` are fetched from each side for fusing and reranking; `rerank_budget_seconds` reranks as deep as fits. `rerank_weight`
    is the part of its score in the order of hits (None: the reranker's own). `group` gives one hit a document, its best passage.
    `min_score` drops hits whose final score is lower; what a score is depends on the mode: a cosine, BM25, the fused score or
    the reranker's.
    """

    k: int = 10
    mode: Mode = "dense"
    where: str | None = None
    candidates: int = 100
    dense_weight: float = 1.0
    text_weight: float = 1.0
    fusion: Fusion = "scores"
    rerank_weight: float | None = None
    group: bool = False
    min_score: float | None = None
    rerank_budget_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode is {self.mode!r}; it must be one of {', '.join(get_args(Mode))}")
        if self.fusion not in get_args(Fusion):
            raise ValueError(f"fusion is {self.fusion!r}; it must be one of {', '.join(get_args(Fusion))}")
        for name in ("k", "candidates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.rerank_weight is not None and not 0 <= self.rerank_weight <= 1:
            raise ValueError(f"rerank_weight is {self.rerank_weight}; it must be from 0 to 1")
        if self.min_score is not None and isnan(self.min_score):
            raise ValueError("min_score is nan, which no score reaches; it must be a number")
        weights = (self.dense_weight, self.text_weight)
        if not all(0 <= weight < float("inf") for weight in weights):
            raise ValueError(f"the weights are {weights}; they must be finite and not negative")
        if not any(weights):
            raise ValueError("the weights of meaning and of words are both 0; one must be larger")

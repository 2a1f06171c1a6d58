"""The options of pipelines, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from indexes.types import Metric, Storage


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How an index is made of documents or vectors.

    `metric` None compares vectors as the model's folder says, and ready ones by cosine. `storage` None keeps them as float32, those of tokens as 2-bit. `chunk_tokens` None cuts documents into passages of 256 tokens, or of what the model reads where that is less; 0 never cuts.
    """

    chunk_tokens: int | None = None
    chunk_overlap: int = 32
    storage: Storage | None = None
    metric: Metric | None = None
    sync: bool = False
    commit_every: int = 4096

"""The choices that an index leaves: how vectors are stored, compared and searched."""

from __future__ import annotations

from typing import Literal

Storage = Literal[
    "float32", "float16", "int8", "binary", "2-bit", "4-bit"
]  # the last two of token vectors alone
Metric = Literal["cosine", "dot", "l2"]
Kind = Literal["flat", "hnsw", "ivf-flat", "ivf-pq"]
VectorKind = Literal["dense", "multi-vector", "sparse"]  # what an index holds of each passage

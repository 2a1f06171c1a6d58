"""The choices that an index leaves: how vectors are stored, compared and searched."""

from __future__ import annotations

from typing import Literal

Storage = Literal["float32", "float16", "int8", "binary"]
Metric = Literal["cosine", "dot", "l2"]
Kind = Literal["flat", "hnsw", "ivf-flat", "ivf-pq"]

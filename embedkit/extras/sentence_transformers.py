"""Encoding with sentence-transformers, to compare our vectors with its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sentence_transformers
import transformers

from embedkit.types import Float32


def encode(folder: Path, texts: Sequence[str]) -> Float32:
    """Encode texts with sentence-transformers, fp32, on the CPU: -> (N, E) float32."""
    transformers.logging.set_verbosity_error()  # no report on the pooler, which sentence vectors do not need
    transformers.logging.disable_progress_bar()
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    model.float()  # a folder stored in half precision is loaded in it, and would be computed in it
    return np.asarray(model.encode(list(texts), show_progress_bar=False), dtype=np.float32)

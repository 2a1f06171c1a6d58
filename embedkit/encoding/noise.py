"""How alike a model finds texts that have nothing to do with each other: measured once on the sample texts, then remembered."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np

from embedkit.encoding.encoder import Encoder
from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.inference.sample import SAMPLE_TEXTS
from embedkit.retrieval.noise import CosineNoise
from embedkit.storage.cache import keep_note, read_note
from embedkit.storage.hashing import json_digest

# Longer ones take most of the time, and change the mean and the deviation by less than .01.
MAX_CHARACTERS = 250


def cosine_noise(encoder: Encoder) -> CosineNoise:
    """Return mean and deviation of the cosines of each sample text as a query to all others as documents.

    No two of them are about one thing. It is kept in the cache under the model's fingerprint.
    """
    about = {"model": encoder.fingerprint, "texts": SAMPLE_TEXTS, "characters": MAX_CHARACTERS}
    note = f"noise/{json_digest(about)[:16]}.json"
    known = _read(note)
    if known is None:
        known = _measure(encoder)
        keep_note(note, json.dumps(asdict(known)) + "\n")
    return known


def _measure(encoder: Encoder) -> CosineNoise:
    texts = [text for text in SAMPLE_TEXTS if len(text) <= MAX_CHARACTERS]
    queries, documents = map(normalize, (encoder.encode_queries(texts), encoder.encode_documents(texts)))
    cosines = (queries @ documents.T)[~np.eye(len(texts), dtype=bool)]  # (N * (N - 1),)
    return CosineNoise(float(cosines.mean()), float(cosines.std()))


def _read(note: str) -> CosineNoise | None:
    """Return what was measured before; None where the note is missing or not whole."""
    try:
        return CosineNoise(**json.loads(read_note(note) or ""))
    except (ValueError, TypeError):
        return None

"""How alike a model finds texts that have nothing to do with each other: measured once on the sample texts, then remembered."""

from __future__ import annotations

import json
from dataclasses import asdict
from weakref import WeakKeyDictionary

from embedkit.encoding.encoder import Encoder
from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.inference.sample import SAMPLE_TEXTS
from embedkit.retrieval.strength import CosineNoise
from embedkit.storage.cache import keep_note, read_note
from embedkit.storage.hashing import json_digest

# Somebody waits for it. With all texts, at six times the cost, mean and deviation differ by .01 at most.
MAX_CHARACTERS = 65
_KNOWN: WeakKeyDictionary[Encoder, CosineNoise] = WeakKeyDictionary()  # a server asks for each query


def cosine_noise(encoder: Encoder) -> CosineNoise:
    """Return mean and deviation of the cosines of each short sample text as a query to all others as documents.

    With a model of documents with fields it is their scores, every field of a document holding its text. No two of them are about one thing. It is kept in the cache under the model's fingerprint.
    """
    if encoder in _KNOWN:
        return _KNOWN[encoder]
    texts = [text for text in SAMPLE_TEXTS if len(text) <= MAX_CHARACTERS]
    note = f"noise/{json_digest({'model': encoder.fingerprint, 'texts': texts})[:16]}.json"
    known = _read(note)
    if known is None:
        known = _measure(encoder, texts)
        keep_note(note, json.dumps(asdict(known)) + "\n")
    _KNOWN[encoder] = known
    return known


def _measure(encoder: Encoder, texts: list[str]) -> CosineNoise:
    if encoder.fields:
        filled = [dict[str, str | None].fromkeys(encoder.fields, text) for text in texts]
        return CosineNoise.of(
            encoder.similarity(encoder.encode_queries(texts), encoder.encode_documents(filled))
        )
    query, document = encoder.role_prompt("query"), encoder.role_prompt("document")
    queries = documents = normalize(encoder.of_role("query").encode(texts, prompt=query, on_truncate="ok"))
    if query != document or encoder.sides:
        documents = normalize(encoder.of_role("document").encode(texts, prompt=document, on_truncate="ok"))
    return CosineNoise.between(queries, documents)


def _read(note: str) -> CosineNoise | None:
    """Return what was measured before; None where the note is missing or not whole."""
    try:
        return CosineNoise(**json.loads(read_note(note) or ""))
    except (ValueError, TypeError):
        return None

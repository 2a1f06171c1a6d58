"""What stands in for an encoder: vectors that are a function of the text alone."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedkit.data.records import Document
from embedkit.retrieval.token_vectors import TokenVectors
from indexes import Index, Settings
from indexes.storage.codes import FloatArray

DIMENSION = 16


def embed(texts: Sequence[str]) -> FloatArray:
    """Return (N, 16) vectors; the same text has the same vector in every process."""
    rows = [np.frombuffer(hashlib.sha512(text.encode()).digest(), np.uint8)[:DIMENSION] for text in texts]
    return (np.asarray(rows, np.float32).reshape(-1, DIMENSION) - np.float32(127.5)) / np.float32(64)


def embed_tokens(texts: Sequence[str]) -> TokenVectors:
    """Return a vector of 16 numbers for each word: the same word has the same one."""
    words = [text.split() for text in texts]
    vectors = embed([word for some in words for word in some])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return TokenVectors(vectors, np.array([len(some) for some in words], np.int64))


def documents(count: int, *, source: str = "notes.jsonl", version: int = 1) -> list[Document]:
    return [
        Document(
            f"note-{number:04d}",
            f"Note {number} of version {version} is about topic {number % 7}.",
            f"Title {number}",
            {"topic": number % 7, "lang": "en" if number % 2 else "de"},
            source,
            number + 1,
        )
        for number in range(count)
    ]


def create(folder: Path, count: int = 0, **settings: object) -> Index:
    """Make an index with `count` documents in one commit, open for writing."""
    chosen: dict[str, object] = {"dimension": DIMENSION, **settings}
    index = Index.create(folder, Settings(**chosen))  # type: ignore[arg-type]  # tests give the right ones
    if count:
        docs = documents(count)
        texts = [f"{doc.title} {doc.text}" for doc in docs]
        index.add(docs, embed_tokens(texts) if index.settings.kind == "multi-vector" else embed(texts))
    return index


def create_tokens(folder: Path, count: int = 0, storage: str = "2-bit") -> Index:
    """Make an index of token vectors with `count` documents in one commit, open for writing."""
    return create(folder, count, storage=storage, kind="multi-vector")


def halves(title: str, text: str) -> list[tuple[int, int]]:
    """Cut a text into two passages, as `build` wants it cut."""
    return [(0, 5), (5, len(text))]

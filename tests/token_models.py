"""A multi-vector model without weights of its own: the token vectors of a tiny dense model, whose folder says so in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from embedkit.encoding.encoder import Encoder
from embedkit.retrieval.token_vectors import TokenVectors
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import OnTruncate, TextRole
from tests.tiny import write_tiny_model

MARK = "multi_vector"  # a file of the folder


@dataclass(frozen=True)
class _Window:
    vectors: TokenVectors
    truncated: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    num_tokens: int


class FakeTokenEncoder:
    """Special tokens have no vectors."""

    fields: tuple[str, ...] = ()
    precision = "fp32"

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.choice = encoder, encoder.choice
        self.folder = SimpleNamespace(
            path=encoder.folder.path,
            name=encoder.folder.name,
            modules=SimpleNamespace(prompt=lambda role: "dog "),
        )
        self.dimension = encoder.folder.config.hidden_size
        self.fingerprint = {**encoder.fingerprint, "kind": "multi-vector"}

    @classmethod
    def load(cls, folder: str | Path, **_: Any) -> FakeTokenEncoder:
        return cls(Encoder.load(folder))

    def tokenizer(self, role: TextRole) -> Tokenizer:
        return self._encoder.tokenizer

    def encode_windows(
        self, texts: Iterable[str], *, role: TextRole, on_truncate: OnTruncate
    ) -> Iterator[_Window]:
        prompt = self.folder.modules.prompt(role)
        batch = self._encoder.tokenizer.encode([prompt + text for text in texts])
        hidden = self._encoder.token_vectors(batch)
        owners = np.repeat(np.arange(len(batch.lengths)), batch.lengths)
        at = np.arange(len(hidden)) - np.repeat(np.cumsum(batch.lengths) - batch.lengths, batch.lengths)
        own = (at > 0) & (at < batch.lengths[owners] - 1)
        vectors = hidden[own] / np.linalg.norm(hidden[own], axis=1, keepdims=True)
        counts = np.bincount(owners[own], minlength=len(batch.lengths))
        nothing = np.zeros(len(counts), np.bool_)
        yield _Window(TokenVectors(vectors, counts), batch.truncated, counts == 0, nothing, len(hidden))


def write_token_model(folder: Path) -> Path:
    """Write a folder that `use_fakes` takes for a multi-vector model."""
    write_tiny_model(folder)
    (folder / MARK).touch()
    return folder


def use_fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything load FakeTokenEncoder where a folder has the mark."""
    kinds, encoders = ModuleType("kinds"), ModuleType("encoders")
    vars(kinds)["is_multi_vector"] = lambda folder: (Path(folder) / MARK).exists()
    vars(encoders)["MultiVectorEncoder"] = SimpleNamespace(load=FakeTokenEncoder.load)
    monkeypatch.setitem(sys.modules, "embedkit.checkpoint.multi_vector", kinds)
    monkeypatch.setitem(sys.modules, "embedkit.encoding.multi_vector", encoders)

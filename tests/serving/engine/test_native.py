"""On our kernels an answer has the same bits whatever else is computed with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedkit.encoding.encoder import Encoder
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.serving.engine.engine import EmbedWork, Engine, ScoreWork
from tests.native.models import skip_unless_native
from tests.serving.engine.fakes import PATIENCE_SECONDS
from tests.tiny import WORDS, tiny_config, write_tiny_model
from tests.tiny_cross_encoder import write_tiny_cross_encoder

CONFIG = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    generator = np.random.default_rng(7)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 30))) for _ in range(60)]


def test_vectors_have_the_same_bits_in_any_company(tmp_path: Path, texts: list[str]) -> None:
    skip_unless_native("fp32")
    folder = write_tiny_model(tmp_path / "model", config=tiny_config(**CONFIG))
    encoder = Encoder.load(folder, device="cpu", backend="native")
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    with Engine() as engine:
        futures = [
            engine.embed(EmbedWork(encoder=encoder, texts=texts[start : start + size]))
            for size in (1, 3, 60)
            for start in range(0, len(texts), size)
        ]
        answers = [future.result(PATIENCE_SECONDS).vectors for future in futures]
    np.testing.assert_array_equal(np.concatenate(answers), np.concatenate([alone] * 3))


def test_scores_have_the_same_bits_in_any_company(tmp_path: Path, texts: list[str]) -> None:
    skip_unless_native("fp32")
    folder = write_tiny_cross_encoder(tmp_path / "model", **CONFIG)  # type: ignore[arg-type] # the encoder's shape
    model = CrossEncoder.load(folder, device="cpu", backend="native")
    alone = np.concatenate([model.score("the girl plays", [text]) for text in texts])
    with Engine() as engine:
        futures = [
            engine.score(ScoreWork(model=model, queries=["the girl plays"] * size, texts=texts[:size]))
            for size in range(1, 60, 7)
        ]
        for size, future in zip(range(1, 60, 7), futures, strict=True):
            np.testing.assert_array_equal(future.result(PATIENCE_SECONDS).scores, alone[:size])

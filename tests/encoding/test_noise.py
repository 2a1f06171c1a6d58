"""The noise of a model's cosines is measured once."""

from pathlib import Path

import numpy as np
import pytest

from embedkit.encoding.encoder import Encoder
from embedkit.encoding.noise import MAX_CHARACTERS, cosine_noise
from embedkit.inference.sample import SAMPLE_TEXTS
from embedkit.models import ENCODER, shipped
from embedkit.types import OnTruncate
from tests.tiny import write_tiny_model


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path))
    return tmp_path


def test_noise_is_measured_once_and_remembered_by_the_fingerprint(cache: Path) -> None:
    encoder = Encoder.load(shipped(ENCODER), interactive=True)
    found = cosine_noise(encoder)
    assert (found.mean, found.deviation) == pytest.approx((0.05, 0.07), abs=0.01)
    (note,) = (cache / "noise").iterdir()
    note.write_text('{"mean": 0.5, "deviation": 0.1}', encoding="utf-8")
    assert cosine_noise(encoder) == found  # by itself
    assert cosine_noise(Encoder.load(shipped(ENCODER), interactive=True)).mean == 0.5
    assert cosine_noise(Encoder.load(shipped(ENCODER), interactive=True, truncate_dim=64)).mean != 0.5
    note.write_text("{", encoding="utf-8")
    assert cosine_noise(Encoder.load(shipped(ENCODER), interactive=True)) == found


def test_short_texts_say_nearly_what_all_texts_say(cache: Path) -> None:
    encoder = Encoder.load(shipped(ENCODER), interactive=True)
    vectors = encoder.encode(SAMPLE_TEXTS)
    cosines = (vectors @ vectors.T)[~np.eye(len(vectors), dtype=bool)]
    found = cosine_noise(encoder)
    assert (found.mean, found.deviation) == pytest.approx((cosines.mean(), cosines.std()), abs=0.025)


def test_queries_and_documents_have_their_prompts(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []
    encode = Encoder.encode

    def watched(self: Encoder, texts: list[str], *, prompt: str, on_truncate: OnTruncate) -> object:
        asked.append(prompt)
        return encode(self, texts, prompt=prompt, on_truncate=on_truncate)

    monkeypatch.setattr(Encoder, "encode", watched)
    plain = cosine_noise(Encoder.load(write_tiny_model(tmp_path / "plain"), interactive=True))
    assert asked == [""]  # once for both
    prompts = {"query": "which: ", "document": "the song: "}
    prompted = cosine_noise(Encoder.load(write_tiny_model(tmp_path / "m", prompts=prompts), interactive=True))
    assert asked[1:] == ["which: ", "the song: "]
    assert prompted != plain


def test_there_are_enough_short_sample_texts() -> None:
    assert sum(len(text) <= MAX_CHARACTERS for text in SAMPLE_TEXTS) >= 20

"""The noise of a model's cosines is measured once."""

from pathlib import Path

import pytest

from embedkit.encoding.encoder import Encoder
from embedkit.encoding.noise import MAX_CHARACTERS, cosine_noise
from embedkit.inference.sample import SAMPLE_TEXTS
from embedkit.models import ENCODER, shipped


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path))
    return tmp_path


def test_noise_is_measured_once_and_remembered_by_the_fingerprint(cache: Path) -> None:
    encoder = Encoder.load(shipped(ENCODER), interactive=True)
    found = cosine_noise(encoder)
    assert (found.mean, found.deviation) == pytest.approx((0.05, 0.086), abs=0.01)
    assert found.floor == pytest.approx(0.221, abs=0.02)
    (note,) = (cache / "noise").iterdir()
    note.write_text('{"mean": 0.5, "deviation": 0.1}', encoding="utf-8")
    assert cosine_noise(encoder).mean == 0.5
    assert cosine_noise(Encoder.load(shipped(ENCODER), interactive=True, truncate_dim=64)).mean != 0.5
    note.write_text("{", encoding="utf-8")
    assert cosine_noise(encoder) == found


def test_no_sample_text_is_too_long_and_there_are_enough() -> None:
    assert sum(len(text) <= MAX_CHARACTERS for text in SAMPLE_TEXTS) >= 30

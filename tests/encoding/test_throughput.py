"""How fast an encoder is, measured for as long as it is worth."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedkit.encoding import throughput
from embedkit.encoding.encoder import Encoder


def test_a_call_that_takes_long_is_made_once_and_others_three_times(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(tiny_model)
    taken = iter([9.0, 0.1, 0.4, 0.5, 0.6, 0.1, 4.0, 4.0])
    monkeypatch.setattr(throughput, "_timed", lambda encoder, texts: next(taken))
    found = list(throughput.measure_encoding(encoder, lengths=[8], batches=[1, 2, 3], seconds=1.0))
    assert [(each.batch, each.seconds, each.calls) for each in found] == [
        (1, 9.0, 1),
        (2, 0.5, 3),
        (3, 4.0, 2),
    ]


def test_without_a_time_three_calls_are_made(tiny_model: Path) -> None:
    (found,) = throughput.measure_encoding(Encoder.load(tiny_model), lengths=[8], batches=[2], seconds=0.0)
    assert (found.calls, found.length, found.batch) == (3, 8, 2)

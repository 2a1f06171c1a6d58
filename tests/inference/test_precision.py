"""Precisions are compared once, by their cosine to fp32 and their speed; the finding is kept and used again."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from embedkit.encoding.encoder import Encoder
from embedkit.errors import DeviceError
from embedkit.inference.choice import Choice, PrecisionFinding
from embedkit.inference.precision import fastest_good, settle
from embedkit.inference.precision_measuring import BUDGET_SECONDS, Sample
from embedkit.inference.sample import SAMPLE_TEXTS
from embedkit.types import Float32, Precision
from tests.conftest import needs_half_precision

MODEL = {"weights": "abc"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("embedkit.inference.precision_measuring.SECONDS", 0.0)
    return tmp_path / "cache"


class Machine:
    """Has fp32, bf16 and int8; the lower two are faster, and int8 is off by an angle."""

    def __init__(self, *, angle: float = 0.1) -> None:
        self.angle = angle
        self.loaded: list[Precision] = []

    def choose(self, precision: Precision) -> Choice:
        if precision == "fp16":
            raise DeviceError("no fp16")
        return Choice("native", "cpu", precision, "")

    def load(self, choice: Choice) -> Sample:
        self.loaded.append(choice.precision)
        seconds = {"fp32": 0.02, "bf16": 0.01, "int8": 0.002}[choice.precision]
        angle = {"fp32": 0.0, "bf16": 0.001, "int8": self.angle}[choice.precision]

        def run(first: int, last: int) -> Float32:
            stop = time.process_time() + seconds
            while time.process_time() < stop:
                pass
            rows = np.tile(np.array([np.cos(angle), np.sin(angle)], np.float32), (4, 1))
            rows[0] = [np.cos(2 * angle), np.sin(2 * angle)]
            return rows

        return Sample(1, run)


def nothing_to_do(first: int, last: int) -> Float32:
    return np.ones((4, 2), np.float32)


def test_auto_takes_the_fastest_that_is_good_enough(cache: Path) -> None:
    """cos .1 = .99500 three times and cos .2 = .98007 once: mean .99127."""
    machine = Machine()
    choice = settle("auto", machine.choose, machine.load, MODEL)
    assert choice.precision == "bf16"
    assert machine.loaded == ["fp32", "bf16", "int8"]
    by_name = {finding.precision: finding for finding in choice.findings}
    assert by_name["int8"].mean_cosine == pytest.approx(0.99127, abs=1e-5)
    assert by_name["int8"].worst_cosine == pytest.approx(0.98007, abs=1e-5)
    assert by_name["fp32"].mean_cosine == pytest.approx(1)
    assert choice.finding == by_name["bf16"]
    assert (
        by_name["fp32"].texts_per_second < by_name["bf16"].texts_per_second < by_name["int8"].texts_per_second
    )
    better = Machine(angle=0.001)
    assert settle("auto", better.choose, better.load, {"weights": "other"}).precision == "int8"
    assert len(list((cache / "precision").iterdir())) == 2


def test_what_was_found_is_kept_by_model_and_by_what_computes_it() -> None:
    first, second, third = Machine(), Machine(), Machine()
    found = settle("auto", first.choose, first.load, MODEL)
    assert settle("auto", second.choose, second.load, MODEL) == found
    assert second.loaded == []
    settle("auto", third.choose, third.load, {"weights": "other"})
    assert third.loaded == ["fp32", "bf16", "int8"]
    other = Machine()
    other.choose = lambda precision: Choice("torch", "cpu", precision, "")  # type: ignore[method-assign]
    settle("auto", other.choose, lambda choice: Sample(1, nothing_to_do), MODEL)
    assert settle("auto", Machine().choose, Machine().load, MODEL) == found


def test_another_gpu_in_the_same_machine_is_measured_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(choice: Choice) -> Sample:
        loaded.append(choice.precision)
        return Sample(1, nothing_to_do)

    for gpu in ("A", "A", "B"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda gpu=gpu: gpu)
        settle("auto", lambda precision: Choice("torch", "cuda", precision, ""), load, MODEL)
    assert loaded == 2 * ["fp32", "bf16", "fp16", "int8"]


def test_int8_is_measured_too_so_that_its_quality_can_be_told() -> None:
    machine = Machine()
    choice = settle("int8", machine.choose, machine.load, MODEL)
    assert choice.precision == "int8"
    assert choice.finding is not None
    assert choice.finding.mean_cosine == pytest.approx(0.99127, abs=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_precision_that_was_named_is_taken_without_measuring(precision: Precision) -> None:
    machine = Machine()
    choice = settle(precision, machine.choose, machine.load, MODEL)
    assert (choice.precision, choice.findings, machine.loaded) == (precision, (), [])
    with pytest.raises(DeviceError, match="no fp16"):
        settle("fp16", machine.choose, machine.load, MODEL)


def test_without_measuring_auto_is_what_is_known_and_else_fp32() -> None:
    machine = Machine()
    assert settle("auto", machine.choose, machine.load, MODEL, measure=False).precision == "fp32"
    assert machine.loaded == []
    settle("auto", machine.choose, machine.load, MODEL)
    assert settle("auto", machine.choose, machine.load, MODEL, measure=False).precision == "bf16"


class SlowMachine(Machine):
    """Takes as long as it is told, by a clock of its own: `seconds` for the sample in each precision, and to load."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, load: float = 0.0, **seconds: float) -> None:
        super().__init__()
        self.loading, self.seconds, self.now = load, seconds, 0.0
        self.computed: list[tuple[str, int, int]] = []
        clock = SimpleNamespace(perf_counter=lambda: self.now, process_time=lambda: self.now)
        monkeypatch.setattr("embedkit.inference.precision_measuring.time", clock)
        monkeypatch.setattr("embedkit.inference.precision_measuring.SECONDS", 1.0)

    def choose(self, precision: Precision) -> Choice:
        if precision not in self.seconds:
            raise DeviceError(f"no {precision}")
        return Choice("native", "cpu", precision, "")

    def load(self, choice: Choice) -> Sample:
        self.loaded.append(choice.precision)
        self.now += self.loading

        def compute(first: int, last: int) -> Float32:
            sixteenths = (0, 1, 2, 4, 8, 16)
            self.computed.append((choice.precision, first, last))
            self.now += self.seconds[choice.precision] / 16 * (sixteenths[last] - sixteenths[first])
            return np.ones((3 * (sixteenths[last] - sixteenths[first]), 2), np.float32)

        return Sample(5, compute)


def test_a_fast_model_is_measured_on_the_whole_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = SlowMachine(monkeypatch, fp32=0.2, bf16=0.19, int8=0.02)
    choice = settle("auto", machine.choose, machine.load, MODEL)
    assert (choice.precision, choice.unmeasured) == ("int8", ())
    assert [finding.texts_per_second for finding in choice.findings] == [240, 253, 2400]  # 48 texts
    calls = [machine.computed.count((precision, 0, 5)) for precision in ("fp32", "bf16", "int8")]
    assert calls == [5, 5, 1]  # one is enough for what is clear
    assert machine.now < BUDGET_SECONDS


@pytest.mark.parametrize("slowness", [1.0, 3.0, 7.0, 20.0, 60.0])
@pytest.mark.parametrize("load", [0.0, 0.5, 2.0])
def test_measuring_keeps_to_its_time(monkeypatch: pytest.MonkeyPatch, slowness: float, load: float) -> None:
    """It was 18 s where the sample took 1.5 s in fp32, and as long to load as that."""
    machine = SlowMachine(monkeypatch, load=load, fp32=slowness, bf16=slowness / 2, int8=slowness / 1.5)
    choice = settle("auto", machine.choose, machine.load, MODEL)
    first_result = load + slowness / 16
    assert machine.now <= max(BUDGET_SECONDS, first_result)
    measured = [finding.precision for finding in choice.findings]
    assert measured == machine.loaded
    assert [*measured, *choice.unmeasured] == ["fp32", "bf16", "int8"]
    assert choice.precision == ("bf16" if "bf16" in measured else "fp32")
    if first_result < BUDGET_SECONDS / 4:
        assert measured == ["fp32", "bf16", "int8"]
    by_name = {finding.precision: finding.texts_per_second for finding in choice.findings}
    assert by_name.get("bf16", 2 * by_name["fp32"]) == pytest.approx(2 * by_name["fp32"], rel=0.01)


def test_what_there_was_no_time_for_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = SlowMachine(monkeypatch, load=3.0, fp32=16.0, bf16=8.0)
    first = settle("auto", machine.choose, machine.load, MODEL)
    assert (first.precision, first.unmeasured, first.fresh) == ("fp32", ("bf16",), True)
    assert machine.loaded == ["fp32"]
    again = settle("auto", machine.choose, machine.load, MODEL)
    assert (again, again.fresh, machine.loaded) == (first, False, ["fp32"])
    asked = settle("bf16", machine.choose, machine.load, MODEL)
    assert (asked.precision, machine.loaded) == ("bf16", ["fp32"])


def test_a_precision_that_is_far_slower_is_left_after_a_part_of_the_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = SlowMachine(monkeypatch, fp32=0.4, bf16=40.0, int8=0.1)
    choice = settle("auto", machine.choose, machine.load, MODEL)
    assert choice.precision == "int8"
    assert [each for each in machine.computed if each[0] == "bf16"] == [("bf16", 0, 1)]
    slow = next(finding for finding in choice.findings if finding.precision == "bf16")
    assert slow.texts_per_second == pytest.approx(1.2)
    assert machine.now < BUDGET_SECONDS


@pytest.mark.parametrize("content", ["", "{", "[]", '[{"precision": "fp32"}]', '{"a": 1}', "[1]"])
def test_a_damaged_note_is_measured_again(cache: Path, content: str) -> None:
    machine = Machine()
    found = settle("auto", machine.choose, machine.load, MODEL)
    (note,) = (cache / "precision").iterdir()
    assert len(json.loads(note.read_text(encoding="utf-8"))) == 3
    note.write_text(content, encoding="utf-8")
    machine.loaded.clear()
    assert settle("auto", machine.choose, machine.load, MODEL).precision == found.precision
    assert machine.loaded == ["fp32", "bf16", "int8"]


def test_nothing_is_lost_where_the_cache_cannot_be_written(cache: Path) -> None:
    cache.write_text("a file, no folder", encoding="utf-8")
    machine = Machine()
    assert settle("auto", machine.choose, machine.load, MODEL).precision == "bf16"


def test_fp32_is_taken_where_nothing_is_known() -> None:
    assert fastest_good([]) == "fp32"
    assert (
        fastest_good([PrecisionFinding("fp32", 1, 1, 10), PrecisionFinding("bf16", 0.99989, 0.9, 99)])
        == "fp32"
    )


def test_the_sample_is_varied_and_its_texts_are_all_different() -> None:
    assert len(SAMPLE_TEXTS) == len(set(SAMPLE_TEXTS)) == 48
    assert min(map(len, SAMPLE_TEXTS)) < 5
    assert max(map(len, SAMPLE_TEXTS)) > 700


@needs_half_precision
def test_an_encoder_finds_its_precision_and_says_which(tiny_model: Path, cache: Path) -> None:
    encoder = Encoder.load(tiny_model, device="cpu", precision="auto")
    assert encoder.choice is not None
    assert encoder.choice.precision in repr(encoder.backend)
    assert encoder.choice.findings[0].precision == "fp32"
    assert Encoder.load(tiny_model, device="cpu", precision="auto", interactive=True).precision == "fp32"

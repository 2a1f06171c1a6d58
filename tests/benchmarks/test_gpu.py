"""`make gpu`: stages keep to their time and report every failure, and every case runs on a CPU at a tiny size."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.packages import install, missing
from benchmarks.gpu.stages import Case, Log, Measured, Result, SkipError, Stage, run_stage
from benchmarks.gpu.summary import succeeded, summary
from tests.conftest import REPOSITORY

FINE = Measured({"error": 0.5}, {"error": 0.5})


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def results_of(output: Path) -> list[Result]:
    lines = (output / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [Result(**json.loads(line)) for line in lines]


def staged(
    tmp_path: Path, cases: list[Case], *, seconds: float = 60, then: Exception | None = None
) -> list[Result]:
    """Run one stage of some cases, after which `then` is raised; what is returned was read from the file."""

    def generate() -> Iterator[Case]:
        yield from cases
        if then is not None:
            raise then

    stage = Stage("stage", seconds, generate, checks=True)
    run_stage(stage, Log(tmp_path / "results.jsonl"), until=time.monotonic() + 60)
    return results_of(tmp_path)


def fail() -> Measured:
    raise ValueError("no such kernel")


def skip() -> Measured:
    raise SkipError("there is no triton")


def never_end() -> Measured:
    while True:
        pass


def test_a_case_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    wrong = Measured({"error": float("nan"), "speed": 3.0}, {"error": 0.5})
    cases: list[Case] = [
        ("fails", fail),
        ("wrong", lambda: wrong),
        ("skipped", skip),
        ("fine", lambda: FINE),
    ]
    found = staged(tmp_path, cases)
    assert [(each.case, each.state) for each in found] == [
        ("fails", "failed"),
        ("wrong", "wrong"),  # a NaN is beyond any limit
        ("skipped", "skipped"),
        ("fine", "ok"),
    ]
    assert found[0].message.endswith("ValueError: no such kernel\n")


def test_a_case_that_does_not_end_times_out_and_ends_its_stage(tmp_path: Path) -> None:
    cases: list[Case] = [("fine", lambda: FINE), ("hangs", never_end), ("later", lambda: FINE)]
    assert [each.state for each in staged(tmp_path, cases, seconds=0.2)] == ["ok", "timed out"]


def test_a_stage_whose_setup_fails_says_so(tmp_path: Path) -> None:
    found = staged(tmp_path, [("fine", lambda: FINE)], then=OSError("the disk is full"))
    assert [(each.case, each.state) for each in found] == [("fine", "ok"), ("setup", "failed")]


@pytest.mark.parametrize(
    ("state", "checks", "good"),
    [
        ("ok", True, True),
        ("skipped", True, True),
        ("wrong", True, False),
        ("failed", False, False),
        ("timed out", True, False),  # not everything was checked
        ("timed out", False, True),  # fewer measurements, all of them good
    ],
)
def test_a_run_succeeds_where_all_that_was_to_be_checked_was_and_nothing_failed(
    state: str, checks: bool, good: bool
) -> None:
    stages = [Stage("stage", 1, lambda: iter(()), checks)]
    results = [Result("stage", "case", state, 0.1, FINE.values, FINE.limits)]  # type: ignore[arg-type] # one of the states
    assert succeeded(stages, results) is good
    text = summary({"gpu": "none"}, stages, results)
    assert ("passed" if good else "FAILED") in text


def test_the_summary_names_what_was_wrong_and_lays_measurements_out() -> None:
    stages = [Stage("check", 1, lambda: iter(()), True), Stage("speed", 1, lambda: iter(()), False)]
    results = [
        Result("check", "bert", "wrong", 0.1, {"error": 0.2}, {"error": 0.1}),
        *(Result("check", f"albert {n}", "skipped", 0.0, message="no bf16 here") for n in range(3)),
        Result("speed", "base", "ok", 0.1, {"texts/s": 123456.7, "share of rate": "41.0%"}),
    ]
    text = summary({}, stages, results)
    assert "wrong  check: bert  error 0.2, limit 0.1" in text
    assert "skipped  check: 3 × no bf16 here" in text
    assert "speed  texts/s  share of rate\nbase   123,457          41.0%" in text


def test_missing_packages_come_from_a_folder_of_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {"embedkit_no_such_module": "embedkit-no-such-module"}
    assert missing(absent | {"sys": "sys"}) == absent
    wheels, about = tmp_path / "wheels", "embedkit_no_such_module-1.0.dist-info"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "embedkit_no_such_module-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("embedkit_no_such_module.py", "")
        wheel.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: embedkit-no-such-module\nVersion: 1.0\n"
        )
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    assert install(wheels, tmp_path / "packages") == ""
    assert missing(absent) == {}
    assert os.environ["PYTHONPATH"].startswith(str(tmp_path / "packages"))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a run in this process changes is put back."""
    monkeypatch.setenv("EMBEDKIT_CACHE", os.environ["EMBEDKIT_CACHE"])
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("kept")
def test_without_a_gpu_it_says_so_and_ends_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert main(["--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "finds no CUDA device. Nothing was checked or measured." in said.out
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("kept")
def test_an_unknown_stage_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no stage cooking; there are: encoding, packed tokens"):
        main(["--device", "cpu", "--only", "cooking", "--output", str(tmp_path)])


@pytest.mark.usefixtures("kept")
def test_some_stages_run_on_a_cpu(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stages = ("search", "rates of the device")
    assert main(["--device", "cpu", "--quick", "--output", str(tmp_path), "--only", *stages]) == 0
    found = results_of(tmp_path)
    assert {each.stage for each in found} == {"search", "rates of the device"}
    assert {each.state for each in found} == {"ok"}
    assert (tmp_path / "summary.txt").read_text(encoding="utf-8") in capfd.readouterr().out
    assert json.loads((tmp_path / "environment.json").read_text(encoding="utf-8"))["device"] == "cpu"


@pytest.mark.quality
def test_every_case_runs_on_a_cpu(tmp_path: Path) -> None:
    """What a CPU lacks is skipped: training in bf16, compiled layers."""
    done = run("--device", "cpu", "--quick", "--seconds", "1800", "--output", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = results_of(tmp_path)
    assert len(found) > 200
    skipped = [each for each in found if each.state == "skipped"]
    assert all("bf16" in each.case or "compiled" in each.case for each in skipped)

from __future__ import annotations

import json
import math
from io import BytesIO
from pathlib import Path

import pytest

from embedkit.errors import OutputError, TrainingError
from embedkit.extras import load_extra
from embedkit.training.engine.reporting import Evaluated, Saved, Step, scalars
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.reports.log import summarize_log
from embedkit.training.reports.plot import Curve, read_curves, terminal_plot


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A log of ten steps whose loss falls from 10 to 1, measured twice; its last line is cut short."""
    folder = tmp_path / "run"
    (folder / "training").mkdir(parents=True)
    rows: list[dict[str, object]] = [
        {
            "kind": "step",
            "step": i,
            "loss": 11.0 - i,
            "values": {"accuracy": i / 10},
            "lr": 0.1,
            "grad_norm": 1.0,
        }
        for i in range(1, 11)
    ]
    rows += [{"kind": "evaluated", "step": i, "values": {"loss": 10.0 - i}, "best": True} for i in (5, 10)]
    rows.append({"kind": "saved", "step": 10, "path": "run"})
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "st'
    (folder / "training" / "log.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_curves_are_read_from_the_log(run: Path) -> None:
    training, held_out = read_curves(run)
    assert (training.name, held_out.name) == ("run", "run held out")
    assert training.values == tuple(float(i) for i in range(10, 0, -1))
    assert (held_out.steps, held_out.values) == ((5, 10), (5.0, 0.0))
    assert read_curves(run, metric="accuracy")[0].values[-1] == 1.0
    assert len(read_curves(run, metric="lr")) == 1


def test_a_value_that_was_not_finite_is_null_in_the_log_and_left_out_of_curves_and_cards(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.begin({})
    for step, value in ((1, 0.5), (2, math.nan)):
        values = {"loss": 1.0, "margin": value}
        folder.log({"kind": "evaluated", "step": step, "values": values, "best": True})
    for line in folder.log_path.read_text(encoding="utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)
    (held_out,) = read_curves(tmp_path / "run", metric="margin")
    assert (held_out.steps, held_out.values) == ((1,), (0.5,))
    assert summarize_log(folder.log_path).best == {"loss": 1.0}


def test_smoothing_averages_stretches_of_steps() -> None:
    """Ten values to at most three points: widths of four, four and two."""
    curve = Curve("a", tuple(range(1, 11)), tuple(float(i) for i in range(1, 11)))
    assert curve.smoothed(3) == Curve("a", (4, 8, 10), (2.5, 6.5, 9.5))
    assert curve.smoothed(10) == curve


def test_the_terminal_plot_falls_from_the_top_left_to_the_bottom_right(run: Path) -> None:
    lines = terminal_plot(read_curves(run)[:1], width=20, height=10).splitlines()
    assert lines[0].startswith("   10.000 │ •")
    assert lines[9].startswith("    1.000 │")
    columns = [line.index("•") for line in lines[:10]]
    assert columns == sorted(columns)
    assert lines[11].endswith("step 10")
    assert lines[12] == "• run"


def test_a_flat_curve_can_be_drawn() -> None:
    assert "•" in terminal_plot([Curve("flat", (1, 2), (3.0, 3.0))])


def test_what_is_not_there_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError,
        match=r"there is no run here \(no training/log\.jsonl\)\. Name the --output folder of one",
    ):
        read_curves(tmp_path)
    with pytest.raises(TrainingError, match=r"log\.jsonl: there is no run here"):
        read_curves(run / "training" / "log.jsonl")
    with pytest.raises(TrainingError, match="no 'speed' in it; there: accuracy, grad_norm, loss, lr"):
        read_curves(run, metric="speed")
    log = run / "training" / "log.jsonl"
    log.write_text("?\n" + log.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(TrainingError, match=r"log\.jsonl:1: not a line of a log"):
        read_curves(run)


def test_an_image_is_of_the_kind_that_its_name_says(run: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    lines = [(curve.name, curve.steps, curve.values) for curve in read_curves(run)]
    plot = load_extra("plot", purpose="the test")
    for name, start in (("curves.png", b"\x89PNG"), ("curves", b"\x89PNG"), ("a.b.SVG", b"<?xml")):
        stream = BytesIO()
        plot.save_lines(lines, stream, name=name, x_label="step", y_label="loss")
        assert stream.getvalue().startswith(start)
    with pytest.raises(OutputError, match=r"^a\.xyz: the ending is 'xyz'; a plot is written as .*png.*svg"):
        plot.save_lines(lines, BytesIO(), name="a.xyz", x_label="step", y_label="loss")


def test_reports_reach_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    board = load_extra("tensorboard", purpose="the test").Board(tmp_path)
    for report in (
        Step(1, 2.5, {"accuracy": 0.5}, 0.1, 1.0, 100, 1e6, 0.1),
        Evaluated(1, {"loss": 2.0}, True),
    ):
        group, numbers = scalars(report)
        board.add(group, numbers, report.step)
    assert scalars(Saved(1, "run")) == ("", {})
    [events] = tmp_path.iterdir()
    content = events.read_bytes()
    for tag in (b"train/loss", b"train/accuracy", b"held_out/loss"):
        assert tag in content

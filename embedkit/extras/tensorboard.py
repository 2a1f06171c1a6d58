"""Writing the curves of a run where TensorBoard reads them."""

from __future__ import annotations

from pathlib import Path

from tensorboard.summary import Writer

from embedkit.training.engine.loop import Evaluated, Report, Step


class Board:
    """An event file; training numbers under `train/`, those of held-out data under `held_out/`."""

    def __init__(self, folder: Path) -> None:
        self._writer = Writer(str(folder))

    def add(self, report: Report) -> None:
        match report:
            case Step():
                numbers = {
                    "loss": report.loss,
                    "lr": report.lr,
                    "grad_norm": report.grad_norm,
                    **report.values,
                }
                self._write("train", numbers, report.step)
            case Evaluated():
                self._write("held_out", dict(report.values), report.step)
                self._writer.flush()

    def _write(self, group: str, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

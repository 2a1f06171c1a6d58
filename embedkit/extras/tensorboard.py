"""Writing the curves of a run where TensorBoard reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tensorboard.summary import Writer


class Board:
    """An event file, with the numbers of each group under its name."""

    def __init__(self, folder: Path) -> None:
        self._writer = Writer(str(folder))

    def add(self, group: str, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.flush()

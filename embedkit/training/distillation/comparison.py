"""A student held against its teacher: likeness of vectors, quality, size and speed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.folder import RUN_FOLDER
from embedkit.training.engine.evaluation_sets import Embed, EvaluationSet, row_cosines

Floats = NDArray[np.float32]


class TextEncoder(Protocol):
    """What is compared: `embedkit.encoding.Encoder` is one."""

    def role_prompt(self, role: Literal["query", "document"]) -> str | None: ...

    def encode(self, texts: Sequence[str], *, prompt: str | None, on_truncate: Literal["ok"]) -> Floats: ...


@dataclass(frozen=True)
class Row:
    """One measure of both; `digits` stand after the point."""

    measure: str
    teacher: float
    student: float
    digits: int = 4

    @property
    def share(self) -> float:
        """The student's value as a share of the teacher's; NaN where that is 0."""
        return self.student / self.teacher if self.teacher else float("nan")

    def cells(self) -> tuple[str, str, str, str]:
        one, other = (f"{value:,.{self.digits}f}" for value in (self.teacher, self.student))
        return self.measure, one, other, f"{self.share:.1%}" if self.teacher else "-"


def compare_models(
    models: Mapping[str, TextEncoder],
    folders: Mapping[str, Path],
    held_out: Sequence[str],
    evaluation: Sequence[EvaluationSet],
    *,
    axes: Floats | None = None,
) -> list[Row]:
    """Measure "teacher" and "student" on the same texts: each set, the size of their folders, texts a second.

    Where both give vectors of one length, the first row is the mean cosine of their vectors of the held-out texts. `axes` (E', E) are
    those that the student was to turn the teacher's vectors to.
    """
    rows = []
    vectors, speed = {}, {}
    for name, model in models.items():
        embed = _embedder(model)
        embed(held_out[:64], "document")  # what the first call sets up is not counted
        started = time.perf_counter()
        vectors[name] = embed(held_out, "document")
        speed[name] = len(held_out) / (time.perf_counter() - started)
    wanted = vectors["teacher"] if axes is None else vectors["teacher"] @ axes.T
    if wanted.shape == vectors["student"].shape:
        cosines = row_cosines(wanted, vectors["student"])
        rows.append(Row("cosine to the teacher, held-out texts", 1.0, float(cosines.mean())))
    for each in evaluation:
        values = {name: each.measure(_embedder(model)) for name, model in models.items()}
        rows.append(Row(each.measure_name, values["teacher"], values["student"]))
    rows.append(Row("dimensions", vectors["teacher"].shape[1], vectors["student"].shape[1], 0))
    sizes = {name: weight_bytes(folder) / 1e6 for name, folder in folders.items()}
    rows.append(Row("weights, MB", sizes["teacher"], sizes["student"], 1))
    rows.append(Row("texts a second, held-out texts", speed["teacher"], speed["student"], 0))
    return rows


def weight_bytes(folder: Path) -> int:
    """Add up the sizes of a model folder's weight files; those of a run beside them do not count."""
    files = (
        path for path in folder.rglob("*.safetensors") if RUN_FOLDER not in path.relative_to(folder).parts
    )
    return sum(path.stat().st_size for path in files)


def _embedder(model: TextEncoder) -> Embed:
    """Encode texts as both models were trained to: cut to their length, which is no news any more."""

    def embed(texts: Sequence[str], role: str) -> Floats:
        prompt = model.role_prompt("query" if role == "query" else "document")
        return model.encode(texts, prompt=prompt, on_truncate="ok")

    return embed

"""The folder of a training run: what it is, how far it is, and everything needed to go on from there.

OUTPUT/                 in the end the model itself
  training/
    run.json            the resolved recipe, hashes of the data, versions, precision; a resumed run must agree with it
    log.jsonl           one JSON object a report
    best.safetensors    the weights with the lowest held-out loss so far
    states/00000400/    after 400 steps: weights, optimizer moments, running mean of weights, state.json
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from embedkit.checkpoint.folder import RUN_FOLDER
from embedkit.checkpoint.weights import save_tensors
from embedkit.data.strict_json import to_strict_json
from embedkit.errors import OutputError, TrainingError
from embedkit.recipe import differences
from embedkit.storage.files import (
    atomic_path,
    check_utf8,
    new_folder,
    output_errors,
    put_in_place,
    remove_drafts,
    write_text,
)

FORMAT = 1
Json = Mapping[str, Any]  # Any: whatever JSON holds
# What may change when a run is resumed, since no weight depends on it.
FREE_KEYS = ("recipe.run.keep_last", "recipe.run.save_every", "versions.", "measured")
GO_ON = "Make room and continue with --resume"


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run is: steps done, tokens seen, and the best held-out criterion (often the loss) with its step."""

    step: int = 0
    tokens: int = 0
    best_loss: float | None = None
    best_step: int | None = None


class RunFolder:
    """The files of one run; a writer of each is atomic, so that a kill at any moment leaves a run that can be resumed."""

    def __init__(self, output: str | Path) -> None:
        self.output = Path(output)
        self.path = self.output / RUN_FOLDER
        self.states = self.path / "states"
        self.log_path = self.path / "log.jsonl"
        self.best_path = self.path / "best.safetensors"

    def check(self, manifest: Json, *, resume: bool, bytes_needed: int) -> None:
        """Refuse a run that cannot start here.

        Raises:
            OutputError: a new run where one is already, or the disk has less room than its checkpoints take.
            TrainingError: a run to resume that is not there, or differs from this one in recipe or data.
        """
        self.check_place(resume=resume)
        if resume:
            self._check_same(manifest)
        existing = next(
            path for path in (self.output.absolute(), *self.output.absolute().parents) if path.exists()
        )
        free = shutil.disk_usage(existing).free
        if free < bytes_needed:
            raise OutputError(
                f"{self.output}: {free / 1e6:,.0f} MB are free there; the checkpoints of this run take {bytes_needed / 1e6:,.0f} MB. "
                "Free some space, choose another --output, or keep fewer with --set run.keep_last=1"
            )

    def check_place(self, *, resume: bool) -> None:
        """Refuse an output folder that is in use, or a run to resume that is not there; quick, before any work.

        Raises:
            OutputError, TrainingError: as `check`.
        """
        check_utf8(Path(os.path.realpath(self.output)), self.output)
        if resume and not (self.path / "run.json").is_file():
            raise TrainingError(
                f"{self.output}: there is no run to resume (no {RUN_FOLDER}/run.json). Start one without --resume"
            )
        if not resume and self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            hint = "Go on with it by --resume, or choose" if self.path.exists() else "Choose"
            raise OutputError(f"{self.output}: already exists and is not empty. {hint} another --output")

    def read_manifest(self) -> Json:
        """Return what `run.json` of the run here says; nothing where there is none."""
        path = self.path / "run.json"
        found: Json = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return found

    def _check_same(self, manifest: Json) -> None:
        old = self.read_manifest()
        new = json.loads(json.dumps(manifest))
        lines = [line for line in differences(old, new) if not line.startswith(FREE_KEYS)]
        if lines:
            listed = "\n".join(f"  {line}" for line in lines)
            raise TrainingError(
                f"{self.output}: the run was started with another recipe or other data:\n{listed}\n"
                "Resume it as it was, or start a new run with another --output"
            )

    def begin(self, manifest: Json) -> None:
        """Write `run.json`, and remove what a run that was killed left half written.

        Raises:
            OutputError: the folder cannot be written.
        """
        with output_errors(self.output):
            self.states.mkdir(parents=True, exist_ok=True)
            remove_drafts(self.states)
            remove_drafts(self.path)
        write_text(self.path / "run.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")

    def log(self, entry: Json) -> None:
        with output_errors(self.log_path, GO_ON), self.log_path.open("a", encoding="utf-8") as stream:
            stream.write(to_strict_json(entry) + "\n")

    def trim_log(self, step: int) -> None:
        """Take out what was logged after `step`, and a line that a kill cut short: those steps are done again."""
        if not self.log_path.exists():
            return
        kept = []
        for line in self.log_path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line).get("step", 0) <= step:
                    kept.append(line + "\n")
            except ValueError:
                break
        write_text(self.log_path, "".join(kept))

    def saved_steps(self) -> list[int]:
        """List the steps that a state is kept of, in order."""
        if not self.states.is_dir():
            return []
        return sorted(int(path.name) for path in self.states.iterdir() if path.name.isdigit())

    def write_state(
        self, position: Position, groups: Mapping[str, dict[str, Tensor]], keep_last: int
    ) -> Path:
        """Write a state and remove the oldest; `groups` become one safetensors file each."""
        target = self.states / f"{position.step:08d}"
        if not target.exists():
            with new_folder(target) as folder:
                for name, tensors in groups.items():
                    save_tensors(tensors, folder / f"{name}.safetensors")
                content = {"format": FORMAT, **position.__dict__}
                (folder / "state.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        for old in self.saved_steps()[:-keep_last]:
            shutil.rmtree(self.states / f"{old:08d}")
        return target

    def read_state(self, step: int) -> tuple[Position, dict[str, dict[str, Tensor]]]:
        """Read a state.

        Raises:
            TrainingError: it is damaged or of another format.
        """
        folder = self.states / f"{step:08d}"
        try:
            content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise ValueError("of another format")
            position = Position(**content)
            groups = {path.stem: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as exc:
            others = ", ".join(map(str, (s for s in self.saved_steps() if s != step))) or "none"
            raise TrainingError(
                f"{folder}: the state cannot be read ({exc}). Remove the folder to go on from an earlier one; there: {others}"
            ) from exc
        return position, groups

    def write_best(self, weights: dict[str, Tensor]) -> None:
        with atomic_path(self.best_path) as draft:
            save_tensors(weights, draft)

    def read_best(self) -> dict[str, Tensor]:
        return load_file(self.best_path)

    def is_published(self, *, static: bool = False) -> bool:
        """Say whether a model has been put beside the run; a static one has no config.json."""
        return (self.output / ("modules.json" if static else "config.json")).is_file()

    @contextmanager
    def publishing(self) -> Iterator[Path]:
        """Give an empty folder for a finished model's files, which are moved beside the run when the block ends well.

        config.json is the last, or modules.json of a static model, which has no other: before it there is no model.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
        """
        draft = self.path / "model.draft"
        shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed while it moved them
        with new_folder(draft) as folder:
            yield folder
        with output_errors(self.output, GO_ON):
            for path in sorted(
                draft.iterdir(), key=lambda path: (path.name == "config.json", path.name == "modules.json")
            ):
                target = self.output / path.name
                if target.is_dir():
                    shutil.rmtree(target)
                put_in_place(path, target)
            draft.rmdir()

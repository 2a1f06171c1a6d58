"""The folder of an adaptation: the model in the end, and in `training/` what each stage wrote, once and whole.

OUTPUT/training/
  adapt.json        settings and hashes of what it was started with; a resumed run must agree with it
  passages.jsonl    the documents, cut to what the model reads
  pairs.jsonl       queries to learn from, with their passages; train.jsonl those of them that the encoder is trained on;
                    held_out.jsonl those to measure with; derived.json counts
  generated.jsonl   what the generator wrote, and generated.json its counts
  mlm/, encoder/    training runs
  averaged/         the model before the linear map, and words.index/ what words are searched in, while that map is found
  corpus.index/     what negatives are searched in
  mined.jsonl       pairs with hard negatives; rows.jsonl what is trained on; labelled.json counts
  mapped.json       the mean cosine of two passages, which decides how far they are whitened
  report.json       before and after
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embedkit.checkpoint.folder import RUN_FOLDER
from embedkit.errors import OutputError, TrainingError
from embedkit.recipe import differences
from embedkit.storage.files import atomic_file, output_errors, write_text
from embedkit.training.engine.run_folder import RunFolder

Json = Mapping[str, Any]  # Any: whatever JSON holds
GO_ON = "Make room, and --resume goes on"


class AdaptFolder:
    """Names of the files, and writing them whole: what is there is finished."""

    def __init__(self, output: str | Path) -> None:
        self.output = Path(output)
        self.work = self.output / RUN_FOLDER
        self.settings = self.work / "adapt.json"
        self.passages = self.work / "passages.jsonl"
        self.pairs = self.work / "pairs.jsonl"
        self.train = self.work / "train.jsonl"
        self.held_out = self.work / "held_out.jsonl"
        self.derived = self.work / "derived.json"
        self.generated = self.work / "generated.jsonl"
        self.generation = self.work / "generated.json"
        self.tokens = self.work / "tokens"
        self.index = self.work / "corpus.index"
        self.words = self.work / "words.index"
        self.mined = self.work / "mined.jsonl"
        self.rows = self.work / "rows.jsonl"
        self.labelled = self.work / "labelled.json"
        self.mapped = self.work / "mapped.json"
        self.averaged = self.work / "averaged"
        self.report = self.work / "report.json"
        self.mlm = RunFolder(self.work / "mlm")
        self.encoder = RunFolder(self.work / "encoder")

    def check(self, *, resume: bool) -> None:
        """Refuse an output that is in use, or an adaptation to resume that is not there.

        Raises:
            OutputError, TrainingError: it is so.
        """
        if resume and not self.settings.is_file():
            raise TrainingError(
                f"{self.output}: there is no adaptation to resume (no {RUN_FOLDER}/{self.settings.name}). Start one without --resume"
            )
        if not resume and self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            hint = "Go on with it by --resume, or choose" if self.settings.is_file() else "Choose"
            raise OutputError(f"{self.output}: already exists and is not empty. {hint} another --output")

    def begin(self, manifest: Json) -> None:
        """Write what the adaptation is started with, or hold it against what it was started with.

        Raises:
            TrainingError: they differ.
            OutputError: the folder cannot be written.
        """
        if self.settings.is_file():
            new = json.loads(json.dumps(manifest))
            lines = [f"  {line}" for line in differences(read_json(self.settings), new)]
            if lines:
                listed = "\n".join(lines)
                raise TrainingError(
                    f"{self.output}: the adaptation was started with other settings or data:\n{listed}\n"
                    "Resume it as it was, or start a new one with another --output"
                )
            return
        with output_errors(self.output):
            self.work.mkdir(parents=True, exist_ok=True)
        write_text(self.settings, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:  # Any: whatever JSON holds
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def read_rows(path: Path) -> list[dict[str, Any]]:  # Any: as above
    with path.open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def write_rows(path: Path, rows: Iterable[Json]) -> None:
    """Write JSON lines, all of them or none."""
    with output_errors(path, GO_ON), atomic_file(path) as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n")


def write_counts(path: Path, counts: Json) -> None:
    write_text(path, json.dumps(counts, indent=2, ensure_ascii=False) + "\n")

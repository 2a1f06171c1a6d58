"""The plan of an index in shards: what is read, how it is cut, and what computes it; fixed before the first shard is built.

It is a JSON file that is written once. The same command finds it and goes on with it; where the command, the input, the model or
embedkit are others, it is refused with what differs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from embedkit.data.parts import FilePart
from embedkit.data.records import ReadOptions
from embedkit.distributed.layout import PLAN
from embedkit.errors import IndexFileError, IndexMismatchError
from embedkit.storage.files import write_text
from embedkit.storage.hashing import canonical_json, file_hash, json_digest
from embedkit.types import Computing
from indexes import Kind, Settings

FORMAT = 1
_SHOWN = 4  # differences that a message names


@dataclass(frozen=True)
class InputFile:
    """A file of the input: its name as the user spelled it, its resolved path, size, SHA-256, and when it was changed."""

    name: str
    source: str
    num_bytes: int
    digest: str
    changed_ns: int


@dataclass(frozen=True, kw_only=True)
class Computed:
    """What computes every shard, whichever worker does it: decided once, when the plan is made.

    `exact` says that a text's bits depend on no other text: then they are those of any build. Else they depend on how the shards are
    cut and on `threads`, which each worker therefore takes alike.
    """

    device: str
    precision: str
    backend: str
    threads: int
    exact: bool
    force_precision: bool = False
    merge_tokens: float = 0.0

    def computing(self) -> Computing:
        """Return what a worker loads the model with."""
        return Computing(
            device=self.device,  # type: ignore[arg-type] # read from JSON
            precision=self.precision,  # type: ignore[arg-type]
            backend=self.backend,  # type: ignore[arg-type]
            force_precision=self.force_precision,
        )


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """What is to be built. `asked` are the options of the command, `shards` the parts of each in the order of the input.

    `encoding` says how texts become vectors in files (the options, how the model is loaded, the ending), and `mining` how rows get hard
    negatives (`embedkit.distributed.mined_shards`); both are empty where indexes are built. `kind` is the ANN structure that each index gets over its own vectors.
    """

    asked: Mapping[str, Any]  # Any: whatever JSON holds
    inputs: Sequence[InputFile]
    shards: Sequence[Sequence[FilePart]]
    unread: Sequence[str]  # what of folders could not be read
    reading: Mapping[str, Any]
    settings: Mapping[str, Any]
    model_path: str
    computed: Computed
    commit_every: int
    allow_other: bool = False  # workers that cannot compute as planned compute as they can
    strict: bool = False  # what cannot be read is an error, not for the quarantine
    embedkit: str = version("embedkit")
    encoding: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "flat"
    mining: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """What receipts name the plan by."""
        return json_digest(self._content())

    @property
    def index_settings(self) -> Settings:
        return Settings.from_json(json.dumps(self.settings))

    @property
    def loading(self) -> dict[str, Any]:  # Any: JSON
        """How the model is loaded, beyond what `computing` says."""
        return dict(self.encoding.get("loading", {}))

    @property
    def read_options(self) -> ReadOptions:
        return ReadOptions(**self.reading)

    @property
    def num_shards(self) -> int:
        return len(self.mining["borders"]) - 1 if self.mining else len(self.shards)

    def rows_of(self, shard: int) -> range:
        """Return which rows a shard of mined rows holds."""
        first, last = self.mining["borders"][shard : shard + 2]
        return range(first, last)

    def size_of(self, shard: int) -> int:
        """Return how much there is to do for a shard: bytes, or rows that are mined."""
        if self.mining:
            return len(self.rows_of(shard))
        return sum(part.last - part.first for part in self.shards[shard])

    def _content(self) -> dict[str, Any]:  # Any: JSON
        content = asdict(self)
        for name, usual in (("encoding", {}), ("kind", "flat"), ("mining", {})):
            if content[name] == usual:
                del content[name]  # plans are as they were before there was more to say
        numbers = {each.name: number for number, each in enumerate(self.inputs)}
        content["shards"] = [
            [
                [numbers[part.name], part.first, part.last, part.line, part.digest, part.whole]
                for part in parts
            ]
            for parts in self.shards
        ]
        return {"format": FORMAT, **content}

    def write(self, folder: Path) -> None:
        content = self._content()
        write_text(folder / PLAN, canonical_json({**content, "digest": self.digest}) + "\n")

    @classmethod
    def read(cls, folder: Path) -> ShardPlan:
        """Read the plan in a folder.

        Raises:
            IndexFileError: there is none, it is damaged, or of another format.
        """
        path = folder / PLAN
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            digest, number = content.pop("digest"), content.pop("format")
            if number != FORMAT:
                raise IndexFileError(
                    f"{path}: format {number}; this embedkit reads {FORMAT}. Use the embedkit that made it"
                )
            inputs = [InputFile(**each) for each in content["inputs"]]
            shards = [
                [FilePart(inputs[at].name, inputs[at].source, *rest) for at, *rest in parts]
                for parts in content["shards"]
            ]
            computed = Computed(**content["computed"])
            plan = cls(**{**content, "inputs": inputs, "shards": shards, "computed": computed})
        except OSError as exc:
            raise IndexFileError(f"{path}: cannot be read ({exc.strerror or exc}). Check the path") from exc
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
            raise IndexFileError(f"{path}: the plan is damaged. Remove {folder} and build it again") from exc
        if plan.digest != digest:
            raise IndexFileError(
                f"{path}: the plan is not what was written: its hash differs. Remove {folder} and build it again"
            )
        return plan

    def check_version(self) -> None:
        """Refuse to go on with another embedkit.

        Raises:
            IndexMismatchError: this is another version than made the plan.
        """
        if self.embedkit != version("embedkit"):
            raise IndexMismatchError(
                f"embedkit is {version('embedkit')} here, and the plan was made by {self.embedkit}. Install that version on every machine, "
                "or build a new index"
            )

    def check_same(self, folder: Path, asked: Mapping[str, Any]) -> None:
        """Refuse a command that asks for something else, and inputs that have changed.

        Raises:
            IndexMismatchError: what differs, and what to do.
        """
        self.check_version()
        wanted = json.loads(canonical_json(asked))
        differing = [
            f"{name} was {canonical_json(self.asked.get(name))} and is {canonical_json(wanted.get(name))}"
            for name in sorted({*self.asked, *wanted})
            if self.asked.get(name) != wanted.get(name)
        ]
        if differing:
            raise IndexMismatchError(
                f"{folder}: was planned with other options: {_few(differing)}. Give the same command to go on, or begin anew elsewhere"
            )
        changed = [problem for each in self.inputs if (problem := _change(each))]
        if changed:
            raise IndexMismatchError(
                f"{folder}: the input is not what was planned: {_few(changed)}. Put the old files back, or begin anew elsewhere"
            )


def _change(planned: InputFile) -> str | None:
    """Say what is other than planned of a file; its bytes are read again where its size is the same and its time is not."""
    try:
        status = Path(planned.source).stat()
    except OSError as exc:
        return f"{planned.name} cannot be read ({exc.strerror or exc})"
    if status.st_size != planned.num_bytes:
        return f"{planned.name} had {planned.num_bytes:,} bytes and has {status.st_size:,}"
    if status.st_mtime_ns != planned.changed_ns and file_hash(planned.source) != planned.digest:
        return f"{planned.name} has other bytes"
    return None


def _few(problems: Sequence[str]) -> str:
    more = f"; and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
    return "; ".join(problems[:_SHOWN]) + more

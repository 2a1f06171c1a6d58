"""Making the plan of an index in shards, or finding the one that was made: the same command goes on with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embedkit.data.paths import STDIN
from embedkit.data.reading import DocumentReader
from embedkit.data.records import ReadOptions
from embedkit.data.walking import WalkOptions
from embedkit.distributed.cutting import cut
from embedkit.distributed.layout import RECEIPT_FOLDER, SHARD_FOLDER, is_planned
from embedkit.distributed.plan import Computed, ShardPlan
from embedkit.errors import IndexFileError, IndexMismatchError, RecordError
from embedkit.pipelines.models import or_default
from embedkit.pipelines.options import BuildOptions
from embedkit.storage.files import output_errors, remove_drafts
from embedkit.types import Computing
from indexes import Settings, is_index
from indexes.storage.lock import WriterLock


@dataclass(frozen=True, kw_only=True)
class ShardRequest:
    """What the command asks for. `threads` are those of each worker."""

    inputs: Sequence[str]
    reading: ReadOptions
    walking: WalkOptions
    building: BuildOptions
    computing: Computing
    shards: int
    threads: int
    model: str | None = None
    merge_tokens: float = 0.0
    strict: bool = False
    allow_other: bool = False

    def asked(self) -> dict[str, Any]:  # Any: JSON
        """Return what must be the same for the same plan; who computes, and how many, may change."""
        building = asdict(self.building)
        del building["sync"]
        return {
            "inputs": list(self.inputs),
            "shards": self.shards,
            "model": str(or_default(self.model)),
            "merge_tokens": self.merge_tokens,
            "strict": self.strict,
            "allow_other": self.allow_other,
            "reading": asdict(self.reading),
            "walking": asdict(self.walking),
            "building": building,
            "computing": asdict(self.computing),
        }


@dataclass(frozen=True)
class Resolved:
    """What a machine that computes says of the model: the settings of the index, as JSON, and what computes it."""

    settings: str
    model_path: str
    computed: Computed


Resolve = Callable[[ShardRequest], Resolved]


def resolve(request: ShardRequest) -> Resolved:
    """Load the model, choose precision and backend (measured, where that is open), and say what the index will be.

    Raises:
        ValueError: passages would be longer than what the model reads.
        CheckpointError, DeviceError: the model cannot be loaded or computed here.
    """
    from embedkit.models import lasting_name
    from embedkit.pipelines.building import Documents

    reader = DocumentReader([__file__], replace(request.reading, format="file"))  # of which nothing is read
    source = Documents(reader, request.computing, model=request.model, merge_tokens=request.merge_tokens)
    settings = source.settings(request.building)
    assert source.embedder is not None
    encoder = source.embedder.encoder
    choice = encoder.choice
    assert choice is not None
    computed = Computed(
        device=choice.device,
        precision=choice.precision,
        backend=choice.runtime,
        threads=request.threads,
        exact=choice.runtime == "native" or encoder.folder.static,
        force_precision=request.computing.force_precision,
        merge_tokens=request.merge_tokens,
    )
    return Resolved(settings.to_json(), lasting_name(encoder.folder.path), computed)


@contextmanager
def planned(folder: Path, request: ShardRequest, resolve: Resolve = resolve) -> Iterator[ShardPlan]:
    """Give the plan in a folder, which is made where there is none; nobody else builds there meanwhile.

    Raises:
        IndexFileError: something else is in the folder, the plan is damaged, or another process builds there.
        IndexMismatchError: the plan is of another command, input, model or embedkit.
        RecordError: the input cannot be read.
        ValueError, CheckpointError, DeviceError: as `resolve`.
    """
    if STDIN in request.inputs:
        raise RecordError("standard input cannot be cut into shards. Write it to a file first")
    if not is_planned(folder):
        _check_empty(folder)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(folder)
    try:
        plan = _plan(folder, request, resolve)
        with output_errors(folder):
            for name in (SHARD_FOLDER, RECEIPT_FOLDER):
                (folder / name).mkdir(exist_ok=True)
                remove_drafts(folder / name)
        yield plan
    finally:
        lock.release()


def _check_empty(folder: Path) -> None:
    if is_index(folder):
        raise IndexFileError(
            f"{folder}: there is an index that is not in shards. Choose another folder, or build without --shards"
        )
    if folder.exists() and (
        not folder.is_dir() or any(each.name != "index.lock" for each in folder.iterdir())
    ):
        raise IndexFileError(
            f"{folder}: holds something that is no index in shards. Choose another folder, or remove it"
        )


def _plan(folder: Path, request: ShardRequest, resolve: Resolve) -> ShardPlan:
    reader = DocumentReader(
        request.inputs, request.reading, tolerant=not request.strict, walking=request.walking
    )
    if not is_planned(folder):
        plan = _new_plan(request, reader, resolve)
        plan.write(folder)
        return plan
    plan = ShardPlan.read(folder)
    plan.check_same(folder, request.asked())
    _check_files(folder, plan, reader)
    _check_model(folder, plan)
    return plan


def _new_plan(request: ShardRequest, reader: DocumentReader, resolve: Resolve) -> ShardPlan:
    resolved = resolve(request)  # first: where the model is refused, nobody waits for the input to be hashed
    found = cut(reader.paths, request.reading, request.shards)
    return ShardPlan(
        asked=request.asked(),
        inputs=found.inputs,
        shards=found.shards,
        unread=list(reader.failed),
        reading=asdict(request.reading),
        settings=json.loads(resolved.settings),
        model_path=resolved.model_path,
        computed=resolved.computed,
        commit_every=request.building.commit_every,
        allow_other=request.allow_other,
        strict=request.strict,
    )


def _check_files(folder: Path, plan: ShardPlan, reader: DocumentReader) -> None:
    before, now = {each.name for each in plan.inputs}, {path.as_posix() for path in reader.paths}
    if before != now:
        gone, new = sorted(before - now), sorted(now - before)
        what = [f"{len(new):,} new, such as {new[0]}"] if new else []
        what += [f"{len(gone):,} gone, such as {gone[0]}"] if gone else []
        raise IndexMismatchError(
            f"{folder}: the input has other files than were planned: {'; '.join(what)}. Put the old files back, or build a new index"
        )


def _check_model(folder: Path, plan: ShardPlan) -> None:
    from embedkit.checkpoint.folder import fingerprint, read_model_folder
    from embedkit.inference.token_merging import merging_part

    found = fingerprint(read_model_folder(plan.model_path)) | merging_part(plan.computed.merge_tokens)
    Settings.from_json(json.dumps(plan.settings)).check_encoder(found, str(folder))

"""Making the plan of an index in shards (or of vectors in shards), or finding the one that was made: the same command goes on with it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from embedkit.data.paths import STDIN
from embedkit.data.reading import DocumentReader
from embedkit.distributed.cutting import Cut, cut
from embedkit.distributed.layout import RECEIPT_FOLDER, SHARD_FOLDER, is_planned
from embedkit.distributed.mined_shards import borders, check_planned
from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.requests import Resolve, ShardRequest
from embedkit.distributed.resolving import resolve as resolve_here
from embedkit.errors import IndexFileError, IndexMismatchError, RecordError
from embedkit.pipelines.models import fingerprint_of
from embedkit.storage.files import output_errors, remove_drafts
from embedkit.training.rows.examples import Examples
from indexes import Settings, is_index
from indexes.storage.lock import WriterLock


@contextmanager
def planned(
    folder: Path, request: ShardRequest, resolve: Resolve = resolve_here, rows: Examples | None = None
) -> Iterator[ShardPlan]:
    """Give the plan in a folder, which is made where there is none; nobody else builds there meanwhile. Mining wants its `rows`.

    Raises:
        IndexFileError: something else is in the folder, the plan is damaged, or another process builds there.
        IndexMismatchError: the plan is of another command, input, model or embedkit.
        RecordError: the input cannot be read.
        ValueError, CheckpointError, DeviceError: as `resolve`.
    """
    corpus = () if request.mining is None else request.mining.corpus
    if STDIN in (*request.inputs, *corpus):
        raise RecordError("standard input cannot be cut into shards. Write it to a file first")
    if not is_planned(folder):
        _check_empty(folder)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(folder)
    try:
        plan = _plan(folder, request, resolve, rows)
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


def _plan(folder: Path, request: ShardRequest, resolve: Resolve, rows: Examples | None) -> ShardPlan:
    reader = _documents(request)
    if not is_planned(folder):
        plan = _new_plan(request, reader, resolve, rows)
        plan.write(folder)
        return plan
    plan = ShardPlan.read(folder)
    plan.check_same(folder, request.asked())
    _check_files(folder, plan, reader)
    _check_model(folder, plan)
    if rows is not None:
        check_planned(plan, rows, str(folder))
    return plan


def _documents(request: ShardRequest) -> DocumentReader | None:
    """Return what reads the documents; None where negatives are searched among the positives, or in an index that is there."""
    mining = request.mining
    if mining is None:
        return DocumentReader(
            request.inputs, request.reading, tolerant=not request.strict, walking=request.walking
        )
    return DocumentReader(mining.corpus) if mining.corpus else None


def _new_plan(
    request: ShardRequest, reader: DocumentReader | None, resolve: Resolve, rows: Examples | None
) -> ShardPlan:
    resolved = resolve(request)  # first: where the model is refused, nobody waits for the input to be hashed
    mining: Mapping[str, Any] = {}
    found = Cut([], [])
    if reader is not None:
        found = cut(reader.paths, reader.options, 1 if request.mining else request.shards)
    if rows is not None:
        found = replace(found, shards=[])
        mining = {
            **json.loads(json.dumps(resolved.mining)),
            "data": os.path.abspath(request.inputs[0]),  # noqa: PTH100 (a set may be FOLDER:SPLIT, a file a pattern)
            "rows_hash": rows.fingerprint,
            "borders": borders(len(rows), request.shards),
        }
    return ShardPlan(
        asked=request.asked(),
        inputs=found.inputs,
        shards=found.shards,
        unread=[] if reader is None else list(reader.failed),
        reading=asdict(request.reading),
        settings=json.loads(resolved.settings),
        model_path=resolved.model_path,
        computed=resolved.computed,
        commit_every=request.building.commit_every,
        allow_other=request.allow_other,
        strict=request.strict,
        encoding=json.loads(json.dumps(resolved.encoding)),
        kind=request.kind,
        mining=mining,
    )


def _check_files(folder: Path, plan: ShardPlan, reader: DocumentReader | None) -> None:
    paths = [] if reader is None else reader.paths
    before, now = {each.name for each in plan.inputs}, {path.as_posix() for path in paths}
    if before != now:
        gone, new = sorted(before - now), sorted(now - before)
        what = [f"{len(new):,} new, such as {new[0]}"] if new else []
        what += [f"{len(gone):,} gone, such as {gone[0]}"] if gone else []
        raise IndexMismatchError(
            f"{folder}: the input has other files than were planned: {'; '.join(what)}. Put the old files back, or begin anew elsewhere"
        )


def _check_model(folder: Path, plan: ShardPlan) -> None:
    from embedkit.inference.token_merging import merging_part

    if not plan.model_path:
        return
    loading = plan.loading
    width = loading.pop("truncate_dim", None)
    settings = Settings.from_json(json.dumps(plan.settings))
    like = settings.fingerprint if settings.kind == "sparse" else merging_part(plan.computed.merge_tokens)
    found = fingerprint_of(plan.model_path, like, **loading)
    if width is not None:
        found["dimension"] = width
    settings.check_encoder(found, str(folder))

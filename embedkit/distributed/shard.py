"""What a worker does: build the index of one shard from the beginning, put it in its place, and write the receipt.

1. What an earlier try left is removed, the receipt first.
2. The index is made under a temporary name; every file is flushed to disk.
3. It is renamed, and then counted, hashed and receipted. A kill before the receipt leaves nothing that counts as done.
A shard never goes on where another try stopped: its bits would depend on where that was.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.data.parts import read_part
from embedkit.data.records import Document
from embedkit.distributed.layout import ids_path, receipt_path, shard_path
from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.receipts import Receipt, make_receipt, verified
from embedkit.errors import DeviceError, EmbedkitError, IndexMismatchError, RecordError
from embedkit.pipelines.filling import fill_index
from embedkit.pipelines.models import load_encoder
from embedkit.storage.files import output_errors, put_in_place, sync
from embedkit.types import Computing
from indexes import Index, is_index, sqlite_version, take_steps

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder


class WorkerRefusedError(EmbedkitError):
    """A worker cannot build shards of the plan at all."""


@dataclass(frozen=True)
class ShardProgress:
    """How far a worker is with its shard."""

    shard: int
    passages: int = 0
    tokens: int = 0
    fraction: float = 0.0


Report = Callable[[ShardProgress], None]


class ShardBuilder:
    """Builds shards of one plan, with a model that is loaded once."""

    def __init__(self, folder: Path) -> None:
        """Take a plan's folder; `prepare` reads it."""
        self.folder = folder.absolute()

    @cached_property
    def plan(self) -> ShardPlan:
        return ShardPlan.read(self.folder)

    def prepare(self) -> None:
        """Load the plan and its model.

        Raises:
            WorkerRefusedError: this worker cannot compute as planned, or is of another version; the message says why.
        """
        try:
            self.plan.check_version()
            found = self.encoder.fingerprint
            self.plan.index_settings.check_encoder(found, f"{self.folder}'s plan")
        except EmbedkitError as exc:
            raise WorkerRefusedError(f"{socket.gethostname()} cannot work on this plan: {exc}") from exc

    @cached_property
    def encoder(self) -> Encoder:
        computed = self.plan.computed
        load = {"merge_tokens": computed.merge_tokens, "measure": False}
        try:
            return load_encoder(self.plan.model_path, self.plan.computing(), **load)  # type: ignore[arg-type]
        except DeviceError:
            if not self.plan.allow_other:
                raise
        others = (Computing(precision=computed.precision), Computing(precision="fp32"))  # type: ignore[arg-type]
        with suppress(DeviceError):
            return load_encoder(self.plan.model_path, others[0], **load)  # type: ignore[arg-type]
        return load_encoder(self.plan.model_path, others[1], **load)  # type: ignore[arg-type]

    def build(self, shard: int, report: Report) -> Receipt:
        """Build a shard, or return its receipt where it is done already.

        Raises:
            EmbedkitError: the input, the disk or the model does not allow it; nothing that counts as done is there.
        """
        with suppress(ValueError):
            return verified(self.folder, shard, self.plan.digest)
        target = shard_path(self.folder, shard)
        draft = target.with_name(f".{target.stem}.{os.urandom(6).hex()}.tmp")
        begun = time.monotonic()
        with output_errors(
            self.folder, "Make room, and run the same command again: shards that are done stay"
        ):
            for old in (receipt_path(self.folder, shard), ids_path(self.folder, shard)):
                old.unlink(missing_ok=True)
            draft.parent.mkdir(exist_ok=True)
            try:
                receipt = self._fill(draft, shard, report)
                for written in draft.rglob("*"):
                    sync(written)
                if target.exists():
                    shutil.rmtree(target)
                put_in_place(draft, target)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            return make_receipt(self.folder, replace(receipt, seconds=round(time.monotonic() - begun, 3)))

    def _fill(self, draft: Path, shard: int, report: Report) -> Receipt:
        from embedkit.encoding.embedder import Embedder
        from embedkit.models import lasting_name

        embedder = Embedder(self.encoder, "document", by_field=True)
        texts = _Texts(self.plan, shard)
        found = None
        with Index.create(draft, self.plan.index_settings) as index:
            self._take_scales(index, shard)
            index.note_model_path(lasting_name(self.encoder.folder.path))
            for found in fill_index(
                index, texts, self.encoder, embedder, commit_every=self.plan.commit_every
            ):
                report(ShardProgress(shard, found.embedded, embedder.tokens, texts.fraction()))
        assert found is not None
        choice = self.encoder.choice
        assert choice is not None
        computed = self.plan.computed
        planned = (computed.precision, computed.backend, computed.device)
        return Receipt(
            shard=shard,
            plan=self.plan.digest,
            documents=0,
            passages=0,
            content_hash="",
            tokens=embedder.tokens,
            truncated=embedder.truncated,
            empty=found.empty,
            unknown=embedder.unknown,
            duplicates=texts.duplicates,
            quarantined=len(texts.refused),
            quarantine=texts.refused,
            encodings=texts.encodings,
            host=socket.gethostname(),
            versions=versions(),
            precision=choice.precision,
            backend=choice.runtime,
            runtime=repr(self.encoder.backend),
            as_planned=planned == (choice.precision, choice.runtime, choice.device),
        )

    def _take_scales(self, index: Index, shard: int) -> None:
        """Keep int8 in the steps of the first shard that has vectors, which is built before all others."""
        if index.settings.storage not in ("int8", "binary"):
            return
        for earlier in range(shard):
            path = shard_path(self.folder, earlier)
            if not is_index(path):
                raise IndexMismatchError(
                    f"{path}: is not there; {index.settings.storage} vectors take their steps from it"
                )
            with Index.open(path) as other:
                if take_steps(index, other):
                    return


class _Texts:
    """The documents of a shard, what of them was refused, and how far they are read; an id that comes again is refused."""

    def __init__(self, plan: ShardPlan, shard: int) -> None:
        self.parts, self.options = plan.shards[shard], plan.read_options
        self.refused: list[dict[str, str]] = []
        self.encodings: dict[str, int] = {}
        self.duplicates = 0
        self._strict = plan.strict
        self._total = max(1, plan.bytes_of(shard))
        self._done, self._bytes_here, self._part_bytes = 0, 0, 0

    def __iter__(self) -> Iterator[Document]:
        seen: dict[str, str] = {}
        for part in self.parts:
            self._part_bytes, self._bytes_here = part.last - part.first, 0
            for document in read_part(part, self.options, self._refuse):
                self._bytes_here += len(document.text)
                if document.encoding != "utf-8":
                    self.encodings[document.encoding] = self.encodings.get(document.encoding, 0) + 1
                if document.doc_id in seen:
                    self.duplicates += 1
                    self._set_aside(duplicate(document.where, document.doc_id, seen[document.doc_id]))
                    continue
                seen[document.doc_id] = document.where
                yield document
            self._done += self._part_bytes

    def _refuse(self, reason: str) -> None:
        self._set_aside({"reason": reason})

    def _set_aside(self, entry: dict[str, str]) -> None:
        if self._strict:
            raise RecordError(entry["reason"])
        self.refused.append(entry)

    def fraction(self) -> float:
        return min(1.0, (self._done + min(self._bytes_here, self._part_bytes)) / self._total)


def duplicate(where: str, doc_id: str, first: str) -> dict[str, str]:
    """Say of a document that its id stands there again: what goes into the quarantine file."""
    return {
        "id": doc_id,
        "reason": f"{where}: the id {doc_id!r} stands there again; it was at {first}. The first one stays",
    }


def versions() -> dict[str, str]:
    """Return the versions of what has a say in what a shard holds."""
    names = ("embedkit", "numpy", "tokenizers", "torch")
    return {name: version(name) for name in names} | {
        "python": platform.python_version(),
        "sqlite": sqlite_version(),
    }

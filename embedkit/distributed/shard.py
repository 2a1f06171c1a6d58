"""What a worker does: make one shard from the beginning, put it in its place, and write the receipt.

1. The shard is made under a temporary name; every file is flushed to disk.
2. Where another worker has finished it meanwhile, this one's goes; else what an earlier try left is removed, the receipt first.
3. It is renamed, and then counted, hashed and receipted. A kill before the receipt leaves nothing that counts as done.
A shard never goes on where another try stopped: its bits would depend on where that was.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.distributed.layout import ids_path, receipt_path, shard_path
from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.planned_models import load_planned_encoder
from embedkit.distributed.product import FilledShard, Product, Work, WorkerRefusedError
from embedkit.distributed.products import product_of
from embedkit.distributed.receipts import Receipt, make_receipt, verified
from embedkit.errors import EmbedkitError
from embedkit.storage.files import output_errors, put_in_place, sync
from indexes import sqlite_version

if TYPE_CHECKING:
    from embedkit.pipelines.embedders import AnyEncoder


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

    @cached_property
    def product(self) -> Product:
        return product_of(self.plan)

    def prepare(self) -> None:
        """Load the plan and its model.

        Raises:
            WorkerRefusedError: this worker cannot compute as planned, or is of another version; the message says why.
        """
        try:
            self.plan.check_version()
            if self.encoder is not None:
                self.plan.index_settings.check_encoder(self.encoder.fingerprint, f"{self.folder}'s plan")
        except EmbedkitError as exc:
            raise WorkerRefusedError(f"{socket.gethostname()} cannot work on this plan: {exc}") from exc

    @cached_property
    def encoder(self) -> AnyEncoder | None:
        return load_planned_encoder(self.plan) if self.plan.model_path else None

    def build(self, shard: int, report: Report) -> Receipt:
        """Build a shard, or return its receipt where it is done already.

        Raises:
            EmbedkitError: the input, the disk or the model does not allow it; nothing that counts as done is there.
        """
        product = self.product
        with suppress(ValueError):
            return verified(self.folder, shard, self.plan.digest, product)
        target = shard_path(self.folder, shard, product.ending)
        draft = target.with_name(f".{target.stem}.{os.urandom(6).hex()}.tmp")
        begun = time.monotonic()
        with output_errors(
            self.folder, "Make room, and run the same command again: shards that are done stay"
        ):
            draft.parent.mkdir(exist_ok=True)
            try:
                work = Work(self.folder, self.plan, shard, self.encoder)
                filled = product.fill(work, draft, lambda *so_far: report(ShardProgress(shard, *so_far)))
                receipt = self._receipt(shard, filled)
                for written in draft.rglob("*"):
                    sync(written)
                # Another worker may have been given the shard meanwhile, as this one was slow or out of reach.
                with suppress(ValueError):
                    return verified(self.folder, shard, self.plan.digest, product)
                for old in (receipt_path(self.folder, shard), ids_path(self.folder, shard)):
                    old.unlink(missing_ok=True)
                if target.exists():
                    shutil.rmtree(target)
                put_in_place(draft, target)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            receipt = replace(receipt, seconds=round(time.monotonic() - begun, 3))
            return make_receipt(self.folder, receipt, product)

    def _receipt(self, shard: int, filled: FilledShard) -> Receipt:
        """Say what came into a shard, and who computed it; what it holds is counted once it lies in its place."""
        computed, texts = self.plan.computed, filled.texts
        planned = found = (computed.precision, computed.backend, computed.device)
        choice = None if self.encoder is None else self.encoder.choice
        if choice is not None:  # a table of a learned sparse model is read, whatever was chosen
            found = (choice.precision, choice.runtime, choice.device)
        return Receipt(
            shard=shard,
            plan=self.plan.digest,
            documents=0,
            passages=0,
            content_hash="",
            tokens=filled.tokens,
            truncated=filled.truncated,
            empty=filled.empty,
            unknown=filled.unknown,
            nonfinite=filled.nonfinite,
            vectors=filled.vectors,
            terms=filled.terms,
            duplicates=0 if texts is None else texts.duplicates,
            quarantined=0 if texts is None else len(texts.refused),
            quarantine=() if texts is None else texts.refused,
            encodings={} if texts is None else texts.encodings,
            mined=filled.mined,
            host=socket.gethostname(),
            versions=versions(),
            precision=found[0],
            backend=found[1],
            runtime=self._runtime(),
            as_planned=filled.as_planned and found == planned,
        )

    def _runtime(self) -> str:
        """Say what computes documents."""
        if self.encoder is None:
            return ""
        backend = self.encoder.backend
        return repr(backend["document"] if isinstance(backend, Mapping) else backend)


def versions() -> dict[str, str]:
    """Return the versions of what has a say in what a shard holds."""
    names = ("embedkit", "numpy", "tokenizers", "torch")
    return {name: version(name) for name in names} | {
        "python": platform.python_version(),
        "sqlite": sqlite_version(),
    }

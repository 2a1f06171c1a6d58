"""Shards that are rows with hard negatives, as `embedkit mine` writes them.

Rows are cut between the windows that are searched together, so that each window asks for what it would in one process. What is known to
be right of a query may stand in any row: a worker reads all rows, and opens the index, once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.classification import read_classifier_folder
from embedkit.distributed.layout import shard_path
from embedkit.distributed.plan import Computed, ShardPlan
from embedkit.distributed.planned_models import load_as_planned
from embedkit.distributed.product import Facts, FilledShard, Report, Work, WorkerRefusedError
from embedkit.distributed.receipts import Receipt
from embedkit.distributed.vector_files import join_files
from embedkit.errors import CheckpointError, DeviceError, IndexMismatchError, RecordError
from embedkit.pipelines.mining import MiningModels
from embedkit.pipelines.models import load_cross_encoder
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.serving.client.shard import ServedShard
from embedkit.storage.files import output_errors, write_text
from embedkit.storage.hashing import file_hash
from embedkit.training.mining.audit import Audit
from embedkit.training.mining.choosing import Score, Search
from embedkit.training.mining.mining import WINDOW, described, description_path, line_of, mine_rows
from embedkit.training.mining.recipe import MiningRecipe
from embedkit.training.rows.examples import Examples
from embedkit.training.rows.reading import read_examples
from indexes import GatherOptions, Index, Searchable, ShardsFile, content_hash, is_sharded, open_index

ROWS = "rows.jsonl"
_KEY = "EMBEDKIT_API_KEY"
_COUNTS = ("negatives", "rows_without", "candidates", "too_near", "rows_with_suspects")


class MinedShards:
    """See `embedkit.distributed.product.Product`; what it loads serves one shard after another."""

    ending = ".mined"

    def __init__(self) -> None:
        self._mining: _Mining | None = None

    def is_there(self, path: Path) -> bool:
        return (path / ROWS).is_file()

    def files(self, path: Path) -> Sequence[Path]:
        return [path / ROWS]

    def facts(self, path: Path) -> Facts:
        with (path / ROWS).open("rb") as stream:
            rows = sum(1 for _ in stream)
        return Facts(rows, rows, file_hash(path / ROWS))

    def hashes(self, path: Path) -> NDArray[np.uint64]:
        return np.empty(0, np.uint64)  # rows may be alike

    def fill(self, work: Work, draft: Path, report: Report) -> FilledShard:
        if self._mining is None:
            self._mining = _load(work)
        mining, rows = self._mining, work.plan.rows_of(work.shard)
        counts = Audit()
        draft.mkdir()
        with (draft / ROWS).open("wb") as stream:
            for mined in mine_rows(mining.examples, rows, mining.searches, mining.score, mining.recipe):
                for row in mined:
                    stream.write(line_of(row))
                    counts.add(row, examples=0)
                report(counts.rows, 0, counts.rows / len(rows))
        return FilledShard(
            mined={name: getattr(counts, name) for name in _COUNTS}, as_planned=mining.as_planned
        )


def borders(num_rows: int, shards: int) -> list[int]:
    """Cut rows into up to so many shards of about equal size, between windows; return where each begins, and the end."""
    windows = -(-num_rows // WINDOW)
    count = min(shards, windows)
    return [*(WINDOW * (number * windows // count) for number in range(count)), num_rows]


def open_whole(path: str | Path) -> Searchable:
    """Open an index, in one piece or in shards, of which every search sees all: what is not searched would give other negatives.

    Raises:
        IndexFileError: there is no index, or it is damaged.
        ServerError: a shard lies on a server that does not answer.
    """
    gathering = GatherOptions(
        require_all=True,
        seconds=None,
        connect=lambda address: ServedShard(address, key=os.environ.get(_KEY)),
    )
    return open_index(path, gathering=gathering)


def contents_hash(path: str | Path) -> str:
    """Return a hash of all that an index holds; reads all of it. Of a shard on a server it is what `shards.json` says.

    Raises:
        IndexFileError: something of it cannot be read.
    """
    path = Path(path)
    if not is_sharded(path):
        with Index.open(path) as index:
            return content_hash(index)
    whole = hashlib.sha256()
    for place in ShardsFile.read(path).shards:
        said = f"{place.location} {place.documents} {place.passages}"
        whole.update((said if place.is_served else contents_hash(path / place.location)).encode())
    return whole.hexdigest()


def join_rows(
    folder: Path, plan: ShardPlan, receipts: Mapping[int, Receipt], output: Path
) -> Iterator[float]:
    """Make one file of all shards, as mining in one process writes it, and remove the folder; yields how much is done.

    Raises:
        OutputError: the disk is full or cannot be written; the same call does it again.
    """
    paths = [shard_path(folder, number, MinedShards.ending) / ROWS for number in sorted(receipts)]
    mining = plan.mining
    with output_errors(output, f"What is done lies in {folder}; make room, and the same command goes on"):
        write_text(
            description_path(output), described(mining["rows_hash"], mining["recipe"], mining["manifest"])
        )
        yield from join_files(paths, output)
        shutil.rmtree(folder, ignore_errors=True)


def check_planned(plan: ShardPlan, examples: Examples, where: str) -> None:
    """Refuse rows, an index and a cross-encoder that are not what was planned.

    Raises:
        RecordError, IndexMismatchError, CheckpointError: they are others, or cannot be read.
    """
    mining = plan.mining
    if examples.fingerprint != mining["rows_hash"]:
        raise RecordError(
            f"{where}: the {len(examples):,} rows of {examples.name} are not the {mining['borders'][-1]:,} that were planned. "
            "Put the old ones back, or mine to another --output"
        )
    if contents_hash(mining["index"]) != mining["index_hash"]:
        raise IndexMismatchError(
            f"{where}: {mining['index']} holds other documents than when mining was planned. Mine to another --output"
        )
    judge = mining.get("judge")
    if judge is not None and read_classifier_folder(judge["model"]).fingerprint != judge["fingerprint"]:
        raise IndexMismatchError(
            f"{where}: the cross-encoder in {judge['model']} is not the one that was planned. Put the old one back, or mine to another --output"
        )


@dataclass(frozen=True)
class _Mining:
    """What a worker mines with."""

    examples: Examples
    searches: Sequence[Search]
    score: Score | None
    recipe: MiningRecipe
    as_planned: bool


def _load(work: Work) -> _Mining:
    plan, mining = work.plan, work.plan.mining
    examples = read_examples(
        mining["data"],
        columns=mining["columns"],
        kinds=("triplets", "pairs"),
        purpose="mining",
        read=plan.read_options,
    )
    # Opened before it is hashed: what a commit brings in between is not searched, but refused.
    index = open_whole(mining["index"])
    check_planned(plan, examples, str(work.folder))
    judge, as_planned = _load_judge(plan)
    from embedkit.encoding.encoder import Encoder

    encoder = work.encoder
    assert encoder is None or isinstance(encoder, Encoder)
    models = MiningModels(
        mining["by"],
        plan.computed.computing(),
        model=None,
        rerank=None,
        encoder=encoder,
        cross_encoder=judge,
    )
    searches, score = models.searches(index)
    return _Mining(examples, searches, score, MiningRecipe(**mining["recipe"]), as_planned)


def _load_judge(plan: ShardPlan) -> tuple[CrossEncoder | None, bool]:
    """Load the cross-encoder, if there is one; say whether it computes as planned."""
    judge = plan.mining.get("judge")
    if judge is None:
        return None, True
    computed = Computed(**judge["computed"])
    try:
        loaded = load_as_planned(
            lambda computing: load_cross_encoder(judge["model"], computing), plan, computed
        )
    except (DeviceError, CheckpointError) as exc:
        raise WorkerRefusedError(f"the cross-encoder cannot be loaded as planned: {exc}") from exc
    choice = loaded.choice
    assert choice is not None
    found = (choice.precision, choice.runtime, choice.device)
    return loaded, found == (computed.precision, computed.backend, computed.device)

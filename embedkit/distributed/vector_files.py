"""When all shards of vectors are done: `vectors.json`, which lists them, and the one file that they make together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from embedkit.data.vectors import ids_path as ids_beside
from embedkit.distributed.finishing import AT_A_TIME, between, ranges
from embedkit.distributed.layout import SHARD_FOLDER, shard_path
from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.receipts import Receipt, read_ids
from embedkit.distributed.vector_shards import VectorShards, vectors_name
from embedkit.encoding.output_forms import OutputForm, forms_of
from embedkit.storage.files import atomic_file, atomic_path, output_errors, write_text

VECTORS = "vectors.json"


def list_vectors(folder: Path, plan: ShardPlan, receipts: Mapping[int, Receipt]) -> None:
    """Write which files hold the vectors, in the order of the input.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    product, name = VectorShards(), vectors_name(plan)
    shards = []
    for number, receipt in sorted(receipts.items()):
        place = f"{SHARD_FOLDER}/{shard_path(folder, number, product.ending).name}"
        shards.append({"vectors": f"{place}/{name}", "rows": receipt.documents})
        if form_of(plan).ids_beside:
            shards[-1]["ids"] = f"{place}/{ids_beside(Path(name)).name}"
    content = {
        "plan": plan.digest,
        "dimension": plan.index_settings.dimension,
        "rows": sum(receipt.documents for receipt in receipts.values()),
        "shards": shards,
    }
    write_text(folder / VECTORS, json.dumps(content, indent=1) + "\n")


def form_of(plan: ShardPlan) -> OutputForm:
    """Return how the files of the shards, and the one of them all, are laid out."""
    return forms_of(plan.index_settings.kind)[plan.encoding["ending"]]


def count_duplicates(folder: Path, receipts: Mapping[int, Receipt]) -> int:
    """Count the texts that stood earlier already, by their 64-bit hashes; a share of all hashes is in memory at a time."""
    product = VectorShards()
    total = sum(receipt.documents for receipt in receipts.values())
    distinct = 0
    for low, high in ranges(-(-total // AT_A_TIME)):
        parts = [between(read_ids(folder, receipt, product), low, high) for receipt in receipts.values()]
        distinct += len(np.unique(np.concatenate(parts))) if parts else 0
    return total - distinct


def join_vectors(
    folder: Path, plan: ShardPlan, receipts: Mapping[int, Receipt], output: Path
) -> Iterator[float]:
    """Make one file of all shards, as a job in one piece writes it, and remove the folder; yields how much is done.

    The ids come before the vectors: that those are there says that all is there. Stopped at any moment, the same call does it again.

    Raises:
        OutputError: the disk is full or cannot be written.
    """
    product, name, form = VectorShards(), vectors_name(plan), form_of(plan)
    paths = [shard_path(folder, number, product.ending) / name for number in sorted(receipts)]
    rows = sum(receipt.documents for receipt in receipts.values())
    with output_errors(output, f"What is done lies in {folder}; make room, and the same command goes on"):
        if form.ids_beside:
            with atomic_file(ids_beside(output)) as stream:
                for path in paths:
                    with ids_beside(path).open("rb") as part:
                        shutil.copyfileobj(part, stream)
        if form.join is not None:
            with atomic_path(output) as whole:
                yield from form.join(paths, whole)
        elif form.header is not None:
            head = form.header(rows, plan.index_settings.dimension)
            yield from join_files(paths, output, head=head, skip=len(head))
        else:
            yield from join_files(paths, output)
        shutil.rmtree(folder, ignore_errors=True)


def join_files(paths: Sequence[Path], output: Path, *, head: bytes = b"", skip: int = 0) -> Iterator[float]:
    """Write one file of several, `head` first, without the first `skip` bytes of each; yields how much is done.

    Raises:
        OSError, OutputError: the disk is full or cannot be written.
    """
    with atomic_file(output) as stream:
        stream.write(head)
        for number, path in enumerate(paths, 1):
            with path.open("rb") as part:
                part.seek(skip)
                shutil.copyfileobj(part, stream, 2**22)
            yield number / len(paths)

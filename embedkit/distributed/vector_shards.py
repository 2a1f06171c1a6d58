"""Shards that are vectors in files, as `embedkit encode` writes them: `vectors.npy`, `.npz` or `.jsonl`, and the ids."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedkit.data.records import Document
from embedkit.data.vectors import ids_path as ids_beside
from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.product import Facts, FilledShard, Report, Work
from embedkit.distributed.texts import PartTexts
from embedkit.encoding.archives import count_rows
from embedkit.encoding.job import EncodeOptions, EncodeProgress, document_text, encode_to_file
from embedkit.errors import OutputError
from embedkit.storage.hashing import file_hash

_HASHES = "texts.hashes"  # 64 bits for each text, in the order of the rows


class VectorShards:
    """See `embedkit.distributed.product.Product`; a row for each text, so that nothing is left out or set aside."""

    ending = ".vectors"

    def is_there(self, path: Path) -> bool:
        return (path / _HASHES).is_file()

    def files(self, path: Path) -> Sequence[Path]:
        return sorted(path.iterdir())

    def facts(self, path: Path) -> Facts:
        rows = (path / _HASHES).stat().st_size // 8
        vectors = vectors_of(path)
        found = rows if vectors.suffix == ".jsonl" else _count_rows(vectors)
        if found != rows:
            raise OutputError(f"{vectors}: holds {found:,} texts, and {rows:,} were written")
        both = [file_hash(each) for each in self.files(path)]
        return Facts(rows, rows, hashlib.sha256("".join(both).encode("ascii")).hexdigest())

    def hashes(self, path: Path) -> NDArray[np.uint64]:
        return np.sort(np.fromfile(path / _HASHES, "<u8").astype(np.uint64, copy=False))

    def fill(self, work: Work, draft: Path, report: Report) -> FilledShard:
        plan = work.plan
        assert work.encoder is not None
        options = EncodeOptions(**plan.encoding["options"])
        texts = PartTexts(plan, work.shard, unique=False)
        hashes: list[bytes] = []

        def watched() -> Iterator[Document]:
            for document in texts:
                text = document_text(document, join_title=options.join_title)
                hashes.append(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest())
                yield document

        found = EncodeProgress()
        draft.mkdir()
        for found in encode_to_file(work.encoder, watched(), draft / vectors_name(plan), options):
            report(found.texts, found.tokens, texts.fraction())
        (draft / _HASHES).write_bytes(b"".join(hashes))
        return FilledShard(
            texts=texts,
            tokens=found.tokens,
            truncated=found.truncated,
            empty=found.empty,
            unknown=found.unknown,
            nonfinite=found.nonfinite,
            vectors=found.vectors,
            terms=found.terms,
        )


def vectors_name(plan: ShardPlan) -> str:
    return f"vectors{plan.encoding['ending']}"


def vectors_of(path: Path) -> Path:
    """Return the file of vectors in the folder of a shard.

    Raises:
        OutputError: there is none.
    """
    found = [each for each in path.glob("vectors.*") if each.suffix in (".npy", ".npz", ".jsonl")]
    if len(found) != 1 or (found[0].suffix == ".npy" and not ids_beside(found[0]).is_file()):
        raise OutputError(f"{path}: this is no whole shard of vectors")
    return found[0]


def _count_rows(vectors: Path) -> int:
    try:
        if vectors.suffix == ".npz":
            return count_rows(vectors)
        return len(np.load(vectors, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as exc:
        raise OutputError(f"{vectors}: cannot be read ({exc}). It will be made again") from exc

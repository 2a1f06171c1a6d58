"""Shards that are indexes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedkit.distributed.layout import shard_path
from embedkit.distributed.product import Facts, FilledShard, Report, Work
from embedkit.distributed.texts import PartTexts
from embedkit.errors import IndexMismatchError
from embedkit.pipelines.embedders import embedder_of
from embedkit.pipelines.filling import fill_index
from indexes import Index, build_ann, content_hash, id_hashes, is_index, take_steps

_FILLING = 0.9  # of a shard's progress, where an ANN structure comes after


class IndexShards:
    """See `embedkit.distributed.product.Product`."""

    ending = ".index"

    def is_there(self, path: Path) -> bool:
        return is_index(path)

    def files(self, path: Path) -> Sequence[Path]:
        return sorted([path / "index.sqlite", *(path / "segments").glob("*.vectors")])

    def facts(self, path: Path) -> Facts:
        with Index.open(path) as index:
            return Facts(index.count_documents(), len(index), content_hash(index))

    def hashes(self, path: Path) -> NDArray[np.uint64]:
        with Index.open(path) as index:
            return id_hashes(index)

    def fill(self, work: Work, draft: Path, report: Report) -> FilledShard:
        from embedkit.models import lasting_name

        plan, encoder = work.plan, work.encoder
        assert encoder is not None
        embedder = embedder_of(encoder, "document", by_field=True)
        texts = PartTexts(plan, work.shard)
        found = None
        with Index.create(draft, plan.index_settings) as index:
            _take_steps(index, work)
            index.note_model_path(lasting_name(encoder.folder.path))
            share = 1.0 if plan.kind == "flat" else _FILLING
            reports = fill_index(
                index,
                texts,
                encoder,
                embedder,
                tokenizer=embedder.tokenizer,
                commit_every=plan.commit_every,
            )
            for found in reports:
                report(found.embedded, embedder.tokens, share * texts.fraction())
            assert found is not None
            if plan.kind != "flat" and len(index):
                for built in build_ann(index, plan.kind):
                    done = share + (1 - share) * built.rows_done / max(1, built.rows_total)
                    report(found.embedded, embedder.tokens, done)
        return FilledShard(
            texts=texts,
            tokens=embedder.tokens,
            truncated=embedder.truncated,
            empty=found.empty,
            unknown=embedder.unknown,
        )


def _take_steps(index: Index, work: Work) -> None:
    """Keep vectors by the steps, or the codebook, of the first shard that has vectors, which is built before all others."""
    if index.settings.decided_first is None:
        return
    for earlier in range(work.shard):
        path = shard_path(work.folder, earlier)
        if not is_index(path):
            raise IndexMismatchError(
                f"{path}: is not there; {index.settings.storage} vectors take their {index.settings.decided_first} from it"
            )
        with Index.open(path) as other:
            if take_steps(index, other):
                return

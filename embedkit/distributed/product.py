"""What shards are: ordinary indexes, vectors in files, or rows with hard negatives. Plan, workers, receipts and driver know this much of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from embedkit.distributed.plan import ShardPlan
from embedkit.distributed.texts import PartTexts
from embedkit.errors import EmbedkitError

if TYPE_CHECKING:
    from embedkit.pipelines.embedders import AnyEncoder

Report = Callable[[int, int, float], None]  # takes passages, tokens, and the share that is done


class WorkerRefusedError(EmbedkitError):
    """A worker cannot build shards of the plan at all."""


@dataclass(frozen=True)
class Work:
    """One shard of a plan, for a worker that has the model; None where rows are mined by words alone."""

    folder: Path
    plan: ShardPlan
    shard: int
    encoder: AnyEncoder | None


@dataclass(frozen=True, kw_only=True)
class FilledShard:
    """What went into a shard: its `texts`, unless it is of mined rows, of which `mined` holds the counts.

    `vectors` counts those of a multi-vector model, `terms` the weights of a learned sparse one, where they lie in files.
    """

    texts: PartTexts | None = None
    tokens: int = 0
    truncated: int = 0
    empty: int = 0
    unknown: int = 0
    nonfinite: int = 0
    vectors: int = 0
    terms: int = 0
    mined: Mapping[str, int] = field(default_factory=dict)
    as_planned: bool = True


@dataclass(frozen=True)
class Facts:
    """What a shard holds."""

    documents: int
    passages: int
    content_hash: str


class Product(Protocol):
    """A kind of shard."""

    @property
    def ending(self) -> str:
        """The ending of a shard's folder."""
        ...

    def is_there(self, path: Path) -> bool: ...

    def files(self, path: Path) -> Sequence[Path]:
        """Return the files that hold what counts, in an order of their own."""
        ...

    def facts(self, path: Path) -> Facts:
        """Count and hash what a shard holds.

        Raises:
            EmbedkitError: it is damaged.
        """
        ...

    def hashes(self, path: Path) -> NDArray[np.uint64]:
        """Return 64 bits for each of what must be told from all others, sorted: ids of an index, texts of vectors."""
        ...

    def fill(self, work: Work, draft: Path, report: Report) -> FilledShard:
        """Make a shard in a folder that is not there.

        Raises:
            EmbedkitError: the input, the disk or the model does not allow it.
        """
        ...

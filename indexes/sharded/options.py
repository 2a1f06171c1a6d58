"""How shards are searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .shard import Shard

Connect = Callable[[str], "Shard"]  # opens a shard that a server holds, by its address

# Longer than any search of a shard should take, its first from a cold disk too.
SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class GatherOptions:
    """How shards are searched.

    `require_all` refuses an answer that lacks a shard. What has not answered after `seconds` (None: however long it takes) is left out.
    `more` are further shards, folders and addresses; one that does not belong to the others is then an error, as whoever searches has named it.
    """

    require_all: bool = False
    seconds: float | None = SECONDS
    connect: Connect | None = None
    more: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.seconds is not None and self.seconds <= 0:
            raise ValueError(f"seconds is {self.seconds}; a shard needs more than none")

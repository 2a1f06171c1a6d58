"""How much of an index in shards a search has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Coverage:
    """How many shards there are, and which of them gave no answer: `failed` with the reason, `timed_out` without one.

    >>> str(Coverage(64, timed_out=("00012",)))
    '63/64'
    """

    shards: int
    failed: Mapping[str, str] = field(default_factory=dict)
    timed_out: Sequence[str] = ()

    @property
    def searched(self) -> int:
        return self.shards - len({*self.failed, *self.timed_out})

    @property
    def complete(self) -> bool:
        return self.searched == self.shards

    def __str__(self) -> str:
        return f"{self.searched}/{self.shards}"

    def explained(self) -> str:
        """Say in words what is missing, and why."""
        parts = [f"{name} failed ({reason.rstrip('.')})" for name, reason in self.failed.items()]
        late = [name for name in self.timed_out if name not in self.failed]
        if late:
            parts.append(f"{', '.join(late)} did not answer in time")
        return f"coverage: {self} shards; " + "; ".join(parts)

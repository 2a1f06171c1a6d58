"""`SharedScans`: exact searches of many threads over the same vectors, in one pass over them.

A pass over many vectors takes as long as their way from memory to the processor, and nearly as long for eight queries as for one. So what is
asked for while one is under way waits for its end, and then goes together. Nobody waits where nothing is under way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from weakref import WeakValueDictionary

import numpy as np

from ..candidates import Candidates
from ..storage.codes import FloatArray
from ..storage.segment import MappedSegment

Scan = Callable[[FloatArray], Candidates]


@dataclass(eq=False)
class _Asked:
    queries: FloatArray
    found: Candidates | None = None
    error: BaseException | None = None

    @property
    def ended(self) -> bool:
        return self.found is not None or self.error is not None


class SharedScans:
    """The segments of one index file and the passes over them, of all its handles."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._segments: WeakValueDictionary[Path, MappedSegment] = WeakValueDictionary()
        self._waiting: dict[Hashable, list[_Asked]] = defaultdict(list)
        self._running: set[Hashable] = set()

    def shared(self, segment: MappedSegment) -> MappedSegment:
        """Return the one that the first handle has, whose blocks are compared with their checksums once for all."""
        with self._changed:
            return self._segments.setdefault(segment.path, segment)

    def scan(self, key: Hashable, queries: FloatArray, scan: Scan) -> Candidates:
        """Return what `scan` finds for queries (Q, E); whoever has the same `key` must mean the same vectors, and as many of them.

        Raises:
            Whatever the scan raises in which the queries are, to all who are in it.
        """
        asked = _Asked(queries)
        with self._changed:
            self._waiting[key].append(asked)
            while not asked.ended and key in self._running:
                self._changed.wait()
            together = [] if asked.ended else self._waiting.pop(key)
            if together:
                self._running.add(key)
        if together:
            self._run(key, together, scan)
        if asked.error is not None:
            raise asked.error
        assert asked.found is not None
        return asked.found

    def _run(self, key: Hashable, together: list[_Asked], scan: Scan) -> None:
        found: Candidates | None = None
        error: BaseException | None = None
        try:
            found = scan(np.concatenate([each.queries for each in together]))
        except BaseException as exc:  # Ctrl-C, too, or the others would wait for ever
            error = exc
        with self._changed:
            start = 0
            for each in together:
                here = slice(start, start + len(each.queries))
                each.error = error
                each.found = None if found is None else Candidates(found.scores[here], found.rows[here])
                start = here.stop
            self._running.remove(key)
            self._changed.notify_all()

"""The shards of an index that are open, asked all at once; and which of them gave no answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeVar

from embedkit.errors import EmbedkitError, FilterError, IndexFileError, IndexMismatchError
from embedkit.machine import num_cores

from ..storage.layout import is_index
from ..store import Index
from .coverage import Coverage
from .options import GatherOptions
from .shard import Shard
from .shards_file import ShardPlace, ShardsFile
from .workers import Workers

Found = TypeVar("Found")
BUILD_AGAIN = "The command that built the index builds it again"
RETRY_SECONDS = 5.0  # after which a shard that could not be opened is tried again


class Scatter:
    """The shards by their numbers. Whatever a shard lacks is remembered until `take_coverage`."""

    def __init__(self, folder: Path, file: ShardsFile, device: str | None, gathering: GatherOptions) -> None:
        """Open the shards.

        Raises:
            IndexFileError: none of them can be opened, or with `require_all` one cannot.
            IndexMismatchError: one of `more` does not belong to the others.
        """
        self.folder, self.file = folder, file
        self._device, self._gathering = device, gathering
        self._open: dict[int, Shard] = {}
        self._closed: dict[int, str] = {}  # why it could not be opened
        self._busy: dict[int, Future[object]] = {}  # with what was given up
        self._behind: set[int] = set()  # that were busy while the others went on to another commit
        self._failed: dict[int, str] = {}
        self._late: set[int] = set()
        self._tried = 0.0
        self._served = any(place.is_served for place in file.shards)
        self._workers = Workers(
            max(1, len(file.shards) if self._served else min(len(file.shards), num_cores()))
        )
        try:
            self.open_missing()
            if not self._open:
                reason = next(iter(self._closed.values()), f"{folder}: the index has no shards")
                raise IndexFileError(reason)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for number, shard in self._open.items():
            if (future := self._busy.get(number)) is None:
                shard.close()
            else:  # it is still at work
                future.add_done_callback(lambda _, shard=shard: shard.close())  # type: ignore[misc]  # bound now
        self._open.clear()
        self._workers.close()

    @property
    def numbers(self) -> frozenset[int]:
        """The numbers of the shards that are open."""
        return frozenset(self._open)

    def any(self) -> Shard:
        """Return one of the shards that are open."""
        return next(iter(self._open.values()))

    def open_missing(self) -> bool:
        """Try to open those that are not; say whether any could be."""
        if self._tried and (not self._closed or time.monotonic() < self._tried + RETRY_SECONDS):
            return False
        self._tried = time.monotonic()
        places = self.file.shards
        wanted = [number for number in range(len(places)) if number not in self._open]
        gathered = self._workers.gather(
            {number: partial(self._opened, places[number]) for number in wanted}, self._gathering.seconds
        )
        if (
            self._gathering.more
        ):  # whoever searches has named them: a shard of other vectors is a mistake of the command
            for exc in gathered.errors.values():
                if isinstance(exc, IndexMismatchError):
                    raise exc
        self._closed = {number: self._reason(exc) for number, exc in gathered.errors.items()}
        self._closed |= dict.fromkeys(gathered.late, "it could not be opened in time")
        self._open |= gathered.results
        self._open = dict(sorted(self._open.items()))
        self._need_all()
        return bool(gathered.results)

    def _opened(self, place: ShardPlace) -> Shard:
        shard: Shard
        if place.is_served:
            if self._gathering.connect is None:
                raise IndexFileError(
                    f"{place.location}: the shard {place.name} is held by a server, which this command does not ask"
                )
            shard = self._gathering.connect(place.location)
        else:
            if not is_index(self.folder / place.location):
                raise IndexFileError(f"{place.location}: there is no index. {BUILD_AGAIN}")
            shard = Index.open(self.folder / place.location, device=self._device)
        try:
            self.file.check_belongs(shard.settings, place.location)
        except BaseException:
            shard.close()
            raise
        return shard

    def ask(
        self, work: Callable[[int, Shard], Found], among: Collection[int] | None = None
    ) -> dict[int, Found]:
        """Do something with each shard, or some of them, at once; those that fail are left out of what comes back.

        Raises:
            FilterError: what is asked for cannot be understood.
            IndexFileError: no shard answered, or with `require_all` one did not.
        """
        tasks: dict[int, Callable[[], Found]] = {}
        for number, shard in self._open.items():
            if among is not None and number not in among:
                continue
            if self._is_free(number):
                tasks[number] = partial(self._caught_up, number, shard, work)
        gathered = self._workers.gather(tasks, self._gathering.seconds)
        for number, exc in gathered.errors.items():
            self._failed[number] = self._reason(exc)
        self._late.update(gathered.late)
        self._busy |= {number: future for number, future in gathered.late.items() if not future.cancelled()}  # type: ignore[misc]  # looked at, not awaited
        self._need_all()
        if tasks and not gathered.results:
            raise IndexFileError(f"{self.folder}: no shard answered; {self._coverage().explained()}")
        return gathered.results

    def _caught_up(self, number: int, shard: Shard, work: Callable[[int, Shard], Found]) -> Found:
        if number in self._behind:
            shard.follow()
            self._behind.discard(number)
        return work(number, shard)

    def _is_free(self, number: int) -> bool:
        future = self._busy.get(number)
        if future is None:
            return True
        if not future.done():
            self._late.add(number)
            return False
        del self._busy[number]
        self._behind.add(number)
        return True

    def follow(self) -> bool:
        """Have each shard see its newest commit; say whether any saw another. A server is asked for it."""
        if self._served:
            return any(self.ask(lambda _, shard: shard.follow()).values())
        return any(self.each(lambda shard: shard.follow()).values())

    def each(self, work: Callable[[Shard], Found]) -> dict[int, Found]:
        """Do what takes microseconds with each shard that is free, here and now."""
        found = {}
        for number, shard in self._open.items():
            if not self._is_free(number):
                continue
            try:
                found[number] = work(shard)
            except EmbedkitError as exc:
                self._failed[number] = self._reason(exc)
        self._need_all()
        return found

    @staticmethod
    def _reason(exc: Exception) -> str:
        """Return why a shard gave no answer; what is no shard's fault is raised.

        Raises:
            FilterError: the filter cannot be understood, which is the same in all shards.
        """
        if isinstance(exc, FilterError) or not isinstance(exc, EmbedkitError | OSError):
            raise exc
        return str(exc)

    def _coverage(self) -> Coverage:
        names = [place.name for place in self.file.shards]
        failed = {**self._closed, **self._failed}
        return Coverage(
            len(names),
            {names[number]: reason for number, reason in sorted(failed.items())},
            [names[number] for number in sorted(self._late)],
        )

    def take_coverage(self) -> Coverage:
        """Return which shards gave no answer since the last call."""
        coverage = self._coverage()
        self._failed.clear()
        self._late.clear()
        return coverage

    def _need_all(self) -> None:
        coverage = self._coverage()
        if self._gathering.require_all and not coverage.complete:
            raise IndexFileError(
                f"{self.folder}: every shard is required (--require-all); {coverage.explained()}"
            )

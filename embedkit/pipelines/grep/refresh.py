"""Bringing the index of a folder up to date with its files, within a time.

1. `find_changes` tells which files are new, changed or gone.
2. Documents of files that are gone are deleted.
3. Changed files are read, the newest first; those whose bytes are as they were get their new times, the rest go through the
   index's `build`, some at a time.
4. After each of its commits the files that it holds are noted as read.
What only step 3 needs is imported there: mostly nothing has changed, and a call is to be over soon.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from time import perf_counter
from typing import TYPE_CHECKING

from embedkit.data.walking import FileEntry
from embedkit.pipelines.grep.changes import Changes, find_changes
from embedkit.pipelines.grep.home import Home
from embedkit.pipelines.grep.rereading import delete_files, forget_read_otherwise
from embedkit.pipelines.grep.state import FolderState
from indexes import Index, is_index

if TYPE_CHECKING:
    from embedkit.encoding.embedder import Embedder
    from embedkit.encoding.encoder import Encoder
    from indexes.types import Storage

    Split = Callable[[str, str], Sequence[tuple[int, int]]]

# Bytes of text that are read, embedded and committed between two looks at the clock.
_STEP_BYTES = 60_000
# Read before it is known how fast this machine is.
_FIRST_BYTES_PER_SECOND = 20_000
COMMIT_EVERY = 1024  # passages: what a kill may cost of the first build, and when others see it
_SLICE_TEXTS = 128  # passages between two reports: some seconds on a slow processor
STORAGE: Storage = "int8"  # a quarter of the room, and scores within .001


@dataclass(frozen=True, kw_only=True)
class RefreshReport:
    """How far it is. `unseen` files are not yet in the index as they are now; `problems` says which could not be read."""

    files: int = 0  # that are there
    changed: int = 0  # new, or perhaps changed, when it began
    done: int = 0  # of these
    gone: int = 0
    passages: int = 0  # embedded so far
    fraction: float = 0.0  # of the work; an estimate by bytes of text
    seconds: float = 0.0
    finished: bool = False
    busy: bool = False  # another process is at it
    problems: Sequence[str] = ()

    @property
    def unseen(self) -> int:
        return self.changed - self.done


@dataclass
class _Work:
    """What is left to do, and what was done."""

    left: list[tuple[str, FileEntry]]  # the newest last
    report: RefreshReport
    problems: list[str] = field(default_factory=list)
    read_bytes: int = 0
    num_bytes: int = field(init=False)  # of all files, at least 1
    started: float = field(default_factory=perf_counter)

    def __post_init__(self) -> None:
        self.num_bytes = max(1, sum(entry.num_bytes for _, entry in self.left))

    def now(self, **changes: float) -> RefreshReport:
        spent = perf_counter() - self.started
        self.report = replace(self.report, seconds=spent, problems=tuple(self.problems), **changes)  # type: ignore[arg-type] # the names are the report's own
        return self.report


def refresh(
    home: Home,
    embedder: Callable[[int], Embedder],
    *,
    scope: str = "",
    seconds: float = math.inf,
    commit_every: int = COMMIT_EVERY,
) -> Iterator[RefreshReport]:
    """Bring a home up to date, whose lock the caller holds; yields how far it is.

    `embedder` gives what embeds so many bytes of text. What would end later than in so many `seconds` is not begun: the last
    report says how much that is. With `scope` only what is within that path is looked at.

    Raises (while iterating):
        IndexFileError, OutputError: the disk is full or cannot be written; what was committed stays.
        IndexMismatchError: the index was made by another model.
    """
    state = FolderState(home.files, writable=True)
    try:
        forget_read_otherwise(home, state)
        changes = find_changes(home, state, scope)
        changes.changed.sort(key=lambda each: each[1].mtime_ns)
        total = RefreshReport(files=changes.files, changed=len(changes.changed), gone=len(changes.gone))
        work = _Work(changes.changed, total)
        yield work.now()
        if not (changes.changed or changes.gone or changes.listings or changes.gone_folders):
            yield work.now(finished=True)
            return
        yield from _Refresh(home, state, embedder, work, commit_every).run(changes, seconds)
    finally:
        state.close()


class _CountedSplit:
    """Cuts texts as a splitter does, and counts them: most of the time goes by after that, while passages are embedded."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.passages = self.characters = 0

    def __call__(self, title: str, text: str) -> Sequence[tuple[int, int]]:
        spans = self.split(title, text)
        self.passages += len(spans)
        self.characters += len(text)
        return spans

    def characters_of(self, passages: int) -> int:
        """Return about how many characters so many of the passages are."""
        return self.characters * passages // max(1, self.passages)


class _Refresh:
    """One run."""

    def __init__(
        self,
        home: Home,
        state: FolderState,
        embedder: Callable[[int], Embedder],
        work: _Work,
        commit_every: int,
    ) -> None:
        self.commit_every = commit_every
        self.home, self.state, self.embedder, self.work = home, state, embedder, work
        self.index: Index | None = None
        self.known: dict[str, bytes] = {}
        self.embedding_seconds = 0.0

    def run(self, changes: Changes, seconds: float) -> Iterator[RefreshReport]:
        try:
            self._delete(changes.gone)
            # What is new is noted before the folder that holds it: a folder that is noted need not be listed again.
            self.state.note_pending(changes.changed)
            self.state.note_folders(changes.listings, changes.gone_folders)
            self.state.set_meta("above", changes.above)
            self.known = self.state.digests(folder for folder, _ in self.work.left)
            while batch := self._batch(seconds):
                yield from self._take(batch)
            if not self.work.left:
                self.state.set_meta("complete", 1)
        finally:
            if self.index is not None:
                self.index.close()
        finished = not self.work.left
        yield self.work.now(finished=finished, fraction=1.0 if finished else self.work.report.fraction)

    def _batch(self, seconds: float) -> list[tuple[str, FileEntry]]:
        """Take the newest files that are likely to be done in time; all of them where there is no limit."""
        left = self.work.left
        if seconds == math.inf:
            self.work.left = []
            return left[::-1]
        room = self._bytes_per_second() * (seconds - (perf_counter() - self.work.started))
        room = min(room, _STEP_BYTES)
        batch: list[tuple[str, FileEntry]] = []
        others: list[tuple[str, FileEntry]] = []
        for each in reversed(left):
            fits = each[1].num_bytes <= room
            room -= each[1].num_bytes if fits else 0
            (batch if fits else others).append(each)
        self.work.left = others[::-1]
        return batch

    def _bytes_per_second(self) -> float:
        if self.embedding_seconds > 0.1:
            return self.work.read_bytes / self.embedding_seconds
        return float(self.state.meta("bytes_per_second") or _FIRST_BYTES_PER_SECOND)

    def _take(self, batch: Sequence[tuple[str, FileEntry]]) -> Iterator[RefreshReport]:
        """Read, embed and commit some files, and note what was read."""
        from embedkit.pipelines.grep.reading import FileBatch
        from indexes import build

        taken = FileBatch(self.home, batch, self.known)
        begun = self.work.report.done
        documents = taken.documents()
        first = next(documents, None)
        if first is not None:
            num_bytes = sum(entry.num_bytes for _, entry in batch)
            index, embedder = self._opened(num_bytes)
            noted, before, started = 0, self.work.report.passages, perf_counter()
            cut = _CountedSplit(self._split(embedder.encoder, index))
            for report in build(
                index,
                chain([first], documents),
                embed=embedder,
                split=cut,
                commit_every=self.commit_every,
                slice_texts=_SLICE_TEXTS,
            ):
                self.state.note_files(taken.read[noted : report.read])
                noted = report.read
                taken_bytes = self.work.read_bytes + min(num_bytes, cut.characters_of(report.embedded))
                yield self.work.now(
                    done=begun + taken.begun_before(noted),
                    passages=before + report.embedded,
                    fraction=min(1.0, taken_bytes / self.work.num_bytes),
                )
            self._note_speed(num_bytes, perf_counter() - started)
        self._delete([(file.folder, file.name) for file in taken.failed], forget=False)
        self._delete(taken.vanished)
        self.state.note_files(taken.failed)
        self.state.note_times(taken.same)
        self.work.problems += [file.problem for file in taken.failed]
        yield self.work.now(
            done=begun + len(batch), fraction=min(1.0, self.work.read_bytes / self.work.num_bytes)
        )

    def _note_speed(self, num_bytes: int, seconds: float) -> None:
        self.work.read_bytes += num_bytes
        self.embedding_seconds += seconds
        if seconds > 0.1:
            self.state.set_meta("bytes_per_second", num_bytes / seconds)

    def _delete(self, files: Sequence[tuple[str, str]], *, forget: bool = True) -> None:
        """Delete the documents of files, and then forget the files."""
        if files and is_index(self.home.index):
            delete_files(self._writable(), files)
        if forget:
            self.state.forget_files(files)

    def _writable(self) -> Index:
        if self.index is None:
            self.index = Index.open(self.home.index, writable=True)
        return self.index

    def _opened(self, num_bytes: int) -> tuple[Index, Embedder]:
        """Open the index, or make it, and load what embeds."""
        from embedkit.models import lasting_name
        from embedkit.pipelines.building import cutting_of
        from embedkit.pipelines.options import BuildOptions
        from indexes import Settings

        embedder = self.embedder(num_bytes)
        encoder = embedder.encoder
        if self.index is None and not is_index(self.home.index):
            settings = Settings(
                dimension=encoder.dimension,
                storage=STORAGE,
                fingerprint=encoder.fingerprint,
                cutting=cutting_of(embedder.room, encoder.fields, BuildOptions()),
            )
            self.index = Index.create(self.home.index, settings)
        index = self._writable()
        index.check_encoder(encoder.fingerprint)
        name = lasting_name(encoder.folder.path)
        if index.model_path != name:
            index.note_model_path(name)
        return index, embedder

    def _split(self, encoder: Encoder, index: Index) -> Split:
        from embedkit.tokenization.passages import PassageSplitter

        return PassageSplitter.of(encoder.tokenizer, **index.settings.cutting)

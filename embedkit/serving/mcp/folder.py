"""A folder that is served: its index is kept as `embedkit grep` keeps it, and brought up to date before each search."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from embedkit.data.formats import decode_whole
from embedkit.data.records import Hit
from embedkit.data.walking import Walker, is_text_head
from embedkit.data.whole_file import read_whole_file
from embedkit.errors import IndexFileError, IndexMismatchError, OutputError, RecordError
from embedkit.pipelines.grep.folder import Folder, find_home, temporary_home
from embedkit.pipelines.grep.home import MAX_BYTES, Home, resolved, trim_cache
from embedkit.pipelines.grep.state import FolderState
from embedkit.retrieval.options import FOLDER_TEXT_WEIGHT
from embedkit.retrieval.vectors import Vectors
from embedkit.serving.mcp.building import FirstBuild
from embedkit.serving.mcp.served import Call, CallCancelledError, ServedText, Turns, near_vectors
from embedkit.serving.mcp.within import inner_parts, read_within
from embedkit.types import Computing
from indexes import is_index

if TYPE_CHECKING:
    from embedkit.data.walking import WalkOptions
    from embedkit.pipelines.grep.filtering import Narrowing
    from embedkit.pipelines.grep.refresh import RefreshReport
    from embedkit.pipelines.searching import Search
    from embedkit.retrieval.options import SearchOptions

# Clients give a call a minute, if not less.
FIRST_BUILD_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """How a folder is served. A refresh takes `refresh_seconds` at most; a call waits for the first build for `first_seconds`."""

    walking: WalkOptions
    computing: Computing
    model: str | None = None
    rerank: str | None = None
    refresh_seconds: float = 2.0
    first_seconds: float = FIRST_BUILD_SECONDS
    cache_limit: int = 2_000_000_000


class ServedFolder:
    """A folder or a file. Ids in its index are as seen from the index's root; names are as seen from the folder itself."""

    def __init__(self, path: Path, options: FolderOptions) -> None:
        """Find where its index is or will be.

        Raises:
            RecordError: there is no such folder or file.
        """
        self.path = resolved(path)
        self.root = self.path if self.path.is_dir() else self.path.parent
        self.options = options
        home, self._scope = find_home(path, options.walking)
        self._folder = self._made(home)
        self._prefix = f"{self._scope}/" if self._scope and self.path.is_dir() else ""
        self._build: FirstBuild | None = None
        self._building, self._turns, self._until_end = Lock(), Turns(), ExitStack()
        self._not_kept = ""

    @property
    def shown(self) -> str:
        return str(self.path)

    @property
    def text_weight(self) -> float:
        return FOLDER_TEXT_WEIGHT

    @property
    def home(self) -> Home:
        return self._folder.home

    def _made(self, home: Home) -> Folder:
        return Folder(home, self.options.computing, model=self.options.model)

    # Keeping up

    @property
    def is_there(self) -> bool:
        build = self._build
        empty = build is not None and not build.is_over and not build.has_committed
        return is_index(self.home.index) and not empty

    def bring_up_to_date(self, call: Call) -> list[str]:
        build = self._first_build()
        notes = [self._not_kept] if self._not_kept else []
        if build is None:
            return [*notes, *self._refreshed(call)]
        build.wait(call, self.options.first_seconds)
        if not build.is_over:
            return [*notes, self._partial(build)]
        if build.error is not None:
            self._failed(build.error)
            return self.bring_up_to_date(call)
        if build.was_stopped:  # by a call that was cancelled
            return self.bring_up_to_date(call)
        self._trim()
        return notes

    def _first_build(self) -> FirstBuild | None:
        """Return the first build that is going on, or has just failed, or begins now; None where there was one to its end."""
        with self._building:
            build = self._build
            if build is not None and (not build.is_over or build.error is not None):
                return build
            if self._folder.is_complete:
                self._build = None
                return None
            if not self.home.is_there:
                try:
                    self.home.make()
                except OutputError as exc:
                    self._move_to_temporary(exc)
            # Its own models: a search may compute meanwhile.
            self._build = FirstBuild(self._made(self.home))
            self._build.start()
            return self._build

    def _failed(self, error: Exception) -> None:
        """Try once more in a temporary folder where nothing could be written; raise what else it was."""
        with self._building:
            if self._build is None or self._build.error is not error:
                return  # another call has seen to it
            self._build = None
            if isinstance(error, OutputError | IndexFileError) and self.home.lasting:
                self._move_to_temporary(error)
                return
        raise error

    def _move_to_temporary(self, error: Exception) -> None:
        home = self._until_end.enter_context(temporary_home(self.home))
        self._folder = self._made(home)
        self._not_kept = f"{error}. The index is not kept when this server ends"

    def close(self) -> None:
        """Remove what is not to be kept."""
        self._until_end.close()

    def _partial(self, build: FirstBuild) -> str:
        if not self.is_there:
            return f"The index of this folder is being built: {build.described()}. Ask again when it is there"
        return f"The index of this folder is still being built: {build.described()}. What follows is from these files alone"

    def _refreshed(self, call: Call) -> list[str]:
        self._turns.take(call)
        try:
            report = self._refresh(call)
        except (OutputError, IndexFileError) as exc:
            return [f"{exc}. The index stays as it was", *_unseen(self._folder.look(self._scope))]
        finally:
            self._turns.give()
        if report.done:
            self._trim()
        self.home.note_use()
        problems = [f"not read: {each}" for each in report.problems[:3]]
        return [*problems, *_unseen(report)]

    def _refresh(self, call: Call) -> RefreshReport:
        if not self.options.refresh_seconds:
            return self._folder.look(self._scope)
        last = None
        for report in self._folder.refresh(scope=self._scope, seconds=self.options.refresh_seconds):
            last = report
            if call.cancelled:
                raise CallCancelledError("cancelled")
        assert last is not None  # the first comes at once
        return last

    def _trim(self) -> None:
        if self.home.lasting:
            trim_cache(self.options.cache_limit, self.home)

    # Searching

    @contextmanager
    def opened(self, options: SearchOptions, call: Call) -> Iterator[Search]:
        self._turns.take(call)
        try:
            with ExitStack() as stack:
                try:
                    search = stack.enter_context(self._folder.open(options, rerank=self.options.rerank))
                except IndexMismatchError:  # perhaps somebody has built it again, with another model
                    self._folder = self._made(self.home)
                    search = stack.enter_context(self._folder.open(options, rerank=self.options.rerank))
                yield search
        finally:
            self._turns.give()

    def search(self, opened: Search, query: str, options: SearchOptions, narrowing: Narrowing) -> list[Hit]:
        return self._shown_hits(self._folder.search(opened, query, options, self._scoped(narrowing)))

    def search_vectors(
        self, opened: Search, vectors: Vectors, options: SearchOptions, narrowing: Narrowing
    ) -> list[Hit]:
        return self._shown_hits(near_vectors(opened.index, vectors, options, self._scoped(narrowing)))

    def _scoped(self, narrowing: Narrowing) -> Narrowing:
        globs = [self._scoped_glob(each) for each in narrowing.globs]
        return replace(narrowing, scopes=[self._scope], globs=globs)

    def _scoped_glob(self, glob: str) -> str:
        sign, pattern = ("!", glob[1:]) if glob.startswith("!") else ("", glob)
        return f"{sign}{self._prefix}{pattern.removeprefix('/')}" if "/" in pattern else glob

    def _shown_hits(self, hits: Sequence[Hit]) -> list[Hit]:
        """Leave out what stands in linked files, which lie elsewhere."""
        links = {each.doc_id for each in hits if os.path.islink(self.home.root / each.doc_id)}  # noqa: PTH114 (as fast as can be)
        return [hit for hit in hits if hit.doc_id not in links]

    def named(self, hits: Sequence[Hit]) -> list[Hit]:
        found = []
        for hit in hits:
            name = hit.doc_id.removeprefix(self._prefix)
            if self._scope and not self._prefix:  # one file of an index of more
                name = self.path.name
            found.append(replace(hit, doc_id=name, source=name))
        return found

    # Reading

    def doc_id(self, name: str) -> str:
        if self._scope and not self._prefix:
            return self._scope
        return self._prefix + "/".join(inner_parts(self.root, name))

    def text(self, name: str) -> ServedText:
        parts = inner_parts(self.root, name)
        shown = "/".join(parts)
        limit = self.options.walking.max_bytes or MAX_BYTES
        raw = read_within(self.root, parts, limit)
        if not self._is_served(parts):
            raise RecordError(
                f"{shown}: is left out of what is served, as hidden files and what .gitignore names are"
            )
        if is_text_head(raw):
            return ServedText(shown, decode_whole(raw, shown, guess=True)[0])
        return ServedText(shown, read_whole_file(io.BytesIO(raw), shown, max(1, len(raw)), guess=True).text)

    def _is_served(self, parts: tuple[str, ...]) -> bool:
        """Say whether a file is one that a search finds, or will when it has seen it."""
        if self.path != self.root:
            return parts == (self.path.name,)
        state = FolderState(self.home.files, writable=False)
        try:
            if state.knows(self._prefix + "/".join(parts)):
                return True
        finally:
            state.close()
        walker, path = Walker(self.home.root, self.home.walking), ""
        *folders, name = self._prefix.split("/")[:-1] + list(parts)
        for folder in folders:
            if folder not in walker.list(path, walker.rules(path)).folders:
                return False
            path = f"{path}/{folder}" if path else folder
        return name in {entry.name for entry in walker.list(path, walker.rules(path)).files}

    def status(self) -> list[str]:
        build = self._build
        status = self._folder.status()
        lines = [f"folder: {self.path}"]
        if build is not None and not build.is_over:
            lines.append(f"being built: {build.described()}")
        if not status.is_there and len(lines) > 1:
            return lines
        if not status.is_there:
            return [*lines, "no index yet; the first search makes it"]
        lines += [
            f"index: {status.files:,} files, {status.passages:,} passages, {status.num_bytes / 1e6:,.1f} MB, model {status.model}",
            f"not seen yet: {status.changed:,} new or changed files, {status.gone:,} gone",
        ]
        if status.left_out:
            lines.append(f"left out: {status.left_out}")
        if status.encodings:
            lines.append(f"not UTF-8: {status.encodings}")
        if self._not_kept:
            lines.append(self._not_kept)
        return lines + [f"not read: {each}" for each in status.problems[:20]]


def _unseen(report: RefreshReport) -> list[str]:
    if report.unseen:
        return [f"{report.unseen:,} changed files are not seen yet; the next search goes on with them"]
    return []

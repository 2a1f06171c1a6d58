"""A folder that is searched: bringing its index up to date, and its search, with the models that both need."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.data.records import Hit
from embedkit.errors import OutputError, RecordError
from embedkit.pipelines.grep.changes import find_changes
from embedkit.pipelines.grep.filtering import Narrowing
from embedkit.pipelines.grep.home import Home, cached_home, homes_of, resolved
from embedkit.pipelines.grep.refresh import COMMIT_EVERY, RefreshReport, refresh
from embedkit.pipelines.grep.state import FolderState
from embedkit.pipelines.models import load_encoder, of_index, or_default
from embedkit.pipelines.searching import open_search
from embedkit.retrieval.options import SearchOptions
from embedkit.types import Computing
from indexes import Index, is_index

if TYPE_CHECKING:
    from embedkit.data.walking import WalkOptions
    from embedkit.encoding.embedder import Embedder
    from embedkit.encoding.encoder import Encoder
    from embedkit.pipelines.searching import Search

# Up to so much text is embedded by what starts fastest (2,500 tokens: 2 s by numpy); what is faster in the long run takes longer to load.
QUICK_BYTES = 10_000


def find_home(path: Path, walking: WalkOptions) -> tuple[Home, str]:
    """Return the home that a folder or file is searched in, there or not, and which part of it that is ("": all).

    That is its own, else that of the nearest folder above it whose index holds it, else a new one in the cache.

    Raises:
        RecordError: there is no such folder or file.
    """
    real = resolved(path)
    for home in homes_of(real, walking):
        if home.only or home.root == real:
            return home, ""
        scope = real.relative_to(home.root).as_posix()
        state = FolderState(home.files, writable=False)
        try:
            if state.knows(scope):
                return home, scope
        finally:
            state.close()
    return cached_home(real, walking), ""


@dataclass(frozen=True, kw_only=True)
class FolderStatus:
    """What is known of a folder's index."""

    home: Home
    files: int = 0
    passages: int = 0
    num_bytes: int = 0
    changed: int = 0  # files that are new or different
    gone: int = 0
    complete: bool = False
    model: str | None = None
    problems: Sequence[str] = ()
    left_out: str = ""
    encodings: str = ""  # of files that are not UTF-8

    @property
    def is_there(self) -> bool:
        return self.model is not None


class Folder:
    """A home with the models that its search needs, each loaded when it is first used."""

    def __init__(self, home: Home, computing: Computing, *, model: str | None = None) -> None:
        self.home, self.computing, self.model = home, computing, model
        self._quick: Encoder | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the index held all files at some time: its first build has come to its end."""
        state = FolderState(self.home.files, writable=False)
        try:
            return bool(state.meta("complete")) and is_index(self.home.index)
        finally:
            state.close()

    def refresh(
        self, *, scope: str = "", seconds: float = math.inf, commit_every: int = COMMIT_EVERY
    ) -> Iterator[RefreshReport]:
        """Bring the index up to date, or build it; see `refresh`. `seconds` does not hold for the first build.

        Where another process is at it, that is waited for if the index is not complete, else the report says `busy`.

        Raises (while iterating):
            OutputError, IndexFileError: nothing can be written.
            IndexMismatchError: the index is of another model.
            RecordError: there is no file to read.
        """
        with self.home.held() as mine:
            if mine:
                yield from self._refresh(scope, seconds, commit_every)
                return
        if self.is_complete:
            yield replace(self.look(scope), busy=True, finished=True)
            return
        yield RefreshReport(busy=True)
        with self.home.held(wait=True):
            yield from self._refresh(scope, seconds, commit_every)

    def _refresh(self, scope: str, seconds: float, commit_every: int) -> Iterator[RefreshReport]:
        first = not self.is_complete
        yield from refresh(
            self.home,
            self._embedder,
            scope="" if first else scope,
            seconds=math.inf if first else seconds,
            commit_every=commit_every,
        )
        if not is_index(self.home.index):
            raise RecordError(self._nothing())

    def _nothing(self) -> str:
        state = FolderState(self.home.files, writable=False)
        left, problems = state.left_out(), state.problems()
        state.close()
        what = self.home.root / self.home.only
        why = [
            *([f"Left out: {left.described()}. "] if left.described() else []),
            *(f"{each}. " for each in problems[:3]),
        ]
        return f"{what}: there is no text to search. {''.join(why)}Look with --no-ignore or --hidden, or name another folder"

    def look(self, scope: str = "") -> RefreshReport:
        """Say what has changed, and change nothing."""
        state = FolderState(self.home.files, writable=False)
        try:
            changes = find_changes(self.home, state, scope)
        finally:
            state.close()
        return RefreshReport(files=changes.files, changed=len(changes.changed), gone=len(changes.gone))

    def status(self) -> FolderStatus:
        """Say what the index holds, and what has changed since."""
        if not (self.home.is_there and is_index(self.home.index)):
            return FolderStatus(home=self.home)
        look = self.look()
        state = FolderState(self.home.files, writable=False)
        try:
            with Index.open(self.home.index) as index:
                return FolderStatus(
                    home=self.home,
                    files=state.count(),
                    passages=len(index),
                    num_bytes=self.home.num_bytes,
                    changed=look.changed,
                    gone=look.gone,
                    complete=bool(state.meta("complete")),
                    model=index.model_path,
                    problems=state.problems(),
                    left_out=state.left_out().described(),
                    encodings=", ".join(
                        f"{count:,} {name}" for name, count in sorted(state.encodings().items())
                    ),
                )
        finally:
            state.close()

    @contextmanager
    def open(self, options: SearchOptions, *, rerank: str | None = None) -> Iterator[Search]:
        """Open the index for some queries.

        Raises:
            As `open_search`.
        """
        encoder = self._quick
        if encoder is None and options.mode != "text":
            encoder = self._load(quick=True)
        with open_search(
            self.home.index, options, self.computing, rerank=rerank, interactive=True, encoder=encoder
        ) as search:
            yield search

    def _embedder(self, num_bytes: int) -> Embedder:
        from embedkit.encoding.embedder import Embedder

        return Embedder(self._load(quick=num_bytes <= QUICK_BYTES), "document")

    def _load(self, *, quick: bool) -> Encoder:
        if quick and self._quick is not None:
            return self._quick
        if is_index(self.home.index):
            with Index.open(self.home.index) as index:
                model = of_index(index, self.model)
        else:
            model = or_default(self.model)
        encoder = load_encoder(model, self.computing, interactive=quick)
        if quick:
            self._quick = encoder
        return encoder

    def search(
        self, opened: Search, query: str, options: SearchOptions, narrowing: Narrowing | None = None
    ) -> list[Hit]:
        """Return up to k hits, best first, of the files and passages that are asked for; `source` is the file's path now.

        Raises:
            FilterError: a filter, a pattern or the regular expression cannot be understood.
        """
        narrowing = narrowing or Narrowing()
        found = _search(
            opened, query, replace(options, where=narrowing.where(options.where)), narrowing.regex
        )
        return [replace(hit, source=(self.home.root / hit.doc_id).as_posix()) for hit in found]


def _search(opened: Search, query: str, options: SearchOptions, regex: str | None) -> list[Hit]:
    if regex is None:
        return opened.retriever.search([query], options)[0]
    wanted = re.compile(regex)
    width = max(4 * options.k, options.candidates)
    while True:
        # The filter lets files pass that match; of their passages those count that do.
        found = opened.retriever.search([query], replace(options, k=width, candidates=width))[0]
        kept = [hit for hit in found if wanted.search(hit.text)]
        if len(kept) >= options.k or len(found) < width or opened.reranker is not None:
            return kept[: options.k]
        width *= 4


@contextmanager
def temporary_home(home: Home) -> Iterator[Home]:
    """Give a home for the same folder that goes when the block ends.

    Raises:
        OutputError: no temporary folder can be made.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="embedkit-grep-", ignore_cleanup_errors=True) as folder:
            made = replace(home, path=Path(folder) / "home", lasting=False)
            made.make()
            yield made
    except OSError as exc:
        raise OutputError(
            f"no temporary folder can be made ({exc.strerror or exc}). Make room, or set TMPDIR to another folder"
        ) from exc

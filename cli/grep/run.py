"""One call of `embedkit grep`: bring the indexes up to date, search them, show the hits."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from embedkit.errors import IndexFileError, IndexMismatchError, OutputError
from embedkit.pipelines.grep.folder import Folder, find_home, temporary_home
from embedkit.pipelines.grep.home import trim_cache
from embedkit.pipelines.judging import strong_hits

from ..search.hits import say_left_out
from ..shared import console, options
from ..shared.plain import plain
from .asked import Narrowed, Refreshing, ShowingHits
from .keeping import bring_up_to_date
from .output import show, show_fitting

if TYPE_CHECKING:
    from embedkit.data.records import Hit
    from embedkit.data.walking import WalkOptions
    from embedkit.pipelines.grep.home import Home


SHORT_PASSAGE = 20  # tokens: few passages are shorter


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What one call asks for."""

    query: str
    paths: list[str]
    narrowed: Narrowed
    showing: ShowingHits
    searching: options.Searching
    rerank: str | None
    refreshing: Refreshing
    walking: WalkOptions
    model: str | None
    computing: options.ComputingOptions
    printing: options.Printing

    @property
    def shows_weak(self) -> bool:
        """Whether hits that mean nothing are shown too: to programs, and where a pattern says what counts."""
        return self.showing.show_all or self.printing.as_json or self.narrowed.regex is not None


def run(asked: Asked) -> bool:
    """Search, show what was found, and say whether it was anything."""
    regex = asked.narrowed.narrowing([]).regex  # what is wrong with it is said before anything is read
    homes = _homes(asked)
    hits: list[Hit] = []
    found = 0
    for home, scopes in homes.values():
        strong, count = _search(home, scopes, asked)
        hits += strong
        found += count
    hits.sort(key=lambda hit: -hit.score)
    if asked.showing.tokens is not None:
        if hits and not show_fitting(hits, asked.showing.tokens, as_json=asked.printing.as_json):
            console.note(
                f"{console.counted(len(hits), 'passage')} found, of which none fits into {asked.showing.tokens:,} tokens. Allow more"
            )
    elif hits:
        best = hits[: asked.searching.k]
        show(asked.query, best, asked.showing, regex=regex, as_json=asked.printing.as_json)
    if len(hits) < found:
        say_left_out(len(hits), found, "--all")
    return bool(hits)


def _homes(asked: Asked) -> dict[Path, tuple[Home, list[str]]]:
    """Return the indexes that hold the paths, each with the parts of it that are searched."""
    found: dict[Path, tuple[Home, list[str]]] = {}
    for path in asked.paths:
        home, scope = find_home(Path(path), asked.walking)
        found.setdefault(home.path, (home, []))[1].append(scope)
    return found


def _search(home: Home, scopes: list[str], asked: Asked) -> tuple[list[Hit], int]:
    """Return the hits to show, and how many were found."""
    if asked.refreshing.rebuild:
        _forget(home)
    try:
        return _search_kept(home, scopes, asked)
    except IndexMismatchError as exc:
        if not _wants_rebuild(exc):
            raise IndexMismatchError(f"{exc}. Build it again with --rebuild") from exc
    _forget(home)
    return _search_kept(home, scopes, asked)


def _forget(home: Home) -> None:
    """Remove an index that is to be built again.

    Raises:
        OutputError: another process is at it.
    """
    if home.is_there and not home.forget():
        raise OutputError(
            f"{home.root}: another process is bringing its index up to date, so that it cannot be built again. Wait for it to end"
        )


def _wants_rebuild(exc: IndexMismatchError) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(f"{plain(str(exc))}. Build the index again?", err=True)


def _search_kept(home: Home, scopes: list[str], asked: Asked) -> tuple[list[Hit], int]:
    """Search with an index that is kept; where nothing can be kept, with one that is not."""
    was_there = home.is_there
    try:
        if not was_there:
            home.make()
        return _search_in(home, scopes, asked)
    except (OutputError, IndexFileError) as exc:
        if was_there and Folder(home, asked.computing).is_complete:
            raise
        console.warn(f"{exc}. The index is not kept")
        with temporary_home(home) as other:
            return _search_in(other, scopes, asked)


def _search_in(home: Home, scopes: list[str], asked: Asked) -> tuple[list[Hit], int]:
    folder = Folder(home, asked.computing, model=asked.model)
    changed = bring_up_to_date(folder, scopes, asked.refreshing.refresh)
    if changed and home.lasting:
        for gone in trim_cache(asked.refreshing.cache_limit, home):
            console.note(f"removed the index of {gone.root}, which was not used for longest, from the cache")
    home.note_use()
    searching = asked.searching
    if asked.showing.tokens is not None:  # as many as fit
        most = max(searching.k, asked.showing.tokens // SHORT_PASSAGE)
        searching = replace(searching, k=most, candidates=max(searching.candidates, most))
    with folder.open(searching, rerank=asked.rerank) as opened:
        hits = folder.search(opened, asked.query, searching, asked.narrowed.narrowing(scopes))
        if asked.shows_weak:
            return hits, len(hits)
        return strong_hits(opened, asked.query, hits, searching), len(hits)

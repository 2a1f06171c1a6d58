"""The conversation of `embedkit search` without a query: queries typed one after another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..shared import console
from .hits import answer, print_whole

if TYPE_CHECKING:
    from embedkit.data.records import Hit
    from embedkit.retrieval.options import SearchOptions

    from .sources import Searched

HISTORY = "search_history"  # in the cache folder
HELP = "a query searches; a number opens a hit; all adds those left out; help, quit"


def converse(searched: Searched, wanted: SearchOptions, *, show_all: bool, as_json: bool) -> None:
    """Answer queries until the input ends."""
    console.note(f"Type a query. ({HELP})")
    hits: list[Hit] = []
    query = ""
    with _history():
        while True:
            try:
                line = input("query> ").strip()
            except EOFError:
                console.note("")
                return
            if line in ("quit", "exit", ":q"):
                return
            if line in ("help", "?"):
                console.tell(HELP)
            elif line.isdigit() and query:
                _open(hits, int(line))
            elif line.isdigit():
                console.tell("there are no hits yet: type a query first")
            elif line == "all" and query:
                hits = answer(searched, query, wanted, show_all=True, as_json=as_json)
            elif line:
                query = line
                hits = answer(searched, query, wanted, show_all=show_all, as_json=as_json, how="all")


def _open(hits: list[Hit], number: int) -> None:
    if 1 <= number <= len(hits):
        print_whole(hits[number - 1])
    else:
        console.tell(f"there is no hit {number}; the last query has {len(hits)}")


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Edit lines with a history that outlives the conversation, where Python was built with readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    from embedkit.storage.cache import cache_folder

    path = cache_folder() / HISTORY
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a conversation is worth more than its history
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.set_history_length(1000)
            readline.write_history_file(path)

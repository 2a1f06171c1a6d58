"""What the tools need of what is served, be it a folder or an index, and of a call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from embedkit.errors import EmbedkitError, RecordError
from embedkit.retrieval.vectors import Vectors

if TYPE_CHECKING:
    from embedkit.data.records import Hit
    from embedkit.pipelines.grep.filtering import Narrowing
    from embedkit.pipelines.searching import Search
    from embedkit.retrieval.options import SearchOptions
    from indexes import Searchable

_LOOK_SECONDS = 0.05  # how soon a call that waits for another sees that it was cancelled


class CallCancelledError(EmbedkitError):
    """Nobody waits for the answer of a call any more."""


class Call(Protocol):
    """One call of a tool."""

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        ...

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Tell how far the call is."""
        ...


@dataclass(frozen=True)
class ServedText:
    """A text with the number of its first line."""

    name: str
    text: str
    first_line: int = 1


class Served(Protocol):
    """What is served. Its methods may be called from several threads."""

    @property
    def shown(self) -> str:
        """What it is called."""
        ...

    @property
    def text_weight(self) -> float:
        """Weight of words in a search by both."""
        ...

    def bring_up_to_date(self, call: Call) -> list[str]:
        """Bring it up to date within its time, and return what is to be said with the answer.

        Raises:
            CallCancelledError: nobody waits for the answer any more.
        """
        ...

    @property
    def is_there(self) -> bool:
        """Whether there is anything to search yet."""
        ...

    def opened(self, options: SearchOptions, call: Call) -> AbstractContextManager[Search]:
        """Open it for a search; one call computes at a time.

        Raises:
            As `open_search`, and CallCancelledError.
        """
        ...

    def search(
        self, opened: Search, query: str, options: SearchOptions, narrowing: Narrowing
    ) -> list[Hit]: ...

    def search_vectors(
        self, opened: Search, vectors: Vectors, options: SearchOptions, narrowing: Narrowing
    ) -> list[Hit]:
        """Return up to k hits near the vectors of one text, of the index's kind, best first."""
        ...

    def named(self, hits: Sequence[Hit]) -> list[Hit]:
        """Return hits whose ids are the names that `text` and `doc_id` take."""
        ...

    def doc_id(self, name: str) -> str:
        """Return the index's id of a file or document.

        Raises:
            RecordError: the name leads out of what is served.
        """
        ...

    def text(self, name: str) -> ServedText:
        """Return the text of a file or document.

        Raises:
            RecordError: there is none of that name, or it is not served.
        """
        ...

    def status(self) -> list[str]: ...

    def close(self) -> None:
        """Remove what is not to be kept."""
        ...


class Turns:
    """Lets one call compute at a time; those that wait see it when they are cancelled."""

    def __init__(self) -> None:
        self._lock = Lock()

    def take(self, call: Call) -> None:
        while not self._lock.acquire(timeout=_LOOK_SECONDS):
            if call.cancelled:
                raise CallCancelledError("cancelled")

    def give(self) -> None:
        self._lock.release()


def near_vectors(
    index: Searchable, vectors: Vectors, options: SearchOptions, narrowing: Narrowing
) -> list[Hit]:
    """Return up to k hits near the vectors of one text, best first, of the files that are asked for."""
    return index.search(vectors, k=options.k, where=narrowing.where(options.where))[0]


def unknown_name(name: str, what: str) -> RecordError:
    return RecordError(f"{name}: there is no such {what} here. Take a path from the answer of a search")

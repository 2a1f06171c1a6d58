"""Which indexes a request names."""

from __future__ import annotations

from collections.abc import Mapping

from embedkit.serving.http.messages import RefusedError
from embedkit.serving.indexes.live import LiveIndex
from embedkit.serving.services import Services


def named_indexes(services: Services, wanted: str | list[str] | None) -> list[LiveIndex]:
    """Return indexes by their names; all without one.

    Raises:
        RefusedError: 404, there is none of a name.
    """
    there: Mapping[str, LiveIndex] = services.indexes
    if not there:
        raise RefusedError(404, "no index is served here. Start the server with one: embedkit serve INDEX")
    names = (
        list(there)
        if wanted is None
        else [wanted]
        if isinstance(wanted, str)
        else list(dict.fromkeys(wanted))
    )
    if not names:
        raise RefusedError(400, "index is an empty list; name an index, or leave it out to search all")
    for name in names:
        if name not in there:
            raise RefusedError(404, f"no index {name!r} is served here; there is {', '.join(there)}")
    return [there[name] for name in names]


def one_index(services: Services, wanted: str | None) -> LiveIndex:
    if wanted is None and len(services.indexes) > 1:
        there = ", ".join(services.indexes)
        raise RefusedError(400, f"several indexes are served here: {there}. Name one as index")
    return named_indexes(services, [wanted] if wanted is not None else None)[0]

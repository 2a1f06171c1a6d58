"""The index: documents and their vectors on disk, searched by meaning and by words.

`import indexes` loads neither faiss nor numpy; a name's module is loaded when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .database import Passage
    from .settings import Settings
    from .store import Deleted, Index
    from .text import Snippet, snippets

_HOMES = {
    "Deleted": "store",
    "Index": "store",
    "Passage": "database",
    "Settings": "settings",
    "Snippet": "text",
    "snippets": "text",
}
__all__ = ["Deleted", "Index", "Passage", "Settings", "Snippet", "snippets"]


def __getattr__(name: str) -> Any:  # Any: whatever the module holds
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

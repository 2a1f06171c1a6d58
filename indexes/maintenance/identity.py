"""One file, one name: what files are called in the ids of an index, whichever way they are spelled later."""

from __future__ import annotations

from pathlib import Path

from embedkit.data.scope import resolved_source

from ..storage.documents import find_documents
from ..store import Index


class FileNames:
    """The names of files in an index's ids.

    A file that the index holds keeps the name it has there. A new one is called as the user spells it, unless another file
    is called so: then by its resolved path.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._names: dict[str, str] = {}  # resolved path -> name
        statement = "SELECT source, min(doc_id) FROM documents WHERE source != '' GROUP BY source"
        for source, doc_id in index.database.execute(statement):
            name, colon, line = doc_id.rpartition(":")
            called = name if colon and line.isdigit() and source.endswith(Path(name).name) else doc_id
            if source.endswith(Path(called).name):  # else the ids are the documents' own
                self._names[resolved_source(source)] = called
        self._called = set(self._names.values())

    def __call__(self, path: Path) -> str:
        """Return what a file is called in ids."""
        source, spelled = path.resolve().as_posix(), path.as_posix()
        if source not in self._names:
            held = find_documents(self._index.database, [spelled, f"{spelled}:1"])
            others = {resolved_source(known.source) for known in held.values()} - {source}
            taken = others or spelled in self._called
            self._names[source] = source if taken else spelled
            self._called.add(self._names[source])
        return self._names[source]

"""Notebooks of Jupyter: their texts and their code, cell by cell; what the code printed is left out."""

from __future__ import annotations

import json
from typing import Any

from embedkit.data.documents.page import DamagedError, Text, TextWriter
from embedkit.data.markdown import find_headings
from embedkit.data.places import Mark


def read_notebook(raw: bytes) -> Text:
    """Read a notebook, with the headings in its texts; each cell is a part."""
    try:
        notebook = json.loads(raw)
        cells = _cells(notebook)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as exc:
        raise DamagedError(
            "it is no notebook: JSON with cells. It is cut short or damaged; save it again"
        ) from exc
    written = TextWriter()
    for number, (kind, source) in enumerate(cells, 1):
        written.mark("cell", number, part=True)
        if kind in ("markdown", "heading"):
            source = source.strip("\r\n")
            found = [Mark(written.at + mark.at, *mark[1:]) for mark in find_headings(source)]
            written.marks += found
            if found and not written.first_heading:
                written.first_heading = str(found[0].value)
        if kind != "raw":
            written.line(source)
    return written.finished(str(notebook.get("metadata", {}).get("title", "")))


def _cells(notebook: Any) -> list[tuple[str, str]]:  # Any: JSON
    """Return kind and source of each cell; before version 4 of the format these stood in worksheets."""
    cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
    found = []
    for cell in cells:
        source = cell.get("source", cell.get("input", ""))
        found.append((str(cell["cell_type"]), source if isinstance(source, str) else "".join(source)))
    return found

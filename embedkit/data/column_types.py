"""The types of CSV and TSV columns: their cells are text, and a year that is text is never larger than 2020."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain

from embedkit.data.records import Document
from embedkit.errors import RecordError

# What the types are told by: so many rows at the start, or so many characters, whichever comes first.
SAMPLE_ROWS, SAMPLE_CHARACTERS = 1000, 16 * 2**20
# 01234 is a postal code and +49 a part of a telephone number; more than 18 digits may not fit 64 bits.
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)?(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

Cell = str | int | float | bool | None
Convert = Callable[[str], Cell]


def typed(documents: Iterable[Document]) -> Iterator[Document]:
    """Give the metadata of separated rows types, column by column.

    A column is one of numbers, or of true and false, where every cell of the sample is, but for empty ones; an empty cell
    of such a column is None. What does not fit further down stays text.
    """
    waiting = iter(documents)
    sample, failure = _sample(waiting)
    columns: dict[str, list[str]] = {}
    for document in sample:
        for name, cell in document.metadata.items():
            columns.setdefault(name, []).append(cell.strip())
    converters = {name: convert for name, cells in columns.items() if (convert := _converter(cells))}
    for document in chain(sample, waiting):
        cells = document.metadata
        found = {name: convert(cells[name]) for name, convert in converters.items() if name in cells}
        yield replace(document, metadata={**cells, **found}) if found else document
    if failure is not None:
        raise failure


def _sample(documents: Iterator[Document]) -> tuple[list[Document], RecordError | None]:
    """Read the first rows; an error among them is for after the rows before it."""
    sample: list[Document] = []
    characters = 0
    try:
        while len(sample) < SAMPLE_ROWS and characters < SAMPLE_CHARACTERS:
            document = next(documents, None)
            if document is None:
                break
            sample.append(document)
            characters += len(document.text)
    except RecordError as exc:
        return sample, exc
    return sample, None


def _converter(cells: list[str]) -> Convert | None:
    filled = [cell for cell in cells if cell]
    for convert in (_number, _truth):
        if filled and all(not isinstance(convert(cell), str) for cell in filled):
            return convert
    return None


def _number(cell: str) -> Cell:
    text = cell.strip()
    if not text:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text) and any(sign in text for sign in ".eE"):
        try:
            number = float(text)
        except ValueError:  # a lone exponent
            return cell
        return number if math.isfinite(number) else cell
    return cell


def _truth(cell: str) -> Cell:
    text = cell.strip().lower()
    return {"": None, "true": True, "false": False}.get(text, cell)

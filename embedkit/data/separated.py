"""Rows of separated columns: CSV with quotes, or TSV without; as spreadsheets write them too."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Literal

from embedkit.errors import RecordError

Line = tuple[int, str]  # number, text
_TABS = {"\\t": "\t", "tab": "\t"}  # how a tab may be typed
_QUOTED = re.compile(r'"[^"]*"')


def separated_rows(
    lines: Iterable[Line],
    source: str,
    form: Literal["csv", "tsv"],
    *,
    max_field_chars: int,
    delimiter: str | None = None,
    header: bool = True,
) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Read rows, each with the number of its first line; rows without a word are passed over.

    `delimiter` None: a tab in TSV; in CSV a comma, or where the first line has none a semicolon, a tab or a bar. Without a
    `header` the columns are called 1, 2, 3 and so on. Columns without a name, as spreadsheets leave them, must be empty.

    Raises (while iterating):
        RecordError: a line has more or fewer columns than the first, or its quotes are wrong; the message names the line.
    """
    numbered = _cells(iter(lines), source, form, max_field_chars, delimiter)
    first = next((row for row in numbered if any(row[1])), None)
    if first is None:
        return
    names = first[1] if header else [str(number) for number in range(1, len(first[1]) + 1)]
    _check_header(names, source, first[0])
    for number, cells in numbered if header else chain([first], numbered):
        if not cells or (cells == [""] and len(names) > 1):
            continue
        if len(cells) < len(names) or any(cells[len(names) :]):
            raise RecordError(
                f"{source}:{number}: {len(cells)} columns where the {'header' if header else 'first line'} has {len(names)} "
                f"({', '.join(first[1])[:200]}). Check the separators and quotes of this line",
                ", or pass --delimiter",
            )
        yield number, _row(names, cells, source, number)


def _cells(
    lines: Iterator[Line], source: str, form: Literal["csv", "tsv"], max_chars: int, delimiter: str | None
) -> Iterator[tuple[int, list[str]]]:
    first = next(lines, None)
    if first is None:
        return
    given = _TABS.get(delimiter or "", delimiter)
    if form == "tsv" and given in (None, "\t"):  # tabs only, no quoting: what the field's data sets use
        for number, line in chain([first], lines):
            cells = line.split("\t")
            yield number, [] if _is_blank(line, cells) else cells
        return
    offset = 0
    if given is None and re.fullmatch(r"sep=.", first[1], re.IGNORECASE):  # Excel's own word for it
        given, offset = first[1][4], 1
    else:
        lines = chain([first], lines)
    csv.field_size_limit(max_chars)
    read = ""

    def fed() -> Iterator[str]:
        nonlocal read
        for _, read in lines:
            yield read + "\n"

    reader = csv.reader(fed(), strict=True, delimiter=given or _delimiter_of(first[1]))
    while True:
        start = reader.line_num + 1 + offset  # a row with line ends in its quotes stands on several lines
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            raise RecordError(f"{source}:{start}: not CSV ({exc}). Check the quotes of this line") from exc
        yield start, [] if _is_blank(read, cells) else cells


def _is_blank(line: str, cells: Sequence[str]) -> bool:
    """Tell a row of separators alone, as spreadsheets fill up a table, from one of empty texts in quotes."""
    return len(cells) > 1 and '"' not in line and not any(cell.strip() for cell in cells)


def _delimiter_of(line: str) -> str:
    bare = _QUOTED.sub("", line)
    return next((sign for sign in ",;\t|" if sign in bare), ",")


def _check_header(names: Sequence[str], source: str, number: int) -> None:
    named = [name for name in names if name.strip()]
    if len(set(named)) != len(named):
        raise RecordError(
            f"{source}:{number}: a column name occurs twice in the header: {', '.join(named)}. Rename one",
            ", or pass --no-header where the first line is data",
        )


def _row(names: Sequence[str], cells: Sequence[str], source: str, number: int) -> dict[str, str]:
    """Name the cells; of unnamed ones a single one may hold something, such as the row numbers that pandas writes first."""
    row: dict[str, str] = {}
    for place, (name, cell) in enumerate(zip(names, cells, strict=False), 1):
        if name.strip():
            row[name] = cell
        elif cell.strip():
            if "" in row:
                raise RecordError(
                    f"{source}:{number}: column {place} has no name in the header and holds {cell[:60]!r}. Name it, or take it out"
                )
            row[""] = cell
    return row

"""calamine: the sheets of workbooks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import python_calamine

from embedkit.errors import RecordError

Rows = Iterator[tuple[int, list[Any]]]  # number, cells; Any: text, number, time or None


def sheets(raw: bytes) -> Iterator[tuple[str, Rows]]:
    """Yield the sheets of a workbook in order: the name of each and its rows, numbered as in the file.

    Raises:
        RecordError: it is damaged or encrypted.
    """
    try:
        workbook = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(raw))
    except python_calamine.PasswordError as exc:
        raise RecordError("it is encrypted. Save it again without a password") from exc
    except python_calamine.CalamineError as exc:
        raise RecordError(f"it cannot be read ({exc}). It is damaged; make or fetch it again") from exc
    for name in workbook.sheet_names:
        try:
            sheet = workbook.get_sheet_by_name(name)
        except python_calamine.WorksheetNotFound:  # a sheet of charts
            continue
        yield name, enumerate(sheet.iter_rows(), 1)

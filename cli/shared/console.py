"""What commands print: JSON lines on standard output, tables and progress bars through rich, progress on stderr."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import typer


def print_json(content: Any) -> None:  # Any: whatever JSON holds
    """Print one JSON line that every reader takes."""
    from embedkit.data.strict_json import to_strict_json

    typer.echo(to_strict_json(content))


def note(message: str) -> None:
    """Say something on standard error."""
    typer.echo(safe(message), err=True)


# What a terminal obeys instead of showing: C0 and C1 controls but tab and line end, and signs that turn the direction of text.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def safe(text: str) -> str:
    """Return a text as a terminal may show it, with U+FFFD for each control character and lone surrogate."""
    return _CONTROLS.sub("\ufffd", text.replace("\r\n", "\n"))


def command_words() -> list[str]:
    """Return the command as the words it was given in."""
    return ["embedkit", *sys.argv[1:]]


def command_line() -> str:
    """Return the command as the user could type it again."""
    return shlex.join(command_words())


def wants_json(as_json: bool) -> bool:
    """JSON lines where they were asked for, or where nobody sits at the other end."""
    return as_json or not sys.stdout.isatty()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table; columns in which every cell is a number stand to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for number, column in enumerate(columns):
        numeric = all(_is_number(row[number]) for row in rows) and bool(rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(safe(cell)) for cell in row))
    Console().print(table)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").replace("-", "").replace(
        "%", ""
    ).strip().isdigit() or cell in ("", "-")


class Bar(Protocol):
    """A progress bar: how much is done (0 to 1, None where it cannot be known), and a word on how it goes."""

    def update(self, fraction: float | None, text: str) -> None: ...


@contextmanager
def progress_bar(label: str, *, quiet: bool = False) -> Iterator[Bar]:
    """Show a bar with the time it will still take, on standard error, where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield _NoBar()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    # Results that are written meanwhile go to standard output as they are: rich would send them to its own, wrapped.
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as progress:
        task = progress.add_task(label, total=None, text="")

        class _RichBar:
            def update(self, fraction: float | None, text: str) -> None:
                total = None if fraction is None else 1.0
                progress.update(task, total=total, completed=fraction or 0.0, text=text)

        yield _RichBar()


class _NoBar:
    def update(self, fraction: float | None, text: str) -> None:
        pass

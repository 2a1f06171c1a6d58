"""What commands print: JSON lines on standard output, tables and progress bars through rich, progress on stderr."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from .plain import plain, plain_json
from .streams import StreamError

if TYPE_CHECKING:
    from rich.console import Console


_PATIENCE_SECONDS = 1.0  # before a bar is shown while results go into a pipe
INTERRUPTED = 130  # the exit code of a command that Ctrl-C ended


class _Talk:
    """How much the command that runs says on standard error."""

    quiet = False
    verbose = False


def set_talk(*, quiet: bool, verbose: bool) -> None:
    """Choose what a command says on standard error: warnings and errors alone, or also what else is said but once."""
    _Talk.quiet, _Talk.verbose = quiet, verbose


def is_quiet() -> bool:
    return _Talk.quiet


def is_verbose() -> bool:
    return _Talk.verbose


def print_json(content: Any) -> None:  # Any: whatever JSON holds
    """Print one JSON line that every reader takes."""
    from embedkit.data.strict_json import to_strict_json

    write_json(to_strict_json(content) + "\n")
    sys.stdout.flush()


def write_json(line: str) -> None:
    """Write a line that is JSON already; it reaches the reader with the others, or at the end."""
    sys.stdout.write(plain_json(line, sys.stdout.encoding))


def write_exactly(text: str) -> None:
    """Write lines of a format that cannot escape a character.

    Raises:
        StreamError: the encoding of standard output lacks one.
    """
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError as exc:
        raise StreamError(
            f"standard output is {sys.stdout.encoding}, which has no {text[exc.start : exc.end]!r}. "
            "Set PYTHONIOENCODING=utf-8, or use --json, which escapes it"
        ) from exc
    sys.stdout.write(plain(text) if sys.stdout.isatty() else text)


def write_styled(line: str) -> None:
    """Write a line with colours and links of ours; what it holds of documents must have been made `plain`."""
    sys.stdout.write(line + "\n")


def say(text: str) -> None:
    """Print text for people on standard output."""
    print(plain(text), flush=True)


def note(message: str) -> None:
    """Say something on standard error, but for --quiet."""
    if not _Talk.quiet:
        tell(message)


def warn(message: str) -> None:
    """Warn on standard error of what may be wrong with the result."""
    tell(f"warning: {message}")


def tell(message: str) -> None:
    """Say on standard error what must be said: what went wrong, how to go on."""
    print(plain(message), file=sys.stderr, flush=True)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "text"), counted(1200, "query")
    ('1 text', '1,200 queries')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def say_waiting(inputs: Sequence[str]) -> None:
    """Say what is waited for where an input is a terminal."""
    if "-" in inputs and sys.stdin.isatty():
        note("reading from the terminal; Ctrl-D ends")


def writes_to_file() -> bool:
    """Say whether standard output is a file. Into a pipe its reader may write to the same terminal as progress would."""
    try:
        return stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    except OSError:
        return False


def styled(*, stderr: bool = False) -> Console:
    """Return what prints styled text; whoever prints makes the text of others `plain`."""
    from rich.console import Console

    if stderr:
        return Console(file=getattr(sys.stderr, "styled", sys.stderr))
    return Console(highlight=False)


def command_words() -> list[str]:
    """Return the command as the words it was given in."""
    return ["embedkit", *sys.argv[1:]]


def command_line() -> str:
    """Return the command as the user could type it again."""
    return shlex.join(command_words())


def resume_line() -> str:
    """Return the command that resumes this one."""
    return shlex.join([*(word for word in command_words() if word != "--resume"), "--resume"])


def wants_json(as_json: bool) -> bool:
    """JSON lines where they were asked for, or where nobody sits at the other end."""
    return as_json or not sys.stdout.isatty()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table; columns in which every cell is a number stand to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=None if title is None else escape(plain(title)),
        box=SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
    )
    for number, column in enumerate(columns):
        numeric = all(_is_number(row[number]) for row in rows) and bool(rows)
        table.add_column(escape(plain(column)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(plain(cell)) for cell in row))
    styled().print(table)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").replace("-", "").replace(
        "%", ""
    ).strip().isdigit() or cell in ("", "-")


class Bar(Protocol):
    """A progress bar: how much is done (0 to 1, None where it cannot be known), and a word on how it goes."""

    def update(self, fraction: float | None, text: str) -> None: ...


@contextmanager
def progress_bar(label: str, *, quiet: bool = False, delay_seconds: float = 0.0) -> Iterator[Bar]:
    """Show a bar with the time it will still take, on standard error, where that is a terminal; after a delay, if need be."""
    if quiet or _Talk.quiet or not sys.stderr.isatty():
        yield _NoBar()
        return
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Remaining(TimeRemainingColumn):
        """The time it will still take; nothing where that is not known."""

        def render(self, task: Task) -> Text:
            known = task.total is not None and task.time_remaining is not None
            return Text("ETA ", style="progress.remaining") + super().render(task) if known else Text()

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        Remaining(),
    )
    # Results that are written meanwhile go to standard output as they are: rich would send them to its own, wrapped.
    progress = Progress(*columns, console=styled(stderr=True), transient=True, redirect_stdout=False)
    task = progress.add_task(plain(label), total=None, text="")
    begun = monotonic()

    class _RichBar:
        def update(self, fraction: float | None, text: str) -> None:
            total = None if fraction is None else 1.0
            progress.update(task, total=total, completed=fraction or 0.0, text=plain(text))
            if monotonic() - begun >= delay_seconds:
                progress.start()

    if not delay_seconds:
        progress.start()
    try:
        yield _RichBar()
    finally:
        progress.stop()


def stream_bar(label: str) -> AbstractContextManager[Bar]:
    """Show a bar while results go to standard output, where that is no terminal.

    With a pipe it waits a moment: the reader may write to the terminal where the bar would be.
    """
    delay = 0.0 if writes_to_file() else _PATIENCE_SECONDS
    return progress_bar(label, quiet=sys.stdout.isatty(), delay_seconds=delay)


class _NoBar:
    def update(self, fraction: float | None, text: str) -> None:
        pass

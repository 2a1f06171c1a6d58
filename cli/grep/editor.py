"""Opening a hit in the user's editor, at its line."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import typer

from embedkit.errors import RecordError
from embedkit.pipelines.grep.lines import Excerpt

_FILE_COLON_LINE = ("subl", "sublime_text", "hx", "helix", "zed", "zeditor", "mate")
_GOTO = ("code", "code-insiders", "codium", "cursor", "windsurf")


def open_in_editor(found: Sequence[Excerpt], number: int) -> None:
    """Run $VISUAL or $EDITOR with the file of a hit.

    Raises:
        RecordError: there are fewer hits, no editor is set, or it cannot be started.
    """
    if number > len(found):
        raise RecordError(f"there is no hit {number}; the search found {len(found)}")
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise RecordError("no editor is set. Set EDITOR, for example with: export EDITOR=vim")
    excerpt = found[number - 1]
    command = editor_command(shlex.split(editor), excerpt.file, excerpt.first)
    try:
        done = subprocess.run(command, check=False)
    except OSError as exc:
        raise RecordError(f"the editor {editor!r} cannot be started ({exc.strerror}). Set EDITOR") from exc
    if done.returncode:
        raise typer.Exit(2)


def editor_command(editor: Sequence[str], file: Path, line: int) -> list[str]:
    """Return the command that opens a file at a line, as the editor wants it.

    >>> editor_command(["code", "--wait"], Path("a.py"), 7)
    ['code', '--wait', '--goto', 'a.py:7']
    """
    name = Path(editor[0]).name
    if name in _GOTO:
        return [*editor, "--goto", f"{file}:{line}"]
    if name in _FILE_COLON_LINE:
        return [*editor, f"{file}:{line}"]
    return [*editor, f"+{line}", str(file)]

"""What a terminal shows and what a pipe gets, at the same time."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cli.shared import console
from cli.shared.streams import StreamError
from tests.conftest import REPOSITORY


def test_results_reach_the_pipe_while_a_bar_runs_on_the_terminal(native_model: Path) -> None:
    """Standard error is a terminal, standard output is not: `embedkit encode - | jq`."""
    terminal, its_end = pty.openpty()
    program = "from cli.main import run; run()"
    arguments = ["encode", "-", "--model", str(native_model), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        input=b"the dog runs\n",
        stdout=subprocess.PIPE,
        stderr=its_end,
        check=False,
    )
    shown = os.read(terminal, 65536).decode("utf-8")  # before its end is closed, with which Linux may drop it
    os.close(its_end)
    os.close(terminal)
    assert done.returncode == 0, shown
    assert len(json.loads(done.stdout)["embedding"]) == 32
    assert "1 text, 5 tokens" in shown
    assert "embedding" not in shown
    assert "━" not in shown  # no bar for what is over at once: the reader may write to the same terminal


def test_json_lines_hold_only_what_every_reader_takes(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"score": float("nan"), "text": "half an emoji \ud83d"})
    assert capsys.readouterr().out == '{"score": null, "text": "half an emoji \\ud83d"}\n'


def test_all_that_commands_print_passes_the_console() -> None:
    """Elsewhere, a control character of a document would reach the terminal."""
    past_it = re.compile(r"(?<![.\w])print\(|typer\.s?echo|Console\((?!width=)|sys\.std(out|err)\.write")
    files = set((REPOSITORY / "cli").rglob("*.py")) - set((REPOSITORY / "cli" / "shared").iterdir())
    assert [
        f"{path.relative_to(REPOSITORY)}: {line}"
        for path in sorted(files)
        for line in path.read_text(encoding="utf-8").splitlines()
        if past_it.search(line)
    ] == []


def test_lines_that_cannot_escape_a_letter_are_not_written_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "latin-1", "replace"))
    console.write_exactly("q1 Q0 é 1 0.5 run\n")
    with pytest.raises(StreamError, match=r"standard output is latin-1, which has no '数'. .* or use --json"):
        console.write_exactly("q1 Q0 数 1 0.5 run\n")
    sys.stdout.flush()
    assert written.getvalue() == b"q1 Q0 \xe9 1 0.5 run\n"


def test_tables_show_cells_as_they_are_but_for_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table(("[a\x1b", "b"), [("x \x1b[31mred [bold]", "1"), ("\u202ey", "2")], title="t\x07 [i]")
    shown = capsys.readouterr().out
    for part in ("[a\ufffd", "x \ufffd[31mred [bold]", "\ufffdy", "t\ufffd [i]"):
        assert part in shown
    assert "\x1b" not in shown

"""What a terminal shows and what a pipe gets, at the same time."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cli.shared.console import print_json


def test_results_reach_the_pipe_while_a_bar_runs_on_the_terminal(tiny_model: Path) -> None:
    """Standard error is a terminal, standard output is not: `embedkit encode - | jq`."""
    terminal, its_end = pty.openpty()
    program = "from cli.main import run; run()"
    arguments = ["encode", "-", "--model", str(tiny_model), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        input=b"the dog runs\n",
        stdout=subprocess.PIPE,
        stderr=its_end,
        check=False,
    )
    os.close(its_end)
    shown = os.read(terminal, 65536).decode("utf-8")
    os.close(terminal)
    assert done.returncode == 0, shown
    assert len(json.loads(done.stdout)["embedding"]) == 32
    assert "1 texts" in shown
    assert "embedding" not in shown


def test_json_lines_hold_only_what_every_reader_takes(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"score": float("nan"), "text": "half an emoji \ud83d"})
    assert capsys.readouterr().out == '{"score": null, "text": "half an emoji \\ud83d"}\n'

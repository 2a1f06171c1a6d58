"""Hits that are no answers are left out of what people read, and of nothing else."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from cli.search import prompt
from tests.cli.index.test_index import invoke
from tests.conftest import REPOSITORY

STRANGE, KNOWN = "how to file a tax return", "bread that rests overnight"
HEAD = re.compile(r"^ *\d+  -?\d\.\d\d ([●○]{5})  (.*)", re.MULTILINE)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, shipped_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("weak") / "i"
    invoke("index", "build", REPOSITORY / "examples/articles.jsonl", "-i", folder, "-m", shipped_encoder)
    return folder


def search(*words: object, stdin: str | None = None) -> Result:
    found = CliRunner().invoke(app, ["search", *map(str, words)], input=stdin)
    assert found.exit_code == 0, (found.output, found.exception)
    return found


@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_weak_hits_are_counted_instead_of_listed(index: Path, mode: str) -> None:
    found = search(index, KNOWN, "--mode", mode)
    shown = HEAD.findall(found.stdout)
    assert shown[0] == ("●●●●●", "Bread without kneading  bread  examples/articles.jsonl:5")
    assert all(dots != "○○○○○" for dots, _ in shown)
    left = 10 - len(shown)
    assert left > 5
    assert (
        f"{left} hits left out: no nearer to the query than unrelated texts; --all shows them\n"
        in found.stderr
    )
    whole = search(index, KNOWN, "--mode", mode, "--all")
    assert [dots for dots, _ in HEAD.findall(whole.stdout)].count("○○○○○") == left
    assert whole.stdout.startswith(found.stdout)
    assert "left out" not in whole.stderr


def test_where_every_hit_is_weak_it_is_said_and_is_no_error(index: Path) -> None:
    found = search(index, STRANGE)
    assert found.stdout == ""
    assert "nothing here seems to answer this query; --all shows the 10 nearest\n" in found.stderr
    assert len(HEAD.findall(search(index, STRANGE, "--all").stdout)) == 10
    assert "answer this query; --all shows the nearest\n" in search(index, STRANGE, "-k", 1).stderr


def test_a_single_hit_that_is_left_out_is_spoken_of_as_one(index: Path) -> None:
    shown = len(HEAD.findall(search(index, KNOWN).stdout))
    assert (
        "1 hit left out: no nearer to the query than unrelated texts; --all shows it\n"
        in search(index, KNOWN, "-k", shown + 1).stderr
    )


def test_a_least_score_stands_in_for_ours(index: Path) -> None:
    found = search(index, STRANGE, "--mode", "dense", "--min-score", "0.05")
    scores = [float(score) for score in re.findall(r"^ *\d+  (-?\d\.\d\d)", found.stdout, re.MULTILINE)]
    assert 0 < len(scores) < 10
    assert min(scores) >= 0.05
    assert "left out" not in found.stderr
    assert "no hits: none scores 0.9 or more" in search(index, STRANGE, "--min-score", "0.9", "--all").stderr


def test_machines_get_every_hit(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["--json"], ["--json", "--all"]):
        found = search(index, STRANGE, *words)
        assert len([json.loads(line) for line in found.stdout.splitlines()]) == 10
        assert "left out" not in found.stderr
    lines = f'{{"_id": "q1", "text": "{STRANGE}"}}\n'
    assert len(search(index, stdin=lines).stdout.splitlines()) == 10
    search(index, "--run", tmp_path / "out.trec", stdin=lines)
    assert len((tmp_path / "out.trec").read_text(encoding="utf-8").splitlines()) == 10
    monkeypatch.setenv("EMBEDKIT_PIPE", "json")
    assert len(search(index, STRANGE).stdout.splitlines()) == 10


def on_a_terminal(*words: object, typed: str = "", columns: int = 80) -> str:
    """Run the command with a terminal at every stream, and return what that shows."""
    terminal, its_end = pty.openpty()
    environment = os.environ | {"TERM": "dumb", "COLUMNS": str(columns), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", "from cli.main import run; run()", "search", *map(str, words)]
    with subprocess.Popen(
        command, stdin=its_end, stdout=its_end, stderr=its_end, env=environment, start_new_session=True
    ) as process:
        os.close(its_end)
        os.write(terminal, typed.encode())
        shown = b""
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        process.wait(timeout=120)
    os.close(terminal)
    assert process.returncode == 0, shown
    return shown.decode("utf-8").replace("\r\n", "\n")


def test_a_terminal_shows_answers_and_says_what_it_left_out(index: Path) -> None:
    shown = on_a_terminal(index, KNOWN)
    assert HEAD.search(shown)[2] == "Bread without kneading  bread  examples/articles.jsonl:5"  # type: ignore[index] # found
    assert re.search(
        r"\d hits left out: no nearer to the query than unrelated texts; --all shows them\n$", shown
    )
    assert max(map(len, shown.splitlines())) <= 80
    shown = on_a_terminal(index, STRANGE)
    assert shown.endswith("nothing here seems to answer this query; --all shows the 10 nearest\n")


def test_the_prompt_leaves_them_out_and_shows_them_when_asked(index: Path) -> None:
    shown = on_a_terminal(index, typed=f"{STRANGE}\n1\nall\n10\nquit\n")
    _, first, numbered, everything, whole, _ = shown.split("query> ")
    assert "nothing here seems to answer this query; all shows the 10 nearest\n" in first
    assert "there is no hit 1; the last query has 0" in numbered
    assert len(HEAD.findall(everything)) == 10
    assert len(whole.splitlines()) >= 3
    shown = on_a_terminal(index, "--all", typed=f"{STRANGE}\nquit\n")
    assert len(HEAD.findall(shown)) == 10
    assert "all adds those left out" in prompt.HELP

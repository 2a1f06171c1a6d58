"""A kill at any moment, during the first build or a refresh: the next call answers right."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embedkit.pipelines.grep.folder import Folder
from embedkit.pipelines.grep.home import Home
from embedkit.retrieval.options import SearchOptions
from embedkit.types import Computing
from indexes import verify

COUNT = 24
MOMENTS = [pytest.param(seed, marks=[] if seed < 1 else pytest.mark.slow) for seed in range(10)]


def write(root: Path, version: int, numbers: range) -> None:
    for number in numbers:
        path = root / f"f{number % 5}" / f"n{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Note\n\nthe word is w{version}x{number} and the dog runs\n", encoding="utf-8")


def kill_at_some_moment(home: Path, root: Path, model: Path, seed: int) -> None:
    """Start a process that brings the index up to date, and kill it after a few of its reports."""
    moment = random.Random(seed)
    command = [sys.executable, "-m", "tests.pipelines.grep.refreshing", str(home), str(root), str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(moment.randrange(1, 16)):
            if not process.stdout.readline():
                break
        time.sleep(moment.uniform(0, 0.05))
        process.kill()


def answers(home: Path, root: Path, model: Path) -> dict[str, str]:
    """Bring the index up to date, check it, and return which file has which word, by its search."""
    folder = Folder(Home(home, root), Computing(device="cpu"), model=str(model))
    if not folder.home.is_there:
        folder.home.make()
    assert list(folder.refresh())[-1].finished
    assert folder.look().unseen == 0
    assert list(verify(folder.home.index)) == []
    options = SearchOptions(mode="text", k=5)
    with folder.open(options) as opened:
        words = [path.read_text(encoding="utf-8").split()[5] for path in sorted(root.rglob("*.md"))]
        found = {word: [hit.where for hit in folder.search(opened, word, options)] for word in words}
        assert [hit.text for hit in folder.search(opened, "w1x3", options)] == (
            [] if "w1x3" not in words else ["# Note\n\nthe word is w1x3 and the dog runs\n"]
        )
        assert len(opened.index) == len(words)
    assert all(len(places) == 1 for places in found.values()), found
    return {word: places[0] for word, places in found.items()}


@pytest.mark.parametrize("seed", MOMENTS)
def test_after_a_kill_the_next_call_answers_right(tmp_path: Path, tiny_model: Path, seed: int) -> None:
    home, root = tmp_path / "home", tmp_path / "notes"
    write(root, 1, range(COUNT))
    kill_at_some_moment(home, root, tiny_model, seed)
    expected = {f"w1x{number}": f"f{number % 5}/n{number}.md:1-3" for number in range(COUNT)}
    assert answers(home, root, tiny_model) == expected
    for number in range(0, COUNT, 4):
        (root / f"f{number % 5}" / f"n{number}.md").unlink()
    write(root, 2, range(1, COUNT, 2))
    write(root, 3, range(COUNT, COUNT + 6))
    kill_at_some_moment(home, root, tiny_model, seed + 100)
    versions = {number: 1 for number in range(COUNT) if number % 4} | dict.fromkeys(range(1, COUNT, 2), 2)
    versions |= dict.fromkeys(range(COUNT, COUNT + 6), 3)
    expected = {
        f"w{version}x{number}": f"f{number % 5}/n{number}.md:1-3" for number, version in versions.items()
    }
    assert answers(home, root, tiny_model) == expected

"""The memory of a build grows with its largest document by a few times the document, and not with how many there are."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from embedkit.data.html_text import extract_text
from tests.tiny import write_static_model

SENTENCE = "The dog runs by the water, and a girl plays the old piano for you.\n"
SMALL, LARGE = 1_000_000, 4_000_000
# It was 150 to 230 bytes for each byte of a document.
ALLOWED = 10
PROGRAM = """
import resource, sys
from cli.main import app
try:
    app()
except SystemExit as exc:
    code = exc.code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(code)
"""


def peak_bytes(inputs: Path, index: Path, model: Path) -> int:
    """Build an index in a process of its own, and return the most memory that it held."""
    words = ["index", "build", str(inputs), "--index", str(index), "--model", str(model), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


def book(num_bytes: int) -> str:
    return SENTENCE * (num_bytes // len(SENTENCE))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["txt", "html"])
def test_a_longer_document_takes_a_few_times_its_size(kind: str, tmp_path: Path) -> None:
    model = write_static_model(tmp_path / "model")
    peaks = []
    for size in (SMALL, LARGE):
        path = tmp_path / f"{size}.{kind}"
        path.write_text(book(size) if kind == "txt" else f"<p>{book(size)}", encoding="utf-8")
        peaks.append(peak_bytes(path, tmp_path / f"{size}.index", model))
    assert peaks[1] - peaks[0] < ALLOWED * (LARGE - SMALL), [f"{peak / 1e6:.0f} MB" for peak in peaks]


@pytest.mark.slow
def test_more_documents_take_no_more(tmp_path: Path) -> None:
    model = write_static_model(tmp_path / "model")
    peaks = []
    for count in (4, 8):
        folder = tmp_path / f"{count}"
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.txt").write_text(f"{number} {book(500_000)}", encoding="utf-8")
        peaks.append(peak_bytes(folder, tmp_path / f"{count}.index", model))
    assert peaks[1] - peaks[0] < 0.25 * ALLOWED * 4 * 500_000, [f"{peak / 1e6:.0f} MB" for peak in peaks]


def test_a_page_of_many_elements_takes_a_few_times_its_size() -> None:
    page = "<p class=c><a href=/x>A</a> <b>dog</b> runs <i>by</i></p>\n" * 3_000
    tracemalloc.start()
    try:
        text = extract_text(page).text
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert text.count("\n") == 2_999
    assert peak < 4 * len(page)

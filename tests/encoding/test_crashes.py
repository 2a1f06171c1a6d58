"""Encoding in a process of its own: killed, out of disk, interrupted; the same call goes on."""

from __future__ import annotations

import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest

from embedkit.data.reading import read_documents
from embedkit.data.vectors import ids_path
from embedkit.encoding.draft import partial_path
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.job import encode_to_file
from embedkit.encoding.windows import WINDOW_TEXTS
from tests.forking import Fork, Forking

COUNT = 3 * WINDOW_TEXTS + 100


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    words = ["the", "dog", "plays", "a", "red", "guitar", "on", "the", "beach", "and", "she", "sings"]
    lines = (" ".join(words[: 1 + i % 11]) + f" {i}" for i in range(COUNT))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def forking() -> Iterator[Forking]:
    """The processes that are killed are forks of one, which has loaded what they need."""
    server = Forking(__name__, "embedkit.inference.loading", "embedkit.native.encoder")
    yield server
    server.close()


def encode(corpus: Path | str, model: Path | str, output: Path | str) -> None:
    for _ in encode_to_file(Encoder.load(model, device="cpu"), read_documents([str(corpus)]), Path(output)):
        pass


@pytest.fixture(scope="module")
def expected(corpus: Path, native_model: Path) -> Path:
    output = corpus.with_name("expected.npy")
    encode(corpus, native_model, output)
    return output


def assert_same(output: Path, expected: Path) -> None:
    assert output.read_bytes() == expected.read_bytes()
    assert ids_path(output).read_bytes() == ids_path(expected).read_bytes()
    assert sorted(path.name for path in output.parent.iterdir()) == ["v.ids.txt", "v.npy"]


def wait_for_commit(process: Fork | subprocess.Popen[str], output: Path, after: float = 0.0) -> None:
    """Wait until the job has committed a window since the time `after`, or has ended."""
    journal = partial_path(output) / "journal.json"

    def alive() -> bool:
        return not process.wait(0) if isinstance(process, Fork) else process.poll() is None

    while alive():
        try:
            if journal.stat().st_mtime > after:
                return
        except FileNotFoundError:
            pass
        time.sleep(0.002)  # between two looks


@pytest.mark.parametrize(
    "kills", [pytest.param(1, id="one"), pytest.param(10, id="ten", marks=pytest.mark.slow)]
)
def test_killed_jobs_go_on_to_the_same_bits(
    forking: Forking, corpus: Path, native_model: Path, expected: Path, tmp_path: Path, kills: int
) -> None:
    rng = random.Random(kills)
    killed = 0
    while killed < kills:
        output = tmp_path / str(killed) / "v.npy"
        # One or two kills of each job: from before its first commit to after its last.
        for _ in range(rng.randint(1, 2)):
            start = time.time()
            process = forking.start(encode, corpus, native_model, output)
            if rng.random() < 0.7:
                wait_for_commit(process, output, start)
            killed += not process.wait(rng.uniform(0, 0.3))
            process.kill()
            if output.exists():
                break
        if not output.exists() or partial_path(output).exists():
            assert forking.start(encode, corpus, native_model, output).wait(300)
        assert_same(output, expected)


def command(corpus: Path, model: Path, output: Path) -> list[str]:
    # A job in the background of a shell script is told to ignore SIGINT, and so is all that it starts.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program = [sys.executable, "-c", heed + "from cli.main import run; run()"]
    return [
        *program,
        "encode",
        str(corpus),
        "--model",
        str(model),
        "--output",
        str(output),
        "--device",
        "cpu",
    ]


@pytest.mark.slow
def test_a_full_disk_is_said_and_made_good(
    corpus: Path, native_model: Path, expected: Path, tmp_path: Path
) -> None:
    output = tmp_path / "v.npy"
    limit = 128 + 2 * WINDOW_TEXTS * 32 * 4 + 1000  # bytes in a file: ends within the third window
    done = subprocess.run(
        command(corpus, native_model, output),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    message = f"error: {output}: cannot be written (File too large). What is done lies in {output}.partial; make room"
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()
    job = encode_to_file(Encoder.load(native_model, device="cpu"), read_documents([str(corpus)]), output)
    assert [report.texts for report in job] == [2 * WINDOW_TEXTS, 3 * WINDOW_TEXTS, COUNT, COUNT]
    assert_same(output, expected)


@pytest.mark.slow
def test_an_interrupted_job_prints_the_line_that_goes_on(
    corpus: Path, native_model: Path, tmp_path: Path
) -> None:
    # The job reads from a pipe that does not end, so that it is not over before the signal comes.
    pipe = tmp_path / "corpus.txt"
    os.mkfifo(pipe)
    (tmp_path / "out").mkdir()
    output = tmp_path / "out" / "v.npy"
    arguments = command(pipe, native_model, output)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    read = []

    lines = corpus.read_bytes().splitlines(keepends=True)

    def feed() -> None:
        with suppress(BrokenPipeError), pipe.open("wb", buffering=0) as writing:
            for start in itertools.cycle(range(0, COUNT, 512)):
                read.append(b"".join(lines[start : start + 512]))
                writing.write(read[-1])

    feeding = Thread(target=feed, daemon=True)
    feeding.start()
    wait_for_commit(process, output)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=180)
    feeding.join()
    assert process.returncode == 130, stderr
    assert "resume with the same command:\n  embedkit encode " in stderr
    assert stderr.splitlines()[-1].strip() == "embedkit " + " ".join(arguments[3:])
    assert "Traceback" not in stderr
    pipe.unlink()
    pipe.write_bytes(b"".join(read))
    encode(pipe, native_model, output)
    encode(pipe, native_model, tmp_path / "uninterrupted.npy")
    assert_same(output, tmp_path / "uninterrupted.npy")

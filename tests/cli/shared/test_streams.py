"""Standard streams that are closed, full, of another encoding, silent: a message and an exit code, never a traceback."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from tests.conftest import REPOSITORY

PROGRAM = (sys.executable, "-c", "from cli.main import run; run()")
FULL = "error: standard output cannot be written (No space left on device). Connect it to another file or a pipe\n"
CLOSED = "error: standard {} is closed, but this command needs it. Connect it to a file or a pipe\n"
TEXT = "数据 cat \x1b]0;title\x07 \x9b31m \u202e👍"


def run(
    redirection: str, *arguments: str | bytes, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command with streams as a shell redirects them."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *PROGRAM, *arguments],
        input=stdin,
        capture_output=True,
        env=os.environ | environment,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def index(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of one document, whose title, text and id hold control characters."""
    folder = tmp_path_factory.mktemp("streams")
    document = {"_id": "a\x1b[2J", "title": "t \x1b[31mred", "text": TEXT, "note": "\x1b[1m"}
    (folder / "c.jsonl").write_text(json.dumps(document), encoding="utf-8")
    found = CliRunner().invoke(
        app, ["index", "build", str(folder / "c.jsonl"), "-i", str(folder / "i"), "-m", str(tiny_model)]
    )
    assert found.exit_code == 0, found.output
    return str(folder / "i")


@pytest.mark.parametrize(
    ("redirection", "message"),
    [(">/dev/full", FULL), (">&-", CLOSED.format("output"))],
    ids=["full", "closed"],
)
def test_output_that_cannot_be_written_is_said_and_ends_with_one(
    redirection: str, message: str, index: str
) -> None:
    for arguments in (["--help"], ["search", index, "cat", "--mode", "text"]):
        done = run(redirection, *arguments)
        assert (done.returncode, done.stderr.decode()) == (1, message)


def test_input_that_is_closed_is_said_where_it_is_needed(index: str) -> None:
    done = run("<&-", "search", index, "--mode", "text")
    assert (done.returncode, done.stderr.decode()) == (1, CLOSED.format("input"))
    done = run("<&-", "search", index, "cat", "--mode", "text", "--json")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_messages_that_cannot_be_written_change_nothing_else(
    redirection: str, index: str, tmp_path: Path
) -> None:
    done = run(redirection, "search", index, "cat", "--mode", "text", "--json")
    assert (done.returncode, json.loads(done.stdout)["id"]) == (0, "a\x1b[2J")
    assert run(redirection, "encode", str(tmp_path / "no.txt")).returncode == 1


def test_a_file_never_takes_the_place_of_a_closed_stream(index: str) -> None:
    """With nothing at 0, 1 and 2 the database would be opened there, and what is printed be written into it."""
    before = {path: path.read_bytes() for path in Path(index).rglob("*") if path.is_file()}
    assert run("<&- >&- 2>&-", "search", index, "cat", "--mode", "text").returncode == 1
    assert all(path.read_bytes() == content for path, content in before.items())


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_is_exact_in_every_encoding_and_holds_no_control_character(encoding: str, index: str) -> None:
    done = run("", "search", index, "cat", "--mode", "text", "--json", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    row = json.loads(done.stdout.decode(encoding))
    assert (row["text"], row["id"], row["metadata"]) == (TEXT, "a\x1b[2J", {"note": "\x1b[1m"})
    assert done.stdout.decode(encoding).rstrip("\n").isprintable()


def test_letters_that_the_encoding_lacks_are_replaced_for_people() -> None:
    done = run("", "--help", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_word_that_is_no_text_is_refused_unless_a_file_has_this_name(index: str, tmp_path: Path) -> None:
    done = run("", "search", index, b"caf\xe9", "--mode", "text")
    assert done.returncode == 2
    assert "b'caf\\xe9' is not UTF-8 and names no file. Convert it" in " ".join(done.stderr.decode().split())
    name = tmp_path / os.fsdecode(b"caf\xe9")
    name.mkdir()
    done = run("", "search", os.fsencode(name), "cat")
    assert done.returncode == 1
    assert f"error: {tmp_path}/caf\ufffd: " in done.stderr.decode()


@pytest.mark.slow
def test_what_is_written_may_have_any_name_but_where_a_library_takes_utf8_alone(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.txt").write_text("the cat\nthe dog\n", encoding="utf-8")
    model = ["-m", str(tiny_model)]
    for words, name in (
        (["encode", tmp_path / "t.txt", *model, "-o"], b"caf\xe9.npy"),
        (["index", "build", tmp_path / "t.txt", *model, "--index"], b"caf\xe9.index"),
        (["recipes", "copy", "mini"], b"caf\xe9.toml"),
    ):
        done = run("", *map(str, words), os.fsencode(tmp_path) + b"/" + name)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / os.fsdecode(name)).exists()
    for words in (
        ["train", "tokenizer", str(tmp_path / "t.txt"), "-o"],
        ["train", "distill", str(tmp_path / "t.txt"), "-t", str(tiny_model), "--steps", "1", "-o"],
    ):
        done = run("", *words, b"caf\xe9")
        assert done.returncode == 1
        assert "a name in this path is not UTF-8, and tokenizers and weights cannot be written there" in (
            done.stderr.decode()
        )
        assert "Traceback" not in done.stderr.decode()
    shutil.copytree(tiny_model, tmp_path / os.fsdecode(b"caf\xe9"))
    done = run("", "encode", str(tmp_path / "t.txt"), "-m", os.fsencode(tmp_path) + b"/caf\xe9")
    assert (done.returncode, "tokenizers and weights cannot be read there" in done.stderr.decode()) == (
        1,
        True,
    )


def test_a_reader_that_is_gone_already_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*PROGRAM, "--help"], stdout=writing, stderr=subprocess.PIPE, check=False, timeout=120
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("index build silent.txt -i i --model MODEL", "interrupted; what was committed is in i. Go on with"),
        (
            "encode silent.txt -o v.npy --model MODEL",
            "interrupted after 0 texts; resume with the same command",
        ),
        ("train tokenizer silent.txt -o t", ""),
    ],
)
def test_ctrl_c_ends_what_waits_for_a_silent_pipe(
    command: str, message: str, native_model: Path, tmp_path: Path
) -> None:
    silent = tmp_path / "silent.txt"
    os.mkfifo(silent)
    words = [str(native_model) if word == "MODEL" else word for word in command.split()]
    process = subprocess.Popen(
        [*PROGRAM, *words],
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    with silent.open("wb"):  # once the other side has opened it
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=180)
    assert process.returncode == 130, stderr
    assert stderr.decode().startswith(message)
    assert b"Traceback" not in stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "INDEX", "cat", "--mode", "text"),
        ("search", "INDEX", "cat", "--mode", "text", "--json"),
        ("evaluate", "run", "no\x1b[31m.txt", "no"),
        ("no\x1b[31m",),
    ],
)
def test_nothing_in_a_document_or_a_name_steers_the_terminal(arguments: tuple[str, ...], index: str) -> None:
    terminal, its_end = pty.openpty()
    words = [index if word == "INDEX" else word for word in arguments]
    subprocess.run(
        [*PROGRAM, *words],
        stdin=subprocess.DEVNULL,
        stdout=its_end,
        stderr=its_end,
        check=False,
        env=os.environ | {"TERM": "dumb"},  # with no colours of our own
        timeout=120,
    )
    shown = os.read(terminal, 65536).decode("utf-8")  # before its end is closed, with which Linux may drop it
    os.close(its_end)
    os.close(terminal)
    assert shown.replace("\r\n", "").isprintable(), shown
    assert shown.count("\ufffd") or "\\u001b" in shown or "\\x1b" in shown

"""The command as a whole: exit codes, messages on the right stream, help with examples."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cli.main import COMMANDS, app, load_command
from embedkit.errors import RecordError

RUNNER = CliRunner()


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, where the exit code and the streams are real."""
    program = [sys.executable, "-c", "from cli.main import run; run()", *arguments]
    return subprocess.run(program, input=stdin, capture_output=True, check=False, timeout=120)


def test_the_version_is_the_packages() -> None:
    result = RUNNER.invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"embedkit {version('embedkit')}\n")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ["10000", None]),
        ({"GOMP_SPINCOUNT": "7"}, ["7", None]),
        ({"OMP_WAIT_POLICY": "active"}, [None, "active"]),
    ],
)
def test_waiting_threads_sleep_soon_unless_the_user_says_how(
    given: dict[str, str], found: list[str | None]
) -> None:
    """Set before anything loads torch, which reads it then."""
    program = (
        "import json, os, sys, cli.main\n"
        "sys.argv = ['embedkit', '--version']\n"
        "try: cli.main.run()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
        "found = [os.environ.get(name) for name in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY')]\n"
        "print(json.dumps(found), file=sys.stderr)\n"  # standard output is closed by now
    )
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=unset | given, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stderr) == found


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["encode", "-h"], ["model", "--help"], ["doctor", "-h"]]
)
def test_help_is_asked_for_in_two_ways_and_ends_well(arguments: list[str]) -> None:
    result = RUNNER.invoke(app, arguments)
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_overall_help_says_of_a_command_what_the_command_says(name: str) -> None:
    assert load_command(name).get_short_help_str(200) == COMMANDS[name]


def test_overall_help_lists_all_commands_and_loads_none_of_them() -> None:
    done = run("--help")
    assert [
        line.split()[0]
        for line in done.stdout.decode().split("Commands:")[1].split("Examples:")[0].splitlines()
        if line[2:3].strip()
    ] == list(COMMANDS)
    program = (
        "import sys, cli.main\n"
        "sys.argv = ['embedkit', '--help']\n"
        "try: cli.main.run()\n"
        "except SystemExit: pass\n"
        "sys.exit(sorted(set(sys.modules) & {'cli.search', 'cli.shared.options', 'numpy', 'rich', 'pydantic', 'tokenizers'}))\n"
    )
    quiet = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert quiet.stderr == "[]\n"


def test_a_mistyped_command_is_told_its_neighbour() -> None:
    assert "No such command 'serach'. Did you mean 'search'?" in RUNNER.invoke(app, ["serach"]).stderr


def test_help_of_encode_has_examples() -> None:
    help_text = RUNNER.invoke(app, ["encode", "--help"]).stdout
    assert "Examples: embedkit encode notes.txt --output notes.npy" in " ".join(help_text.split())
    assert "--on-truncate" in help_text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["encode"], "Missing argument 'INPUT...'"),
        (["train", "contrastive", "x.jsonl", "-o", "m"], "Missing option '--model'"),
        (
            ["encode", "x.txt", "--model", "m", "--device", "tpu"],
            "'tpu' is not one of 'auto', 'cpu', 'cuda', 'mps'",
        ),
        (["encode", "x.txt", "--model", "m", "--truncate-dim", "0"], "Invalid value for '--truncate-dim'"),
        (["encode", "x.txt", "-m", "m", "--prompt", "a", "--prompt-name", "b"], "exclude each other"),
        (["model", "convert", "m"], "Missing option '--output'"),
    ],
)
def test_wrong_usage_ends_with_two(arguments: list[str], message: str) -> None:
    result = RUNNER.invoke(app, arguments, env={"EMBEDKIT_MODEL": ""})
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert result.stdout == ""


def test_a_clear_error_ends_with_one_on_standard_error(tmp_path: Path) -> None:
    done = run("encode", str(tmp_path / "no.txt"), "--model", "m")
    assert (done.returncode, done.stdout) == (1, b"")
    assert (
        done.stderr.decode()
        == f"error: {tmp_path / 'no.txt'}: there is no such file or folder; check the path\n"
    )


def test_errors_cross_the_runner_as_they_are(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["encode", str(tmp_path / "no.txt"), "--model", "m"])
    assert isinstance(result.exception, RecordError)


@pytest.mark.parametrize(("patience", "found"), [(60.0, (0, b"went on\n")), (-1.0, (130, b""))])
def test_ctrl_c_again_changes_nothing_at_once_and_later_ends_the_process(
    patience: float, found: tuple[int, bytes]
) -> None:
    program = f"""
import signal, cli.main
cli.main.PATIENCE_SECONDS = {patience}
signal.signal(signal.SIGINT, cli.main._interrupt)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    signal.raise_signal(signal.SIGINT)
    print("went on")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == found
    assert done.stderr == b""


@pytest.mark.parametrize(
    "module", ["cli.main", "typer", "embedkit.errors", "cli.search", "cli.shared.options", "numpy"]
)
def test_ctrl_c_while_a_module_is_imported_ends_without_a_traceback(module: str) -> None:
    """The signal comes at the moment at which the module is looked for."""
    program = f"""
import signal, sys

class Interrupting:
    def find_spec(name, path, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting)
from cli.__main__ import run
run()
"""
    command = [sys.executable, "-c", program, "search", "--help"]
    if module == "numpy":
        command = [*command[:3], "encode", "-", "--model", "embedkit-small"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """As behind `nohup`, and in the background of a shell script."""
    program = """
import signal, cli.main
signal.signal(signal.SIGINT, signal.SIG_IGN)
from cli.__main__ import run
cli.main.app = lambda: signal.raise_signal(signal.SIGINT)
run()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "cli", "--version"], capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode()) == (0, f"embedkit {version('embedkit')}\n")


def test_a_reader_that_goes_away_early_is_no_error(native_model: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "a.txt"
    corpus.write_text("the dog runs\n" * 1_000, encoding="utf-8")  # their vectors fill a pipe several times
    program = [
        sys.executable,
        "-c",
        "from cli.main import run; run()",
        "encode",
        str(corpus),
        "-m",
        str(native_model),
    ]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b'{"id": ')
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=180), stderr) == (0, b"")


def every_command() -> list[tuple[Any, Any]]:  # Any: typer keeps its own copy of click
    """Return each command, groups too, with its context."""
    root: Any = get_command(app)
    found = [(root, root.make_context("embedkit", [], resilient_parsing=True))]
    for command, context in found:
        for name in command.list_commands(context) if hasattr(command, "commands") else ():
            own = command.get_command(context, name)
            found.append((own, own.make_context(name, [], parent=context, resilient_parsing=True)))
    return found


@pytest.mark.parametrize(
    ("command", "context"), [pytest.param(*each, id=each[1].command_path) for each in every_command()]
)
def test_help_is_for_people(command: Any, context: Any) -> None:  # Any: as above
    """It has an example, fits a page, and shows nothing of how values are parsed."""
    text = command.get_help(context)
    assert "Example" in text
    assert max(map(len, (command.epilog or "").splitlines())) <= 110
    for programming in (
        "list[",
        "[[",
        "......",
        "]...]",
        "<str>",
        "<int>",
        "<int range>",
        "<float>",
        "default: (",
    ):
        assert programming not in text


@pytest.mark.parametrize(
    "line",
    [
        line.strip()
        for command, _ in every_command()
        for line in (command.epilog or "").splitlines()
        if line.strip().startswith("embedkit ")
    ],
)
def test_an_example_is_a_line_that_can_be_typed(line: str) -> None:
    """Its options are those of the command, and their values of the right kind."""
    words = shlex.split(line, comments=True)[1:]
    words = list(itertools.takewhile(lambda word: word not in ("<", ">", "|"), words))
    command: Any = get_command(app)
    context: Any = None
    while hasattr(command, "commands"):
        context = command.make_context("embedkit", words, parent=context)
        _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context("example", words, parent=context)


def test_every_option_says_what_it_is_for() -> None:
    """One without help is a field that a group of options inherited and no command asked for."""

    def silent(command: Any, words: str) -> list[str]:  # Any: typer keeps its own copy of click
        if hasattr(command, "commands"):
            named = command.list_commands(None)
            return [
                each for name in named for each in silent(command.get_command(None, name), f"{words} {name}")
            ]
        shown = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
        return [f"{words} {each.opts[0]}" for each in shown if not each.help]

    assert silent(get_command(app), "embedkit") == []

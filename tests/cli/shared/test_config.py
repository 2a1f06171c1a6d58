"""Configuration files: what holds of several values, what is refused and how it is said, and what a project's file must not do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from cli.main import COMMANDS, app, load_command
from cli.shared.config import options_of, read_files, settings_of
from cli.shared.config_keys import FROM_PROJECT, MODELS, PROJECT_COMMANDS, SHARED, WITH_SHARED
from embedkit.errors import ConfigError
from embedkit.pipelines.models import or_default, set_default_model


class Files:
    """The user's file and the project's, and calls in a folder of the project."""

    def __init__(self, folder: Path) -> None:
        self.user = folder / "config" / "embedkit" / "config.toml"
        self.project = folder / "project" / "embedkit.toml"
        for path in (self.user, self.project):
            path.parent.mkdir(parents=True)

    def write(self, *, user: str = "", project: str = "") -> None:
        for path, text in ((self.user, user), (self.project, project)):
            path.write_text(text, encoding="utf-8")

    def held(self, *words: str) -> dict[str, tuple[object, str]]:
        """Return value and source of each option of a command, as `embedkit config` says them."""
        result = CliRunner().invoke(app, ["config", *words, "--json"])
        assert result.exit_code == 0, (result.output, result.exception)
        rows = map(json.loads, result.stdout.splitlines())
        return {row["key"]: (row["value"], row["source"]) for row in rows}

    def error(self, *words: str) -> str:
        """Return the error of a call."""
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code != 0
        return str(result.exception) if not isinstance(result.exception, SystemExit) else result.stderr


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Files]:
    for name in ("EMBEDKIT_CONFIG", "EMBEDKIT_PRECISION", "EMBEDKIT_MODEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    found = Files(tmp_path)
    (tmp_path / "project" / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "project" / "inner")
    yield found
    set_default_model(None)


def all_commands() -> Iterator[tuple[str, Any]]:  # Any: click's commands
    waiting = [(name, load_command(name)) for name in COMMANDS]
    while waiting:
        name, command = waiting.pop()
        if hasattr(command, "commands"):
            waiting += [(f"{name} {inner}", each) for inner, each in command.commands.items()]
        else:
            yield name, command


OPTIONS = {name: options_of(command) for name, command in all_commands()}


def test_an_option_comes_before_the_environment_that_before_the_project_that_before_the_user_that_before_the_default(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files.held("encode")["precision"] == ("auto", "default")
    files.write(user='precision = "bf16"\n')
    assert files.held("encode")["precision"] == ("bf16", "user")
    files.write(user='precision = "bf16"\n', project='precision = "fp16"\n')
    assert files.held("encode")["precision"] == ("fp16", "project")
    monkeypatch.setenv("EMBEDKIT_PRECISION", "int8")
    assert files.held("encode")["precision"] == ("int8", "environment")
    assert files.held("encode", "--precision", "fp32")["precision"] == ("fp32", "option")


def test_a_commands_own_table_comes_before_its_groups_and_that_before_the_top(files: Files) -> None:
    files.write(user="device = 'cpu'\n[index]\ndevice = 'cuda'\n[index.build]\ndevice = 'mps'\n")
    assert files.held("encode")["device"] == ("cpu", "user")
    assert files.held("index", "add")["device"] == ("cuda", "user")
    assert files.held("index", "build")["device"] == ("mps", "user")


def test_values_are_taken_as_on_the_command_line(files: Files) -> None:
    files.write(
        user="hidden = true\n[grep]\ntop-k = 3\nmin-score = 0.25\nglob = ['*.md', '!a*']\nrefresh = '5s'\n"
        "line-number = false\nrerank = true\n"
    )
    held = files.held("grep")
    assert held["hidden"] == (True, "user")
    assert held["top-k"] == ("3", "user")
    assert held["glob"] == (["*.md", "!a*"], "user")
    assert held["line-number"] == (False, "user")
    assert held["rerank"] == ("embedkit-rerank-small", "user")
    files.write(user="rerank = true\n", project="[grep]\nrerank = false\n")
    assert files.held("grep")["rerank"] == (None, "default")
    assert files.held("search")["rerank"] == ("embedkit-rerank-small", "user")


def test_a_command_does_what_the_file_says(
    files: Files, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(files.user.parent / "cache"))
    for name in "abc":
        Path(f"{name}.txt").write_text("the dog runs\n", encoding="utf-8")
    files.write(user=f"model = '{tiny_model}'\nmode = 'text'\n[grep]\ntop-k = 2\n")
    two = CliRunner().invoke(app, ["grep", "dog"])
    assert len(two.stdout.splitlines()) == 2, two.output
    three = CliRunner().invoke(app, ["grep", "dog", "-k", "3"])
    assert len(three.stdout.splitlines()) == 3


def test_a_model_for_all_commands_comes_after_an_indexs_own_and_that_of_the_environment(
    files: Files, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.tiny import write_tiny_model

    other = write_tiny_model(tmp_path / "other", seed=1)
    Path("a.txt").write_text("the dog runs\n", encoding="utf-8")
    files.write(user=f"model = '{tiny_model}'\n")
    built = CliRunner().invoke(app, ["index", "build", "a.txt", "--index", "a.index"])
    assert built.exit_code == 0, built.output
    files.write(user=f"model = '{other}'\n")
    assert CliRunner().invoke(app, ["search", "a.index", "dog"]).exit_code == 0
    assert or_default(None) == str(other)
    monkeypatch.setenv("EMBEDKIT_MODEL", "from the environment")
    assert or_default(None) == "from the environment"
    monkeypatch.delenv("EMBEDKIT_MODEL")
    files.write(user=f"[search]\nmodel = '{other}'\n")  # as --model does
    assert "was built by another encoder" in files.error("search", "a.index", "dog")


def test_a_files_talk_gives_way_to_the_options(files: Files) -> None:
    files.write(user="verbose = true\n")
    assert CliRunner().invoke(app, ["recipes", "list", "-q"]).exit_code == 0
    assert CliRunner().invoke(app, ["recipes", "list", "-q", "-v"]).exit_code == 2


@pytest.mark.parametrize(
    ("text", "command", "wanted"),
    [
        (
            "\ntop-q = 3\n",
            "grep",
            "config.toml:2: top-q: unknown key. Did you mean 'top-k'? What one command",
        ),
        ("color = 'never'\n", "grep", "config.toml:1: color: unknown key. "),
        (
            "[grep]\n# c\ncolr = 'never'\n",
            "grep",
            "config.toml:3: grep.colr: unknown key. Did you mean 'color'?",
        ),
        ("[serch]\nmode = 'text'\n", "grep", "config.toml:1: serch: unknown table. Did you mean 'search'?"),
        (
            "[index.bild]\nkind = 'flat'\n",
            "index stats",
            "config.toml:1: index.bild: unknown table. Did you mean 'build'?",
        ),
        (
            "[index]\nkindd = 'flat'\n",
            "index stats",
            "config.toml:2: index.kindd: unknown key. Did you mean 'kind'?",
        ),
        ("grep = 3\n", "grep", "config.toml:1: grep: is 3; it must be a table: [grep]"),
        (
            "mode = 'densest'\n",
            "grep",
            "config.toml:1: mode: 'densest' is not one of 'dense', 'text', 'hybrid'. Did you mean 'dense'?",
        ),
        ("top-k = 0\n", "grep", "config.toml:1: top-k: 0 is not in the range x>=1"),
        ("top-k = true\n", "grep", "config.toml:1: top-k: is True; it must be a text or a number"),
        ("top-k = [3]\n", "grep", "config.toml:1: top-k: is [3]; it must be a text or a number"),
        ("hidden = 'yes'\n", "grep", "config.toml:1: hidden: is 'yes'; it must be true or false"),
        ("refresh = 'soon'\n", "grep", "config.toml:1: refresh: "),
        (
            "model = 'nowhere'\n",
            "grep",
            "config.toml:1: model: is 'nowhere'; it must be a model's folder, or one of embedkit-small",
        ),
        ("model = true\n", "grep", "config.toml:1: model: is True"),
        ("a = \n", "grep", "config.toml: is no TOML (Invalid value (at line 1"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_was_wanted(
    files: Files, text: str, command: str, wanted: str
) -> None:
    files.write(user=text)
    arguments = ["x"] if command == "grep" else []
    assert wanted in files.error(*command.split(), *arguments)
    assert wanted in files.error("config")  # which checks all of it
    assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0
    assert str(files.user) in CliRunner().invoke(app, ["config", "path"]).stdout


def test_a_file_may_begin_with_a_byte_order_mark(files: Files) -> None:
    files.user.write_bytes("top-k = 3\n".encode("utf-8-sig"))
    assert files.held("grep")["top-k"] == ("3", "user")


def test_bytes_that_are_no_text_are_an_error(files: Files) -> None:
    files.user.write_bytes(b"mode = '\xff'\n")
    assert "config.toml: cannot be read" in files.error("config")


def test_an_error_in_a_file_is_no_answer_of_grep(files: Files) -> None:
    files.write(user="mode = 'densest'\n")
    assert CliRunner().invoke(app, ["grep", "x"]).exit_code == 2


def test_the_environment_names_another_file_or_none(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(user="top-k = 3\n", project="top-k = 4\n")
    monkeypatch.setenv("EMBEDKIT_CONFIG", "off")
    assert files.held("grep")["top-k"] == (10, "default")
    other = files.user.with_name("other.toml")
    other.write_text("mode = 'text'\n", encoding="utf-8")
    monkeypatch.setenv("EMBEDKIT_CONFIG", str(other))
    assert files.held("grep")["mode"] == ("text", "user")
    assert files.held("grep")["top-k"] == ("4", "project")
    other.unlink()
    assert "EMBEDKIT_CONFIG names this file, which is not there" in files.error("grep", "x")


# What a project's file may do

DANGEROUS = [
    ("encode", "output = 'pwned.npy'"),
    ("search", "run = 'pwned.trec'"),
    ("search", "queries = '/etc/passwd'"),
    ("grep", "open = 1"),
    ("grep", "forget = true"),
    ("grep", "init = true"),
    ("grep", "rebuild = true"),
    ("grep", "hidden = true"),
    ("grep", "no-ignore = true"),
    ("grep", "cache-limit = '1B'"),
    ("grep", "backend = 'onnx'"),
    ("mcp", "install = 'zed'"),
    ("mcp", "write = true"),
    ("index.build", "index = 'pwned.index'"),
    ("index.build", "sync = true"),
    ("index.build", "yes = true"),
    ("index.delete", "where = 'true'"),
    ("index.delete", "yes = true"),
    ("train.mlm", "output = 'pwned'"),
    ("train.mlm", "set = ['a=b']"),
    ("model.download", "revision = 'x'"),
    ("compare", "html = 'pwned.html'"),
    ("explain", "html = 'pwned.html'"),
]


@pytest.mark.parametrize(("table", "line"), DANGEROUS)
def test_a_projects_file_cannot_make_a_command_write_delete_start_or_read_more(
    files: Files, table: str, line: str
) -> None:
    files.write(project=f"[{table}]\n{line}\n")
    Path("a.txt").write_text("the dog runs\n", encoding="utf-8")
    before = sorted(path for path in files.project.parent.rglob("*"))
    for words in (table.split("."), ["config"]):
        message = files.error(*words, *(["a.txt"] if words != ["config"] else []))
        assert f"embedkit.toml:2: {table}.{line.split()[0]}: a project's file may not set this" in message
    assert sorted(path for path in files.project.parent.rglob("*")) == before
    files.write(user=f"[{table}]\n{line}\n")
    assert CliRunner().invoke(app, ["config"]).exit_code == 0  # the user's own may


def test_a_projects_file_sets_options_of_reading_commands_alone(files: Files) -> None:
    files.write(project="[train.contrastive]\nmodel = 'embedkit-small'\n")
    assert "may set options of encode, explain" in files.error("config")
    files.write(project="[index]\nstorage = 'int8'\n")
    assert files.held("index", "build")["storage"] == ("int8", "project")


def test_a_projects_model_lies_in_the_project(files: Files, tiny_model: Path) -> None:
    (files.project.parent / "model").mkdir()
    files.write(project="model = 'model'\n")
    assert files.held("encode")["model"] == (str(files.project.parent / "model"), "project")
    for outside in (str(tiny_model), "../config", "link"):
        if outside == "link":
            (files.project.parent / "link").symlink_to(tiny_model)
        files.write(project=f"[grep]\nmodel = '{outside}'\n")
        assert "a project's file may name a folder of the project" in files.error("grep", "x")


def context_of(name: str) -> Any:  # Any: as above
    """Return the context in which a command is called."""
    command: Any = get_command(app)
    context = command.make_context("embedkit", [], resilient_parsing=True)
    for word in name.split():
        command = command.get_command(context, word)
        context = command.make_context(word, [], parent=context, resilient_parsing=True)
    return context


def test_all_that_a_projects_file_may_not_set_is_refused_wherever_it_stands(files: Files) -> None:
    for name in PROJECT_COMMANDS:
        context = context_of(name)
        for key, option in OPTIONS[name].items():
            if key in FROM_PROJECT:
                continue
            value = "true" if option.is_flag else "'x'"
            files.write(project=f"[{name.replace(' ', '.')}]\n{key} = {value}\n")
            with pytest.raises(ConfigError, match=rf"{key}: a project's file may not set this"):
                settings_of(context, read_files([(files.project, "project")]))


def test_no_key_of_a_projects_file_names_a_file_that_is_read_or_written() -> None:
    for name, options in OPTIONS.items():
        for key in set(options) & set(FROM_PROJECT) - set(MODELS):
            assert "Path" not in type(options[key].type).__name__, (name, key)
            assert (options[key].metavar or "") not in ("FILE", "FOLDER", "PATH"), (name, key)


def test_the_lists_of_keys_name_options_that_there_are() -> None:
    count = Counter(key for options in OPTIONS.values() for key in options)
    assert [key for key in SHARED if count[key] < 2] == []
    assert [key for key in SHARED if not any(key in OPTIONS[name] for name in WITH_SHARED)] == []
    own = {key for name in PROJECT_COMMANDS for key in OPTIONS[name]}
    assert [key for key in FROM_PROJECT if key not in own] == []


# Start


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"], ["grep"]])
def test_without_a_file_nothing_is_loaded_that_reads_one(files: Files, arguments: list[str]) -> None:
    program = (
        "import sys, cli.main\n"
        f"sys.argv = ['embedkit', *{arguments!r}]\n"
        "try: cli.main.run()\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'tomllib', 'cli.shared.config'} & set(sys.modules)))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "EMBEDKIT_CONFIG"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0

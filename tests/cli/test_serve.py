"""`embedkit serve`: who is let in, what is refused before anything is loaded, and a whole life of a server."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from typer.testing import CliRunner

pytest.importorskip("starlette")

from cli.main import app
from cli.serve import Reach, _access, _keys
from embedkit.errors import ConfigError
from tests.conftest import REPOSITORY


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["serve", *words])
    return done.exit_code, done.output


def test_a_server_for_others_wants_a_key_or_says_that_it_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run("--host", "0.0.0.0")
    assert code == 2
    assert "--api-key" in said
    assert "--insecure" in said
    assert _access(Reach(host="0.0.0.0", api_key=["k"]), writable=False).keys == ("k",)
    open_to_all = _access(Reach(host="0.0.0.0", insecure=True), writable=False)
    assert "anybody who reaches 0.0.0.0" in capsys.readouterr().err
    assert open_to_all.hosts is not None
    assert socket.gethostname().lower() in open_to_all.hosts


def test_names_that_a_server_is_called_by() -> None:
    assert _access(Reach(), writable=False).hosts == ("localhost",)
    assert _access(Reach(allow_host=["Search.Example"]), writable=False).hosts == (
        "localhost",
        "search.example",
    )
    assert _access(Reach(allow_host=["*"]), writable=False).hosts is None
    assert _access(Reach(host="0.0.0.0", api_key=["k"]), writable=False).hosts is None
    assert _access(Reach(host="::1"), writable=False).hosts == ("localhost",)


def test_keys_come_from_options_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the team\nfirst\n\nsecond \n", encoding="utf-8")
    monkeypatch.setenv("EMBEDKIT_API_KEY", "from-the-environment")
    assert _keys(Reach(api_key=["given"], api_key_file=file)) == ("given", "first", "second")
    assert _keys(Reach()) == ("from-the-environment",)
    assert _keys(Reach(insecure=True)) == ()
    file.write_text("# none\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="there is no key in it"):
        _keys(Reach(api_key_file=file))
    with pytest.raises(ConfigError, match="cannot be read"):
        _keys(Reach(api_key_file=tmp_path / "nowhere"))
    for key in ("two words", "schlüssel", ""):
        with pytest.raises(ConfigError, match="printable ASCII"):
            _keys(Reach(api_key=[key]))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--writable",), "--writable goes with --api-key"),
        (("--insecure", "--api-key", "k"), "--insecure excludes"),
        (("--alias", "wrong"), "must be NAME=MODEL"),
        (("--port", "70000"), "70000"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], reason: str) -> None:
    code, said = run(*words)
    assert code == 2
    assert reason in " ".join(said.split())


def test_a_port_that_is_taken_and_an_address_of_another_machine() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = CliRunner().invoke(app, ["serve", "--port", str(taken.getsockname()[1])])
    assert isinstance(done.exception, ConfigError)
    assert "in use" in str(done.exception)
    done = CliRunner().invoke(app, ["serve", "--host", "203.0.113.7", "--insecure"])
    assert isinstance(done.exception, ConfigError)
    assert "cannot listen on 203.0.113.7" in str(done.exception)


def test_an_alias_of_nothing_is_refused(tiny_model: Path) -> None:
    words = ["--model", str(tiny_model), "--reranker", "none", "--alias", "ada=other", "--port", "0"]
    done = CliRunner().invoke(app, ["serve", *words])
    assert isinstance(done.exception, ConfigError)
    assert "'ada' is to name 'other'" in str(done.exception)


@pytest.mark.parametrize("allowed", [False, True])
def test_regular_expressions_are_allowed_by_an_option_or_a_configuration(
    native_model: Path, tmp_path: Path, allowed: bool
) -> None:
    texts, config, index = (tmp_path / name for name in ("texts.jsonl", "config.toml", "t.index"))
    texts.write_text('{"id": "a", "text": "the girl sings"}\n', "utf-8")
    config.write_text(f"[serve]\nallow-regex = {str(allowed).lower()}\n", "utf-8")
    build = ["index", "build", texts, "--index", index, "--model", native_model, "--device", "cpu"]
    assert CliRunner().invoke(app, list(map(str, build))).exit_code == 0
    command = [sys.executable, "-c", "from cli.main import run; run()", "serve", str(index)]
    command += ["--reranker", "none", "--port", "0", "--json", "--quiet"]
    environment = {**os.environ, "EMBEDKIT_CONFIG": str(config)}
    with subprocess.Popen(
        command, text=True, cwd=REPOSITORY, stdout=subprocess.PIPE, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            port = urlsplit(json.loads(process.stdout.readline())["address"]).port
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                connection.request("GET", "/search?q=girl&mode=text&where=" + quote("text matches 's.ngs'"))
                answer = connection.getresponse()
                content = json.loads(answer.read())
        finally:
            process.kill()
    assert answer.status == (200 if allowed else 400), content
    assert [hit["id"] for hit in content.get("hits", [])] == (["a"] if allowed else [])


def test_a_server_from_its_start_to_its_end(native_model: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"id": "a", "text": "the girl sings"}\n{"id": "b", "text": "the dog runs"}\n', "utf-8")
    embedkit = [sys.executable, "-c", "from cli.main import run; run()"]
    index = str(tmp_path / "t.index")
    build = ["index", "build", str(texts), "--index", index, "--model", str(native_model), "--device", "cpu"]
    assert CliRunner().invoke(app, build).exit_code == 0
    words = [index, "--reranker", "none", "--alias", "ada=" + native_model.name, "--port", "0", "--json"]
    command = [*embedkit, "serve", *words, "--api-key", "k", "--log-format", "json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=REPOSITORY, **pipes) as process:  # type: ignore[call-overload]
        try:
            said = json.loads(process.stdout.readline())
            assert (said["models"], said["indexes"], said["key"]) == ([native_model.name], ["t"], True)
            port = int(said["address"].rpartition(":")[2])

            def ask(method: str, path: str, body: object = None, key: str = "k") -> tuple[int, bytes]:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                with closing(connection):
                    content = None if body is None else json.dumps(body)
                    connection.request(method, path, content, {"authorization": f"Bearer {key}"})
                    answer = connection.getresponse()
                    return answer.status, answer.read()

            assert ask("GET", "/health", key="")[0] == 200
            assert ask("GET", "/", key="")[1].lower().startswith(b"<!doctype html>")
            assert ask("GET", "/indexes", key="wrong")[0] == 401
            status, content = ask("POST", "/search", {"query": "the girl sings", "all": True})
            assert status == 200
            assert json.loads(content)["hits"][0]["id"] == "a"
            assert ask("POST", "/v1/embeddings", {"input": "the dog", "model": "ada"})[0] == 200
            described = json.loads(ask("GET", "/openapi.json")[1])
            assert {"/search", "/v1/embeddings", "/v2/rerank", "/embed", "/api/embed"} <= described[
                "paths"
            ].keys()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()
        rows = [line for line in process.stderr.read().splitlines() if line.startswith("{")]
    assert [json.loads(row)["status"] for row in rows] == [200, 200, 401, 200, 200, 200]

"""`embedkit mcp` as clients drive it: over standard input and output, by the protocol's own client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from typer.testing import CliRunner

from cli.main import app
from embedkit.pipelines.grep.home import cached_home
from tests.conftest import REPOSITORY

mcp = pytest.importorskip("mcp", reason="needs the extra: pip install 'embedkit[mcp]'")

Steps = Callable[[Any], Awaitable[None]]  # Any: the client, whose package may be missing


def write_files(folder: Path) -> Path:
    for name, text in {"a.md": "# Dogs\n\nthe dog runs\n", "b/c.txt": "a woman sings a song\n"}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        os.utime(path, (1e9, 1e9 + 0.5))
    return folder


def environment(place: Path, model: Path) -> dict[str, str]:
    return {
        "EMBEDKIT_CACHE": str(place / "cache"),
        "EMBEDKIT_MODEL": str(model),
        "PYTHONPATH": str(REPOSITORY),
    }


@pytest.fixture
def folder(tmp_path: Path, native_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in environment(tmp_path, native_model).items():
        monkeypatch.setenv(name, value)
    return write_files(tmp_path / "work")


@dataclass(frozen=True)
class Served:
    """A server that several tests ask, a client of it, and the loop in which that runs."""

    folder: Path
    client: Any  # the client, whose package may be missing
    portal: BlockingPortal

    def do(self, steps: Steps) -> None:
        async def run() -> None:
            with anyio.fail_after(60):
                await steps(self.client)

        self.portal.call(run)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, native_model: Path) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("mcp")
    folder = write_files(place / "work")
    program, *arguments = command(folder, "-k", "3")
    server = mcp.StdioServerParameters(
        command=program, args=arguments, env={**os.environ, **environment(place, native_model)}
    )
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(mcp.Client(server)) as client,
    ):
        yield Served(folder, client, portal)


def command(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "cli", "mcp", str(folder), *options]


def drive(folder: Path, steps: Steps, *options: str) -> None:
    """Start a server as a client does, and do some steps with the client."""
    program, *arguments = command(folder, *options)
    server = mcp.StdioServerParameters(command=program, args=arguments, env=dict(os.environ))

    async def run() -> None:
        with anyio.fail_after(60):
            async with mcp.Client(server) as client:
                await steps(client)

    anyio.run(run)


async def ask(client: Any, tool: str, **arguments: object) -> str:  # Any: as above
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return str(result.content[0].text)


def test_the_official_client_lists_and_calls_the_tools(served: Served) -> None:
    async def steps(client: Any) -> None:  # Any: as above
        assert client.server_info.name == "embedkit"
        assert str(served.folder) in client.instructions
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == ["search", "get", "similar", "status"]
        assert all(tool.annotations.read_only_hint for tool in tools)
        assert all(tool.input_schema["additionalProperties"] is False for tool in tools)
        assert "(default 3)" in tools[0].input_schema["properties"]["k"]["description"]
        assert (await ask(client, "search", query="dog")).startswith("a.md:1-3  score ")
        assert "c.txt:1" in await ask(client, "search", query="a song", k=1, mode="text")
        assert await ask(client, "get", path="a.md:3") == "a.md:3 of 3 lines\nthe dog runs"
        assert "c.txt:1  score" in await ask(client, "similar", place="a.md:1")
        assert "2 files, 2 passages" in await ask(client, "status")

    served.do(steps)


def test_clients_of_earlier_protocols_are_answered(folder: Path) -> None:
    program, *arguments = command(folder)
    server = mcp.StdioServerParameters(command=program, args=arguments, env=dict(os.environ))

    async def run() -> None:
        with anyio.fail_after(60):
            async with mcp.Client(server, mode="legacy") as client:
                assert client.protocol_version < "2026"
                assert "a.md:1-3" in await ask(client, "search", query="dog", mode="text")

    anyio.run(run)


WRONG: list[tuple[str, dict[str, object], str]] = [
    ("search", {}, "search: the argument 'query' is missing"),
    ("search", {"qeury": "dog"}, "search: there is no argument 'qeury'; did you mean 'query'?"),
    ("search", {"query": "dog", "k": "3"}, "search: k is '3'; it must be of type integer"),
    ("search", {"query": "dog", "k": 0}, "search: k is 0; it must be at least 1"),
    ("search", {"query": "dog", "mode": "best"}, "must be one of ['hybrid', 'dense', 'text']"),
    ("search", {"query": ""}, "search: query is ''; it must not be empty"),
    ("get", {"path": "../x"}, "../x: a path with .. is not followed"),
    ("similar", {}, "name either a place, such as src/a.py:42, or a text"),
]


def test_wrong_arguments_are_an_answer_that_says_what_was_wanted_and_the_server_goes_on(
    served: Served,
) -> None:
    async def steps(client: Any) -> None:  # Any: as above
        for tool, arguments, wanted in WRONG:
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert wanted in result.content[0].text
        assert "a.md" in await ask(client, "search", query="dog", mode="text")

    served.do(steps)


def test_an_unknown_tool_is_an_error_of_the_protocol(served: Served) -> None:
    async def steps(client: Any) -> None:  # Any: as above
        with pytest.raises(mcp.MCPError, match="there is no tool 'find'; there are search, get"):
            await client.call_tool("find", {})

    served.do(steps)


def test_a_long_call_blocks_no_other_and_can_be_cancelled(folder: Path) -> None:
    """The test holds the lock of the index: a search waits for it as for another process that builds."""
    home = cached_home(folder)
    home.make()

    async def steps(client: Any) -> None:  # Any: as above
        with home.held():
            with anyio.move_on_after(2) as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(lambda: ask(client, "search", query="dog"))
                    await anyio.sleep(0.5)
                    begun = time.monotonic()
                    assert (
                        await ask(client, "get", path="a.md", lines="3") == "a.md:3 of 3 lines\nthe dog runs"
                    )
                    assert time.monotonic() - begun < 1
            assert scope.cancelled_caught  # which the client tells the server
            assert "being built" in await ask(client, "status")
        assert (await ask(client, "search", query="dog")).startswith("a.md:1-3")

    drive(folder, steps)


def converse(folder: Path, *messages: dict[str, object]) -> tuple[list[str], str]:
    """Send messages as lines, close standard input, and return the lines and what was said on standard error."""
    program = command(folder, "--verbose")
    with subprocess.Popen(program, stdin=-1, stdout=-1, stderr=-1, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        lines = []
        for message in messages:
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            server.stdin.flush()
            if "id" in message:
                lines.append(server.stdout.readline())
        rest, said = server.communicate(timeout=20)
        assert server.returncode == 0, said
        return lines + rest.splitlines(), said


HELLO = {
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def test_nothing_but_the_protocol_reaches_standard_output_and_a_closed_input_ends_the_server(
    folder: Path,
) -> None:
    search = {"name": "search", "arguments": {"query": "dog"}}
    lines, _ = converse(
        folder,
        HELLO,
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": search},
    )
    first, second = map(json.loads, lines)
    assert first["result"]["serverInfo"]["name"] == "embedkit"
    assert "a.md:1-3" in second["result"]["content"][0]["text"]


def test_a_closed_input_ends_the_server_also_while_it_works(folder: Path) -> None:
    home = cached_home(folder)
    home.make()
    search = {"id": 2, "method": "tools/call", "params": {"name": "search", "arguments": {"query": "dog"}}}
    with home.held(), subprocess.Popen(command(folder), stdin=-1, stdout=-1, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for message in (HELLO, search):
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
            server.stdin.flush()
        assert "embedkit" in server.stdout.readline()
        server.stdin.close()
        assert server.wait(timeout=10) == 0


def test_it_ends_with_its_parent_although_standard_input_is_held_open(folder: Path) -> None:
    """The test holds the other end of the server's standard input, so that the death of the parent alone ends it."""
    reader, writer = os.pipe()
    program = (
        "import subprocess, sys\n"
        "server = subprocess.Popen(sys.argv[1:])\n"
        "print(server.pid, file=sys.stderr, flush=True)\n"
        "server.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, *command(folder)], stdin=reader, stdout=-1, stderr=-1, text=True
    ) as parent:
        os.close(reader)
        try:
            assert parent.stderr is not None
            assert parent.stdout is not None
            server = psutil.Process(int(parent.stderr.readline()))
            os.write(writer, (json.dumps({"jsonrpc": "2.0", **HELLO}) + "\n").encode())
            assert "embedkit" in parent.stdout.readline()  # it serves
            parent.kill()
            until = time.monotonic() + 10
            while _lives(server) and time.monotonic() < until:
                time.sleep(0.05)
            assert not _lives(server)
        finally:
            os.close(writer)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_path_that_is_not_there_is_an_error_before_anything_is_served(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["mcp", str(tmp_path / "none")])
    assert "there is no such file or folder" in str(result.exception)


def test_installing_prints_the_configuration_or_writes_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folder)
    arguments = ["mcp", "b", "--refresh", "5s", "--hidden", "--name", "songs", "--install", "zed"]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0
    server = json.loads(printed.stdout)["context_servers"]["songs"]
    assert server["args"][-5:] == ["mcp", str(folder / "b"), "--refresh", "5s", "--hidden"]
    file = tmp_path / "home" / ".config" / "zed" / "settings.json"
    assert str(file) in printed.stderr
    assert not file.exists()
    written = CliRunner().invoke(app, [*arguments, "--write"])
    assert "server 'songs' added" in written.stderr
    assert json.loads(file.read_text(encoding="utf-8")) == json.loads(printed.stdout)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--write"], "--write goes with --install CLIENT"),
        (["--install", "curser"], "Did you mean 'cursor'?"),
        (["--tokens", "5"], "5 is not in the range 100<=x"),
    ],
)
def test_wrong_usage_says_what_is_wanted(folder: Path, arguments: list[str], wanted: str) -> None:
    result = CliRunner().invoke(app, ["mcp", str(folder), *arguments])
    assert result.exit_code == 2
    assert wanted in " ".join(result.stderr.split())

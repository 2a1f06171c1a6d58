"""What is written for clients: the server is added, and nothing else changes."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest

from embedkit.errors import OutputError
from embedkit.serving.mcp.clients import CLIENTS, ClientName, Installation, installation


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [each for each in os.environ if each.startswith(("EMBEDKIT_", "XDG_"))]:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def servers(found: Installation) -> object:
    text = found.path.read_text(encoding="utf-8")
    return (tomllib.loads(text) if found.is_toml else json.loads(text))[found.client.keys[0]]


@pytest.mark.parametrize("name", CLIENTS)
def test_each_client_gets_a_command_that_starts_the_server(work: Path, name: ClientName) -> None:
    found = installation(name, Path(), ["--refresh", "5s"])
    assert found.write() == "added"
    assert found.write() == "kept"
    (server,) = json.loads(json.dumps(servers(found))).values()
    assert Path(server["command"]).is_absolute()
    *_, command, place, option, value = server["args"]
    assert (command, option, value) == ("mcp", "--refresh", "5s")
    in_project = found.path.is_relative_to(work)
    assert place == (CLIENTS[name].here if in_project else str(work))
    assert in_project == (CLIENTS[name].here is not None)


@pytest.mark.usefixtures("work")
def test_a_server_elsewhere_is_named_by_its_whole_path_also_in_a_project(tmp_path: Path) -> None:
    found = installation("claude-code", tmp_path, [])
    assert found.server["args"][-1] == str(tmp_path)


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("name", ["cursor", "codex"])
def test_what_clients_do_not_pass_on_stands_in_the_file(
    name: ClientName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDKIT_CACHE", "/some where")
    found = installation(name, Path(), [])
    found.write()
    assert json.loads(json.dumps(servers(found)))["embedkit"]["env"] == {"EMBEDKIT_CACHE": "/some where"}


@pytest.mark.usefixtures("work")
def test_other_servers_and_comments_stay() -> None:
    found = installation("zed", Path(), [])
    found.path.parent.mkdir(parents=True)
    found.path.write_text('// Zed\n{\n  "theme": "x",\n  "context_servers": {"a": {}}\n}\n', encoding="utf-8")
    assert found.write() == "added"
    text = found.path.read_text(encoding="utf-8")
    assert text.startswith('// Zed\n{\n  "theme": "x",\n  "context_servers": {"a": {},\n')
    toml = installation("codex", Path(), [])
    toml.path.parent.mkdir(parents=True)
    toml.path.write_text('# mine\nmodel = "m"\n[mcp_servers.a]\ncommand = "x"', encoding="utf-8")
    toml.write()
    assert toml.path.read_text(encoding="utf-8").startswith(
        '# mine\nmodel = "m"\n[mcp_servers.a]\ncommand = "x"\n\n['
    )
    assert set(tomllib.loads(toml.path.read_text(encoding="utf-8"))["mcp_servers"]) == {"a", "embedkit"}


@pytest.mark.usefixtures("work")
def test_the_same_server_is_updated_and_another_one_of_its_name_is_not_overwritten() -> None:
    found = installation("cursor", Path(), [])
    found.path.parent.mkdir()
    old = {"mcpServers": {"embedkit": {"command": "/old/embedkit", "args": found.server["args"]}}}
    found.path.write_text(json.dumps(old), encoding="utf-8")
    assert found.write() == "updated"
    assert servers(found) == {"embedkit": found.server}
    before = found.path.read_bytes()
    with pytest.raises(OutputError, match=r"there is a server 'embedkit' already, .*'mcp'.* --name"):
        installation("cursor", Path(), ["--hidden"]).write()
    assert found.path.read_bytes() == before
    assert installation("cursor", Path(), ["--hidden"], name="all").write() == "added"


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("text", ["{", "[]", '{"mcpServers": []}', '{"mcpServers": 3}'])
def test_a_file_that_is_something_else_stays_as_it_is(text: str) -> None:
    found = installation("cursor", Path(), [])
    found.path.parent.mkdir()
    found.path.write_text(text, encoding="utf-8")
    with pytest.raises(OutputError, match=r"is no JSON that a server can be added to .* Nothing was changed"):
        found.write()
    assert found.path.read_text(encoding="utf-8") == text

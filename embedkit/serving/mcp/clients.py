"""The configuration that makes a client start the server: which file, and what stands in it."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedkit.errors import OutputError
from embedkit.serving.mcp.jsonc import read_jsonc, set_member
from embedkit.storage.files import output_errors, write_text

ClientName = Literal[
    "claude-code", "claude-desktop", "codex", "cursor", "gemini", "vscode", "windsurf", "zed"
]


@dataclass(frozen=True)
class McpClient:
    """A client. Where its file belongs to a project, `here` is how it spells the project's folder in an argument.

    `keys` lead to the servers in the file, `fields` stand beside command and arguments.
    """

    file: str  # as seen from the home folder, or from the project's
    keys: tuple[str, ...] = ("mcpServers",)
    here: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    then: str = ""  # what is to be done for the client to see it


CLIENTS: Mapping[ClientName, McpClient] = {
    "claude-code": McpClient(
        ".mcp.json", here=".", then="Start Claude Code in this folder and allow the server"
    ),
    "claude-desktop": McpClient(
        "Library/Application Support/Claude/claude_desktop_config.json"
        if sys.platform == "darwin"
        else ".config/Claude/claude_desktop_config.json",
        then="Quit Claude Desktop and start it again",
    ),
    "codex": McpClient(".codex/config.toml", ("mcp_servers",), then="Start Codex again"),
    "cursor": McpClient(
        ".cursor/mcp.json", here="${workspaceFolder}", then="Turn the server on in Cursor's settings"
    ),
    "gemini": McpClient(".gemini/settings.json", then="Start Gemini again"),
    "vscode": McpClient(
        ".vscode/mcp.json",
        ("servers",),
        here="${workspaceFolder}",
        fields=(("type", "stdio"),),
        then="Start the server from the file in VS Code",
    ),
    "windsurf": McpClient(".codeium/windsurf/mcp_config.json", then="Refresh the servers in Windsurf"),
    "zed": McpClient(".config/zed/settings.json", ("context_servers",), then="Zed starts it at once"),
}


@dataclass(frozen=True)
class Installation:
    """What is to stand in a client's file."""

    client: McpClient
    path: Path
    name: str
    server: Mapping[str, Any]  # Any: JSON

    @property
    def is_toml(self) -> bool:
        return self.path.suffix == ".toml"

    def described(self) -> str:
        """Return what the file of nothing else would hold."""
        if self.is_toml:
            return _toml(self.client.keys[0], self.name, self.server)
        return set_member("", [*self.client.keys, self.name], self.server)

    def write(self) -> str:
        """Put the server into the file, in which all else stays; return what was done: added, updated or kept.

        A server of this name with the same arguments is updated.

        Raises:
            OutputError: the file is none of its kind, has another server of this name, or cannot be written.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as exc:
            raise OutputError(
                f"{self.path}: cannot be read ({exc}). Add the server by hand: leave --write out"
            ) from exc
        try:
            changed = self._changed(text)
        except (ValueError, RecursionError) as exc:
            kind = "TOML" if self.is_toml else "JSON"
            raise OutputError(
                f"{self.path}: is no {kind} that a server can be added to ({exc}). Nothing was changed; mend it, or add the "
                "server by hand: leave --write out"
            ) from exc
        if changed == text:
            return "kept"
        with output_errors(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, changed)
        return "updated" if self._known(text) else "added"

    def _known(self, text: str) -> Any:  # Any: JSON
        """Return the server of this name that is there; None where there is none."""
        content = tomllib.loads(text) if self.is_toml else read_jsonc(text)
        for key in (*self.client.keys, self.name):
            if not isinstance(content, dict):
                raise ValueError(f"there is no object around {key!r}")
            content = content.get(key)
            if content is None:
                return None
        return content

    def _changed(self, text: str) -> str:
        known = self._known(text)
        if known == self.server:
            return text
        if known is not None and (self.is_toml or _arguments(known) != self.server["args"]):
            raise OutputError(
                f"{self.path}: there is a server {self.name!r} already, with the arguments {_arguments(known)}. "
                "Take it out of the file, or choose another name with --name"
            )
        if self.is_toml:
            gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
            return text + gap + _toml(self.client.keys[0], self.name, self.server)
        return set_member(text, [*self.client.keys, self.name], self.server)


def installation(
    client_name: ClientName, served: Path, arguments: Sequence[str], *, name: str = "embedkit"
) -> Installation:
    """Return what makes a client serve a folder or an index; `arguments` are the command's options."""
    client = CLIENTS[client_name]
    here = client.here is not None and served.resolve() == Path.cwd()
    target = client.here if here and client.here is not None else str(served.resolve())
    command, *before = own_command()
    server: dict[str, Any] = {  # Any: JSON
        **dict(client.fields),
        "command": command,
        "args": [*before, "mcp", target, *arguments],
    }
    # Clients start servers with little of the user's environment.
    environment = {key: os.environ[key] for key in _PASSED if os.environ.get(key)}
    if environment:
        server["env"] = environment
    base = Path.cwd() if client.here is not None else Path.home()
    return Installation(client, base / client.file, name, server)


_PASSED = (
    "EMBEDKIT_CACHE",
    "EMBEDKIT_CACHE_LIMIT",
    "EMBEDKIT_CONFIG",
    "EMBEDKIT_MODEL",
    "EMBEDKIT_PRECISION",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
)


def own_command() -> list[str]:
    """Return what starts this installation of embedkit, wherever it is started from."""
    script = Path(sys.executable).parent / "embedkit"
    return [str(script)] if script.is_file() else [sys.executable, "-m", "cli"]


def _arguments(server: Any) -> Any:  # Any: JSON
    return server.get("args") if isinstance(server, dict) else server


def _toml(section: str, name: str, server: Mapping[str, Any]) -> str:  # Any: JSON
    """Return a table; strings of JSON are strings of TOML."""
    values = {key: value for key, value in server.items() if key != "env"}
    lines = [f"[{section}.{json.dumps(name)}]"]
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    if "env" in server:
        pairs = ", ".join(
            f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in server["env"].items()
        )
        lines.append(f"env = {{ {pairs} }}")
    return "\n".join(lines) + "\n"

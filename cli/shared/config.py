"""Configuration files: what they say of a command's options, from which file and line, checked as the command line is.

The user's file is ~/.config/embedkit/config.toml; the project's is the nearest embedkit.toml upwards from here. A key is an option's
name without --; keys at the top hold for all commands that have the option, those in a table such as [search] or [index.build] for
that command. Of two values the command's own comes before the group's and that before the top's; the project's before the user's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from embedkit.errors import ConfigError
from embedkit.pipelines.models import set_default_model

from .config_files import Origin, user_file
from .config_keys import FROM_PROJECT, PROJECT_COMMANDS, SHARED
from .config_values import model_value, taken_value
from .usage import did_you_mean, one_of


@dataclass(frozen=True)
class ConfigValue:
    """A value of a file, as the option takes it."""

    value: Any  # Any: TOML
    origin: Origin
    path: Path
    table: tuple[str, ...]
    key: str
    line: int  # 0: not known

    @property
    def where(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {'.'.join((*self.table, self.key))}"


@dataclass(frozen=True)
class ConfigFile:
    """A file as it was read."""

    path: Path
    origin: Origin
    content: Mapping[str, Any] = field(repr=False)  # Any: TOML
    text: str = field(repr=False)

    def error(self, table: Sequence[str], key: str, message: str) -> ConfigError:
        found = ConfigValue(None, self.origin, self.path, tuple(table), key, self.line(table, key))
        return ConfigError(f"{found.where}: {message}")

    def line(self, table: Sequence[str], key: str) -> int:
        """Return the line of a key that stands at the start of one, under its table's heading; else 0."""
        here: Sequence[str] = ()
        for number, line in enumerate(self.text.splitlines(), 1):
            if heading := re.fullmatch(r"\s*\[([^\[\]]+)\]\s*(#.*)?", line):
                here = [part.strip().strip("\"'") for part in heading[1].split(".")]
                if [*here] == [*table, key]:
                    return number
            elif [*here] == [*table] and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[=.]""", line):
                return number
        return 0


def read_files(found: Sequence[tuple[Path, Origin]]) -> list[ConfigFile]:
    """Read files.

    Raises:
        ConfigError: one cannot be read, or is no TOML.
    """
    return [_read(path, origin) for path, origin in found]


def _read(path: Path, origin: Origin) -> ConfigFile:
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows write a byte-order mark
        return ConfigFile(path, origin, tomllib.loads(text), text)
    except (OSError, UnicodeDecodeError, RecursionError) as exc:
        raise ConfigError(f"{path}: cannot be read ({exc}). Mend it, or take it away") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path}: is no TOML ({exc}). Mend the line, or take it out") from exc


def settings_of(context: Any, files: Sequence[ConfigFile]) -> dict[str, ConfigValue]:  # Any: click's context
    """Return what files say of a command's options, by the names of its parameters.

    Raises:
        ConfigError: a key or table is unknown or not allowed, or a value has another type than the option takes.
    """
    contexts = _chain(context)
    words = [str(each.info_name) for each in contexts[1:]]
    options = options_of(context.command)
    found: dict[str, ConfigValue] = {}
    for file in reversed(files):
        table: Any = file.content  # Any: TOML
        for depth, above in enumerate(contexts):
            at = words[:depth]
            _check_keys(file, table, at, above.command)
            for key, value in table.items():
                if key in options and not isinstance(value, dict):
                    setting = _setting(file, at, key, value, options[key])
                    found[options[key].name] = setting
            table = table.get(words[depth], {}) if depth < len(words) else {}
    return found


def _chain(context: Any) -> list[Any]:  # Any: click's contexts
    """Return the contexts from the whole command line to a command."""
    chain = [context]
    while chain[0].parent is not None:
        chain.insert(0, chain[0].parent)
    return chain


def options_of(command: Any) -> dict[str, Any]:  # Any: click's parameters
    """Return a command's options by their long names, but for --help."""
    return {
        name[2:]: parameter
        for parameter in command.params
        if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False)
        for name in parameter.opts
        if name.startswith("--") and name != "--help"
    }


def _check_keys(
    file: ConfigFile, table: Any, at: Sequence[str], command: Any
) -> None:  # Any: TOML, click's command
    """Refuse what a table must not hold; of a table for another command, that it is none."""
    commands = getattr(command, "commands", None)
    if not isinstance(table, dict):
        raise file.error(at[:-1], at[-1], f"is {table!r}; it must be a table: [{'.'.join(at)}]")
    for key, value in table.items():
        if isinstance(value, dict):
            if commands is None or key not in commands:
                raise file.error(at, key, _unknown(key, list(commands or ()), "table"))
            continue
        known = _known(at, command)
        if key not in known:
            if commands is not None and key in commands:
                raise file.error(at, key, f"is {value!r}; it must be a table: [{'.'.join((*at, key))}]")
            own = "" if at else " What one command alone takes stands in its table, such as [grep]"
            raise file.error(at, key, _unknown(key, known, "key") + own)
        _check_project(file, at, key)


def _known(at: Sequence[str], command: Any) -> list[str]:  # Any: click's command
    """Return the keys that a table may have."""
    if not at:
        return list(SHARED)
    inner = getattr(command, "commands", None)
    of = [command] if inner is None else list(inner.values())
    return list(dict.fromkeys(name for each in of for name in options_of(each)))


def _unknown(word: str, known: Sequence[str], what: str) -> str:
    close = get_close_matches(word, known, n=1)
    return f"unknown {what}. {did_you_mean(close) or f'{one_of(sorted(known))}.'}"


def _check_project(file: ConfigFile, at: Sequence[str], key: str) -> None:
    if file.origin != "project":
        return
    if key not in FROM_PROJECT:
        raise file.error(
            at,
            key,
            "a project's file may not set this: it comes with files of other people. "
            f"Put it into your own, {user_file()}",
        )
    command = " ".join(at)
    if at and not any(f"{each} ".startswith(f"{command} ") for each in PROJECT_COMMANDS):
        raise file.error(at, key, f"a project's file may set options of {', '.join(PROJECT_COMMANDS)} alone")


def _setting(
    file: ConfigFile, at: Sequence[str], key: str, value: Any, option: Any
) -> ConfigValue:  # Any: TOML, click's option
    try:
        taken = taken_value(key, value, option, file.path.parent, file.origin)
    except ValueError as exc:
        raise file.error(at, key, str(exc)) from exc
    return ConfigValue(taken, file.origin, file.path, tuple(at), key, file.line(at, key))


def default_model(files: Sequence[ConfigFile]) -> str | None:
    """Return the model that stands at the top of a file, as in the environment it would.

    Raises:
        ConfigError: it is no model.
    """
    for file in files:
        if not isinstance(file.content.get("model", {}), dict):  # a table is for `embedkit model`
            try:
                return model_value("model", file.content["model"], file.path.parent, file.origin)
            except ValueError as exc:
                raise file.error((), "model", str(exc)) from exc
    return None


def configure(
    context: Any, found: Sequence[tuple[Path, Origin]]
) -> dict[str, ConfigValue]:  # Any: click's context
    """Let files say what holds for a command where an option and the environment say nothing.

    Raises:
        ConfigError: as `read_files` and `settings_of`.
    """
    files = read_files(found)
    set_default_model(default_model(files))
    settings = settings_of(context, files)
    after = [each.name for each in context.command.params if comes_after_indexes(each, settings)]
    values = {name: each.value for name, each in settings.items() if name not in after}
    context.default_map = values or None
    return settings


def comes_after_indexes(option: Any, settings: Mapping[str, ConfigValue]) -> bool:  # Any: click's option
    """Say whether a file's model for all commands comes after an index's own, as EMBEDKIT_MODEL does where an option does not read it."""
    setting = settings.get(option.name)
    return setting is not None and setting.key == "model" and not setting.table and option.envvar is None


def refused(error: Any, setting: ConfigValue) -> ConfigError:  # Any: click's
    """Say which line of a file holds what an option refuses."""
    return ConfigError(f"{setting.where}: {error.message}")

"""`embedkit config`: what holds for options, and where each value comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from .shared import console, options
from .shared.commands import Command
from .shared.config import (
    ConfigFile,
    ConfigValue,
    comes_after_indexes,
    options_of,
    read_files,
    settings_of,
)
from .shared.config_checks import check_all, checked_value, context_of
from .shared.config_files import OFF, VARIABLE, found_files, project_file, user_file
from .shared.usage import did_you_mean

EXAMPLES = """\b
Examples:
  embedkit config                        # the files, and what they and the environment set
  embedkit config search                 # all options of a command
  embedkit config grep --mode dense      # the same, with options as they would be given
  embedkit config path                   # where the files are
"""


class ConfigCommand(Command):
    """Takes the options of the command that it is asked about."""

    ignore_unknown_options = True

    def configure(self, ctx: Any) -> dict[str, ConfigValue]:  # Any: typer keeps its own copy of click
        """Take nothing from files: what is wrong with them is to be seen here."""
        return {}


COMMAND = ConfigCommand
ENVIRONMENT = (
    "EMBEDKIT_MODEL",
    "EMBEDKIT_PRECISION",
    "EMBEDKIT_CACHE",
    "EMBEDKIT_CACHE_LIMIT",
    "EMBEDKIT_PIPE",
    VARIABLE,
)


@dataclass(frozen=True)
class Held:
    """A value that holds, and where it comes from."""

    command: str  # "" for all
    key: str
    value: Any  # Any: whatever an option takes
    source: str  # default, user, project, environment or option
    place: str = ""

    def row(self) -> dict[str, Any]:  # Any: JSON
        return {
            "command": self.command or None,
            "key": self.key,
            "value": self.value
            if isinstance(self.value, bool | int | float | list)
            else _shown(self.value) or None,
            "source": self.source,
            "place": self.place or None,
        }


def config(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND]...",
            help="A command, with options or without; or 'path'. Default: what is set for any command.",
            show_default=False,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what holds for options, and where each value comes from.

    Options come before the environment, that before the project's file (embedkit.toml, in this folder or the nearest one above
    that has it), that before your own (~/.config/embedkit/config.toml), and that before the default. The keys of the files are
    the names of options: at the top for all commands, or in a table such as [search] for one.
    """
    said = words or []
    if said == ["path"]:
        _print_paths(as_json)
        return
    files = read_files(found_files())
    root = context.find_root()
    check_all(root, files)
    if said:
        held = list(_of_command(root, said, files))
    else:
        held = [*_of_files(files), *_of_environment()]
        if not as_json:
            _print_files(files)
    if as_json:
        for each in held:
            console.print_json(each.row())
        return
    if not held:
        console.say("nothing is set: every option has its default (embedkit config COMMAND shows them)")
        return
    columns = ["key", "value", "source", "place"]
    console.print_table(columns, [[_key(each), _shown(each.value), each.source, each.place] for each in held])


def _print_paths(as_json: bool) -> None:
    paths = {"user": str(user_file()), "project": str(project_file() or "")}
    if as_json:
        console.print_json({name: path or None for name, path in paths.items()})
    else:
        for path in filter(None, paths.values()):
            console.say(path)


def _print_files(files: list[ConfigFile]) -> None:
    read = {file.origin for file in files}
    if os.environ.get(VARIABLE) == OFF:
        console.say(f"no file is read: {VARIABLE}={OFF}")
        return
    console.say(f"user     {user_file()}{'' if 'user' in read else ' (not there)'}")
    project = project_file()
    console.say(f"project  {project or 'no embedkit.toml in this folder or above it'}")


def _key(held: Held) -> str:
    return f"{held.command}: {held.key}" if held.command else held.key


def _shown(value: Any) -> str:  # Any: whatever an option takes
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _of_files(files: list[ConfigFile]) -> Iterator[Held]:
    """Yield what the files set; what the user's file says and the project's overrules is left out."""
    seen: set[tuple[str, str]] = set()
    for file in files:
        for path, key, value in _leaves(file.content, ()):
            name = (" ".join(path), key)
            if name not in seen:
                seen.add(name)
                place = ConfigValue(value, file.origin, file.path, path, key, file.line(path, key))
                yield Held(*name, value, file.origin, _place(place))


def _leaves(table: Any, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, Any]]:  # Any: TOML
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*at, key))
        else:
            yield at, key, value


def _of_environment() -> Iterator[Held]:
    for name in ENVIRONMENT:
        if os.environ.get(name):
            yield Held("", name, os.environ[name], "environment")


def _place(setting: ConfigValue) -> str:
    return f"{setting.path}:{setting.line}" if setting.line else str(setting.path)


def _of_command(
    root: Any, words: list[str], files: list[ConfigFile]
) -> Iterator[Held]:  # Any: click's context
    """Yield all options of a command, as they would hold if it were called so."""
    context, rest = root, words
    while hasattr(context.command, "commands"):
        known = context.command.list_commands(context)
        if not rest or rest[0] not in known:
            raise typer.BadParameter(_no_command(rest, known))
        command = context.command.get_command(context, rest[0])
        context, rest = context_of(command, rest[0], context), rest[1:]
    command = context.command
    settings = settings_of(context, files)
    context.default_map = {name: each.value for name, each in settings.items()}
    given, _, _ = command.make_parser(context).parse_args(list(rest))
    for key, option in options_of(command).items():
        value, source = option.consume_value(context, given)
        name = _SOURCES.get(source.name, "default")
        place = str(option.envvar) if name == "environment" else ""
        if name == "file":
            setting = settings[option.name]
            checked_value(context, option, setting)
            name, place = setting.origin, _place(setting)
            if comes_after_indexes(option, settings):
                place += " (for new indexes)"
        elif name != "default":
            option.process_value(context, value)  # refuses what the command would refuse
        yield Held("", key, value, name, place)


_SOURCES = {"COMMANDLINE": "option", "ENVIRONMENT": "environment", "DEFAULT_MAP": "file"}


def _no_command(rest: list[str], known: list[str]) -> str:
    from difflib import get_close_matches

    if not rest:
        return f"name one of its commands: {', '.join(known)}"
    return f"there is no command {rest[0]!r}. {did_you_mean(get_close_matches(rest[0], known)) or ', '.join(known)}"

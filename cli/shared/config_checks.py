"""Checking configuration files as a whole: also what they say of commands other than the one that runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .config import ConfigFile, ConfigValue, refused, settings_of
from .config_keys import WITH_SHARED
from .usage import UsageError, explain_usage


def check_all(root: Any, files: Sequence[ConfigFile]) -> None:  # Any: click's context
    """Check all keys and values, also those of other commands, which are loaded for that.

    Raises:
        ConfigError: as `settings_of`, or an option refuses a value.
    """
    for file in files:
        any_command: dict[str, Any] = {name: {} for name in WITH_SHARED}
        for context in _contexts_of(root, any_command | dict(file.content)):
            for option, setting in _set_options(context, settings_of(context, [file])):
                checked_value(context, option, setting)


def _set_options(
    context: Any, settings: Mapping[str, ConfigValue]
) -> Iterator[tuple[Any, ConfigValue]]:  # Any: click's
    for option in context.command.params:
        if option.name in settings and settings[option.name].value is not None:
            yield option, settings[option.name]


def checked_value(
    context: Any, option: Any, setting: ConfigValue
) -> Any:  # Any: click's, whatever the option takes
    """Return a value as the option makes it.

    Raises:
        ConfigError: the option refuses it.
    """
    try:
        return option.process_value(context, setting.value)
    except UsageError as exc:
        explain_usage(exc, context)
        raise refused(exc, setting) from exc


def _contexts_of(context: Any, table: Mapping[str, Any]) -> Iterator[Any]:  # Any: click's contexts, TOML
    """Yield a context for each command that a table is for; of a group, for all its commands."""
    for key, value in table.items():
        if isinstance(value, dict) and key in context.command.commands:
            yield from _leaves(context_of(context.command.get_command(context, key), key, context))


def _leaves(context: Any) -> Iterator[Any]:  # Any: click's contexts
    if not hasattr(context.command, "commands"):
        yield context
        return
    for name, command in context.command.commands.items():
        yield from _leaves(context_of(command, name, context))


def context_of(command: Any, name: str, parent: Any) -> Any:  # Any: click's
    """Return a context as if a command were called."""
    return type(parent)(command, info_name=name, parent=parent)

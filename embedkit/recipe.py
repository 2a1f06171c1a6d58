"""Recipes: TOML files and `key=value` overrides -> frozen dataclasses, strictly; and what differs between two.

A recipe is a dataclass of scalars, tuples of scalars, optional scalars and further such dataclasses, which are the tables of the
TOML file. Every key must be known and of the field's type; the dataclass itself checks ranges in `__post_init__`. A file may also
have the table `[about]`, which says what the recipe is for and sets nothing. Options of the command line come as values; only
`--set key=value` is text that is parsed.
"""

from __future__ import annotations

import math
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from embedkit.errors import RecipeError

Table = dict[str, Any]  # Any: whatever TOML holds
R = TypeVar("R")
ABOUT = "about"


@dataclass(frozen=True)
class OneOf:
    """The values of a field where a Literal cannot list them, since they are derived: `Annotated[str, OneOf(names)]`."""

    choices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class About:
    """What a recipe is for; `task` is the command, as in `embedkit train mlm`, and `reaches` what was measured with it."""

    task: Literal["mlm", "contrastive", "distill", "reranker", "generation", "lm"]
    purpose: str
    cost: str
    reaches: str

    def __post_init__(self) -> None:
        for field in fields(self):
            text = getattr(self, field.name)
            if not text or "\n" in text:
                raise ValueError(f"{field.name} is {text!r}; it must be one line of text")


def load_recipe(
    kind: type[R],
    *,
    task: str | None = None,
    path: str | Path | None = None,
    preset: str | None = None,
    values: Mapping[str, object] | None = None,
    overrides: Sequence[str] = (),
) -> R:
    """Build a recipe: the preset's values, over them the file's, over them `values`, over them `key=value` overrides.

    `path` may also be the name of a shipped recipe. With `task`, as in `embedkit train mlm`, a recipe that says that it is for
    another one is refused: what the tasks have in common would be taken, and all else left at its default. `values` are taken
    as they are, under dotted keys such as `optim.lr`.

    Raises:
        RecipeError: a file that is not TOML or for another task, an unknown key, a missing one, a value of another type or out
            of range.
    """
    table: Table = {}
    where = "recipe"
    if preset is not None:
        table, where = _settings(read_preset(preset), f"preset {preset}", task), f"preset {preset}"
    if path is not None:
        is_name = str(path) in preset_names() and not Path(path).is_file()
        found = read_preset(str(path)) if is_name else read_toml(Path(path))
        table, where = merged(table, _settings(found, str(path), task)), str(path)
    for key, value in (values or {}).items():
        table = merged(table, _nested(key.split("."), value))
    for override in overrides:
        table = merged(table, _override(override))
    return build(kind, table, where)


def _settings(table: Table, where: str, task: str | None) -> Table:
    """Return the table without `[about]`, which must be right all the same, and of the task where one is named."""
    if ABOUT in table:
        about = _value(table[ABOUT], About, where, ABOUT)
        if task is not None and about.task != task:
            fitting = [name for name in preset_names() if about_preset(name).task == task]
            raise RecipeError(
                f"{where}: a recipe of `embedkit train {about.task}`; this is `embedkit train {task}`. "
                f"Take one of {', '.join(fitting)}, or a file without [about]"
            )
    return {key: value for key, value in table.items() if key != ABOUT}


def about_preset(name: str) -> About:
    """Say what a shipped preset is for.

    Raises:
        RecipeError: there is none of this name.
    """
    return build(About, read_preset(name).get(ABOUT, {}), f"preset {name}", ABOUT + ".")


def preset_names() -> list[str]:
    """Name the presets that the package ships."""
    folder = resources.files("embedkit") / "presets"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def read_preset(name: str) -> Table:
    """Read a shipped preset, `[about]` and all.

    Raises:
        RecipeError: there is none of this name.
    """
    return tomllib.loads(preset_text(name))


def preset_text(name: str) -> str:
    """Return a shipped preset as it is written.

    Raises:
        RecipeError: there is none of this name.
    """
    if name not in preset_names():
        raise RecipeError(
            f"there is no preset {name!r}{_hint(name, preset_names())}; presets are {', '.join(preset_names())}"
        )
    return (resources.files("embedkit") / "presets" / f"{name}.toml").read_text(encoding="utf-8")


def read_toml(path: Path) -> Table:
    """Read a TOML file.

    Raises:
        RecipeError: the file is missing or is not TOML.
    """
    try:
        # Editors on Windows write a byte-order mark.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as exc:
        raise RecipeError(f"{path}: there is no such recipe; check the path") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise RecipeError(f"{path}: not TOML ({exc}). Correct the file") from exc
    except OSError as exc:
        raise RecipeError(f"{path}: cannot be read ({exc.strerror or exc}). Check its permissions") from exc


def merged(below: Table, above: Table) -> Table:
    """Lay one table over another, table by table."""
    result = dict(below)
    for key, value in above.items():
        own = result.get(key)
        result[key] = merged(own, value) if isinstance(own, dict) and isinstance(value, dict) else value
    return result


def _override(text: str) -> Table:
    """Turn `optim.lr=1e-4` into {"optim": {"lr": 1e-4}}; a value that is not TOML is a string."""
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise RecipeError(f"--set {text!r}: wanted key=value, such as optim.lr=1e-4")
    try:
        parsed: Any = tomllib.loads(f"value = {value.strip()}")["value"]  # Any: whatever TOML holds
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return _nested(names, parsed)


def _nested(names: Sequence[str], value: object) -> Table:
    """Lay a value into tables: ["optim", "lr"] -> {"optim": {"lr": value}}."""
    for name in reversed(names):
        value = {name: value}
    return cast("Table", value)


def build(kind: type[R], table: Mapping[str, Any], where: str, prefix: str = "") -> R:
    """Make a recipe of a table.

    Raises:
        RecipeError: an unknown or missing key, a value of another type, or one out of range.
    """
    hints = get_type_hints(kind, include_extras=True)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type] # R is a dataclass
    for key in table:
        if key not in known:
            close = _hint(prefix + key, [prefix + name for name in known])
            raise RecipeError(
                f"{where}: unknown key {prefix + key}{close or '; keys here: ' + ', '.join(known)}"
            )
    values: Table = {}
    for name, field in known.items():
        if name in table:
            values[name] = _value(table[name], hints[name], where, prefix + name)
        elif field.default is MISSING and field.default_factory is MISSING:
            if is_dataclass(hints[name]):  # its own missing key makes the clearer message
                build(cast("type[Any]", hints[name]), {}, where, f"{prefix}{name}.")
            raise RecipeError(
                f"{where}: missing key {prefix + name}. Set it there or with --set {prefix + name}=…"
            )
    try:
        return kind(**values)
    except ValueError as exc:
        raise RecipeError(f"{where}: {prefix.rstrip('.') or 'recipe'}: {exc}") from exc


def _hint(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _value(value: Any, wanted: Any, where: str, key: str) -> Any:  # Any: TOML values, and types as values
    origin = get_origin(wanted)
    if is_dataclass(wanted) and isinstance(wanted, type):
        if not isinstance(value, dict):
            raise RecipeError(f"{where}: {key} is {value!r}; it must be a table, [{key}]")
        return build(wanted, value, where, key + ".")
    if origin in (Union, types.UnionType):
        options = [option for option in get_args(wanted) if option is not type(None)]
        return None if value is None or value == "none" else _value(value, options[0], where, key)
    if origin is Literal or origin is Annotated:
        choices = get_args(wanted) if origin is Literal else wanted.__metadata__[0].choices
        if value not in choices:
            close = _hint(str(value), [str(choice) for choice in choices])
            raise RecipeError(
                f"{where}: {key} is {value!r}; it must be one of {', '.join(map(str, choices))}{close}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise RecipeError(f"{where}: {key} is {value!r}; it must be a list")
        return tuple(_value(item, get_args(wanted)[0], where, f"{key}[{i}]") for i, item in enumerate(value))
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool)):
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"{where}: {key} is {value}; it must be a finite number")
        return value
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}
    raise RecipeError(f"{where}: {key} is {value!r}; it must be {names.get(wanted, wanted)}")


def as_table(recipe: Any) -> Table:  # Any: a dataclass of any kind
    """Return a recipe as plain values, for JSON or comparison."""
    return asdict(recipe)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List what differs between two tables, one line a key: `optim.lr: 0.001 -> 0.0005`."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += differences(before, after, f"{prefix}{key}.")
        elif _plain(before) != _plain(after):
            lines.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return lines


def _plain(value: Any) -> Any:  # Any: JSON has lists where recipes have tuples
    return list(value) if isinstance(value, tuple) else value

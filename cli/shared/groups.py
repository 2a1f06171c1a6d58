"""Option groups: options that several commands share, as one frozen dataclass that a command takes as one parameter.

    @dataclass(frozen=True, kw_only=True)
    class Reading:
        format: Annotated[Format | None, typer.Option("--format", help="…")] = None
        …

    @grouped
    def encode(inputs: Inputs, *, reading: Reading, output: Output = None) -> None: …

typer sees a command with the options `--format …` and `--output`, in the order of the parameters; the function gets a `Reading`.
A group may name a PANEL of the help for those of its options that name none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import wraps
from typing import Annotated, Any, Literal, Optional, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """Expand each parameter whose type is a dataclass into the dataclass's fields, for typer to read.

    What a dataclass refuses with a ValueError is wrong usage.

    Raises:
        TypeError: a field has the name of another parameter.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, type[Any]] = {name: kind for name, kind in hints.items() if _is_group(kind)}
    parameters: dict[str, inspect.Parameter] = {}
    for parameter in _expanded(function, hints):
        if parameter.name in parameters:
            raise TypeError(f"{function.__name__}: two options are called {parameter.name!r}")
        parameters[parameter.name] = parameter.replace(annotation=_for_typer(parameter.annotation))

    @wraps(function)
    def command(**values: Any) -> None:  # Any: whatever typer made of the command line
        values = {name: _plain(value) for name, value in values.items()}
        for name, kind in groups.items():
            own = {each.name: values.pop(each.name) for each in fields(kind)}
            try:
                values[name] = kind(**own)
            except ValueError as exc:
                raise typer.BadParameter(str(exc)) from exc
        function(**values)

    del command.__wrapped__  # typer would look through it at the function's own parameters
    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters.values()} | {"return": None}
    return command


def _is_group(kind: object) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _expanded(function: Callable[..., None], hints: dict[str, Any]) -> Iterator[inspect.Parameter]:
    """Give all parameters by keyword, so that one without a default may follow one that has it."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if not _is_group(kind):
            yield parameter.replace(annotation=kind, kind=keyword)
            continue
        own = get_type_hints(kind, include_extras=True)
        for each in fields(kind):
            default = inspect.Parameter.empty if each.default is MISSING else each.default
            annotation = _in_panel(own[each.name], getattr(kind, "PANEL", None))
            yield inspect.Parameter(each.name, keyword, default=default, annotation=annotation)


def _in_panel(annotation: Any, panel: str | None) -> Any:  # Any: an annotation
    """Return an annotation whose option is shown in a panel, unless it names one itself."""
    if panel is None or get_origin(annotation) is not Annotated:
        return annotation
    kind, *extras = get_args(annotation)
    shown = [copy(extra) if isinstance(extra, OptionInfo) else extra for extra in extras]
    for extra in shown:
        if isinstance(extra, OptionInfo) and extra.rich_help_panel is None:
            extra.rich_help_panel = panel
    return Annotated[kind, *shown]


def _for_typer(annotation: Any) -> Any:  # Any: an annotation
    """Put an enum in the place of the Literal in a list of Literals, which typer does not take."""
    if get_origin(annotation) is not Annotated:
        return annotation
    kind, *extras = get_args(annotation)
    for listed in (kind, *get_args(kind)):
        if get_origin(listed) is list and get_origin(get_args(listed)[0]) is Literal:
            choices = get_args(get_args(listed)[0])
            made: Any = Enum("Choice", [(each, each) for each in choices], type=str)  # type: ignore[misc] # made here
            return Annotated[Optional[list[made]], *extras]  # noqa: UP045 (at run time)
    return annotation


def _plain(value: Any) -> Any:  # Any: whatever typer made of the command line
    """Turn the members of such an enum back into plain text."""
    if isinstance(value, list):
        return [each.value if isinstance(each, Enum) else each for each in value]
    return value

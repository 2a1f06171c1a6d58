"""Serving routes over HTTP: Starlette's routing, uvicorn's server, msgspec's checks of bodies, orjson's writing of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import msgspec
import orjson

T = TypeVar("T")


class BodyError(ValueError):
    """A body that is no JSON, or not what a route takes; the message says where and why."""


def read_body(body: bytes, wanted: type[T]) -> T:
    """Read a JSON body into a dataclass.

    Raises:
        BodyError: it is no JSON, lacks a field, has one of a wrong type or one that is unknown.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BodyError(f"the body is no JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise BodyError(f"the body is of type {type(value).__name__}; it must be an object")
    return convert(value, wanted)


def convert(value: Mapping[str, Any], wanted: type[T]) -> T:  # Any: JSON
    """Check a JSON object against a dataclass.

    Raises:
        BodyError: it lacks a field, has one of a wrong type or one that is unknown.
    """
    from difflib import get_close_matches

    known = [each.name for each in fields(wanted)]  # type: ignore[arg-type] # a dataclass
    unknown = [name for name in value if name not in known]
    if unknown:
        close = get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise BodyError(f"there is no field {unknown[0]!r}; {hint}")
    try:
        return msgspec.convert(value, wanted)
    except (msgspec.ValidationError, ValueError) as exc:
        raise BodyError(str(exc)) from exc


def json_bytes(value: Any) -> bytes:  # Any: JSON, with numpy arrays
    """Write JSON; arrays become lists, numbers that are not finite become null."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


def schemas(
    types: Sequence[type],
) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]:  # Any: JSON schemas
    """Return the JSON schema of each dataclass, as a reference, and what the references lead to."""
    found, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return found, components

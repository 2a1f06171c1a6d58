"""JSON files of a model folder, read strictly: a wrong type ends in a CheckpointError that names the file and the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from embedkit.errors import CheckpointError

T = TypeVar("T")
_JSON_KINDS: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}


def read_json(path: Path, default: Any) -> Any:  # Any: whatever JSON holds
    """Read a JSON file of an object, or of whatever `default` is; `default` None means that it must be there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        if default is None:
            raise CheckpointError(
                f"{path}: there is no such file. Copy it from where the model came from"
            ) from exc
        return default
    except NotADirectoryError as exc:
        raise CheckpointError(f"{path.parent}: this is a file; a model is a folder. Name the folder") from exc
    except (ValueError, RecursionError, OSError) as exc:
        raise CheckpointError(f"{path}: cannot be read as JSON ({exc}). Copy the file again") from exc
    wanted = dict if default is None else type(default)
    if not isinstance(content, wanted):
        raise CheckpointError(
            f"{path}: holds a JSON {type(content).__name__}; it must be {_JSON_KINDS[wanted]}. Copy the file again"
        )
    return content


def json_field(content: Mapping[str, Any], key: str, default: T, where: str) -> T:
    """Return a field of a JSON object, of the default's type; null counts as left out.

    Raises:
        CheckpointError: the value is of another type.
    """
    value = content.get(key)
    if value is None:
        return default
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default):
        raise CheckpointError(
            f"{where}: {key!r} is {value!r}; it must be {_JSON_KINDS[type(default)]}. Copy the file again"
        )
    return value


def write_json(path: Path, content: Any) -> None:  # Any: whatever JSON holds
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

"""Folders whose queries and documents have modules of their own: sentence-transformers' `Router`, and `Asym` before it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.errors import CheckpointError
from embedkit.types import TextRole

Json = Mapping[str, Any]  # Any: whatever JSON holds
_ROUTERS = ("Router", "Asym")


def read_module_list(folder: Path, role: TextRole | None = None) -> list[Any]:  # Any: whatever JSON holds
    """Return the rows of `modules.json`; of a router's folder, those that the texts of a role take (None: those of no role).

    Raises:
        CheckpointError: a file is unreadable, or the router has no way for them.
    """
    rows: list[Any] = read_json(folder / "modules.json", [])
    if not has_router(folder):
        return rows
    path, content = _router(folder)
    types = json_field(content, "types", dict[str, Any](), str(path))
    structure = json_field(content, "structure", dict[str, Any](), str(path))
    route = _route(path, content, structure, role)
    before = path.parent.relative_to(folder)
    inner = [{"path": str(before / str(name)), "type": types.get(name)} for name in structure[route]]
    return [*inner, *rows[1:]]


def has_router(folder: Path) -> bool:
    """Say whether a router is the first module of a folder."""
    rows = read_json(folder / "modules.json", [])
    first = rows[0].get("type") if rows and isinstance(rows[0], dict) else None
    return (
        isinstance(first, str)
        and first.startswith("sentence_transformers.")
        and first.rpartition(".")[2] in _ROUTERS
    )


def default_role(folder: Path) -> TextRole:
    """Return the role whose modules encode a text of no role; the documents' where they are of neither."""
    path, content = _router(folder)
    structure = json_field(content, "structure", dict[str, Any](), str(path))
    route = _route(path, content, structure, None)
    same = [role for role in get_args(TextRole) if _route(path, content, structure, role) == route]
    return "document" if "document" in same or not same else same[0]


def _router(folder: Path) -> tuple[Path, Json]:
    rows = read_json(folder / "modules.json", [])
    where = folder / json_field(rows[0], "path", "", str(folder / "modules.json"))
    if not where.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"{folder / 'modules.json'}: the path {where} leads out of the model's folder")
    path = where / "router_config.json"
    path = path if path.is_file() else where / "config.json"
    return path, read_json(path, None)


def _route(path: Path, content: Json, structure: Json, role: TextRole | None) -> str:
    """Find the way that texts of a role take, in the order in which sentence-transformers looks for it."""
    parameters = json_field(content, "parameters", dict[str, Any](), str(path))
    mappings = _mappings(path, json_field(parameters, "route_mappings", dict[str, Any](), str(path)))
    tried = [mappings.get(key) for key in ((role, "text"), (role, None), (None, "text"), (None, None))]
    tried += [role, "text", parameters.get("default_route")]
    if parameters.get("allow_empty_key", True) and role is None:
        tried.append(next(iter(structure), None))
    found = next((name for name in tried if isinstance(name, str) and name in structure), None)
    if found is None or not isinstance(structure[found], list) or not structure[found]:
        raise CheckpointError(
            f"{path}: the router has no way for {'texts of no role' if role is None else f'a {role}'}; it has: "
            f"{', '.join(structure) or 'none'}. A text's ways are query and document"
        )
    return found


def _mappings(path: Path, written: Json) -> dict[tuple[Any, Any], Any]:  # Any: as written
    """Read the keys, which are tuples written as Python writes them; nothing in them is run."""
    found = {}
    for key, route in written.items():
        try:
            task, modality = ast.literal_eval(key)
            found[task, modality] = route
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as exc:
            raise CheckpointError(
                f"{path}: route_mappings has the key {key!r}; it must be a task and a modality"
            ) from exc
    return found

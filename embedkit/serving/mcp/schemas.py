"""What a language model is told of the tools: descriptions and the JSON schemas of their arguments."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from embedkit.retrieval.options import Mode

MODES: tuple[Mode, ...] = ("hybrid", "dense", "text")

INSTRUCTIONS = (
    "Searches {place} by meaning and by words. Ask `search` in plain words before you list or read files: it finds what "
    "exact words do not. Then read more around a hit with `get`, and look for related places with `similar`."
)
DESCRIPTIONS = {
    "search": "Find passages in {place} that mean what the query says, or contain its words. Ask a question or describe what you "
    "look for; names of functions work too. The answer holds whole passages, best first, each under path:first-last line and a "
    "score (higher is better), as many as fit into the tokens.",
    "get": "Read lines of a file (or document) in {place}, by a path as search names it. Longer answers are cut, and say how to "
    "go on.",
    "similar": "Find passages in {place} that are similar to the one at a place, such as src/a.py:42, or to a text: other "
    "implementations, duplicates, related documentation.",
    "status": "Say what of {place} is indexed, what has changed since, and what was left out or could not be read.",
}
_PROPERTIES: Mapping[str, dict[str, Any]] = {  # Any: JSON schemas
    "query": {"type": "string", "minLength": 1, "description": "What to look for, in plain words."},
    "k": {"type": "integer", "minimum": 1, "maximum": 200, "description": "Hits, at most (default {k})."},
    "mode": {
        "type": "string",
        "enum": list(MODES),
        "description": "By meaning and words (hybrid), by meaning (dense), or by words (text). Default {mode}.",
    },
    "type": {"type": "string", "description": "Only files of these languages or endings: py,md."},
    "glob": {
        "type": "string",
        "description": "Only files that match, such as src/**/*.py; with ! before it, all others. Several: with commas.",
    },
    "tokens": {
        "type": "integer",
        "minimum": 100,
        "maximum": 200000,
        "description": "How long the answer may be, in tokens (default {tokens}).",
    },
    "path": {
        "type": "string",
        "minLength": 1,
        "description": "A path as search names it, with or without lines: src/a.py or src/a.py:10-42.",
    },
    "lines": {"type": "string", "description": "Which lines, such as 42, 10-80 or 100-. Default: all."},
    "place": {"type": "string", "description": "Path and line of a passage: src/a.py:42."},
    "text": {"type": "string", "description": "A text, in place of a place."},
}
_ARGUMENTS = {
    "search": ("query", "k", "mode", "type", "glob", "tokens"),
    "get": ("path", "lines", "tokens"),
    "similar": ("place", "text", "k", "type", "glob", "tokens"),
    "status": (),
}
_REQUIRED = {"search": ["query"], "get": ["path"], "similar": [], "status": []}


def schema_of(tool: str, values: Mapping[str, object]) -> dict[str, Any]:  # Any: a JSON schema
    """Return the schema of a tool's arguments, with the defaults that hold."""
    properties = {name: deepcopy(_PROPERTIES[name]) for name in _ARGUMENTS[tool]}
    for each in properties.values():
        each["description"] = each["description"].format_map(values)
    return {
        "type": "object",
        "properties": properties,
        "required": _REQUIRED[tool],
        "additionalProperties": False,
    }

"""Changing one value in a JSON file that people keep: comments, order and layout of the rest stay as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

# A string, or what is to be blanked: a comment of a line or a block.
_TOKENS = re.compile(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA = re.compile(r'"(?:[^"\\\n]|\\.)*"|,(?=\s*[}\]])', re.DOTALL)
_SPACE = re.compile(r"\s*")


class _Member(NamedTuple):
    key: str
    key_at: int
    start: int  # of the value
    stop: int


def read_jsonc(text: str) -> Any:  # Any: JSON
    """Read JSON in which comments and commas after the last member may stand; an empty text is an empty object.

    Raises:
        ValueError: it is no JSON.
    """
    return json.loads(_bare(text)) if text.strip() else {}


def set_member(text: str, keys: Sequence[str], value: Any) -> str:  # Any: JSON
    r"""Return the text with the value at a path of keys, the objects on the way made where they are missing.

    >>> set_member('{"a": 1} // mine', ["b", "c"], 2)
    '{"a": 1,\n  "b": {\n    "c": 2\n  }\n} // mine'

    Raises:
        ValueError: it is no JSON, or a key on the way has a value that is no object.
    """
    if not text.strip():
        text = "{}\n"
    bare = _bare(text)
    at = _skip(bare, 0)
    step = _step(text)
    for depth, key in enumerate(keys):
        if bare[at : at + 1] != "{":
            raise ValueError(f"{'.'.join(keys[:depth]) or 'the whole'} is no object")
        members, close = _members(bare, at)
        found = next((member for member in members if member.key == key), None)
        if found is None:
            for inner in reversed(keys[depth + 1 :]):
                value = {inner: value}
            return _inserted(
                text,
                bare,
                members,
                at,
                close,
                f"{json.dumps(key)}: {_laid_out(value, step, depth + 1)}",
                step,
                depth,
            )
        if depth == len(keys) - 1:
            return text[: found.start] + _laid_out(value, step, depth + 1) + text[found.stop :]
        at = found.start
    raise ValueError("no key is named")


def _bare(text: str) -> str:
    """Blank comments and commas after the last member; every character keeps its place."""
    text = _TOKENS.sub(lambda found: found[0] if found[0][0] == '"' else re.sub(r"\S", " ", found[0]), text)
    return _TRAILING_COMMA.sub(lambda found: found[0] if found[0][0] == '"' else " ", text)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None  # it may be empty
    return found.end()


def _members(bare: str, at: int) -> tuple[list[_Member], int]:
    """Return the members of the object that begins at a place, and where it closes."""
    decoder = json.JSONDecoder()
    decoder.raw_decode(bare, at)  # raises for what is no JSON
    members = []
    at = _skip(bare, at + 1)
    while bare[at] != "}":
        key_at = at
        key, at = decoder.raw_decode(bare, at)
        start = _skip(bare, _skip(bare, at) + 1)
        _, stop = decoder.raw_decode(bare, start)
        members.append(_Member(key, key_at, start, stop))
        at = _skip(bare, stop)
        if bare[at] == ",":
            at = _skip(bare, at + 1)
    return members, at


def _inserted(
    text: str, bare: str, members: Sequence[_Member], at: int, close: int, entry: str, step: str, depth: int
) -> str:
    """Put an entry at the end of an object, after what is said of the last member."""
    before = text[:close].rstrip()
    lead = f"\n{step * (depth + 1)}"
    tail = f"\n{step * depth}"
    if members:
        last = members[-1].stop
        has_comma = "," in _outside_comments(text, last, close)
        before = before if has_comma else before[:last] + "," + before[last:]
    return f"{before}{lead}{entry}{tail}{text[close:]}"


def _outside_comments(text: str, start: int, stop: int) -> str:
    return _TOKENS.sub("", text[start:stop])


def _step(text: str) -> str:
    """Return what one level is indented by."""
    found = re.search(r'^([ \t]+)"', text, re.MULTILINE)
    return found[1] if found else "  "


def _laid_out(value: Any, step: str, depth: int) -> str:  # Any: JSON
    return json.dumps(value, indent=step, ensure_ascii=False).replace("\n", "\n" + step * depth)

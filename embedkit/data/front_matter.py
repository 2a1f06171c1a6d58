"""Front matter: the fields above the text of a Markdown file, between lines of `---` (YAML) or `+++` (TOML).

Of YAML a small part is read, which is what such files hold:

    title: "Search: an introduction"     a text, in quotes or not; numbers, true and false, null
    tags: [qa, "long documents"]         a list
    authors:                             the same on lines of their own
      - Ann
      - Bob

What is beyond it, such as a mapping in a mapping or a text on several lines, stays in the text, where search finds it.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from datetime import date, time
from typing import Any, NamedTuple

_YAML = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_TOML = re.compile(r"\+\+\+[ \t]*\r?\n(.*?)^\+\+\+[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
# A key is one to three words: a longer one is a sentence between two rules.
_ENTRY = re.compile(r"(\w[\w.-]*(?: \w[\w.-]*){0,2}|\"[^\"\\]+\"|'[^']+')[ \t]*:(?:[ \t]+(.*))?")
_ITEM = re.compile(r"[ \t]*-[ \t]+(.*)")
_COMMENT = re.compile(r"(?:^|[ \t]+)#.*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(\.\d{1,15})?")
_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
# Signs with which YAML begins what is not read here.
_BEYOND = tuple("[]{}&*!|>%@`,")
_FLOW_ITEM = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^,"'\[\]{}]+)\s*(?:,|\Z)""")


class _BeyondError(ValueError):
    """YAML that is not of the part that is read."""


class Taken(NamedTuple):
    """The fields above a text, the text without them, and which line of the file stands at which character of it."""

    fields: dict[str, Any]  # Any: whatever JSON holds
    text: str
    lines: list[tuple[int, int]]  # character, line; from there on line by line


def take_front_matter(text: str) -> Taken:
    r"""Return the fields above a text, and the text without them.

    "---\ntitle: Front\ntags: [qa]\n---\nbody" -> {"title": "Front", "tags": ["qa"]}, "body", [(0, 5)]
    """
    nothing = Taken({}, text, [(0, 1)])
    if found := _TOML.match(text):
        try:
            fields = {name: _plain(value) for name, value in tomllib.loads(_unix(found[1])).items()}
        except (ValueError, RecursionError):  # numbers of thousands of digits are a ValueError too
            return nothing
        return Taken(fields, text[found.end() :], [(0, 1 + found[0].count("\n"))])
    if found := _YAML.match(text):
        fields, unread = _read_yaml(_unix(found[1]))
        if fields:
            rest, lines = "", []
            for number, entry in unread:
                lines.append((len(rest), number))
                rest += entry
            lines.append((len(rest), 1 + found[0].count("\n")))
            return Taken(fields, rest + text[found.end() :], lines)
    return nothing


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")


def _plain(value: Any) -> Any:
    """Write what TOML has and JSON has not, dates and infinite numbers, as texts."""
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


def _read_yaml(block: str) -> tuple[dict[str, Any], list[tuple[int, str]]]:
    """Return the fields of a block, and line by line, numbered, those that are not read; none where it is something else."""
    entries: list[list[str]] = []
    numbers: list[list[int]] = []
    for number, line in enumerate(block.split("\n"), 2):  # the first line is the mark
        if not line.strip() or line.startswith("#"):
            continue
        if line[0] not in " \t-":
            entries.append([line])
            numbers.append([number])
        elif entries:
            entries[-1].append(line)
            numbers[-1].append(number)
        else:
            return {}, []
    fields: dict[str, Any] = {}
    rest: list[tuple[int, str]] = []
    for lines, of_file in zip(entries, numbers, strict=True):
        found = _ENTRY.fullmatch(lines[0].rstrip())
        if found is None:
            return {}, []
        name = found[1].strip("\"'")
        try:
            if name in fields:
                raise _BeyondError
            fields[name] = _value(found[2] or "", lines[1:])
        except _BeyondError:
            rest += [(number, f"{line}\n") for number, line in zip(of_file, lines, strict=True)]
    return fields, rest


def _value(text: str, below: list[str]) -> Any:
    text = text.strip()
    if below:
        if _COMMENT.sub("", text):
            raise _BeyondError
        items = [_ITEM.fullmatch(line.rstrip()) for line in below]
        return [_item(item[1] if item else "{") for item in items]
    if text.startswith("["):
        return _flow_list(text)
    return _scalar(text)


def _flow_list(text: str) -> list[Any]:
    text = _COMMENT.sub("", text)
    if not text.endswith("]"):
        raise _BeyondError
    items = []
    at, inner = 0, text[1:-1].strip()
    while at < len(inner):
        found = _FLOW_ITEM.match(inner, at)
        if found is None:
            raise _BeyondError
        items.append(_item(found[1].strip()))
        at = found.end()
    return items


def _item(text: str) -> Any:
    if text.startswith("- ") or (
        text[:1] not in "\"'" and re.search(r":(\s|$)", text)
    ):  # a list or a mapping in a list
        raise _BeyondError
    return _scalar(text)


def _scalar(text: str) -> Any:
    """Read one value: "7" as 7, "'7'" as "7", "2024-01-31" as it stands."""
    if text.startswith('"'):
        return _quoted(text)
    if text.startswith("'"):
        found = re.fullmatch(r"'((?:[^']|'')*)'(?:\s+#.*)?", text)
        if found is None:
            raise _BeyondError
        return found[1].replace("''", "'")
    text = _COMMENT.sub("", text)
    if text.startswith(_BEYOND):
        raise _BeyondError
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    if number := _NUMBER.fullmatch(text):
        return float(text) if number[1] else int(text)
    return text


def _quoted(text: str) -> str:
    """Read a text in double quotes, whose escapes are those of JSON."""
    found = re.fullmatch(r'("(?:[^"\\]|\\.)*")(?:\s+#.*)?', text)
    try:
        value = str(json.loads(found[1] if found else ""))
        value.encode()  # JSON can escape half a character
    except ValueError:
        raise _BeyondError from None
    return value

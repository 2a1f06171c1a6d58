"""Text from documents and file names as a terminal may show it: nothing in it moves the cursor, colours or turns lines round."""

from __future__ import annotations

import json
import re

_SPACES = "\r\v\f\x85\u2028\u2029"
_CONTROLS = (
    *range(0x20),
    *range(0x7F, 0xA0),  # delete, and the second set, whose U+009B begins a sequence as Escape [ does
    *range(0x202A, 0x202F),  # embeddings and overrides of direction, up to the end of the line
    *range(0x2066, 0x206A),  # isolates
    *range(0xD800, 0xE000),  # halves of characters: bytes of a file name that are not UTF-8
)
_PLAIN = dict.fromkeys(_CONTROLS, "\ufffd") | dict.fromkeys(map(ord, _SPACES), " ")
del _PLAIN[ord("\n")], _PLAIN[ord("\t")]
_TO_ESCAPE = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    r"""Replace control characters, each by one character; lines and tabs stay.

    >>> plain("cat \x1b[31mred")
    'cat �[31mred'
    """
    return text.translate(_PLAIN)


def plain_json(line: str, encoding: str) -> str:
    r"""Escape, in a line of JSON, control characters and what an encoding lacks: the line means the same.

    >>> plain_json('"\x9b31m 数"', "latin-1")
    '"\\u009b31m \\u6570"'
    """
    line = _TO_ESCAPE.sub(_escaped, line)
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        line = re.sub("[^\0-\x7f]", _escaped, line)
    return line


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]

"""What SQLite calls for the filters that SQL has no operator for: paths by pattern, texts by regular expression."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

_STAR, _STARS, _PARTS = "[^/]*", ".*", "(?:.*/)?"  # what *, ** and **/ are as regular expressions
# Of comparing one sign: some 50 ms at most, in which Python's regular expressions let no other thread go on.
_STEPS = 20_000_000


def path_glob(path: str, pattern: str) -> bool:
    """Say whether a path matches a pattern; one without a slash is matched by the path's last part.

    `*` and `?` stay within a part, `**` is any number of parts, `[…]` one of some characters.

    A regular expression is fastest, but where it fails it tries every way to share a path of n signs among s stars, n^s of them: with
    "*a*a*a*a*b" and 200 times "a" 13 s. Where that may be many, all ways are followed at once, in time that grows with the
    pattern's length times the path's; other threads go on meanwhile.

    >>> [path_glob(path, "src/**/*.py") for path in ("src/a.py", "src/b/c.py", "lib/src/a.py")]
    [True, True, False]
    """
    glob = _glob(pattern)
    if "/" not in pattern:
        path = path.rpartition("/")[2]
    if len(path) <= glob.longest:
        return glob.regex.fullmatch(path) is not None
    return _follow(glob.pieces, path)


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Return the regular expression for what a pattern matches.

    Raises:
        re.error: a set of characters such as [z-a].
    """
    return _glob(pattern).regex


@dataclass(frozen=True)
class _Glob:
    """A pattern as a regular expression, whole and in pieces, and the longest path for which the whole one is surely quick."""

    regex: re.Pattern[str]
    pieces: tuple[str, ...]
    longest: int


@lru_cache(maxsize=64)
def _glob(pattern: str) -> _Glob:
    pieces = tuple(_pieces(pattern.removeprefix("/")))
    num_stars = sum(piece in (_STAR, _STARS, _PARTS) for piece in pieces)
    longest = int((_STEPS / len(pieces)) ** (1 / num_stars)) if num_stars else sys.maxsize
    return _Glob(re.compile("".join(pieces), re.DOTALL), pieces, longest)


def _pieces(pattern: str) -> Iterator[str]:
    """Yield a regular expression for each star, set or other sign."""
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            yield _PARTS
            at += 3
        elif pattern.startswith("**", at):
            yield _STARS
            at += 2
        elif found := _SET.match(pattern, at):
            inner = re.sub(r"[\\\[\]&~|]", r"\\\g<0>", found[2])
            yield f"[{'^/' if found[1] else ''}{inner}]"
            at = found.end()
        else:
            sign = pattern[at]
            yield _STAR if sign == "*" else "[^/]" if sign == "?" else re.escape(sign)
            at += 1


def _follow(pieces: tuple[str, ...], path: str) -> bool:
    """Match by keeping, after each piece, all the places in the path that can be reached: bit n of a number is before sign n."""
    known: dict[str, int] = {}

    def places(piece: str) -> int:
        if piece not in known:
            digits = bytearray(b"0" * (len(path) + 1))
            for found in re.finditer(piece, path, re.DOTALL):
                digits[~found.start()] = ord("1")
            known[piece] = int(digits, 2)
        return known[piece]

    every = (1 << (len(path) + 1)) - 1
    reached = 1
    for piece in pieces:
        from_first = every & -(reached & -reached)
        if piece == _STARS:
            reached = from_first
        elif piece == _PARTS:
            reached |= (from_first & places("/")) << 1
        elif piece == _STAR:
            # An addition carries from the first place reached through the rest of its part, as in
            # Myers 1999, https://doi.org/10.1145/316542.316550.
            inside = places("[^/]")
            reached |= ((reached & inside) + inside) ^ inside
        else:
            reached = (reached & places(piece)) << 1
        if not reached:
            return False
    return bool(reached >> len(path) & 1)


_SET = re.compile(r"\[([!^]?)(\]?[^\]]*)\]")


def text_matches(text: str, pattern: str) -> bool:
    """Say whether a regular expression is found in a text."""
    return _regex(pattern).search(text) is not None


@lru_cache(maxsize=64)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)

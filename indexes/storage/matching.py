"""What SQLite calls for the filters that SQL has no operator for: paths by pattern, texts by regular expression."""

from __future__ import annotations

import re
from functools import lru_cache


def path_glob(path: str, pattern: str) -> bool:
    """Say whether a path matches a pattern; one without a slash is matched by the path's last part.

    `*` and `?` stay within a part, `**` is any number of parts, `[…]` one of some characters.

    >>> [path_glob(path, "src/**/*.py") for path in ("src/a.py", "src/b/c.py", "lib/src/a.py")]
    [True, True, False]
    """
    matches = glob_regex(pattern)
    return matches.fullmatch(path if "/" in pattern else path.rpartition("/")[2]) is not None


@lru_cache(maxsize=64)
def glob_regex(pattern: str) -> re.Pattern[str]:
    """Return the regular expression for what a pattern matches.

    Raises:
        re.error: a set of characters such as [z-a].
    """
    parts = []
    at = 0
    pattern = pattern.removeprefix("/")
    while at < len(pattern):
        if pattern.startswith("**/", at):
            parts.append("(?:.*/)?")
            at += 3
        elif pattern.startswith("**", at):
            parts.append(".*")
            at += 2
        elif found := _SET.match(pattern, at):
            inner = re.sub(r"[\\\[\]&~|]", r"\\\g<0>", found[2])
            parts.append(f"[{'^/' if found[1] else ''}{inner}]")
            at = found.end()
        else:
            sign = pattern[at]
            parts.append("[^/]*" if sign == "*" else "[^/]" if sign == "?" else re.escape(sign))
            at += 1
    return re.compile("".join(parts), re.DOTALL)


_SET = re.compile(r"\[([!^]?)(\]?[^\]]*)\]")


def text_matches(text: str, pattern: str) -> bool:
    """Say whether a regular expression is found in a text."""
    return _regex(pattern).search(text) is not None


@lru_cache(maxsize=64)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)

"""Which files and passages of a folder are searched, as a filter of the index."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from embedkit.errors import FilterError

# The endings of a language's files; any other word is an ending.
LANGUAGES = {
    "c": ("c", "h"),
    "cpp": ("cpp", "cc", "cxx", "hpp", "hh", "hxx", "h"),
    "csharp": ("cs",),
    "go": ("go",),
    "html": ("html", "htm"),
    "java": ("java",),
    "javascript": ("js", "jsx", "mjs", "cjs"),
    "js": ("js", "jsx", "mjs", "cjs"),
    "markdown": ("md", "markdown"),
    "md": ("md", "markdown"),
    "py": ("py", "pyi"),
    "python": ("py", "pyi"),
    "ruby": ("rb",),
    "rust": ("rs",),
    "sh": ("sh", "bash", "zsh"),
    "shell": ("sh", "bash", "zsh"),
    "ts": ("ts", "tsx", "mts", "cts"),
    "typescript": ("ts", "tsx", "mts", "cts"),
    "yaml": ("yaml", "yml"),
}


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """What is searched: paths within the folder, types (languages or endings), patterns of paths, and what must match.

    A pattern with ! before it leaves files out.

    Raises:
        FilterError: the regular expression does not compile.
    """

    scopes: Sequence[str] = ()
    types: Sequence[str] = ()
    globs: Sequence[str] = ()
    regex: str | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.regex or "")
        except (re.error, RecursionError, OverflowError) as exc:
            raise FilterError(
                f"{self.regex!r} is no regular expression of Python's ({exc}). "
                "Put a backslash before signs that stand for themselves"
            ) from exc

    def where(self, given: str | None) -> str | None:
        """Return a filter for the files, together with a given one; None where all are searched."""
        parts = [f"({given})"] if given else []
        if self.scopes and "" not in self.scopes:
            parts.append(_any(map(_within, self.scopes)))
        if self.types:
            endings = {
                ending for each in self.types for ending in LANGUAGES.get(each.lower(), (each.lstrip("."),))
            }
            parts.append(_any(f"id like {_quoted(f'%.{ending}')}" for ending in sorted(endings)))
        wanted = [each for each in self.globs if not each.startswith("!")]
        if wanted:
            parts.append(_any(f"id glob {_quoted(each)}" for each in wanted))
        parts += [f"not id glob {_quoted(each[1:])}" for each in self.globs if each.startswith("!")]
        if self.regex is not None:
            parts.append(f"text matches {_quoted(self.regex)}")
        return " and ".join(parts) or None


def _within(path: str) -> str:
    # All that begins with "path/" lies before "path0": 0 follows the slash.
    return f"(id = {_quoted(path)} or (id >= {_quoted(f'{path}/')} and id < {_quoted(f'{path}0')}))"


def _any(parts: Iterable[str]) -> str:
    return f"({' or '.join(parts)})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"

"""The imports of our sources: syntax trees, each parsed once by a process, without what tests of imports never look at."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

# What begins a function or class of a file itself, and every line or statement that may be an import.
DEFINITION = re.compile(r"^(?:def|class|async def|@)", re.MULTILINE)
IMPORT = re.compile(r"(?:^|[;:])[ \t]*(?:import|from)\b", re.MULTILINE)


@cache
def tree_of(path: Path) -> ast.Module:
    """Parse a file up to its first function or class, and further only where an import may follow: parsing is what takes the time."""
    source = path.read_text(encoding="utf-8")
    first = DEFINITION.search(source)
    if first is not None and not IMPORT.search(source, first.start()):
        with suppress(SyntaxError):  # the word may stand in a string
            return ast.parse(source[: first.start()])
    return ast.parse(source)


def parts_of(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the children of a node that are, or hold, statements: no expression does, and most nodes are expressions."""
    return (
        child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr | ast.expr_context)
    )


def walked(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and, below it, all that are or hold statements."""
    yield node
    for child in parts_of(node):
        yield from walked(child)

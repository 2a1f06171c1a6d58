"""The syntax trees of our sources, each parsed once by a process, and walked without what tests of imports never look at."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


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

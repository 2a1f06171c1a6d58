"""tree-sitter: syntax trees of source code, with one package for each language."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from tree_sitter import Language, Node, Parser

# Where the package of a language names its function otherwise.
_FUNCTIONS = {"typescript": "language_typescript", "tsx": "language_tsx"}
_PACKAGES = {"tsx": "typescript"}


def parse(raw: bytes, language: str) -> Node:
    """Return the root of the syntax tree of a source text in UTF-8; what is no syntax stands in nodes of errors."""
    return _parser(language).parse(raw).root_node


@cache
def _parser(language: str) -> Parser:
    package = import_module(f"tree_sitter_{_PACKAGES.get(language, language)}")
    return Parser(Language(getattr(package, _FUNCTIONS.get(language, "language"))()))

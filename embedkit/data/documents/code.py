"""Source code: its functions, its classes and what stands between them.

1. The syntax tree gives the definitions, each with the comments, decorators and attributes before it. Those of what holds others
   (classes, impls, namespaces) are taken too, but where a class is small, which is one part.
2. Each definition begins a part, and so does what stands behind one, if it is more than a few words.
3. A heading says what each part is of: "class Walker", and in it "list".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from embedkit.data.documents.syntax import (
    BEFORE,
    CLASSES,
    FUNCTION_VALUES,
    FUNCTIONS,
    GROUPS,
    LANGUAGES,
    NAMESPACES,
    VARIABLES,
    WRAPPERS,
)
from embedkit.data.places import FIRST_LINE, Mark
from embedkit.extras import has_extra, load_extra

if TYPE_CHECKING:
    from tree_sitter import Node

SMALL_CLASS_BYTES = 800  # about what a passage has room for
_LEAST_WORDS = 24  # letters and digits that make what stands between definitions a part of its own
_WORD = re.compile(rb"[\w\x80-\xff]")
_SPACE = re.compile(r"\s+")


class Code(NamedTuple):
    """Where the parts of a source text begin, and what says where they stand."""

    parts: tuple[int, ...]
    marks: tuple[Mark, ...]


@dataclass
class _Definition:
    """A definition with those in it, in bytes of the text."""

    start: int
    stop: int
    name: str
    inner: list[_Definition] = field(default_factory=list)


def is_code(suffix: str) -> bool:
    """Say whether files of an ending are cut by their syntax: it is known, and the extra is installed."""
    return suffix in LANGUAGES and has_extra("code")


def read_code(text: str, suffix: str) -> Code:
    """Find the parts of a source text; `suffix` tells the language."""
    raw = text.encode("utf-8", "surrogatepass")
    root = load_extra("code", purpose=f"cutting {suffix} files").parse(raw, LANGUAGES[suffix])
    found = _Parts(raw)
    found.take(_definitions(root, raw), 0, len(raw))
    at = _characters(text, raw, [start for start, _, _ in found.headings] + found.starts)
    marks = [*FIRST_LINE, *(Mark(at[start], "heading", name, level) for start, name, level in found.headings)]
    return Code(tuple(dict.fromkeys(at[start] for start in found.starts)), tuple(marks))


class _Parts:
    """The parts of a text as they are found, in bytes."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.starts: list[int] = []
        self.headings: list[tuple[int, str, int]] = []  # start, name, level; "" ends those of the level

    def take(
        self, definitions: Sequence[_Definition], start: int, stop: int, level: int = 1, head: int = 0
    ) -> None:
        """Take definitions that stand from one byte up to another; `head` is where the one begins that they are in."""
        at = start
        for number, each in enumerate(definitions):
            begins = each.start
            if self._is_worth(max(at, head), begins):
                if number or level == 1:  # else it is the head of what holds them
                    self._begin(at, "", level)
            elif not number:  # too little to stand alone: a part of the first
                begins = at
            self._begin(begins, each.name, level)
            if each.inner:
                self.take(each.inner, begins, each.stop, level + 1, each.start)
            at = each.stop
        if definitions and self._is_worth(at, stop):
            self._begin(at, "", level)

    def _begin(self, start: int, name: str, level: int) -> None:
        self.starts.append(start)
        if name or self.headings:
            self.headings.append((start, name, level))

    def _is_worth(self, start: int, stop: int) -> bool:
        return len(_WORD.findall(self.raw[start:stop])) >= _LEAST_WORDS


def _definitions(parent: Node, raw: bytes) -> list[_Definition]:
    """Return the definitions among the children of a node, and among those of what only groups them."""
    found: list[_Definition] = []
    pending = list(reversed(parent.named_children))
    before: list[Node] = []  # comments and the like that may belong to what follows
    while pending:
        node = pending.pop()
        if node.type in BEFORE:
            if before and not _adjoins(before[-1], node, raw):
                before = []
            if before or _begins_line(node, raw):
                before.append(node)
            continue
        definition = _definition(node, raw)
        if definition is not None:
            if before and _adjoins(before[-1], node, raw):
                definition.start = before[0].start_byte
            found.append(definition)
        elif node.type in GROUPS:
            pending += reversed(node.named_children)
        before = []
    return found


def _adjoins(node: Node, following: Node, raw: bytes) -> bool:
    """Say whether no empty line is between two nodes."""
    between = raw[node.start_byte : following.start_byte]
    return between[len(between.rstrip()) :].count(b"\n") <= 1


def _begins_line(node: Node, raw: bytes) -> bool:
    return not raw[raw.rfind(b"\n", 0, node.start_byte) + 1 : node.start_byte].strip()


def _definition(node: Node, raw: bytes) -> _Definition | None:
    inner = node
    while inner.type in WRAPPERS:
        wrapped = _wrapped(inner)
        if wrapped is None:
            return None
        inner = wrapped
    unnamed = inner is not node and inner.type in FUNCTION_VALUES  # export default function () {}
    if inner.type in FUNCTIONS or unnamed or _holds_function(inner):
        return _Definition(node.start_byte, node.end_byte, _function_name(inner))
    kind = CLASSES.get(inner.type)
    body = inner.child_by_field_name("body")
    if kind is None or (body is None and inner.type.endswith("_specifier")):  # a name alone
        return None
    found = _Definition(node.start_byte, node.end_byte, f"{kind} {_class_name(inner)}".strip())
    if body is not None and (kind in NAMESPACES or node.end_byte - node.start_byte > SMALL_CLASS_BYTES):
        found.inner = _definitions(body, raw)
    return found


def _wrapped(node: Node) -> Node | None:
    """Return the definition that a node is put around."""
    kinds = (*FUNCTIONS, *FUNCTION_VALUES, *CLASSES, *WRAPPERS, *VARIABLES)
    return next((child for child in node.named_children if child.type in kinds), None)


def _holds_function(node: Node) -> bool:
    """Say whether a variable or field is a function: const f = () => 1."""
    return any(value.type in FUNCTION_VALUES for value in _values(node))


def _values(node: Node) -> Iterator[Node]:
    of_variables = node.named_children if node.type in VARIABLES else ()
    fields = (node,) if node.type in ("public_field_definition", "field_definition") else ()
    for each in (*of_variables, *fields):
        value = each.child_by_field_name("value")
        if value is not None:
            yield value


def _function_name(node: Node) -> str:
    if node.type in VARIABLES:
        node = next(each for each in node.named_children if each.child_by_field_name("value") is not None)
    name = node.child_by_field_name("name") or node.child_by_field_name("property")
    declared = node.child_by_field_name("declarator")
    while name is None and declared is not None:  # of C: the name stands within pointers and parameters
        inner = declared.child_by_field_name("declarator")
        name, declared = (declared, None) if inner is None else (None, inner)
    receiver = node.child_by_field_name("receiver")
    of_type = re.search(r"(\w+)\s*(?:\[[^)]*)?\)$", _text(receiver)) if receiver is not None else None
    return (f"{of_type[1]}." if of_type else "") + (_text(name) or "default")


def _class_name(node: Node) -> str:
    if node.type == "impl_item":
        trait, of_type = node.child_by_field_name("trait"), _text(node.child_by_field_name("type"))
        return f"{_text(trait)} for {of_type}" if trait is not None else of_type
    if node.type == "type_declaration":  # of Go: one or several
        names = (_text(each.child_by_field_name("name")) for each in node.named_children)
        return ", ".join(name for name in names if name)
    return _text(node.child_by_field_name("name"))


def _text(node: Node | None) -> str:
    raw = b"" if node is None or node.text is None else node.text
    return _SPACE.sub(" ", raw.decode("utf-8", "replace"))[:200]


def _characters(text: str, raw: bytes, offsets: Sequence[int]) -> dict[int, int]:
    """Return which characters stand at some bytes of a text."""
    if len(text) == len(raw):
        return {at: at for at in offsets}
    found, last, count = {}, 0, 0
    for at in sorted(set(offsets)):
        count += len(raw[last:at].decode("utf-8", "surrogatepass"))
        found[at], last = count, at
    return found

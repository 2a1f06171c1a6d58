"""The language of `--where` read into a tree: what a condition says, before anybody asks a database for it.

`indexes.search.filters` makes SQL of it for the index's own database; stores that an index is pushed into have languages of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal as Choice

from embedkit.errors import FilterError

from ..storage.matching import glob_regex
from .fields import Field, FieldUse, Literal

Operator = Choice["=", "!=", "<", "<=", ">", ">=", "LIKE"]
COLUMNS = {"id": "doc_id", "title": "title", "text": "text", "source": "source"}
_COMPARISONS: dict[str, Operator] = {
    "=": "=",
    "==": "=",
    "!=": "!=",
    "<>": "!=",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
}
REGEX_OFF = "regular expressions (matches) are off here"
WORDS = ("and", "or", "not", "in", "like", "is", "null", "true", "false", "between")
TOKEN = re.compile(
    r"""\s*(?:
        (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<string>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")+")
      | (?P<name>[^\W\d][\w-]*(?:\.[^\W\d][\w-]*)*)
      | (?P<sign><=|>=|<>|!=|==|[=<>(),])
    )""",
    re.VERBOSE,
)
MAX_DEPTH = 50


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Compare:
    """A field against a value of its kind; no where the field is not there or of another kind.

    LIKE is as in SQLite: `%` and `_`, no escape, the letters of ASCII in either case.
    """

    field: Field
    operator: Operator
    literal: Literal


@dataclass(frozen=True)
class IsNull:
    """Whether a field is not there, or null."""

    field: Field


@dataclass(frozen=True)
class Contains:
    """Whether a list holds a value; a field that is no list must be the value itself."""

    field: Field
    literal: Literal


@dataclass(frozen=True)
class Matches:
    """Whether a text matches a pattern of paths (`path_glob`), or a regular expression of Python's is found in it (`text_matches`)."""

    field: Field
    function: Choice["path_glob", "text_matches"]
    pattern: str


@dataclass(frozen=True)
class Not:
    part: Node


@dataclass(frozen=True)
class And:
    parts: Sequence[Node]


@dataclass(frozen=True)
class Or:
    parts: Sequence[Node]


Node = Compare | IsNull | Contains | Matches | Not | And | Or


def parse_filter(text: str, field_names: Sequence[str], *, allow_regex: bool = True) -> Node:
    """Read a where expression; `field_names` are the metadata fields that there are.

    Without `allow_regex` a regular expression is refused: some take hours on a short text, and no other thread goes on meanwhile.

    Raises:
        FilterError: it is not in the language, names a field that no document has, or has a regular expression that is not allowed.
    """
    parser = _Parser(text, field_names, allow_regex=allow_regex)
    tree = parser.disjunction(0)
    parser.expect_end()
    return tree


Leaf = Compare | IsNull | Contains | Matches


def leaves(node: Node) -> Iterator[Leaf]:
    """Yield what a condition is made of, each about one field."""
    if isinstance(node, And | Or):
        for part in node.parts:
            yield from leaves(part)
    elif isinstance(node, Not):
        yield from leaves(node.part)
    else:
        yield node


def uses_of(node: Node) -> Iterator[FieldUse]:
    """Yield how a condition uses fields of the metadata: as one value, or as a list."""
    for leaf in leaves(node):
        if leaf.field.is_metadata and not isinstance(leaf, IsNull):
            yield FieldUse(leaf.field, "list" if isinstance(leaf, Contains) else "value")


class _Parser:
    """Recursive descent: or, and, not, comparison."""

    def __init__(self, text: str, field_names: Sequence[str], *, allow_regex: bool) -> None:
        self.text, self.field_names, self._allow_regex = text, field_names, allow_regex
        self._tokens = self._split()
        self._next = 0

    def _split(self) -> list[_Token]:
        tokens, at = [], 0
        end = len(self.text.rstrip())
        while at < end:
            match = TOKEN.match(self.text, at)
            if match is None:
                start = at + len(self.text[at:]) - len(self.text[at:].lstrip())
                raise self._error(
                    f"{self.text[start]!r}", "a field, a value, a comparison or a bracket", start
                )
            kind = str(match.lastgroup)
            word = match[kind]
            if kind == "name" and word.lower() in WORDS:
                kind, word = "word", word.lower()
            tokens.append(_Token(kind, word, match.start(match.lastgroup or 0)))
            at = match.end()
        return [*tokens, _Token("end", "the end", end)]

    def _error(self, got: str, wanted: str, at: int) -> FilterError:
        return FilterError(
            f"--where {self.text!r}: {got} at character {at + 1}, where {wanted} was expected. "
            "Write it like: lang = 'en' and year > 2020"
        )

    @property
    def _here(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> _Token | None:
        token = self._here
        if token.kind in ("word", "sign") and token.text in texts:
            self._next += 1
            return token
        return None

    def _need(self, *texts: str) -> _Token:
        token = self._take(*texts)
        if token is None:
            raise self._error(self._here.text, " or ".join(map(repr, texts)), self._here.at)
        return token

    def expect_end(self) -> None:
        if self._here.kind != "end":
            raise self._error(repr(self._here.text), "'and', 'or' or the end", self._here.at)

    def disjunction(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise FilterError(
                f"--where: brackets or 'not' are nested more than {MAX_DEPTH} deep. Simplify it"
            )
        parts = [self._conjunction(depth)]
        while self._take("or"):
            parts.append(self._conjunction(depth))
        return parts[0] if len(parts) == 1 else Or(parts)

    def _conjunction(self, depth: int) -> Node:
        parts = [self._negation(depth)]
        while self._take("and"):
            parts.append(self._negation(depth))
        return parts[0] if len(parts) == 1 else And(parts)

    def _negation(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            return self.disjunction(depth)  # raises
        if self._take("not"):
            return Not(self._negation(depth + 1))
        if self._take("("):
            inner = self.disjunction(depth + 1)
            self._need(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Node:
        if self._here.kind in ("string", "number") or self._here.text in ("true", "false"):
            return self._membership()
        field = self._field()
        if self._take("is"):
            negated = self._take("not") is not None
            self._need("null")
            # JSON's null and a field that is not there are both "no value".
            return Not(IsNull(field)) if negated else IsNull(field)
        negated = self._take("not") is not None
        test: Node
        if self._take_name("contains"):
            test = self._contains(field, self._literal())
        elif self._take_name("glob"):
            test = Matches(field, "path_glob", self._checked(glob_regex, "pattern of paths"))
        elif self._take_name("matches"):
            test = Matches(field, "text_matches", self._regex())
        else:
            # The last three would have been taken already: they are here for the message.
            operators = ("in", "like", "between", "contains", "glob", "matches")
            token = self._need(*operators) if negated else self._need(*_COMPARISONS, *operators)
            test = self._compared(field, token.text)
        return Not(test) if negated else test

    def _compared(self, field: Field, operator: str) -> Node:
        if operator == "in":
            self._need("(")
            parts: list[Node] = [Compare(field, "=", self._literal())]
            while self._take(","):
                parts.append(Compare(field, "=", self._literal()))
            self._need(")")
            return Or(parts)
        if operator == "between":
            low = self._literal()
            self._need("and")
            return And([Compare(field, ">=", low), Compare(field, "<=", self._literal())])
        if operator == "like":
            return Compare(field, "LIKE", self._pattern())
        return Compare(field, _COMPARISONS[operator], self._literal())

    def _membership(self) -> Node:
        """Read `'x' in tags`: the same as `tags contains 'x'`."""
        first = self._here
        literal = self._literal()
        negated = self._take("not") is not None
        if not self._take("in"):
            raise self._error(repr(first.text), "a field", first.at)
        test = self._contains(self._field(), literal)
        return Not(test) if negated else test

    def _take_name(self, operator: str) -> bool:
        # No word of the language everywhere: a field may have this name.
        found = self._here.kind == "name" and self._here.text.lower() == operator
        self._next += found
        return found

    def _pattern(self) -> str:
        pattern = self._literal()
        if not isinstance(pattern, str):
            raise self._error(str(pattern), "a text in single quotes", self._tokens[self._next - 1].at)
        return pattern

    def _checked(self, compiled: Callable[[str], object], what: str) -> str:
        pattern = self._pattern()
        try:
            compiled(pattern)
        except (re.error, RecursionError, OverflowError) as exc:
            raise FilterError(
                f"--where {self.text!r}: {pattern!r} is no {what} ({exc}). "
                "Put a backslash before signs that stand for themselves"
            ) from exc
        return pattern

    def _regex(self) -> str:
        if not self._allow_regex:
            raise FilterError(
                f"--where {self.text!r}: {REGEX_OFF}, as one of them can keep a server from answering for hours. "
                "Use like or glob, or start the server with: embedkit serve --allow-regex"
            )
        return self._checked(re.compile, "regular expression of Python's")

    def _contains(self, field: Field, literal: Literal) -> Node:
        if not field.is_metadata:
            raise FilterError(
                f"--where {self.text!r}: {field.name!r} is a text, and contains looks into lists. "
                f"Write it like: {field.name} like '%word%'"
            )
        return Contains(field, literal)

    def _field(self) -> Field:
        token = self._here
        if token.kind not in ("name", "quoted"):
            raise self._error(repr(token.text) if token.kind != "end" else token.text, "a field", token.at)
        self._next += 1
        name = token.text if token.kind == "name" else token.text[1:-1].replace('""', '"')
        if token.kind == "name" and name in COLUMNS and name not in self.field_names:
            return Field(name, COLUMNS[name])
        # A field's own name may hold a dot; else the dot reaches into an object.
        path = [name] if token.kind == "quoted" or name in self.field_names else name.split(".")
        if path[0] not in self.field_names:
            known = ", ".join(sorted({*self.field_names, *COLUMNS}))
            close = get_close_matches(path[0], [*self.field_names, *COLUMNS], n=1)
            hint = f"did you mean {close[0]!r}?" if close else "use one of those"
            raise FilterError(
                f"--where {self.text!r}: no document has the field {path[0]!r}; fields here: {known}; {hint}"
            )
        return Field(name, path=tuple(path))

    def _literal(self) -> Literal:
        token = self._here
        if token.kind == "string":
            self._next += 1
            return token.text[1:-1].replace("''", "'")
        if token.kind == "number":
            self._next += 1
            number = float(token.text)
            whole = re.fullmatch(r"[+-]?\d+", token.text) is not None
            return int(token.text) if whole and abs(number) < 2**63 else number
        if self._take("true"):
            return True
        if self._take("false"):
            return False
        hint = " (texts stand in single quotes)" if token.kind in ("name", "quoted") else ""
        raise self._error(
            (repr(token.text) if token.kind != "end" else token.text) + hint,
            "a text, a number, true or false",
            token.at,
        )

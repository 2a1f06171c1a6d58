"""What the columns of a training file are for: their names tell, or the user does; and what kind of rows they make."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from embedkit.data.formats import plain_suffix
from embedkit.errors import RecordError

Role = Literal["first", "second", "negatives", "text", "score", "label", "vector", "margins"]
Kind = Literal["distilled", "vectors", "scored", "classified", "triplets", "pairs", "labelled", "texts"]

# Looked for in this order; what stands in no list is left alone.
USUAL_NAMES: dict[Role, tuple[str, ...]] = {
    "first": ("anchor", "query", "question", "sentence1", "text1", "premise", "first", "title"),
    "second": (
        *("positive", "document", "passage", "answer", "sentence2", "text2", "hypothesis", "second"),
        *("context", "abstract", "lead", "body", "sentence"),
        *("pos", "positives", "positive_passages"),
    ),
    "negatives": ("negatives", "negative", "neg", "hard_negatives", "negative_passages"),
    "text": ("text", "sentence", "body", "content", "contents"),
    "score": ("score", "similarity", "similarity_score"),
    "label": ("label", "class", "gold_label"),
    "vector": ("vector", "embedding"),
    "margins": ("margins", "margin", "teacher_margins", "teacher_margin"),
}
_NUMBERED_NEGATIVE = re.compile(r"negative_?(\d+)$")
# What each kind of row needs; the first kind whose needs are met is taken.
NEEDS: dict[Kind, tuple[Role, ...]] = {
    "distilled": ("first", "second", "negatives", "margins"),
    "vectors": ("text", "vector"),
    "scored": ("first", "second", "score"),
    "classified": ("first", "second", "label"),
    "triplets": ("first", "second", "negatives"),
    "pairs": ("first", "second"),
    "labelled": ("text", "label"),
    "texts": ("text",),
}
KINDS: tuple[Kind, ...] = get_args(Kind)
# Those whose second texts may be documents with fields.
FIELD_KINDS: tuple[Kind, ...] = ("distilled", "scored", "triplets", "pairs")


@dataclass(frozen=True)
class Columns:
    """Which column of a file plays which role; several may hold negatives."""

    named: Mapping[Role, str]
    negatives: tuple[str, ...] = ()
    present: tuple[str, ...] = field(default=())

    def kinds(self) -> list[Kind]:
        """List the kinds of rows that these columns make, the one that uses most of them first."""
        have: set[Role] = {*self.named, *(("negatives",) if self.negatives else ())}
        return [kind for kind, needs in NEEDS.items() if have.issuperset(needs)]

    def describe(self, kind: Kind) -> str:
        """Say which column is what, for the roles that a kind uses."""
        parts = []
        for role in NEEDS[kind]:
            name = ", ".join(self.negatives) if role == "negatives" else self.named[role]
            parts.append(f"{role} = {name!r}")
        return ", ".join(parts)


def parse_columns(options: Iterable[str]) -> dict[Role, str]:
    """Read `ROLE=NAME` options; an empty NAME says that there is no such column.

    Raises:
        RecordError: an option is not of that form, or names an unknown role.
    """
    found: dict[Role, str] = {}
    for option in options:
        role, equals, name = option.partition("=")
        if not equals or role not in get_args(Role):
            raise RecordError(
                f"--column {option!r}: wanted ROLE=NAME with a role of {', '.join(get_args(Role))}, such as first=title"
            )
        found[role] = name  # type: ignore[index] # one of the roles, as just checked
    return found


def find_columns(present: Sequence[str], given: Mapping[Role, str], where: str) -> Columns:
    """Give each role its column: the one the user named, else the first usual name that is there.

    Raises:
        RecordError: a column that the user named is not there.
    """
    named: dict[Role, str] = {}
    taken: set[str] = set()
    for role, name in given.items():
        if name and name not in present:
            raise RecordError(
                f"{where}: missing column {name!r} (for {role}); columns here: {', '.join(present)}. Name another one"
            )
        if name:
            named[role] = name
            taken.add(name)
    known = {name.strip().lower(): name for name in reversed(present)} | {name: name for name in present}
    for role, usual in USUAL_NAMES.items():
        if role in given or (role == "text" and "first" in named and "second" in named):
            continue
        if role == "second" and "first" not in named:
            continue  # `sentence` or `body` alone is a text
        found = next((known[name] for name in usual if name in known and known[name] not in taken), None)
        if found is not None:
            named[role] = found
            taken.add(found)
    if "first" in named and "second" not in named and "first" not in given:
        taken.discard(named.pop("first"))  # a title alone makes no pair
    negatives: list[str] = [named.pop("negatives")] if "negatives" in named else []
    if "negatives" not in given:
        numbered = [(int(m[1]), name) for name in present if (m := _NUMBERED_NEGATIVE.match(name))]
        negatives += [name for _, name in sorted(numbered)]
    return Columns(named, tuple(negatives), tuple(present))


def choose_kind(columns: Columns, wanted: Sequence[Kind], where: str, purpose: str) -> Kind:
    """Take the first kind that the columns make and that is wanted.

    Raises:
        RecordError: there is none; the message says which columns are there and what they would do for.
    """
    possible = columns.kinds()
    for kind in possible:
        if kind in wanted:
            return kind
    needed = " or ".join(
        " + ".join(NEEDS[kind]) for kind in sorted(wanted, key=lambda kind: len(NEEDS[kind]))
    )
    fits = "; they make " + ", ".join(f"{kind} rows" for kind in possible) if possible else ""
    headed = plain_suffix(where.rpartition(":")[0]) in (".csv", ".tsv")
    raise RecordError(
        f"{where}: columns here: {', '.join(columns.present) or 'none'}{fits}; {purpose} needs {needed}. "
        "Say which column is what with --column ROLE=NAME, such as first=title",
        ", or pass --no-header where the first line is data" if headed else "",
    )

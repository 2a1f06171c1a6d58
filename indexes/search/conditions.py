"""From the text of a filter to a condition that fits what the index's metadata hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from embedkit.errors import FilterError

from ..storage.database import Database
from .fields import misuse
from .filters import Filter, compile_filter


@dataclass(frozen=True)
class Misuse:
    """What one index says of one use of a field in a filter: what is wrong, or "", and whether the field is taken for a list."""

    of_list: bool
    problem: str


def condition_of(database: Database, where: str, shared_fields: Sequence[str] | None = None) -> Filter:
    """Compile a filter, and refuse one that compares a list or an object as if it were a value.

    In a shard that follows from all shards together: `shared_fields` are the fields that they know, and the uses are checked there.

    Raises:
        FilterError: the filter cannot be understood, or compares what cannot be compared.
    """
    if shared_fields is not None:
        return compile_filter(where, shared_fields, allow_regex=database.allow_regex)
    condition = compile_filter(where, database.field_names(), allow_regex=database.allow_regex)
    for use in condition.uses:
        problem = misuse(database, use, where)
        if problem:
            raise FilterError(problem)
    return condition


def misuses(database: Database, where: str, shared_fields: Sequence[str]) -> list[Misuse]:
    """Say of each use of a field what a shard has against it.

    Raises:
        FilterError: the filter cannot be understood.
    """
    condition = compile_filter(where, shared_fields, allow_regex=database.allow_regex)
    return [Misuse(use.taken_for == "list", misuse(database, use, where)) for use in condition.uses]


def check_in_all(found: Sequence[Sequence[Misuse]]) -> None:
    """Refuse a filter by what all shards say of its uses: a list must be one somewhere, a value one everywhere.

    Raises:
        FilterError: a field is used as what it is not.
    """
    for of_use in zip(*found, strict=True):
        wrong = [each.problem for each in of_use if each.problem]
        if wrong and (len(wrong) == len(of_use) or not of_use[0].of_list):
            raise FilterError(wrong[0])

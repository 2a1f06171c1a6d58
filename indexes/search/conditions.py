"""From the text of a filter to a condition that fits what the index's metadata hold."""

from __future__ import annotations

from ..storage.database import Database
from .fields import check_uses
from .filters import Filter, compile_filter


def condition_of(database: Database, where: str) -> Filter:
    """Compile a filter, and refuse one that compares a list or an object as if it were a value.

    Raises:
        FilterError: the filter cannot be understood, or compares what cannot be compared.
    """
    condition = compile_filter(where, database.field_names())
    check_uses(database, condition.uses, where)
    return condition

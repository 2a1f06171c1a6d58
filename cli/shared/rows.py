"""How files of training rows are read: the options of every command that takes such rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from embedkit.data.records import ReadOptions

from . import completing, options

if TYPE_CHECKING:
    from embedkit.training.generation.pairs import SourceTargets
    from embedkit.training.rows.columns import Role


@dataclass(frozen=True, kw_only=True)
class TableReading:
    """How tables are cut into columns."""

    PANEL: ClassVar[str] = "Reading files"

    delimiter: options.Delimiter = None
    header: options.Header = True

    def __post_init__(self) -> None:
        self.read()  # refuses a delimiter that is none

    def read(self) -> ReadOptions:
        """Return how the files are read."""
        return ReadOptions(delimiter=self.delimiter, header=self.header)


@dataclass(frozen=True, kw_only=True)
class RowReading(TableReading):
    """What the columns of the rows are for, and how tables are cut into columns."""

    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="ROLE=NAME",
            autocompletion=completing.complete_role,
            help="Which column is first, second, negatives, text, score, label, vector or margins; repeatable.",
            show_default=False,
        ),
    ] = None

    def roles(self) -> dict[Role, str]:
        """Return which column has which role, where the user said so.

        Raises:
            RecordError: a --column is not ROLE=NAME.
        """
        from embedkit.training.rows.columns import parse_columns

        return parse_columns(self.column or [])


@dataclass(frozen=True, kw_only=True)
class PairReading(TableReading):
    """Which columns are a source and its targets, and how tables are cut into columns."""

    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            metavar="SIDE=NAME",
            autocompletion=completing.complete_side,
            help="Which column is the source, which is read, or the target, which is written; repeatable.",
            show_default=False,
        ),
    ] = None

    def pairs(self, data: Sequence[str]) -> SourceTargets:
        """Read the files.

        Raises:
            RecordError: a file or row cannot be read, or has no such columns.
        """
        from embedkit.training.generation.pairs import parse_sides, read_source_targets

        return read_source_targets(data, columns=parse_sides(self.column or []), read=self.read())

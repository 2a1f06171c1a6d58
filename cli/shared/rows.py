"""How files of training rows are read: the options of every command that takes such rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from embedkit.data.records import ReadOptions

from . import completing, options

if TYPE_CHECKING:
    from embedkit.training.rows.columns import Role


@dataclass(frozen=True, kw_only=True)
class RowReading:
    """What the columns of the rows are for, and how tables are cut into columns."""

    PANEL: ClassVar[str] = "Reading files"

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
    delimiter: options.Delimiter = None
    header: options.Header = True

    def __post_init__(self) -> None:
        self.read()  # refuses a delimiter that is none

    def read(self) -> ReadOptions:
        """Return how the files are read."""
        return ReadOptions(delimiter=self.delimiter, header=self.header)

    def roles(self) -> dict[Role, str]:
        """Return which column has which role, where the user said so.

        Raises:
            RecordError: a --column is not ROLE=NAME.
        """
        from embedkit.training.rows.columns import parse_columns

        return parse_columns(self.column or [])

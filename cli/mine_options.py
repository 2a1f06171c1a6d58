"""`embedkit mine`: which of the hits become negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

if TYPE_CHECKING:
    from embedkit.training.mining.recipe import MiningRecipe

By = Literal["dense", "text", "both"]
Pick = Literal["top", "random"]


@dataclass(frozen=True, kw_only=True)
class Picking:
    """Which of the hits become negatives."""

    PANEL: ClassVar[str] = "Which hits become negatives"

    num_negatives: Annotated[
        int, typer.Option("--num-negatives", metavar="N", min=1, help="At most so many a row.")
    ] = 5
    ranks: Annotated[
        str,
        typer.Option(
            "--ranks", metavar="FIRST-LAST", help="Ranks to take from, known positives not counted."
        ),
    ] = "1-50"
    margin: Annotated[
        float,
        typer.Option(
            "--margin", metavar="S", help="A negative scores at least so much less than the positive."
        ),
    ] = 0.0
    relative_margin: Annotated[
        float | None,
        typer.Option(
            "--relative-margin",
            metavar="R",
            help="… or such a share of the positive's score less, as 0.05.",
            show_default=False,
        ),
    ] = None
    no_margin: Annotated[bool, typer.Option("--no-margin", help="Compare no scores.")] = False
    pick: Annotated[Pick, typer.Option("--pick", help="Take the nearest, or any of the window.")] = "top"
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Seed of --pick random.")] = 0

    def recipe(self, *, by_words: bool) -> MiningRecipe:
        """Return the recipe, or end with wrong usage; words alone have no cosines that a margin could compare."""
        from embedkit.training.mining.recipe import MiningRecipe

        first, dash, last = self.ranks.partition("-")
        if not dash or not first.isdigit() or not last.isdigit():
            raise typer.BadParameter(f"--ranks is {self.ranks!r}; wanted FIRST-LAST, such as 10-100")
        try:
            return MiningRecipe(
                num_negatives=self.num_negatives,
                first_rank=int(first),
                last_rank=int(last),
                margin=None if self.no_margin or (by_words and self.margin == 0) else self.margin,
                relative_margin=None if self.no_margin else self.relative_margin,
                pick=self.pick,
                seed=self.seed,
            )
        except ValueError as exc:
            raise typer.BadParameter(str(exc)) from exc

"""`embedkit mine`: hard negatives for pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from embedkit.models import RERANKER
from embedkit.pipelines.models import MAXSIM

from .shared import console, models, options
from .shared.completing import complete_index, complete_reranker
from .shared.groups import grouped
from .shared.rows import RowReading

if TYPE_CHECKING:
    from embedkit.pipelines.mining import MiningModels
    from embedkit.training.mining.recipe import MiningRecipe
    from embedkit.training.rows.examples import Examples
    from indexes import Index, Searchable

EXAMPLES = """\b
Examples:
  embedkit mine pairs.jsonl --output mined.jsonl
  embedkit mine squad --model FOLDER --by both --ranks 10-100 --relative-margin 0.05 --output mined.jsonl
  embedkit mine pairs.jsonl --by text --corpus documents/ --output mined.jsonl --rerank
  embedkit mine pairs.jsonl --index big.index --output mined.jsonl   # an index that is there, also in shards
  embedkit train contrastive mined.jsonl --model encoder --output sentences --steps 1000
"""


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


@grouped
def mine(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="Pairs: a file, folder or retrieval set FOLDER[:SPLIT].", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="JSON lines to write.", show_default=False)
    ],
    *,
    model: options.SomeModel = None,
    by: Annotated[By, typer.Option("--by", help="Search by vectors, by words (BM25), or by both.")] = "dense",
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus",
            metavar="INPUT",
            help="Documents to search; repeatable. Default: the positives of all rows.",
            show_default=False,
        ),
    ] = None,
    named: Annotated[
        Path | None,
        typer.Option(
            "--index",
            metavar="FOLDER",
            help="Search an index that is there, also one in shards, by the model that made it. Nothing is added to it.",
            show_default=False,
            autocompletion=complete_index,
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            "--rerank",
            metavar="[MODEL]",
            autocompletion=complete_reranker,
            help=f"Cross-encoder whose scores the margins compare instead of cosines. Without a value: {RERANKER}.",
            show_default=False,
        ),
    ] = None,
    picking: Picking,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the same command was stopped.")
    ] = False,
    examples: Annotated[
        int, typer.Option("--examples", metavar="N", min=0, help="Suspects to show in the report.")
    ] = 3,
    computing: options.ComputingOptions,
    reading: RowReading,
    printing: options.Printing,
) -> None:
    """Find documents that are near a query and are no answer to it: training on them teaches the most.

    What scores too near the positive is left out, for it is likely an answer, too; the report says how much that was, and shows
    where a row's positive looks wrong. The index of the corpus is kept at OUTPUT.index and used again, unless --index names one.
    """
    from embedkit.pipelines.mining import MiningModels
    from embedkit.training.mining.audit import audit
    from embedkit.training.mining.mining import mine as mine_rows
    from embedkit.training.rows.reading import read_examples

    if rerank == MAXSIM:
        raise typer.BadParameter(
            "--rerank maxsim: mining compares the scores of a cross-encoder; name one, or leave --rerank out"
        )
    recipe = picking.recipe(by_words=by == "text" and rerank is None)
    rows = read_examples(
        data, columns=reading.roles(), kinds=("triplets", "pairs"), purpose="mining", read=reading.read()
    )
    if named is not None and corpus is not None:
        raise typer.BadParameter("--index and --corpus exclude each other: an index holds its documents")
    searched = _open_named(named)
    try:
        loaded = MiningModels(by, computing, model=model, rerank=rerank, index=searched)
        _say(loaded)
        manifest = {"by": by, "corpus": corpus or [], **loaded.fingerprints()}
        if named is not None:
            manifest["index"] = str(named.resolve())
        if searched is not None:
            _say_cut(searched)
        else:
            index = searched = loaded.open_index(output.with_name(output.name + ".index"))
            _fill(loaded, index, rows, corpus=corpus)
        searches, score = loaded.searches(searched)
        reports = mine_rows(
            rows, searches, score, recipe=recipe, output=output, manifest=manifest, resume=resume
        )
        with console.progress_bar("mine") as bar:
            for report in reports:
                bar.update(report.done / report.total, f"{report.done:,} of {report.total:,} rows")
    except KeyboardInterrupt:
        console.tell(f"stopped; resume with:\n  {console.resume_line()}")
        raise typer.Exit(console.INTERRUPTED) from None
    finally:
        if searched is not None:
            searched.close()
    _show(audit(output, examples=examples), as_json=printing.as_json)


def _open_named(path: Path | None) -> Searchable | None:
    """Open an index that is there, all shards of it: what is not searched would give other negatives."""
    if path is None:
        return None
    from indexes import GatherOptions, open_index

    gathering = GatherOptions(require_all=True, seconds=None, connect=options.shard_servers())
    return open_index(path, gathering=gathering)


def _say_cut(index: Searchable) -> None:
    passages, documents = len(index), index.count_documents()
    if passages > documents:
        console.warn(
            f"{index.path}: {documents:,} documents are cut into {passages:,} passages. A row's positive is known by its whole text, "
            "so a passage of it is left out by the margin alone"
        )


def _say(loaded: MiningModels) -> None:
    encoder, cross_encoder = loaded.encoder, loaded.cross_encoder
    models.say_names(
        None if encoder is None else encoder.folder.name,
        None if cross_encoder is None else cross_encoder.folder.name,
    )
    models.say_choice(None if encoder is None else encoder.choice)
    models.say_choice(None if cross_encoder is None else cross_encoder.choice, what="reranker")


def _fill(loaded: MiningModels, index: Index, rows: Examples, *, corpus: list[str] | None) -> None:
    with console.progress_bar("index") as bar:
        for report in loaded.fill(index, rows, corpus):
            bar.update(report.fraction, f"{report.read:,} documents")


def _show(found: Any, *, as_json: bool) -> None:  # Any: mining.Audit, imported late
    from dataclasses import asdict

    if console.wants_json(as_json):
        console.print_json(asdict(found))
        return
    console.print_table(("measure", "value"), found.table())
    for suspect in found.suspects:
        console.note(
            f"\nquery      {suspect['query'][:200]}\npositive   {suspect['positive'][:200]}\n"
            f"candidate  {suspect['likely_positive'][:200]}\n           scores {suspect['exceeds_by']:+.3f} against the positive"
        )

"""`embedkit mine`: hard negatives for pairs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedkit.models import RERANKER
from embedkit.pipelines.models import MAXSIM

from .mine_options import By, Picking
from .mine_shards import mine_in_shards, say_cut
from .shared import console, models, options
from .shared.completing import complete_index, complete_reranker
from .shared.groups import grouped
from .shared.rows import RowReading
from .shared.sharding import Sharding

if TYPE_CHECKING:
    from embedkit.pipelines.mining import MiningModels
    from embedkit.training.rows.examples import Examples
    from indexes import Index

EXAMPLES = """\b
Examples:
  embedkit mine pairs.jsonl --output mined.jsonl
  embedkit mine squad --model FOLDER --by both --ranks 10-100 --relative-margin 0.05 --output mined.jsonl
  embedkit mine pairs.jsonl --by text --corpus documents/ --output mined.jsonl --rerank
  embedkit mine pairs.jsonl --index big.index --output mined.jsonl   # an index that is there, also in shards
  embedkit mine pairs.jsonl --index big.index --output mined.jsonl --shards 64   # or --executor ray
  embedkit train contrastive mined.jsonl --model encoder --output sentences --steps 1000
"""


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
    sharding: Sharding,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where the same command was stopped; with --shards it does so."),
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
    With --shards the rows are cut, and workers search that index; the output is the same.
    """
    from embedkit.distributed.mined_shards import open_whole
    from embedkit.distributed.requests import MiningWanted
    from embedkit.pipelines.mining import MiningModels
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
    own_index = output.with_name(output.name + ".index")
    if sharding.shards is not None:
        shown = mine_in_shards(
            data,
            rows,
            output,
            sharding,
            MiningWanted(
                recipe=recipe,
                by=by,
                index=str((named or own_index).resolve()),
                own=named is None,
                corpus=corpus or [],
                rerank=rerank,
                columns=reading.roles(),
            ),
            make_index=lambda: _make_index(
                MiningModels(by, computing, model=model, rerank=None), own_index, rows, corpus
            ).close(),
            model=model,
            computing=computing,
            read=reading.read(),
            as_json=console.wants_json(printing.as_json),
        )
        _show(output, shown, examples=examples, as_json=printing.as_json)
        return
    sharding.refuse_alone()
    searched = None if named is None else open_whole(named)
    try:
        loaded = MiningModels(by, computing, model=model, rerank=rerank, index=searched)
        _say(loaded)
        manifest = {"by": by, "corpus": corpus or [], **loaded.fingerprints()}
        if named is not None:
            manifest["index"] = str(named.resolve())
        if searched is not None:
            say_cut(searched)
        else:
            searched = _make_index(loaded, own_index, rows, corpus)
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
    _show(output, {}, examples=examples, as_json=printing.as_json)


def _say(loaded: MiningModels) -> None:
    encoder, cross_encoder = loaded.encoder, loaded.cross_encoder
    models.say_names(
        None if encoder is None else encoder.folder.name,
        None if cross_encoder is None else cross_encoder.folder.name,
    )
    models.say_choice(None if encoder is None else encoder.choice)
    models.say_choice(None if cross_encoder is None else cross_encoder.choice, what="reranker")


def _make_index(loaded: MiningModels, path: Path, rows: Examples, corpus: list[str] | None) -> Index:
    """Make the index of the corpus, or bring it up to date, and return it."""
    index = loaded.open_index(path)
    try:
        with console.progress_bar("index") as bar:
            for report in loaded.fill(index, rows, corpus):
                bar.update(report.fraction, f"{report.read:,} documents")
    except BaseException:
        index.close()
        raise
    return index


def _show(output: Path, more: dict[str, Any], *, examples: int, as_json: bool) -> None:  # Any: JSON
    from dataclasses import asdict

    from embedkit.training.mining.audit import audit

    found = audit(output, examples=examples)
    if console.wants_json(as_json):
        console.print_json(more | asdict(found))
        return
    console.print_table(("measure", "value"), found.table())
    for suspect in found.suspects:
        console.note(
            f"\nquery      {suspect['query'][:200]}\npositive   {suspect['positive'][:200]}\n"
            f"candidate  {suspect['likely_positive'][:200]}\n           scores {suspect['exceeds_by']:+.3f} against the positive"
        )

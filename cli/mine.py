"""`embedkit mine`: hard negatives for pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedkit.models import RERANKER

from .shared import computing, console, options
from .shared import models as which_model
from .shared.options import DeviceName, PrecisionName

if TYPE_CHECKING:
    from embedkit.data.records import Document
    from embedkit.encoding.encoder import Encoder
    from embedkit.training.mining.mining import Score, Search
    from embedkit.training.rows.examples import Examples
    from indexes import Index

EXAMPLES = """\b
Examples:
  embedkit mine pairs.jsonl --output mined.jsonl
  embedkit mine squad --model FOLDER --by both --ranks 10-100 --relative-margin 0.05 --output mined.jsonl
  embedkit mine pairs.jsonl --by text --corpus documents/ --output mined.jsonl --rerank
  embedkit train contrastive mined.jsonl --model encoder --output sentences --steps 1000
"""


class ByName(StrEnum):
    dense = "dense"
    text = "text"
    both = "both"


class PickName(StrEnum):
    top = "top"
    random = "random"


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
    model: options.SomeModel = None,
    by: Annotated[
        ByName, typer.Option("--by", help="Search by vectors, by words (BM25), or by both.")
    ] = ByName.dense,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus",
            metavar="INPUT",
            help="Documents to search; repeatable. Default: the positives of all rows.",
            show_default=False,
        ),
    ] = None,
    num_negatives: Annotated[
        int, typer.Option("--num-negatives", metavar="N", min=1, help="At most so many a row.")
    ] = 5,
    ranks: Annotated[
        str,
        typer.Option(
            "--ranks", metavar="FIRST-LAST", help="Ranks to take from, known positives not counted."
        ),
    ] = "1-50",
    margin: Annotated[
        float, typer.Option("--margin", help="A negative scores at least so much less than the positive.")
    ] = 0.0,
    relative_margin: Annotated[
        float | None,
        typer.Option(
            "--relative-margin",
            help="… or such a share of the positive's score less, as 0.05.",
            show_default=False,
        ),
    ] = None,
    no_margin: Annotated[bool, typer.Option("--no-margin", help="Compare no scores.")] = False,
    rerank: Annotated[
        str | None,
        typer.Option(
            "--rerank",
            metavar="[MODEL]",
            help=f"Cross-encoder whose scores the margins compare instead of cosines. Without a value: {RERANKER}.",
            show_default=False,
        ),
    ] = None,
    pick: Annotated[
        PickName, typer.Option("--pick", help="Take the nearest, or any of the window.")
    ] = PickName.top,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of --pick random.")] = 0,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="ROLE=NAME", help="Which column is what; repeatable.", show_default=False
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the same command was stopped.")
    ] = False,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Suspects to show in the report.")] = 3,
    device: options.Device = DeviceName.auto,
    precision: options.Precision = PrecisionName.auto,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Find documents that are near a query and are no answer to it: training on them teaches the most.

    What scores too near the positive is left out, for it is likely an answer, too; the report says how much that was, and shows
    where a row's positive looks wrong. The index of the corpus is kept at OUTPUT.index and used again.
    """
    from embedkit.training.mining.mining import MiningRecipe, audit
    from embedkit.training.mining.mining import mine as mine_rows
    from embedkit.training.rows.columns import parse_columns
    from embedkit.training.rows.examples import read_examples

    first, dash, last = ranks.partition("-")
    if not dash or not first.isdigit() or not last.isdigit():
        raise typer.BadParameter(f"--ranks is {ranks!r}; wanted FIRST-LAST, such as 10-100")
    try:
        recipe = MiningRecipe(
            num_negatives=num_negatives,
            first_rank=int(first),
            last_rank=int(last),
            margin=None if no_margin or (by == ByName.text and rerank is None and margin == 0) else margin,
            relative_margin=None if no_margin else relative_margin,
            pick=pick.value,
            seed=seed,
        )
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    rows = read_examples(
        data, columns=parse_columns(column or []), kinds=("triplets", "pairs"), purpose="mining"
    )
    tools = _Tools(by, model, rerank, device, precision)
    if not quiet:
        tools.say()
    index = tools.open_index(output.with_name(output.name + ".index"), rows, corpus, quiet)
    searches, score = tools.searches(index)
    manifest: dict[str, Any] = {
        "by": by.value,
        "corpus": corpus or [],
        **tools.fingerprints(),
    }  # Any: JSON values
    reports = mine_rows(rows, searches, score, recipe, output, manifest=manifest, resume=resume)
    try:
        with console.progress_bar("mine", quiet=quiet) as bar:
            for report in reports:
                bar.update(report.done / report.total, f"{report.done:,} of {report.total:,} rows")
    except KeyboardInterrupt:
        console.note(f"stopped; go on with:\n  {console.command_line().replace(' --resume', '')} --resume")
        raise typer.Exit(130) from None
    finally:
        index.close()
    _show(audit(output, examples=examples), as_json=as_json)


class _Tools:
    """The models that mining searches and measures with."""

    def __init__(
        self,
        by: ByName,
        model: str | None,
        rerank: str | None,
        device: DeviceName,
        precision: PrecisionName,
    ) -> None:
        from embedkit.encoding.encoder import Encoder
        from embedkit.reranking.cross_encoder import CrossEncoder

        self._by = by
        self.encoder: Encoder | None = None
        if by != ByName.text:
            self.encoder = Encoder.load(
                which_model.or_default(model), device=device.value, precision=precision.value
            )
        self._cross = None
        if rerank is not None:
            self._cross = CrossEncoder.load(rerank, device=device.value, precision=precision.value)

    def say(self) -> None:
        which_model.say(
            None if self.encoder is None else self.encoder.folder.name,
            None if self._cross is None else self._cross.folder.name,
        )
        computing.say(None if self.encoder is None else self.encoder.choice)
        computing.say(None if self._cross is None else self._cross.choice, what="reranker")

    def fingerprints(self) -> dict[str, Any]:  # Any: JSON values
        return {
            "model": None if self.encoder is None else self.encoder.fingerprint,
            "rerank": None if self._cross is None else self._cross.folder.name,
        }

    def open_index(self, path: Path, rows: Examples, corpus: Sequence[str] | None, quiet: bool) -> Index:
        """Open the index of the corpus, and bring it up to date: what is in it already is not encoded again."""
        import numpy as np

        from embedkit.data.reading import read_documents
        from indexes import Index, Settings
        from indexes import build as build_index

        encoder = self.encoder
        # By words alone there is nothing to encode: every document gets the same vector.
        settings = Settings(dimension=1, metric="dot")
        if encoder is not None:
            settings = Settings(dimension=encoder.dimension, fingerprint=encoder.fingerprint)
        is_there = (path / "index.sqlite").is_file()
        index = Index.open(path, writable=True) if is_there else Index.create(path, settings)
        index.check_encoder(None if encoder is None else encoder.fingerprint)

        def embed(texts: Sequence[str]) -> Any:  # Any: (N, E) float32
            if encoder is None:
                return np.ones((len(texts), 1), np.float32)
            return encoder.encode(texts, prompt=encoder.role_prompt("document"), on_truncate="ok")

        documents = _positives(rows) if corpus is None else read_documents(corpus)
        with console.progress_bar("index", quiet=quiet) as bar:
            for report in build_index(index, documents, embed=embed):
                bar.update(report.fraction, f"{report.read:,} documents")
        return index

    def searches(self, index: Index) -> tuple[list[Search], Score | None]:
        """Return the searches, and what the margins compare."""
        from embedkit.training.mining.cosine import CosineMeasure

        found: list[Search] = []
        score: Score | None = None
        if self.encoder is not None:
            measure = CosineMeasure(
                self.encoder.encode_queries,
                lambda texts: self._documents(texts),
                lambda vectors, depth: index.search(vectors, k=depth),
            )
            found.append(measure.search)
            score = measure.score
        if self._by != ByName.dense:
            found.append(lambda queries, depth: index.search_text(queries, k=depth))
        return found, score if self._cross is None else self._judge

    def _documents(self, texts: Sequence[str]) -> Any:  # Any: (N, E) float32
        assert self.encoder is not None
        return self.encoder.encode(texts, prompt=self.encoder.role_prompt("document"), on_truncate="ok")

    def _judge(self, queries: Sequence[str], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        assert self._cross is not None
        groups = list(zip(queries, texts, strict=True))
        return [[float(score) for score in scores] for scores in self._cross.score_groups(groups)]


def _positives(rows: Examples) -> Iterator[Document]:
    import numpy as np

    from embedkit.data.records import Document

    assert rows.second is not None
    for number in np.unique(rows.second).tolist():
        yield Document(f"positive-{number}", rows.texts[number], source=rows.name)


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

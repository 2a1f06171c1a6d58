"""`embedkit rerank`: candidates in, the same in a better order out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from embedkit.models import ENCODER, RERANKER, SHIPPED, shipped

from .shared import console, models, options
from .shared.completing import complete_model
from .shared.groups import grouped

if TYPE_CHECKING:
    from embedkit.reranking.cross_encoder import CrossEncoder
    from embedkit.reranking.maxsim import MaxSim
    from embedkit.reranking.requests import Answer, Request

EXAMPLES = """\b
Examples:
  embedkit rerank --top-k 10 < candidates.jsonl
  embedkit rerank candidates.jsonl --model FOLDER --budget 200ms
  embedkit rerank --run bm25.trec --queries queries.jsonl --documents corpus.jsonl > better.trec
  embedkit rerank candidates.jsonl --maxsim
  embedkit rerank candidates.jsonl --maxsim --model COLBERT
  embedkit rerank --calibrate held_out.tsv --model FOLDER
A line of input: {"query": "…", "candidates": [{"id": "…", "text": "…", "score": 0.7}, …]}
"""


Candidates = Annotated[
    int | None,
    typer.Option(
        "--candidates",
        metavar="N",
        min=1,
        help="Score the first N only; the rest follow in their order. Default: all.",
        show_default=False,
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(
        "--budget",
        metavar="TIME",
        parser=options.seconds,
        help="Score as deep as fits in so much time a query, such as 200ms or 1.5s.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class RerankInput:
    """What is reranked."""

    PANEL: ClassVar[str] = "A TREC run"

    run: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="FILE", help="TREC run to rerank instead of JSON lines.", show_default=False
        ),
    ] = None
    queries: Annotated[
        list[str] | None,
        typer.Option("--queries", metavar="FILE", help="Texts of the run's queries.", show_default=False),
    ] = None
    documents: Annotated[
        list[str] | None,
        typer.Option("--documents", metavar="FILE", help="Texts of the run's documents.", show_default=False),
    ] = None

    def requests(self, lines: str) -> Iterable[Request]:
        """Return the queries with their candidates, from the run or from JSON lines."""
        from embedkit.reranking.requests import requests_of_run

        if self.run is not None and lines != "-":
            raise typer.BadParameter(f"INPUT ({lines}) and --run exclude each other")
        if self.run is None:
            if self.queries or self.documents:
                raise typer.BadParameter("--queries and --documents go with --run")
            return _lines(lines)
        if not (self.queries and self.documents):
            raise typer.BadParameter("--run needs --queries and --documents, the texts it was made on")
        return requests_of_run(self.run, self.queries, self.documents)


@dataclass(frozen=True, kw_only=True)
class Depth:
    """How much is scored, and printed."""

    candidates: Candidates = None
    rerank_weight: options.RerankWeight = None
    budget: Budget = None
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            "-k",
            metavar="K",
            min=1,
            help="Print the best K only. Default: all.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What scores, and how."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            autocompletion=complete_model,
            help=f"Cross-encoder, or encoder or multi-vector model with --maxsim: a folder or name. Default: {RERANKER}, with --maxsim {ENCODER}.",
            show_default=False,
        ),
    ] = None
    maxsim: Annotated[
        bool, typer.Option("--maxsim", help="Score by the token vectors of an encoder (late interaction).")
    ] = False
    truncation: Annotated[
        Literal["second", "longest_first"] | None,
        typer.Option(
            "--truncation",
            rich_help_panel=options.TUNING,
            help="What a cross-encoder cuts where a pair is too long: the text, or the longer of both.",
            show_default="second",
        ),
    ] = None
    layers: Annotated[
        int | None,
        typer.Option(
            "--layers",
            rich_help_panel=options.TUNING,
            metavar="K",
            min=1,
            help="Score after K layers: faster, and good where the model was trained for it.",
            show_default=False,
        ),
    ] = None
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            rich_help_panel=options.TUNING,
            metavar="NAME",
            help="Of several labels, the one that means relevant.",
            show_default=False,
        ),
    ] = None
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Print calibrated probabilities as scores.")
    ] = False
    max_seq_length: options.MaxSeqLength = None

    def __post_init__(self) -> None:
        if self.maxsim and (self.probabilities or self.layers or self.label or self.truncation):
            raise ValueError(
                "--maxsim goes without --probabilities, --layers, --label and --truncation: it reads query and text apart"
            )

    def load(self, computing: options.ComputingOptions) -> CrossEncoder | MaxSim:
        from embedkit.checkpoint.multi_vector import is_multi_vector
        from embedkit.encoding.multi_vector import MultiVectorEncoder
        from embedkit.models import find_model
        from embedkit.pipelines.models import load_encoder
        from embedkit.reranking.cross_encoder import CrossEncoder
        from embedkit.reranking.maxsim import MaxSim

        if self.maxsim and self.model is not None and is_multi_vector(find_model(self.model)):
            limit = self.max_seq_length
            return MaxSim(MultiVectorEncoder.load(self.model, computing=computing, max_seq_length=limit))
        if self.maxsim:
            model = self.model or shipped(ENCODER)
            return MaxSim(load_encoder(model, computing, max_seq_length=self.max_seq_length))
        return CrossEncoder.load(
            self.model or shipped(RERANKER),
            device=computing.device,
            precision=computing.precision,
            force_precision=computing.force_precision,
            backend=computing.backend,
            max_seq_length=self.max_seq_length,
            truncation=self.truncation or "second",
            layers=self.layers,
            label=self.label,
            probabilities=self.probabilities,
        )


@grouped
def rerank(
    inputs: Annotated[
        str,
        typer.Argument(
            metavar="[INPUT]", help="JSON lines of queries with candidates, or - for standard input."
        ),
    ] = "-",
    *,
    given: RerankInput,
    scoring: Scoring,
    depth: Depth,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="FILE",
            help="Fit the model's calibration on held-out rows of query, text and label (0 or 1), and stop.",
            show_default=False,
        ),
    ] = None,
    computing: options.ComputingOptions,
    printing: options.Printing,
) -> None:
    """Reorder candidates by a model that reads query and text together.

    JSON lines come out as they went in, candidates in their new order, each with a `rerank_score` beside what it had, and where
    the first stage has a say by --rerank-weight and its `score`, the `final_score` they are ordered by. A
    TREC run comes out as a TREC run, or as JSON lines with --json. Nothing is dropped.
    """
    if calibrate is not None and (scoring.maxsim or given.run is not None or inputs != "-"):
        raise typer.BadParameter(
            "--calibrate reads FILE alone, for a cross-encoder: it goes without INPUT, --run and --maxsim"
        )
    from embedkit.reranking.cross_encoder import CrossEncoder
    from embedkit.reranking.requests import answer, trec_lines

    requests = given.requests(inputs)
    reranker = scoring.load(computing)
    if calibrate is not None and isinstance(reranker, CrossEncoder):
        _calibrate(reranker, calibrate, printing.as_json)
        return
    choice = reranker.choice if isinstance(reranker, CrossEncoder) else reranker.encoder.choice
    models.say_choice(choice)
    tally = _Tally(blend=depth.rerank_weight is not None)
    answers = answer(
        reranker,
        requests,
        candidates=depth.candidates,
        budget_seconds=depth.budget,
        weight=depth.rerank_weight,
    )
    with console.progress_bar("rerank", quiet=sys.stdout.isatty()) as bar:
        for reply in tally.count(answers):
            if given.run is not None and not printing.as_json:
                console.write_exactly(trec_lines(reply, top_k=depth.top_k))
            else:
                console.print_json(reply.row(depth.top_k))
            bar.update(None, f"{tally.queries:,} queries")
    sys.stdout.flush()
    tally.say(reranker)


def _lines(name: str) -> Iterator[Request]:
    from embedkit.errors import RecordError
    from embedkit.reranking.requests import read_requests

    console.say_waiting([name])
    if name == "-":
        yield from read_requests(sys.stdin.buffer, "stdin")
        return
    try:
        with Path(name).open("rb") as stream:
            yield from read_requests(stream, name)
    except OSError as exc:
        raise RecordError(f"{name}: cannot be read ({exc.strerror or exc}); check the path") from exc


class _Tally:
    """What to say at the end: how much was scored, what was not, and where nothing could be."""

    def __init__(self, *, blend: bool) -> None:
        """`blend` says that the first stage's part was asked for, and not only what the model's folder says."""
        self.queries = self.scored = self.beyond = self.empty = self.alone = 0
        self._blend = blend

    def count(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        for reply in answers:
            total = len(reply.request.texts)
            self.queries += 1
            self.scored += len(reply.scores)
            self.beyond += total - len(reply.scores)
            self.empty += total == 0
            # Candidates without any score are plain texts, which only the reranker can order.
            expected = self._blend or any("score" in row for row in reply.request.candidates)
            self.alone += bool(total) and expected and reply.weight < 1 and not reply.blended
            yield reply

    def say(self, reranker: CrossEncoder | MaxSim) -> None:
        from embedkit.reranking.cross_encoder import CrossEncoder

        console.note(
            f"{console.counted(self.queries, 'query')}, {console.counted(self.scored, 'candidate')} scored, model {reranker.name}"
        )
        if self.beyond:
            console.note(
                f"{self.beyond:,} candidates beyond --candidates or --budget follow in their old order"
            )
        if self.alone:
            console.note(
                f"note: in {self.alone:,} queries a candidate has no `score`, so the reranker alone decided their order"
            )
        if self.empty:
            console.note(f"note: {self.empty:,} queries had no candidates")
        counts = reranker.counts
        if counts.truncated:
            if isinstance(reranker, CrossEncoder):
                limit, what = reranker.folder.tokenizer.max_length, "the model reads"
            else:
                limit, what = reranker.max_length, "the model reads of a text"
            console.warn(
                f"{counts.truncated:,} of {counts.pairs:,} pairs were cut to the {limit} tokens that {what}"
                + (f", in {counts.cut_queries:,} of them the query" if counts.cut_queries else "")
            )


def _calibrate(model: CrossEncoder, path: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from embedkit.errors import OutputError, RecordError
    from embedkit.evaluation.similarity import read_columns
    from embedkit.reranking.calibration import FILE, fit_calibration, write_calibration

    folder = model.folder.path
    if model.folder.name in SHIPPED:
        raise OutputError(
            f"{model.folder.name}: the calibration lies in the model's folder, and this one belongs to the installation. "
            f"Copy the folder and calibrate the copy: cp -r {folder} COPY"
        )
    rows = read_columns(path, ("query", "text", "label"))
    labels = []
    for number, (_, _, label) in enumerate(rows, 1):
        if label not in ("0", "1"):
            raise RecordError(f"{path}: row {number}: label is {label!r}; it must be 0 or 1. Correct the row")
        labels.append(int(label))
    fitted = fit_calibration(model.log_odds([row[0] for row in rows], [row[1] for row in rows]), labels)
    write_calibration(folder, fitted)
    content: dict[str, Any] = {"file": str(folder / FILE)} | asdict(fitted)
    if console.wants_json(as_json):
        console.print_json(content)
    else:
        console.print_table(("measure", "value"), [(key, str(value)) for key, value in content.items()])

"""`embedkit rerank`: candidates in, the same in a better order out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedkit.models import ENCODER, RERANKER, SHIPPED, shipped

from .shared import computing, console, options
from .shared.options import DeviceName, PrecisionName

if TYPE_CHECKING:
    from embedkit.reranking.cross_encoder import CrossEncoder
    from embedkit.reranking.requests import Answer, Request
    from embedkit.retrieval.reranker import Reranker

EXAMPLES = """\b
Examples:
  embedkit rerank --top-k 10 < candidates.jsonl
  embedkit rerank candidates.jsonl --model FOLDER --budget 200ms
  embedkit rerank --run bm25.trec --queries queries.jsonl --documents corpus.jsonl > better.trec
  embedkit rerank candidates.jsonl --maxsim
  embedkit rerank --calibrate held_out.tsv --model FOLDER
A line of input: {"query": "…", "candidates": [{"id": "…", "text": "…", "score": 0.7}, …]}
"""


class TruncationName(StrEnum):
    second = "second"
    longest_first = "longest_first"


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
    str | None,
    typer.Option(
        "--budget",
        metavar="TIME",
        help="Score as deep as fits in so much time a query, such as 200ms or 1.5s.",
        show_default=False,
    ),
]


def rerank(
    inputs: Annotated[
        str,
        typer.Argument(
            metavar="[INPUT]", help="JSON lines of queries with candidates, or - for standard input."
        ),
    ] = "-",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help=f"Cross-encoder, or encoder with --maxsim: a folder or name. Default: {RERANKER}, with --maxsim {ENCODER}.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", metavar="FILE", help="TREC run to rerank instead of JSON lines.", show_default=False
        ),
    ] = None,
    queries: Annotated[
        list[str] | None,
        typer.Option("--queries", metavar="FILE", help="Texts of the run's queries.", show_default=False),
    ] = None,
    documents: Annotated[
        list[str] | None,
        typer.Option("--documents", metavar="FILE", help="Texts of the run's documents.", show_default=False),
    ] = None,
    candidates: Candidates = None,
    rerank_weight: options.RerankWeight = None,
    budget: Budget = None,
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
    ] = None,
    maxsim: Annotated[
        bool, typer.Option("--maxsim", help="Score by the token vectors of an encoder (late interaction).")
    ] = False,
    truncation: Annotated[
        TruncationName,
        typer.Option(
            "--truncation", help="What is cut where a pair is too long: the text, or the longer of both."
        ),
    ] = TruncationName.second,
    layers: Annotated[
        int | None,
        typer.Option(
            "--layers",
            metavar="K",
            min=1,
            help="Score after K layers: faster, and good where the model was trained for it.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            metavar="NAME",
            help="Of several labels, the one that means relevant.",
            show_default=False,
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Print calibrated probabilities as scores.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="FILE",
            help="Fit the model's calibration on held-out rows of query, text and label (0 or 1), and stop.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = DeviceName.auto,
    precision: options.Precision = PrecisionName.auto,
    force_precision: options.ForcePrecision = False,
    max_seq_length: options.MaxSeqLength = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Reorder candidates by a model that reads query and text together.

    JSON lines come out as they went in, candidates in their new order, each with a `rerank_score` beside what it had, and where
    the first stage has a say by --rerank-weight and its `score`, the `final_score` they are ordered by. A
    TREC run comes out as a TREC run, or as JSON lines with --json. Nothing is dropped.
    """
    if run is not None and not (queries and documents):
        raise typer.BadParameter("--run needs --queries and --documents, the texts it was made on")
    if run is None and (queries or documents):
        raise typer.BadParameter("--queries and --documents go with --run")
    if maxsim and (probabilities or calibrate or layers or label):
        raise typer.BadParameter("--maxsim goes without --probabilities, --calibrate, --layers and --label")
    seconds = budget_seconds(budget)
    from embedkit.reranking.cross_encoder import CrossEncoder
    from embedkit.reranking.maxsim import MaxSim
    from embedkit.reranking.requests import answer, requests_of_run, trec_lines

    requests: Iterable[Request] = ()
    if run is not None:
        requests = requests_of_run(run, queries or (), documents or ())
    reranker: CrossEncoder | MaxSim
    if maxsim:
        from embedkit.encoding.encoder import Encoder

        encoder = Encoder.load(
            model or shipped(ENCODER),
            device=device.value,
            precision=precision.value,
            force_precision=force_precision,
            max_seq_length=max_seq_length,
        )
        reranker, name = MaxSim(encoder), encoder.folder.name
    else:
        reranker = CrossEncoder.load(
            model or shipped(RERANKER),
            device=device.value,
            precision=precision.value,
            force_precision=force_precision,
            max_seq_length=max_seq_length,
            truncation=truncation.value,
            layers=layers,
            label=label,
            probabilities=probabilities,
        )
        name = reranker.folder.name
        if calibrate is not None:
            _calibrate(reranker, calibrate, as_json)
            return
    computing.say(reranker.encoder.choice if isinstance(reranker, MaxSim) else reranker.choice, quiet=quiet)
    tally = _Tally(top_k, blend=rerank_weight is not None)
    answers = answer(
        reranker,
        requests if run is not None else _lines(inputs),
        candidates=candidates,
        budget_seconds=seconds,
        weight=rerank_weight,
    )
    with console.progress_bar("rerank", quiet=quiet or sys.stdout.isatty()) as bar:
        for reply in tally.count(answers):
            if run is not None and not as_json:
                sys.stdout.write(trec_lines(reply, top_k=top_k))
            else:
                console.print_json(reply.row(top_k))
            bar.update(None, f"{tally.queries:,} queries")
    sys.stdout.flush()
    if not quiet:
        tally.say(reranker, name)


def budget_seconds(budget: str | None) -> float | None:
    """Turn the value of --budget into seconds, or end with wrong usage."""
    from embedkit.retrieval.reranking import parse_budget

    try:
        return None if budget is None else parse_budget(budget)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc


def _lines(name: str) -> Iterator[Request]:
    from embedkit.errors import RecordError
    from embedkit.reranking.requests import read_requests

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

    def __init__(self, top_k: int | None, *, blend: bool) -> None:
        """`blend` says that the first stage's part was asked for, and not only what the model's folder says."""
        self.queries = self.scored = self.beyond = self.empty = self.alone = 0
        self._top_k, self._blend = top_k, blend

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

    def say(self, reranker: Reranker, name: str) -> None:
        from embedkit.reranking.cross_encoder import CrossEncoder

        console.note(f"{self.queries:,} queries, {self.scored:,} candidates scored, model {name}")
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
        if isinstance(reranker, CrossEncoder) and reranker.counts.truncated:
            counts, limit = reranker.counts, reranker.folder.tokenizer.max_length
            console.note(
                f"warning: {counts.truncated:,} of {counts.pairs:,} pairs were cut to the {limit} tokens that the model reads"
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

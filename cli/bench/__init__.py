"""`embedkit bench`: how fast this machine is with this model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit.types import Precision, WantedRuntime

from ..evaluate.output import Tables
from ..shared import console, models, options
from ..shared.completing import complete_index
from ..shared.groups import grouped

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.throughput import Throughput

    from .search import Latency

EXAMPLES = """\b
Examples:
  embedkit bench
  embedkit bench --model FOLDER --index my.index --precision fp32 --precision bf16 --plot speed.png
"""


AUTO: WantedRuntime = "auto"
BENCHED: list[Precision] = ["fp32", "bf16", "int8"]


@dataclass(frozen=True, kw_only=True)
class Encodings:
    """What is measured of encoding: every precision with every backend, every length in every batch size."""

    precision: Annotated[
        list[Precision] | None,
        typer.Option(
            "--precision",
            help="Repeat for more. Default: fp32, bf16 and int8, where they are available.",
            show_default=False,
        ),
    ] = None
    backend: Annotated[
        list[WantedRuntime] | None,
        typer.Option(
            "--backend",
            help="What computes; repeat for more. Default: what every other command would take.",
            show_default=False,
        ),
    ] = None
    length: Annotated[
        list[int] | None,
        typer.Option(
            "--length",
            metavar="N",
            min=3,
            help="Tokens of a text; repeat for more.",
            show_default="16 64 256",
        ),
    ] = None
    batch: Annotated[
        list[int] | None,
        typer.Option(
            "--batch", metavar="N", min=1, help="Texts in a call; repeat for more.", show_default="1 32 256"
        ),
    ] = None
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=0.0, help="Time for each measurement of encoding.")
    ] = 1.0
    device: options.DeviceOption = "auto"
    merge_tokens: options.MergeTokens = None


@grouped
def bench(
    *,
    model: options.SomeModel = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            "-i",
            metavar="FOLDER",
            autocompletion=complete_index,
            help="Measure the search of this index. Default: one that is made for it.",
            show_default=False,
        ),
    ] = None,
    encodings: Encodings,
    vectors: Annotated[
        int, typer.Option("--vectors", metavar="N", min=1000, help="Size of the index that is made.")
    ] = 10_000,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Draw texts/s by length (.png, .svg, .pdf).", show_default=False
        ),
    ] = None,
    printing: Tables,
) -> None:
    """Measure encoding, search and cold start with your model on this machine.

    Times are medians (p50), and p95 for single queries. Other work on the machine slows what is measured here.
    """
    from embedkit.extras import load_extra
    from embedkit.pipelines.models import or_default
    from embedkit.storage.files import atomic_file

    drawing = load_extra("plot", purpose=f"drawing {plot}") if plot is not None else None
    encoding, encoder = _measure_encoding(or_default(model), encodings)
    latencies = _measure_search(encoder, index, vectors)
    if console.wants_json(printing.as_json) and not printing.as_markdown:
        _print_json(encoding, latencies, encoder.folder.name)
    else:
        models.say_names(encoder.folder.name)
        _print_tables(encoding, latencies, as_markdown=printing.as_markdown)
    if drawing is not None and plot is not None:
        lines = [
            (f"{each.backend} {each.precision}, batch {size}", *_points(each.found, size))
            for each in encoding
            for size in dict.fromkeys(found.batch for found in each.found)
        ]
        with atomic_file(plot) as stream:
            drawing.save_lines(lines, stream, name=plot.name, x_label="tokens in a text", y_label="texts/s")
        console.note(f"wrote {plot}")


@dataclass(frozen=True)
class _Encoding:
    """What was measured of one backend in one precision; the cosines are to the vectors of fp32."""

    precision: str
    backend: str
    cosine: float
    worst_cosine: float
    found: list[Throughput]


def _measure_encoding(model: str | Path, wanted: Encodings) -> tuple[list[_Encoding], Encoder]:
    """Return the figures of each precision with each backend, and the encoder in fp32, which merges nothing."""
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.throughput import measure_encoding
    from embedkit.errors import DeviceError
    from embedkit.inference.precision_measuring import cosines
    from embedkit.inference.sample import SAMPLE_TEXTS

    exact = Encoder.load(model, device=wanted.device)
    longest = exact.tokenizer.max_length
    if wanted.length is not None and max(wanted.length) > longest:
        raise typer.BadParameter(f"--length is {max(wanted.length)}; the model reads {longest} tokens")
    lengths = wanted.length or [size for size in (16, 64, 256) if size <= longest] or [longest]
    sizes = wanted.batch or [1, 32, 256]
    reference = exact.encode(SAMPLE_TEXTS, on_truncate="ok")
    measured: list[_Encoding] = []
    refused: DeviceError | None = None
    for precision, backend in product(wanted.precision or BENCHED, wanted.backend or [AUTO]):
        try:
            encoder = Encoder.load(
                model,
                device=wanted.device,
                precision=precision,
                backend=backend,
                merge_tokens=wanted.merge_tokens or 0.0,
            )
        except DeviceError as exc:
            refused = exc
            if wanted.precision is not None or wanted.backend is not None:
                console.note(f"left out: {exc}")
            continue  # not available here
        near = cosines(encoder.encode(SAMPLE_TEXTS, on_truncate="ok"), reference)
        several: list[Throughput] = []
        with console.progress_bar(f"encode {encoder.backend!r}") as bar:
            for each in measure_encoding(encoder, lengths=lengths, batches=sizes, seconds=wanted.seconds):
                several.append(each)
                # By tokens, which is what takes the time.
                done = sum(found.length * found.batch for found in several) / (sum(lengths) * sum(sizes))
                bar.update(done, f"{each.length} tokens: {each.texts_per_second:,.0f} texts/s")
        runtime = repr(encoder.backend).partition(" ")[0]
        measured.append(
            _Encoding(
                precision=encoder.precision,
                backend=runtime,
                cosine=float(near.mean()),
                worst_cosine=float(near.min()),
                found=several,
            )
        )
    if not measured and refused is not None:
        raise refused
    return measured, exact


def _measure_search(encoder: Encoder, index: Path | None, vectors: int) -> list[Latency]:
    from .search import KINDS, STARTED, measure_index, measure_made

    found = []
    expected = (len(KINDS) if index is None else 1) + 2 + len(STARTED)
    with console.progress_bar("search and start") as bar:
        for each in measure_made(encoder, vectors) if index is None else measure_index(encoder, index):
            found.append(each)
            bar.update(min(1.0, len(found) / expected), f"{each.what}: {each.p50:,.1f} ms")
    return found


def _points(several: list[Throughput], batch: int) -> tuple[list[int], list[float]]:
    """Return lengths and texts/s of one batch size."""
    chosen = [found for found in several if found.batch == batch]
    return [found.length for found in chosen], [found.texts_per_second for found in chosen]


def _print_json(encoding: list[_Encoding], latencies: list[Latency], model: str) -> None:
    from embedkit.evaluation.results import collect_provenance
    from embedkit.machine import cpu_name

    provenance = collect_provenance(command=console.command_words(), data=[])
    shared = {
        "model": model,
        "cpu": cpu_name(),
        "created": provenance.created,
        "versions": provenance.versions,
    }
    for measured in encoding:
        for found in measured.found:
            console.print_json(
                {
                    "what": "encode",
                    "precision": measured.precision,
                    "backend": measured.backend,
                    "cosine_to_fp32": measured.cosine,
                    "worst_cosine_to_fp32": measured.worst_cosine,
                    "tokens": found.length,
                    "batch": found.batch,
                    "ms": round(1000 * found.seconds, 3),
                    "texts_per_second": round(found.texts_per_second, 1),
                    "tokens_per_second": round(found.tokens_per_second, 1),
                    **shared,
                }
            )
    for each in latencies:
        console.print_json(
            {"what": each.what, "p50_ms": round(each.p50, 3), "p95_ms": round(each.p95, 3), **shared}
        )


def _print_tables(encoding: list[_Encoding], latencies: list[Latency], *, as_markdown: bool) -> None:
    from embedkit.evaluation.results import Table, to_markdown

    rates = (
        ("precision", "backend", "cosine to fp32", "tokens", "batch", "ms a call", "texts/s", "tokens/s"),
        tuple(
            (
                measured.precision,
                measured.backend,
                f"{measured.cosine:.5f}",
                str(found.length),
                str(found.batch),
                f"{1000 * found.seconds:,.1f}",
                f"{found.texts_per_second:,.0f}",
                f"{found.tokens_per_second:,.0f}",
            )
            for measured in encoding
            for found in measured.found
        ),
    )
    waiting = (
        ("what", "p50 ms", "p95 ms"),
        tuple((each.what, f"{each.p50:,.2f}", f"{each.p95:,.2f}") for each in latencies),
    )
    for header, cells in (rates, waiting):
        if as_markdown:
            console.say(to_markdown(Table(header, cells, frozenset())))
        else:
            console.print_table(header, cells)

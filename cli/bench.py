"""`embedkit bench`: how fast this machine is with this model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import console, options, which_model
from .evaluate_output import AsMarkdown
from .options import DeviceName, PrecisionName

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.throughput import Throughput

    from .bench_search import Latency

EXAMPLES = """\b
Examples:
  embedkit bench
  embedkit bench --model FOLDER --index my.index --precision fp32 --precision bf16 --plot speed.png --markdown
"""


def bench(
    model: options.SomeModel = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            "-i",
            metavar="FOLDER",
            help="Measure the search of this index. Default: one that is made for it.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        list[PrecisionName] | None,
        typer.Option(
            "--precision",
            help="Repeat for more. Default: fp32, and bf16 where it is fast.",
            show_default=False,
        ),
    ] = None,
    length: Annotated[
        list[int] | None,
        typer.Option(
            "--length",
            metavar="N",
            min=3,
            help="Tokens of a text; repeat for more.",
            show_default="16 64 256",
        ),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            "--batch", metavar="N", min=1, help="Texts in a call; repeat for more.", show_default="1 32 256"
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="S", min=0.0, help="Time for each measurement of encoding.")
    ] = 1.0,
    vectors: Annotated[
        int, typer.Option("--vectors", metavar="N", min=1000, help="Size of the index that is made.")
    ] = 10_000,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Draw texts/s by length (.png, .svg, .pdf).", show_default=False
        ),
    ] = None,
    device: options.Device = DeviceName.auto,
    as_json: options.AsJson = False,
    as_markdown: AsMarkdown = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure encoding, search and cold start with your model on this machine.

    Times are medians (p50), and p95 for single queries. Other work on the machine slows what is measured here.
    """
    from embedkit.extras import load_extra

    if as_json and as_markdown:
        raise typer.BadParameter("--json and --markdown exclude each other")
    drawing = load_extra("plot", purpose=f"drawing {plot}") if plot is not None else None
    chosen = which_model.or_default(model)
    encoding, encoder = _measure_encoding(chosen, precision, device, length, batch, seconds, quiet=quiet)
    latencies = _measure_search(encoder, index, vectors, quiet=quiet)
    rows = [
        (each_precision, repr(backend).partition(" ")[0], found)
        for each_precision, backend, several in encoding
        for found in several
    ]
    if as_json or (console.wants_json(as_json) and not as_markdown):
        _print_json(rows, latencies, encoder.folder.name)
    else:
        which_model.say(encoder.folder.name)
        _print_tables(rows, latencies, as_markdown=as_markdown)
    if drawing is not None and plot is not None:
        lines = [
            (f"{name}, batch {size}", *_points(several, size))
            for name, _, several in encoding
            for size in dict.fromkeys(found.batch for found in several)
        ]
        drawing.save_lines(lines, plot, x_label="tokens in a text", y_label="texts/s")
        console.note(f"wrote {plot}")


def _measure_encoding(
    model: str | Path,
    precisions: list[PrecisionName] | None,
    device: DeviceName,
    lengths: list[int] | None,
    batches: list[int] | None,
    seconds: float,
    *,
    quiet: bool,
) -> tuple[list[tuple[str, object, list[Throughput]]], Encoder]:
    """Return precision, backend and figures of each, and the encoder of the first."""
    from embedkit.encoding.devices import BF16_FLAGS, cpu_flags
    from embedkit.encoding.encoder import Encoder
    from embedkit.encoding.throughput import measure_encoding

    if precisions is None:
        has_bf16 = device not in (DeviceName.auto, DeviceName.cpu) or cpu_flags() & set(BF16_FLAGS)
        precisions = [PrecisionName.fp32, *([PrecisionName.bf16] if has_bf16 else [])]
    found: list[tuple[str, object, list[Throughput]]] = []
    encoders = []
    for precision in precisions:
        encoder = Encoder.load(model, device=device.value, precision=precision.value)
        encoders.append(encoder)
        longest = encoder.tokenizer.max_length
        if lengths is not None and max(lengths) > longest:
            raise typer.BadParameter(f"--length is {max(lengths)}; the model reads {longest} tokens")
        wanted = lengths or [size for size in (16, 64, 256) if size <= longest] or [longest]
        several: list[Throughput] = []
        with console.progress_bar(f"encode {precision.value}", quiet=quiet) as bar:
            for each in measure_encoding(
                encoder, lengths=wanted, batches=batches or [1, 32, 256], seconds=seconds
            ):
                several.append(each)
                total = len(wanted) * len(batches or [1, 32, 256])
                bar.update(
                    len(several) / total, f"{each.length} tokens: {each.texts_per_second:,.0f} texts/s"
                )
        found.append((precision.value, encoder.backend, several))
    return found, encoders[0]


def _measure_search(encoder: Encoder, index: Path | None, vectors: int, *, quiet: bool) -> list[Latency]:
    from .bench_search import measure_index, measure_made

    found = []
    with console.progress_bar("search and start", quiet=quiet) as bar:
        for each in measure_made(encoder, vectors) if index is None else measure_index(encoder, index):
            found.append(each)
            bar.update(None, f"{each.what}: {each.p50:,.1f} ms")
    return found


def _points(several: list[Throughput], batch: int) -> tuple[list[int], list[float]]:
    """Return lengths and texts/s of one batch size."""
    chosen = [found for found in several if found.batch == batch]
    return [found.length for found in chosen], [found.texts_per_second for found in chosen]


def _print_json(rows: list[tuple[str, str, Throughput]], latencies: list[Latency], model: str) -> None:
    from embedkit.encoding.devices import cpu_name
    from embedkit.evaluation.results import collect_provenance

    provenance = collect_provenance(command=console.command_words(), data=[])
    shared = {
        "model": model,
        "cpu": cpu_name(),
        "created": provenance.created,
        "versions": provenance.versions,
    }
    for precision, backend, found in rows:
        console.print_json(
            {
                "what": "encode",
                "precision": precision,
                "backend": backend,
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


def _print_tables(
    rows: list[tuple[str, str, Throughput]], latencies: list[Latency], *, as_markdown: bool
) -> None:
    from embedkit.evaluation.results import Table, to_markdown

    encoding = (
        ("precision", "backend", "tokens", "batch", "ms a call", "texts/s", "tokens/s"),
        tuple(
            (
                precision,
                backend,
                str(found.length),
                str(found.batch),
                f"{1000 * found.seconds:,.1f}",
                f"{found.texts_per_second:,.0f}",
                f"{found.tokens_per_second:,.0f}",
            )
            for precision, backend, found in rows
        ),
    )
    waiting = (
        ("what", "p50 ms", "p95 ms"),
        tuple((each.what, f"{each.p50:,.2f}", f"{each.p95:,.2f}") for each in latencies),
    )
    for header, cells in (encoding, waiting):
        if as_markdown:
            typer.echo(to_markdown(Table(header, cells, frozenset())))
        else:
            console.print_table(header, cells)

"""`embedkit generate`: a text for each text, such as queries for passages, or how texts go on."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .shared import console, options
from .shared.generating import Generating
from .shared.groups import grouped

if TYPE_CHECKING:
    from embedkit.data.reading import DocumentReader
    from embedkit.generation.generator import Generator
    from embedkit.generation.job import Form, GeneratedFor, GenerateOptions, GenerateProgress

EXAMPLES = """\b
Examples:
  embedkit generate passages.jsonl --model generator --output queries.jsonl
  embedkit generate passages.jsonl -m generator -o pairs.jsonl --as pairs --num-queries 3 --drop-copies
  echo "The city lies on a river." | embedkit generate - --model generator
  echo "Once upon a time" | embedkit generate - --model lm --method sample --top-p 0.9 --seed 7
"""
# A text is shown by its beginning.
SHOWN = 70


@grouped
def generate(
    inputs: options.Inputs,
    *,
    model: options.Model,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=".jsonl or .txt. Default: standard output.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        Literal["outputs", "pairs", "lines"] | None,
        typer.Option(
            "--as",
            help="JSON of a text's id and outputs; JSON of query and positive, to train on; or plain lines. "
            "Default: outputs, for a .txt file lines.",
            show_default=False,
        ),
    ] = None,
    drop_copies: Annotated[
        bool,
        typer.Option(
            "--drop-copies", help="Leave out outputs that copy their text or repeat another output of it."
        ),
    ] = False,
    generating: Generating,
    max_source_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-source-tokens",
            rich_help_panel=options.TUNING,
            metavar="N",
            min=3,
            help="Tokens read of each text by an encoder–decoder. Default: the model's own.",
            show_default=False,
        ),
    ] = None,
    device: options.DeviceOption = "auto",
    reading: options.Reading,
    printing: options.Printing,
) -> None:
    """Generate texts: queries for passages, a text for any text, or how a text goes on.

    An encoder–decoder writes for each text, a language model continues it. A title is put before its text. Memory does not grow
    with the input. With --output, stopped at any moment, the same command goes on where it was and ends with the same bytes.
    """
    from embedkit.data.reading import DocumentReader
    from embedkit.encoding.draft import check_output
    from embedkit.generation.generator import Generator
    from embedkit.generation.job import FORMS, OUTPUTS, GenerateOptions

    if output is not None:
        check_output(output, content=OUTPUTS, forms=FORMS)  # before the model is loaded, which takes longer
    reader = DocumentReader(inputs, reading)
    console.say_waiting(inputs)
    generator = Generator.load(model, device=device, max_source_tokens=max_source_tokens)
    wanted = GenerateOptions(generation=generator.options(asdict(generating)), drop_copies=drop_copies)
    if output is None:
        _to_stdout(generator, reader, wanted, form, printing)
    else:
        _to_file(generator, reader, wanted, output, form, printing)


def _to_file(
    generator: Generator,
    reader: DocumentReader,
    wanted: GenerateOptions,
    output: Path,
    form: Form | None,
    printing: options.Printing,
) -> None:
    from embedkit.generation.job import GenerateProgress, generate_to_file

    report = GenerateProgress()
    chosen = form or ("lines" if output.suffix == ".txt" else "outputs")
    try:
        with console.progress_bar("generate") as bar:
            for report in generate_to_file(generator, reader, output, wanted, form=chosen):
                bar.update(reader.fraction(), _rate(report))
    except KeyboardInterrupt:
        console.tell(
            f"interrupted after {report.texts:,} texts; resume with the same command:\n  {console.command_line()}"
        )
        raise typer.Exit(console.INTERRUPTED) from None
    if printing.as_json:
        console.print_json({"output": str(output), "model": generator.folder.name, **asdict(report)})
    else:
        _say(report, generator, str(output), wanted)


def _to_stdout(
    generator: Generator,
    reader: DocumentReader,
    wanted: GenerateOptions,
    form: Form | None,
    printing: options.Printing,
) -> None:
    from embedkit.generation.job import GenerateProgress, add, generate_stream, lines_of

    report = GenerateProgress()
    for_people = form is None and not console.wants_json(printing.as_json)
    with console.stream_bar("generate") as bar:
        for window, counts in generate_stream(generator, reader, wanted):
            report = add(report, counts)
            for each in window:
                if for_people:
                    _show(each, generator)
                    continue
                for line in lines_of(each, form or "outputs"):
                    if form == "lines":
                        console.write_exactly(line)
                    else:
                        console.write_json(line)
            bar.update(reader.fraction(), f"{report.texts:,} texts")
    sys.stdout.flush()
    _say(report, generator, "standard output", wanted)


def _show(generated: GeneratedFor, generator: Generator) -> None:
    """Show a text's beginning and under it its outputs; of a prompt its end, since the output goes on there."""
    from embedkit.encoding.job import document_text

    text = " ".join(document_text(generated.document).split())
    if generator.is_language_model:
        for output in generated.outputs:
            console.say(f"{'…' if len(text) > SHOWN else ''}{text[-SHOWN:]} ▸{output.text}")
        return
    console.say(text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…")
    for output in generated.outputs:
        console.say(f"  {output.score:6.2f}  {output.text}")


def _rate(report: GenerateProgress) -> str:
    if not report.seconds:
        return f"going on after {report.texts:,} texts" if report.texts else ""
    return f"{report.texts:,} texts  {report.texts_per_second:,.1f} texts/s"


def _say(report: GenerateProgress, generator: Generator, output: str, wanted: GenerateOptions) -> None:
    counted = console.counted
    resumed = f", of which {report.resumed_at:,} before" if report.resumed_at else ""
    speed = f" in {report.seconds:,.1f} s ({report.texts_per_second:,.1f} texts/s)" if report.seconds else ""
    console.note(
        f"{counted(report.texts, 'text')}{resumed}, {counted(report.outputs, 'output')} of {counted(report.tokens, 'token')}"
        f"{speed} -> {output}, model {generator.folder.name}"
    )
    if report.truncated:
        console.warn(
            f"{counted(report.truncated, 'text')} cut to the tokens that the model reads; the first is {report.first_truncated}"
        )
    if report.empty and not generator.is_language_model:
        console.warn(
            f"{counted(report.empty, 'text')} empty and without an output; the first is {report.first_empty}"
        )
    if report.unknown:
        console.warn(
            f"{counted(report.unknown, 'text')} of which more than a fifth of the tokens are unknown to the model; the first is "
            f"{report.first_unknown}. It may be in another language than the model knows"
        )
    _say_outputs(report, generator, wanted)


def _say_outputs(report: GenerateProgress, generator: Generator, wanted: GenerateOptions) -> None:
    counted = console.counted
    if report.copied or (report.repeated and wanted.drop_copies):
        done = "left out" if wanted.drop_copies else "kept; leave them out with --drop-copies"
        repeated = f" and {report.repeated:,} that repeat another" if report.repeated else ""
        console.note(f"note: {counted(report.copied, 'output')} that copy their text{repeated}: {done}")
    if report.unfinished and not generator.is_language_model:
        console.note(
            f"note: {counted(report.unfinished, 'output')} stopped at the limit of {wanted.generation.max_new_tokens} tokens "
            "(--max-new-tokens)"
        )

"""`embedkit train tokenizer`: a vocabulary from texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..shared import console, options
from ..shared.groups import grouped

if TYPE_CHECKING:
    from embedkit.data.reading import DocumentReader

EXAMPLES = """\b
Examples:
  embedkit train tokenizer corpus.jsonl.zst --output tokenizer --vocab-size 16384
  embedkit train tokenizer 'books/*.txt' -o tokenizer --vocab-size 32000 --algorithm bpe --cased
"""


@grouped
def train_tokenizer(
    inputs: options.Inputs,
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="New folder for the tokenizer.", show_default=False
        ),
    ],
    vocab_size: Annotated[
        int, typer.Option("--vocab-size", metavar="N", min=10, help="Tokens, special ones included.")
    ] = 30_522,
    algorithm: Annotated[
        Literal["wordpiece", "bpe", "unigram"],
        typer.Option(
            "--algorithm", help="wordpiece as in BERT, byte-level bpe as in RoBERTa, unigram as in XLM-R."
        ),
    ] = "wordpiece",
    cased: Annotated[bool, typer.Option("--cased", help="Keep upper and lower case apart.")] = False,
    max_length: Annotated[
        int, typer.Option("--max-length", metavar="N", min=8, help="Longest sequence of models that use it.")
    ] = 512,
    reading: options.Reading,
    printing: options.Printing,
) -> None:
    """Train a tokenizer and report how it does on held-out texts.

    One text in a hundred (2,000 at most) is held out. Fertility is tokens per word; words are what white space separates.
    """
    from embedkit.data.reading import DocumentReader
    from embedkit.storage.files import new_folder
    from embedkit.tokenization import train

    smallest = train.smallest_vocabulary(algorithm)
    if vocab_size < smallest:
        raise typer.BadParameter(f"{algorithm} needs at least {smallest}", param_hint="--vocab-size")
    reader = DocumentReader(inputs, reading)
    with new_folder(output) as folder, console.progress_bar("train tokenizer") as bar:
        tokenizer, report = train.train_tokenizer(
            _watched(reader, bar),
            algorithm=algorithm,
            vocab_size=vocab_size,
            lowercase=not cased,
            max_length=max_length,
        )
        tokenizer.save(folder)
    if console.wants_json(printing.as_json):
        console.print_json(
            {"output": str(output), **{key: _finite(value) for key, value in asdict(report).items()}}
        )
        return
    rows = [
        ("vocabulary", f"{report.vocab_size:,}"),
        ("texts trained on", f"{report.texts:,}"),
        ("texts held out", f"{report.held_out_texts:,}"),
        ("words in them", f"{report.held_out_words:,}"),
        ("fertility (tokens per word)", _shown(report.fertility, ".3f")),
        ("words that are one token", _shown(report.whole_words, ".2%")),
        ("words covered", _shown(report.coverage, ".2%")),
        ("unknown tokens", _shown(report.unknown_rate, ".4%")),
    ]
    console.print_table(("measure", "value"), rows, title=f"{output}")
    if not report.held_out_texts:
        console.note(
            f"note: one text in {train.HELD_OUT_EVERY} is held out to measure on, and there are only {report.texts:,}"
        )


def _watched(reader: DocumentReader, bar: console.Bar) -> Iterator[str]:
    """Hand on the texts, and show how many were read."""
    from embedkit.tokenization.train import texts_of

    for number, text in enumerate(texts_of(reader), 1):
        yield text
        if number % 100 == 0:
            bar.update(reader.fraction(), f"{number:,} texts")


def _shown(value: float, form: str) -> str:
    return "-" if _finite(value) is None else format(value, form)


def _finite(value: float) -> float | None:
    """JSON knows no NaN: what was not measured is null."""
    return None if value != value else value

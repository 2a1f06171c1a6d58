"""The texts that models are trained on, tokenized once into a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..shared import console

if TYPE_CHECKING:
    from embedkit.data.records import ReadOptions
    from embedkit.tokenization.tokenizer import Tokenizer
    from embedkit.training.engine.ranks import Ranks
    from embedkit.training.pretraining.corpus import Corpus

FreshTokenizer = Annotated[
    Path | None,
    typer.Option("--tokenizer", "-t", metavar="DIR", help="Tokenizer of a fresh model.", show_default=False),
]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        envvar="EMBEDKIT_CACHE",
        help="Where token caches lie. Default: ~/.cache/embedkit.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Texts:
    """What is read, and where its tokens are kept."""

    inputs: Sequence[str]
    reading: ReadOptions
    cache: Path | None
    quiet: bool


def open_texts(texts: Texts, tokenizer: Tokenizer, ranks: Ranks) -> Corpus:
    """Open the token cache of these inputs; rank 0 makes it where there is none."""
    from embedkit.training.pretraining.corpus import (
        build_corpus,
        corpus_fingerprint,
        corpus_folder,
        open_corpus,
    )

    fingerprint = corpus_fingerprint(texts.inputs, texts.reading, tokenizer)
    folder = corpus_folder(texts.cache, fingerprint)
    if ranks.first and not folder.exists():
        with console.progress_bar("tokenize", quiet=texts.quiet) as bar:
            for progress in build_corpus(
                texts.inputs, texts.reading, tokenizer, target=folder, fingerprint=fingerprint
            ):
                bar.update(progress.fraction, f"{progress.documents:,} documents  {progress.tokens:,} tokens")
    ranks.wait()
    return open_corpus(folder)

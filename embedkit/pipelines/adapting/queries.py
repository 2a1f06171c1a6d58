"""The first stage: documents become passages, and these queries to learn from and to measure with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from embedkit.data.reading import DocumentReader
from embedkit.data.records import Document
from embedkit.errors import TrainingError
from embedkit.generation.generator import Generator
from embedkit.generation.job import GenerateOptions, generate_to_file
from embedkit.pipelines.adapting.folder import AdaptFolder, read_json, read_rows, write_counts, write_rows
from embedkit.pipelines.adapting.pairs import (
    LEAST_PASSAGES,
    Passages,
    clear_pairs,
    cut,
    derived_pairs,
    generated_pairs,
    part_pairs,
)
from embedkit.pipelines.adapting.recipe import AdaptRecipe, Progress, Sources
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import Device


def _cut(sources: Sources, tokenizer: Tokenizer) -> Passages:
    """Read and cut the documents.

    Raises:
        RecordError: a file cannot be read.
        TrainingError: there are too few passages.
    """
    found = cut(DocumentReader(sources.inputs, sources.reading), tokenizer)
    if len(found.passages) < LEAST_PASSAGES:
        documents, passages = found.documents, len(found.passages)
        raise TrainingError(
            f"{documents:,} document{'s' * (documents != 1)} of {passages:,} different passage{'s' * (passages != 1)}: too little to adapt to. "
            f"At least {LEAST_PASSAGES} passages are needed, since some are held out to measure whether it helps. Give more documents, or use "
            "the model as it is"
        )
    return found


def derive(
    folder: AdaptFolder, sources: Sources, recipe: AdaptRecipe, tokenizer: Tokenizer
) -> Iterator[Progress]:
    """Write passages, queries to learn from and held-out ones.

    Raises:
        RecordError, TrainingError: a file cannot be read, or there are too few documents or queries.
    """
    yield Progress("queries", None, "reading documents")
    found = _cut(sources, tokenizer)
    write_rows(folder.passages, map(_passage_row, found.passages))
    derived = derived_pairs(found.passages, recipe.seed)
    pairs = list(derived.pairs)
    kinds: dict[str, int] = dict(derived.counts)
    counts = {
        "documents": found.documents,
        "repeated_documents": found.repeated,
        "passages": len(found.passages),
        "unknown": found.unknown,
        "first_unknown": found.first_unknown,
        "passages_without": derived.without,
        "queries": kinds,
        "copies": 0,
        "unknown_to_generator": 0,
    }
    if sources.generator is not None:
        if not folder.generated.is_file():
            yield from _generate(folder, sources.generator, sources.computing.device)
        said = read_json(folder.generation)
        counts |= {"copies": said["copied"], "unknown_to_generator": said["unknown"]}
        written = list(generated_pairs(read_rows(folder.generated), found.passages))
        kinds["generated"] = len(written)
        pairs += written
    clear, left_out = clear_pairs(pairs)
    counts["ambiguous"] = derived.left_out + left_out
    train, held_out = part_pairs(clear, recipe)
    write_rows(folder.pairs, map(asdict, train))
    if recipe.steps:
        write_rows(folder.train, map(asdict, train[: recipe.train_queries]))
    write_rows(folder.held_out, map(asdict, held_out))
    write_counts(folder.derived, counts | {"train": len(train), "held_out": len(held_out)})


def _generate(folder: AdaptFolder, name: str, device: Device) -> Iterator[Progress]:
    """Let a generator write queries for the passages; what copies its passage is left out and counted."""
    generator = Generator.load(name, device=device)
    options = GenerateOptions(generation=generator.options(), drop_copies=True)
    reader = DocumentReader([str(folder.passages)])
    # Copies are counted before the queries stand under their own name: what is there is whole.
    for report in generate_to_file(generator, reader, folder.generated, options, form="pairs"):
        if not report.done:
            write_counts(folder.generation, asdict(report))
        yield Progress("generate", reader.fraction(), f"{report.texts:,} passages")


def _passage_row(passage: Document) -> dict[str, object]:
    return {"id": passage.doc_id, "title": passage.title, "text": passage.text, **passage.metadata}


def told(counts: Mapping[str, Any]) -> str:  # Any: numbers and a place
    """Say what the documents gave, in a line."""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts["queries"].items() if count)
    return (
        f"{counts['documents']:,} documents, {counts['passages']:,} passages; queries by {kinds}; "
        f"{counts['train']:,} to learn from, {counts['held_out']:,} held out"
    )

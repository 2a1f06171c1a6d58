"""`embedkit pairs`: what is alike within a collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .shared import console, models, options
from .shared.completing import complete_index
from .shared.groups import grouped

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embedkit.data.reading import DocumentReader
    from embedkit.encoding.encoder import Encoder

EXAMPLES = """\b
Examples:
  embedkit pairs sentences.txt --top-k 20
  embedkit pairs articles.jsonl --dedup 0.95 --json > duplicates.jsonl
  embedkit pairs --index my.index --cluster 50
"""


@dataclass(frozen=True)
class _Collection:
    """Texts, their ids, and their vectors (N, E)."""

    ids: Sequence[str]
    texts: Sequence[str]
    vectors: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is looked for: the most similar pairs, duplicates, or one of two kinds of groups."""

    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="K", min=1, help="Most similar pairs to show.")
    ] = 10
    min_score: Annotated[
        float, typer.Option("--min-score", metavar="S", help="Leave out pairs below this cosine.")
    ] = -1.0
    dedup: Annotated[
        float | None,
        typer.Option(
            "--dedup",
            metavar="S",
            min=-1.0,
            max=1.0,
            help="Instead: every text with a cosine of S or more to an earlier one that stays.",
            show_default=False,
        ),
    ] = None
    communities: Annotated[
        float | None,
        typer.Option(
            "--communities",
            metavar="S",
            min=-1.0,
            max=1.0,
            help="Instead: groups of texts within a cosine of S of a central one.",
            show_default=False,
        ),
    ] = None
    cluster: Annotated[
        int | None,
        typer.Option(
            "--cluster", metavar="N", min=2, help="Instead: N clusters by k-means.", show_default=False
        ),
    ] = None
    min_size: Annotated[int, typer.Option("--min-size", metavar="N", min=2, help="Smallest community.")] = 5


@grouped
def pairs(
    inputs: options.SomeInputs = None,
    *,
    model: options.SomeModel = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            "-i",
            metavar="FOLDER",
            autocompletion=complete_index,
            help="Take the texts and vectors of an index in place of INPUT.",
            show_default=False,
        ),
    ] = None,
    wanted: Wanted,
    computing: options.ComputingOptions,
    reading: options.Reading,
    printing: options.Printing,
) -> None:
    """Find the most similar pairs in a collection, near-duplicates, or clusters.

    The full similarity matrix is never built. Equal texts are pairs of cosine 1; blank ones are left out.
    """
    from embedkit.pipelines.models import load_encoder, or_default

    if sum(choice is not None for choice in (wanted.dedup, wanted.communities, wanted.cluster)) > 1:
        raise typer.BadParameter("--dedup, --communities and --cluster exclude each other")
    if (index is None) == (not inputs):
        raise typer.BadParameter("name an INPUT, or --index, and not both")
    if index is not None:
        collection = _from_index(index)
    else:
        from embedkit.data.reading import DocumentReader

        reader = DocumentReader(inputs or [], reading)
        console.say_waiting(inputs or [])
        encoder = load_encoder(or_default(model), computing)
        models.say_choice(encoder.choice)
        collection = _encode(reader, encoder)
    json_lines = console.wants_json(printing.as_json)
    if wanted.communities is not None or wanted.cluster is not None:
        _print_clusters(collection, wanted, as_json=json_lines)
    else:
        _print_pairs(collection, wanted, as_json=json_lines)


def _encode(reader: DocumentReader, encoder: Encoder) -> _Collection:
    import numpy as np

    from embedkit.encoding.job import (
        EncodeOptions,
        EncodeProgress,
        count_window,
        document_text,
        encode_stream,
    )

    ids: list[str] = []
    texts: list[str] = []
    parts = [np.empty((0, encoder.dimension), np.float32)]
    empty, unknown = [np.empty(0, np.bool_)], [np.empty(0, np.bool_)]
    report = EncodeProgress()
    with console.progress_bar("encode") as bar:
        for documents, window in encode_stream(encoder, reader, EncodeOptions()):
            report = count_window(report, documents, window)
            ids += [document.doc_id for document in documents]
            texts += [document_text(document) for document in documents]
            parts.append(window.embeddings)
            empty.append(window.empty)
            unknown.append(window.unknown)
            bar.update(reader.fraction(), f"{report.texts:,} texts")
    texts_read, tokens = console.counted(report.texts, "text"), console.counted(report.tokens, "token")
    console.note(f"{texts_read}, {tokens}, model {encoder.folder.name}")
    if report.truncated:
        console.warn(
            f"{console.counted(report.truncated, 'text')} cut to the {encoder.tokenizer.max_length} tokens that the model reads"
        )
    if report.empty:
        console.warn(
            f"{console.counted(report.empty, 'text')} empty or without tokens for this model; the first is {report.first_empty}"
        )
    models.say_unknown(report.unknown, "text", report.first_unknown)
    vectors = np.concatenate(parts)
    # Empty texts are like each other and like no text, as an index has it, zeros have no cosine at all, and those of unknown words
    # have one that means nothing.
    useless = np.concatenate(empty) | np.concatenate(unknown)
    kept = np.flatnonzero(vectors.any(axis=1) & ~useless)
    if len(kept) < len(vectors):
        left_out = console.counted(len(vectors) - len(kept), "text")
        console.note(f"left out: {left_out} without tokens that the model knows")
        ids, texts = [ids[at] for at in kept], [texts[at] for at in kept]
    return _Collection(ids, texts, vectors[kept])


def _from_index(path: Path) -> _Collection:
    import numpy as np

    from indexes import Index, living_texts

    with Index.open(path) as index:
        ids, texts, vectors = living_texts(index)
    console.note(f"{console.counted(len(ids), 'passage')} of {path}")
    return _Collection(ids, texts, np.ascontiguousarray(vectors))


def _print_pairs(collection: _Collection, wanted: Wanted, *, as_json: bool) -> None:
    from indexes import duplicates, similar_pairs

    if wanted.dedup is not None:
        found = duplicates(collection.vectors, threshold=wanted.dedup)
        console.note(
            f"{len(found):,} of {len(collection.ids):,} texts may go: each is within {wanted.dedup} of one that stays"
        )
    else:
        found = similar_pairs(collection.vectors, k=wanted.top_k, min_score=wanted.min_score)
    names = ("keep", "drop") if wanted.dedup is not None else ("first", "second")
    if as_json:
        for pair in found:
            sides = ((names[0], pair.first), (names[1], pair.second))
            console.print_json(
                {
                    "score": pair.score,
                    **{name: {"id": collection.ids[at], "text": collection.texts[at]} for name, at in sides},
                }
            )
        return
    rows = [
        (f"{pair.score:.4f}", _label(collection, pair.first), _label(collection, pair.second))
        for pair in found
    ]
    console.print_table(("cosine", *names), rows)


def _print_clusters(collection: _Collection, wanted: Wanted, *, as_json: bool) -> None:
    from indexes import cluster

    if wanted.cluster is not None:
        if wanted.cluster > len(collection.ids):
            raise typer.BadParameter(
                f"--cluster is {wanted.cluster:,}; the number of texts is {len(collection.ids):,}"
            )
        found = cluster(collection.vectors, num_clusters=wanted.cluster)
    else:
        assert wanted.communities is not None
        found = cluster(collection.vectors, threshold=wanted.communities, min_size=wanted.min_size)
    if as_json:
        for group in found:
            console.print_json(
                {"size": len(group.members), "ids": [collection.ids[at] for at in group.members]}
            )
        return
    rows = [
        (f"{len(group.members):,}", "\n".join(_label(collection, at) for at in group.members[:3]))
        for group in found
    ]
    console.print_table(("texts", "the most central"), rows)


def _label(collection: _Collection, at: int) -> str:
    text = " ".join(collection.texts[at].split())
    return f"{collection.ids[at]}  {text if len(text) <= 100 else text[:99] + '…'}"

"""Generating for streams and files of texts: window by window, and a stop at any moment that the same call resumes.

Files go the way of encoding (`embedkit.encoding.draft`): the work lies in `OUTPUT.partial` and is committed after each window. Windows
begin at the same texts as in an uninterrupted run, and what is drawn for a text depends on its place, so the same bytes come out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from embedkit.data.records import Document
from embedkit.encoding.draft import Draft
from embedkit.encoding.job import document_text
from embedkit.encoding.output_forms import LINES
from embedkit.generation.generator import Generator
from embedkit.generation.options import GenerationOptions
from embedkit.generation.outputs import Generated, Output
from embedkit.storage.files import output_errors

Form = Literal["outputs", "pairs", "lines"]
OUTPUTS = "outputs"
FORMS = {".jsonl": LINES, ".txt": LINES}
WINDOW_TEXTS = (
    32  # larger ones are at most 8 % faster (300 paragraphs, 16 tokens each), and a bar moves once a window
)
MANY_UNKNOWN = 0.2  # of a text's tokens: it is in a language or a script that the vocabulary does not know


@dataclass(frozen=True, kw_only=True)
class GenerateProgress:
    """How far a job is. Counts run from the job's first start; `seconds` and `session_tokens` from this one's.

    `truncated`, `empty` and `unknown` count texts: cut, without words, and of which many tokens are unknown to the vocabulary.
    `copied`, `repeated` and `unfinished` count outputs: that repeat their text, that equal another one of it, and that stopped at the
    longest length allowed. The `first_…` name the place of the first such text.
    """

    texts: int = 0
    outputs: int = 0
    tokens: int = 0
    truncated: int = 0
    empty: int = 0
    unknown: int = 0
    copied: int = 0
    repeated: int = 0
    unfinished: int = 0
    resumed_at: int = 0
    seconds: float = 0.0
    session_tokens: int = 0
    first_truncated: str = ""
    first_empty: str = ""
    first_unknown: str = ""
    done: bool = False

    @property
    def texts_per_second(self) -> float:
        return (self.texts - self.resumed_at) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class GeneratedFor:
    """The outputs of one document."""

    document: Document
    outputs: Sequence[Output]


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """What a job does: how it generates, and whether outputs that copy their text or repeat another of it are left out."""

    generation: GenerationOptions
    drop_copies: bool = False


def generate_stream(
    generator: Generator, documents: Iterable[Document], options: GenerateOptions, *, first: int = 0
) -> Iterator[tuple[list[GeneratedFor], GenerateProgress]]:
    """Generate window by window; yield each window's outputs, and its counts alone. `first` texts came before."""
    rest = iter(documents)
    while window := list(islice(rest, WINDOW_TEXTS)):
        texts = [document_text(document) for document in window]
        generated = generator.generate(texts, options.generation, first=first)
        first += len(window)
        counts = _counted(window, generated)
        kept = [
            GeneratedFor(document, _distinct(outputs) if options.drop_copies else outputs)
            for document, outputs in zip(window, generated.outputs, strict=True)
        ]
        yield kept, replace(counts, outputs=sum(len(each.outputs) for each in kept))


def generate_to_file(
    generator: Generator,
    documents: Iterable[Document],
    output: str | Path,
    options: GenerateOptions,
    *,
    form: Form,
) -> Iterator[GenerateProgress]:
    """Generate into a `.jsonl` or `.txt` file; yield a report after each window. Stopped at any moment, the same call resumes.

    Raises:
        OutputError: the output exists, has another ending, cannot be written, or was begun with other settings or texts.
        RecordError: an input cannot be read.
    """
    settings = {
        "model": generator.folder.fingerprint,
        "device": generator.device.type,
        "options": asdict(options),
        "form": form,
    }
    draft = Draft(Path(output), settings=settings, content=OUTPUTS, forms=FORMS)
    return _run(generator, documents, draft, options, form)


def _run(
    generator: Generator, documents: Iterable[Document], draft: Draft, options: GenerateOptions, form: Form
) -> Iterator[GenerateProgress]:
    def keys(some: Iterable[Document]) -> Iterator[tuple[str, str]]:
        return ((document.doc_id, document_text(document)) for document in some)

    start = time.monotonic()
    with output_errors(
        draft.output, f"What is done lies in {draft.folder}; make room, and the same command goes on"
    ):
        with draft:
            before = draft.report | {"resumed_at": draft.rows, "session_tokens": 0, "seconds": 0.0}
            progress = GenerateProgress(**before)
            rest = iter(documents)
            draft.skip(keys(islice(rest, draft.rows)))
            yield progress
            for window, counts in generate_stream(generator, rest, options, first=draft.rows):
                progress = add(progress, counts, time.monotonic() - start)
                lines = "".join(line for each in window for line in lines_of(each, form))
                draft.append(keys(each.document for each in window), lines.encode("utf-8"), asdict(progress))
                yield progress
            progress = replace(progress, done=True)
            draft.finish()
        yield progress


def lines_of(generated: GeneratedFor, form: Form) -> Iterator[str]:
    """Write a document's outputs: as one JSON object, as one of query and positive each, or as plain lines.

    A text without outputs is a blank line among plain ones, so that one output a text stays in step with the texts.
    """
    document, outputs = generated.document, generated.outputs
    match form:
        case "outputs":
            found = [{"text": each.text, "score": round(each.score, 4)} for each in outputs]
            yield _json({"id": document.doc_id, "outputs": found})
        case "pairs":
            for each in outputs:
                yield _json({"query": each.text, "positive": document_text(document), "id": document.doc_id})
        case "lines":
            for text in [each.text for each in outputs] or [""]:
                yield " ".join(text.split()) + "\n"


def _json(content: dict[str, object]) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def _distinct(outputs: Sequence[Output]) -> list[Output]:
    """Leave out copies of the source and what came before."""
    found: dict[str, Output] = {}
    for output in outputs:
        if not output.copied:
            found.setdefault(output.text, output)
    return list(found.values())


def _counted(documents: Sequence[Document], generated: Generated) -> GenerateProgress:
    unknown = generated.unknown > MANY_UNKNOWN
    outputs = [output for own in generated.outputs for output in own]

    def first(flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> str:
        return documents[int(np.argmax(flags))].where if flags.any() else ""

    return GenerateProgress(
        texts=len(documents),
        outputs=len(outputs),
        tokens=generated.num_tokens,
        session_tokens=generated.num_tokens,
        truncated=int(generated.truncated.sum()),
        empty=int(generated.empty.sum()),
        unknown=int(unknown.sum()),
        copied=sum(output.copied for output in outputs),
        repeated=sum(len(own) - len({output.text for output in own}) for own in generated.outputs),
        unfinished=sum(not output.finished for output in outputs),
        first_truncated=first(generated.truncated),
        first_empty=first(generated.empty),
        first_unknown=first(unknown),
    )


def add(progress: GenerateProgress, window: GenerateProgress, seconds: float = 0.0) -> GenerateProgress:
    """Add one window's counts to those before."""
    numbers = ("texts", "outputs", "tokens", "session_tokens", "truncated", "empty", "unknown", "copied")
    summed = {
        name: getattr(progress, name) + getattr(window, name) for name in (*numbers, "repeated", "unfinished")
    }
    return replace(
        progress,
        **summed,
        seconds=seconds,
        first_truncated=progress.first_truncated or window.first_truncated,
        first_empty=progress.first_empty or window.first_empty,
        first_unknown=progress.first_unknown or window.first_unknown,
    )

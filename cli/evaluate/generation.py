"""`embedkit evaluate generation`: texts that a model writes against references, and how likely it finds those."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ..shared import console, options
from ..shared.generating import Generating
from ..shared.groups import grouped
from ..shared.rows import PairReading
from .output import Showing, present

if TYPE_CHECKING:
    from embedkit.evaluation.results import Evaluation
    from embedkit.generation.generator import Generator
    from embedkit.generation.quality import Quality
    from embedkit.training.generation.pairs import SourceTargets

T = TypeVar("T")
EXAMPLES = """\b
Examples:
  embedkit evaluate generation squad_dev:dev --model generator --limit 500 --examples 5
  embedkit evaluate generation pairs.tsv -m generator -m other --column source=abstract --column target=title
  embedkit evaluate generation articles.jsonl --model lm
"""


@grouped
def generation(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA...",
            help="Files of pairs or retrieval sets FOLDER[:SPLIT]; for a language model files of texts.",
            show_default=False,
        ),
    ],
    *,
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            envvar="EMBEDKIT_MODEL",
            help="Text generator's folder; repeat for more.",
            show_default=False,
        ),
    ],
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            metavar="N",
            min=1,
            help="Measure on N sources (or texts) drawn at random, the same for every model.",
            show_default=False,
        ),
    ] = None,
    examples: Annotated[
        int,
        typer.Option(
            "--examples", metavar="N", min=0, help="Print N sources drawn at random with what was written."
        ),
    ] = 0,
    generating: Generating,
    device: options.DeviceOption = "auto",
    reading: PairReading,
    showing: Showing,
) -> None:
    """Measure a text generator: ROUGE-1, -2 and -L (0 to 1), BLEU and chrF (0 to 100), perplexity of the references.

    Rows of equal sources are one source with several references. ROUGE is the F1 without stemming, of the nearest reference. `copied`
    is the share of outputs that copy their source. A language model is measured by its perplexity on texts.
    """
    from embedkit.generation.generator import Generator
    from embedkit.pipelines.systems import labels

    evaluations: list[Evaluation] = []
    pairs: SourceTargets | None = None
    texts: list[str] = []
    for folder, name in zip(model, labels(model), strict=True):
        generator = Generator.load(folder, device=device)
        if generator.is_language_model:
            texts = texts or _drawn(_texts(data), limit)
            steps, total = _of_texts(generator, texts), len(texts)
        else:
            pairs = pairs or _pairs(data, reading, limit)
            steps, total = _of_pairs(generator, pairs, generating), len(pairs)
        quality = _watch(steps, total, name)
        evaluations.append(_evaluation(generator, quality, data, name))
        if pairs is not None and not generator.is_language_model:
            _show(pairs, quality, examples)
    shown = list(dict.fromkeys(name for each in evaluations for name in each.values))
    present(evaluations, shown, showing)


def _pairs(data: Sequence[str], reading: PairReading, limit: int | None) -> SourceTargets:
    pairs = reading.pairs(data)
    console.note(
        f"{console.counted(len(pairs), 'source')} with {console.counted(pairs.num_targets, 'reference')} "
        f"({pairs.described})"
    )
    return pairs.take(_drawn(list(range(len(pairs))), limit))


def _texts(data: Sequence[str]) -> list[str]:
    from embedkit.data.reading import read_documents
    from embedkit.data.records import headed_text

    return [headed_text(document.title, document.text) for document in read_documents(data)]


def _drawn(items: list[T], limit: int | None) -> list[T]:
    return items if limit is None or limit >= len(items) else random.Random(0).sample(items, limit)


def _of_pairs(generator: Generator, pairs: SourceTargets, generating: Generating) -> Iterator[int | Quality]:
    from embedkit.generation.quality import measure_outputs

    return measure_outputs(generator, pairs.sources, pairs.targets, generator.options(asdict(generating)))


def _of_texts(generator: Generator, texts: Sequence[str]) -> Iterator[int | Quality]:
    from embedkit.generation.quality import measure_texts

    return measure_texts(generator, texts)


def _watch(steps: Iterator[int | Quality], total: int, label: str) -> Quality:
    """Follow a measurement with a bar; its last step is the result."""
    step: int | Quality = 0
    with console.progress_bar(label) as bar:
        for step in steps:
            if isinstance(step, int):
                bar.update(step / total, f"{step:,} of {total:,}")
    assert not isinstance(step, int)
    return step


def _evaluation(generator: Generator, quality: Quality, data: Sequence[str], system: str) -> Evaluation:
    from embedkit.data.beir import folder_and_split
    from embedkit.data.paths import expand_inputs
    from embedkit.evaluation.results import Evaluation, collect_provenance
    from embedkit.pipelines.systems import labels
    from embedkit.storage.hashing import json_digest

    folders = [folder_and_split(source)[0] for source in data]
    return Evaluation(
        kind="generation",
        system=system,
        dataset="+".join(labels(list(data))),
        values=quality.values,
        provenance=collect_provenance(
            command=console.command_words(),
            data=expand_inputs(folders),
            fingerprint=json_digest(generator.folder.fingerprint),
        ),
        counts=quality.counts,
        notes=quality.notes,
        per_query={"rougeL": quality.per_source} if quality.per_source else {},
    )


def _show(pairs: SourceTargets, quality: Quality, examples: int) -> None:
    for row in _drawn(list(range(len(pairs))), examples) if examples else []:
        console.tell(f"source     {' '.join(pairs.sources[row].split())[:300]}")
        console.tell(f"written    {quality.outputs[row]}")
        for target in pairs.targets[row][:3]:
            console.tell(f"reference  {target}")
        console.tell("")

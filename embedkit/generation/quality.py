"""How good a text generator is: its outputs against references, and how likely it finds those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from embedkit.errors import EvaluationError
from embedkit.generation.generator import Generator
from embedkit.generation.metrics import bleu, chrf, rouge
from embedkit.generation.options import GenerationOptions
from embedkit.generation.outputs import Likelihood
from embedkit.tokenization.tokenizer import Tokenizer

WINDOW_TEXTS = 64


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What was measured: `values` by metric, `per_source` ROUGE-L by the source's place, and the outputs measured, one a source."""

    values: Mapping[str, float]
    counts: Mapping[str, int]
    per_source: Mapping[str, float] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    notes: tuple[str, ...] = ()


def measure_outputs(
    generator: Generator,
    sources: Sequence[str],
    references: Sequence[Sequence[str]],
    options: GenerationOptions,
) -> Iterator[int | Quality]:
    """Generate the best output of each source and compare it with its references; yield how many are done, and the result at last.

    Where the vocabulary has no capitals, outputs and references are compared in lower case.

    Raises:
        EvaluationError: there are no sources, or the model is a language model.
    """
    if generator.is_language_model:
        raise EvaluationError(
            f"{generator.folder.path}: a language model, which writes no text for another. Measure it on plain texts"
        )
    if not sources:
        raise EvaluationError("there is nothing to measure on; give at least one pair")
    outputs: list[str] = []
    copied = empty = unfinished = 0
    nats, tokens, cut = 0.0, 0, 0
    for start in range(0, len(sources), WINDOW_TEXTS):
        window = slice(start, start + WINDOW_TEXTS)
        generated = generator.generate(sources[window], options, first=start)
        for own in generated.outputs:
            outputs.append(own[0].text if own else "")
            copied += any(each.copied for each in own[:1])
            unfinished += any(not each.finished for each in own[:1])
            empty += not outputs[-1]
        likelihood = generator.likelihood(sources[window], references[window])
        nats, tokens = nats + likelihood.nats, tokens + likelihood.tokens
        cut += likelihood.truncated
        yield len(outputs)
    in_lower_case = _lowercases(generator.tokenizer)
    compared = [output.lower() for output in outputs] if in_lower_case else outputs
    held = [[text.lower() for text in own] for own in references] if in_lower_case else references
    rouges = [rouge(output, own) for output, own in zip(compared, held, strict=True)]
    yield Quality(
        values={
            "rougeL": fmean(each["rougeL"] for each in rouges),
            "rouge1": fmean(each["rouge1"] for each in rouges),
            "rouge2": fmean(each["rouge2"] for each in rouges),
            "bleu": bleu(compared, held),
            "chrf": chrf(compared, held),
            "perplexity": Likelihood(nats, tokens).perplexity,
            "copied": copied / len(outputs),
        },
        counts={
            "sources": len(sources),
            "references": sum(map(len, references)),
            "reference tokens": tokens,
            "cut references": cut,
            "empty": empty,
            "unfinished": unfinished,
        },
        per_source={str(place): each["rougeL"] for place, each in enumerate(rouges)},
        outputs=outputs,
        notes=_notes(in_lower_case, cut),
    )


def _lowercases(tokenizer: Tokenizer) -> bool:
    """Say whether a tokenizer reads capitals as small letters, so that a model never writes them."""
    normalizer = tokenizer.backend.normalizer
    return normalizer is not None and "abc" in normalizer.normalize_str("ABC")


def _notes(in_lower_case: bool, cut: int) -> tuple[str, ...]:
    notes = []
    if in_lower_case:
        notes.append("compared in lower case: the model's vocabulary has no capitals")
    if cut:
        notes.append(
            f"{cut:,} references are longer than the decoder's positions; their likelihood is of what fits"
        )
    return tuple(notes)


def measure_texts(generator: Generator, texts: Sequence[str]) -> Iterator[int | Quality]:
    """Measure how likely a language model finds texts; yield how many are done, and the result at last.

    Perplexity is over the model's own tokens, the ends of texts among them; bits per byte of the texts' UTF-8 can be compared between
    models of different vocabularies, as far as these know all of the text.

    Raises:
        EvaluationError: there are no texts, or the model is an encoder–decoder.
    """
    if not generator.is_language_model:
        raise EvaluationError(
            f"{generator.folder.path}: an encoder–decoder, which writes texts for others. Measure it on pairs"
        )
    if not texts:
        raise EvaluationError("there is nothing to measure on; give at least one text")
    nats, tokens = 0.0, 0
    for start in range(0, len(texts), WINDOW_TEXTS):
        found = generator.likelihood(texts[start : start + WINDOW_TEXTS])
        nats, tokens = nats + found.nats, tokens + found.tokens
        yield min(start + WINDOW_TEXTS, len(texts))
    total = Likelihood(nats, tokens)
    num_bytes = sum(len(text.encode("utf-8")) for text in texts)
    yield Quality(
        values={"perplexity": total.perplexity, "bits per byte": total.bits / max(1, num_bytes)},
        counts={"texts": len(texts), "tokens": tokens, "bytes": num_bytes},
    )

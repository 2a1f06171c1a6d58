from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest

from embedkit.errors import EvaluationError
from embedkit.generation.generator import Generator
from embedkit.generation.metrics import bleu, chrf, rouge
from embedkit.generation.options import GenerationOptions
from embedkit.generation.quality import Quality, measure_outputs, measure_texts
from tests.tiny_generator import write_tiny_generator

GREEDY = GenerationOptions(method="greedy", max_new_tokens=6)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return Generator.load(write_tiny_generator(tmp_path_factory.mktemp("g") / "m"), device="cpu")


def last(steps: Iterator[int | Quality]) -> Quality:
    *counts, found = steps
    assert isinstance(found, Quality)
    assert counts
    return found


def test_outputs_are_compared_with_their_references(generator: Generator) -> None:
    sources = [f"the dog {i}" for i in range(70)]  # more than a window
    written = [own[0].text for own in generator.generate(sources, GREEDY).outputs]
    # The first half is right but for its case, which the model cannot write.
    references = [[text.upper()] if i < 35 else ["a cat sleeps"] for i, text in enumerate(written)]
    found = last(measure_outputs(generator, sources, references, GREEDY))
    lower = [[text.lower() for text in own] for own in references]
    rouges = [rouge(text, own)["rougeL"] for text, own in zip(written, lower, strict=True)]
    assert found.outputs == written
    assert found.values["rougeL"] == pytest.approx(fmean(rouges))
    assert found.values["chrf"] == pytest.approx(chrf(written, lower))
    assert found.values["chrf"] > 40 > chrf(written, references)  # half of them are right
    assert found.values["bleu"] == pytest.approx(bleu(written, lower))
    assert found.values["perplexity"] == pytest.approx(generator.likelihood(sources, references).perplexity)
    assert found.counts["sources"] == 70
    assert found.notes == ("compared in lower case: the model's vocabulary has no capitals",)
    assert list(found.per_source) == [str(i) for i in range(70)]


def test_a_language_model_is_measured_by_bits_too(tmp_path: Path) -> None:
    model = Generator.load(write_tiny_generator(tmp_path / "lm", encoder_size=None), device="cpu")
    texts = ["the dog runs", "a cat"] * 40
    found = last(measure_texts(model, texts))
    likelihood = model.likelihood(texts)
    assert found.values["perplexity"] == pytest.approx(likelihood.perplexity)
    assert found.values["bits per byte"] == pytest.approx(likelihood.nats / math.log(2) / (17 * 40))
    assert found.counts == {"texts": 80, "tokens": 40 * 7, "bytes": 17 * 40}


def test_each_kind_of_model_is_measured_on_its_own_kind_of_data(generator: Generator, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="an encoder–decoder, which writes texts for others"):
        next(measure_texts(generator, ["a"]))
    model = Generator.load(write_tiny_generator(tmp_path / "lm", encoder_size=None), device="cpu")
    with pytest.raises(EvaluationError, match="a language model, which writes no text for another"):
        next(measure_outputs(model, ["a"], [["b"]], GREEDY))
    with pytest.raises(EvaluationError, match="nothing to measure on; give at least one pair"):
        next(measure_outputs(generator, [], [], GREEDY))

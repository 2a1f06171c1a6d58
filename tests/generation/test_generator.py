"""A ready text generator: batches of any make-up give what each text gives alone; limits are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from embedkit.errors import CheckpointError, RecipeError
from embedkit.generation.generator import Generator
from embedkit.generation.options import GenerationOptions
from embedkit.model.vocabulary_loss import vocabulary_loss
from tests.conftest import DEVICES
from tests.tiny_generator import write_tiny_generator

TEXTS = [
    "a girl plays the guitar",
    "the dog",
    "she sings in the red water and he reads a book by the beach",
    "a man",
    "they walk",
    "the small cat sleeps",
]
METHODS = {
    "greedy": GenerationOptions(method="greedy", max_new_tokens=9),
    "beam": GenerationOptions(num_outputs=3, max_new_tokens=9, no_repeat_ngram=2),
    "sample": GenerationOptions(method="sample", num_outputs=3, max_new_tokens=9, top_k=40, seed=5),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_generator(tmp_path_factory.mktemp("generator") / "pairs", share_embeddings=True)


@pytest.fixture(scope="module")
def generator(folder: Path) -> Generator:
    return Generator.load(folder, device="cpu")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    path = write_tiny_generator(tmp_path_factory.mktemp("generator") / "lm", encoder_size=None)
    return Generator.load(path, device="cpu")


def texts_of(
    model: Generator, texts: list[str], options: GenerationOptions, first: int = 0
) -> list[list[str]]:
    found = model.generate(texts, options, first=first)
    return [[output.text for output in own] for own in found.outputs]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["encoder–decoder", "language model"])
def test_what_a_text_gives_does_not_depend_on_its_batch(
    kind: str, method: str, generator: Generator, language_model: Generator
) -> None:
    model = generator if kind == "encoder–decoder" else language_model
    together = texts_of(model, TEXTS, METHODS[method])
    alone = [texts_of(model, [text], METHODS[method], first=i)[0] for i, text in enumerate(TEXTS)]
    assert together == alone
    assert len({tuple(own) for own in together}) > 1
    assert [len(own) for own in together] == [METHODS[method].num_outputs] * len(TEXTS)


def test_outputs_of_a_search_come_best_first(generator: Generator) -> None:
    for own in generator.generate(TEXTS, METHODS["beam"]).outputs:
        scores = [output.score for output in own]
        assert scores == sorted(scores, reverse=True)


def test_a_greedy_outputs_score_is_what_the_model_thinks_of_it(tmp_path: Path) -> None:
    """The mean log-likelihood of an output that ended is that of the same text as a reference, which ends alike."""
    model = Generator.load(write_tiny_generator(tmp_path / "model", output_bias=True), device="cpu")
    bias = model.model.decoder.output_bias
    assert bias is not None
    bias.data[[3, *range(5, 60)]] += torch.tensor([9.0] + [6.0] * 55)  # the end, and whole words
    found = model.generate(TEXTS, METHODS["greedy"]).outputs
    ended = [
        (text, own[0]) for text, own in zip(TEXTS, found, strict=True) if own[0].finished and own[0].text
    ]
    assert len(ended) > 1
    for text, output in ended:
        again = model.likelihood([text], [[output.text]])
        assert output.score == pytest.approx(-again.nats / again.tokens, abs=1e-4)


def test_a_language_model_goes_on_where_the_prompt_ends(language_model: Generator) -> None:
    options = GenerationOptions(method="greedy", max_new_tokens=5)
    ((first,),) = language_model.generate(["the dog"], options).outputs
    longer = GenerationOptions(method="greedy", max_new_tokens=10)
    ((both,),) = language_model.generate(["the dog"], longer).outputs
    assert both.text.startswith(first.text)
    assert len(both.text) > len(first.text)
    ((of_nothing,),) = language_model.generate([""], options).outputs
    assert of_nothing.text


def test_long_prompts_lose_their_beginning_and_are_counted(language_model: Generator) -> None:
    """40 positions less 10 new tokens leave room for 30 of the prompt, beside the token that begins it."""
    options = GenerationOptions(method="greedy", max_new_tokens=10)
    prompt = " ".join(["dog"] * 50 + ["cat"])
    found = language_model.generate([prompt, "a dog"], options)
    assert found.truncated.tolist() == [True, False]
    assert found.outputs[0][0].text


def test_what_the_encoder_cannot_read_is_counted(generator: Generator) -> None:
    found = generator.generate(["the dog", "  ", "dog " * 50, "東京 日本 dog"], METHODS["greedy"])
    assert found.empty.tolist() == [False, True, False, False]
    assert found.outputs[1] == []
    assert found.truncated.tolist() == [False, False, True, False]
    np.testing.assert_allclose(found.unknown, [0, 0, 0, 4 / 5])  # each sign is a token
    assert found.num_tokens > 0


def test_likelihood_is_the_mean_over_every_token_whatever_the_batch(generator: Generator) -> None:
    references = [["a cat", "the dog"], ["a"], ["the cat runs"], ["he"], ["she", "a", "b"], ["c d e"]]
    whole = generator.likelihood(TEXTS, references)
    parts = [
        generator.likelihood([text], [[reference]])
        for text, own in zip(TEXTS, references, strict=True)
        for reference in own
    ]
    assert whole.tokens == sum(part.tokens for part in parts)
    assert whole.nats == pytest.approx(sum(part.nats for part in parts), rel=1e-5)
    assert whole.perplexity == pytest.approx(np.exp(whole.nats / whole.tokens))


def test_a_text_longer_than_the_positions_is_measured_whole(language_model: Generator) -> None:
    long = " ".join(["the dog runs"] * 40)
    found = language_model.likelihood([long, ""])
    assert found.tokens == 121 + 1
    model, tokens = language_model.model, language_model.tokenizer.ids([long])[0]
    with torch.inference_mode():  # the first window by itself
        hidden = model(torch.tensor([2, *tokens[:39]]), [40])
        _, nats, _ = vocabulary_loss(hidden, *model.output_weights, torch.tensor(tokens[:40]))
    first = language_model.likelihood([language_model.tokenizer.backend.decode(tokens[:39])])
    with torch.inference_mode():
        end = torch.tensor([*tokens[:39], 3])
        _, with_end, _ = vocabulary_loss(hidden, *model.output_weights, end)
    assert first.nats == pytest.approx(float(with_end), rel=1e-5)
    assert found.nats > float(nats)


def test_options_come_from_the_folder_and_are_held_against_the_positions(
    folder: Path, generator: Generator
) -> None:
    assert generator.options() == GenerationOptions(max_new_tokens=10)
    with pytest.raises(RecipeError, match="max_new_tokens is 41; the decoder's position table ends at 40"):
        generator.options({"max_new_tokens": 41})
    with pytest.raises(
        CheckpointError, match="max_seq_length 65 was asked for; the position table ends at 64"
    ):
        Generator.load(folder, device="cpu", max_source_tokens=65)


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_compute_nothing_are_refused(method: str, tmp_path: Path) -> None:
    """From scores that are not numbers, a search would find no output, and the likeliest token would be the first."""
    model = Generator.load(write_tiny_generator(tmp_path / "model"), device="cpu")
    with torch.no_grad():
        model.model.decoder.layers[0].get_parameter("mlp.down.weight")[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="model: the model gives scores that are not finite"):
        model.generate(TEXTS, METHODS[method])


@pytest.mark.gpu
@pytest.mark.parametrize("device", DEVICES)
def test_a_gpu_gives_the_same_texts(device: str, folder: Path, generator: Generator) -> None:
    there = Generator.load(folder, device=device)  # type: ignore[arg-type] # one of the devices
    for options in METHODS.values():
        assert texts_of(there, TEXTS, options) == texts_of(generator, TEXTS, options)

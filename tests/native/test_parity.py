"""The kernels give what torch gives: for each family, length and precision, on random models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embedkit.native.encoder import NativeEncoder
from embedkit.native.library import NativePrecision
from tests.native.models import (
    BERT,
    FAMILIES,
    PRECISIONS,
    cosines,
    random_model,
    random_tokens,
    reference,
    skip_unless_native,
)

# 1: softmax over itself; 15 to 17: around a vector of 16; 64 and 65: around a tile; 200: several tiles
LENGTHS = (15, 1, 200, 2, 64, 16, 65, 17, 7)
# Values are of order 1 (they come out of a norm). fp32 differs by the order of sums; bf16 carries 8 bits.
FP32_TOLERANCE = 2e-5
# Lowest and mean cosine of a token's vector to torch's: random weights are harder on int8 than trained ones.
COSINES: dict[NativePrecision, tuple[float, float]] = {"bf16": (0.9995, 0.9999), "int8": (0.98, 0.994)}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_family_comes_out_as_in_torch(family: str, precision: NativePrecision) -> None:
    skip_unless_native(precision)
    config = FAMILIES[family]
    encoder, weights = random_model(config)
    ids, lengths = random_tokens(config, LENGTHS)
    expected = reference(encoder, ids, lengths)
    hidden = NativeEncoder(config, weights, precision=precision, threads=1).hidden_states(ids, lengths)
    assert hidden.shape == expected.shape
    assert hidden.dtype == np.float32
    if precision == "fp32":
        np.testing.assert_allclose(hidden, expected, rtol=0, atol=FP32_TOLERANCE)
        return
    found = cosines(hidden, expected)
    lowest, mean = COSINES[precision]
    assert found.min() > lowest, found.min()
    assert found.mean() > mean, found.mean()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_token_types_move_the_vectors_as_in_torch(precision: NativePrecision) -> None:
    skip_unless_native(precision)
    encoder, weights = random_model(BERT)
    ids, lengths = random_tokens(BERT, [9, 20])
    types = (np.arange(29) % 3 == 0).astype(np.int64)
    native = NativeEncoder(BERT, weights, precision=precision, threads=1)
    hidden = native.hidden_states(ids, lengths, types)
    expected = reference(encoder, ids, lengths, types)
    if precision == "fp32":
        np.testing.assert_allclose(hidden, expected, rtol=0, atol=FP32_TOLERANCE)
    assert cosines(hidden, expected).min() > 0.98
    without = native.hidden_states(ids, lengths)
    assert cosines(without, expected).mean() < 0.98  # they do matter
    np.testing.assert_array_equal(without, native.hidden_states(ids, lengths, np.zeros(29, np.int64)))


def test_a_model_without_token_types_ignores_them() -> None:
    skip_unless_native("fp32")
    config = FAMILIES["distilbert"]
    ids, lengths = random_tokens(config, [9])
    native = NativeEncoder(config, random_model(config)[1], precision="fp32", threads=1)
    with_types = native.hidden_states(ids, lengths, np.full(9, 5))
    np.testing.assert_array_equal(with_types, native.hidden_states(ids, lengths))


def test_int8_bears_rows_of_which_one_number_is_far_larger_than_all_others() -> None:
    """As [CLS] has them in trained encoders; rounded to the scale of that number, the rest would be lost."""
    skip_unless_native("int8")
    config = FAMILIES["hidden 384, heads of 32"]
    encoder, _ = random_model(config)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name.endswith("norm.bias"):
                parameter[7] = 100.0
            if name.endswith(("qkv.weight", "up.weight")):
                parameter[:, 7] *= 0.01
    weights = {name: weight.numpy() for name, weight in encoder.state_dict().items()}
    ids, lengths = random_tokens(config, LENGTHS)
    expected = reference(encoder, ids, lengths)
    hidden = NativeEncoder(config, weights, precision="int8", threads=1).hidden_states(ids, lengths)
    others = np.arange(config.hidden_size) != 7
    found = cosines(hidden[:, others], expected[:, others])
    assert found.mean() > 0.999  # 0.992 where it is rounded with them


def test_layers_stops_early() -> None:
    """The first of two layers alone is a model of one layer with the same weights."""
    skip_unless_native("fp32")
    weights = random_model(BERT)[1]
    ids, lengths = random_tokens(BERT, [9, 20])
    short = NativeEncoder(replace(BERT, num_hidden_layers=1), weights, precision="fp32", threads=1)
    whole = NativeEncoder(BERT, weights, precision="fp32", threads=1)
    np.testing.assert_array_equal(
        whole.hidden_states(ids, lengths, layers=1), short.hidden_states(ids, lengths)
    )
    assert abs(whole.hidden_states(ids, lengths) - short.hidden_states(ids, lengths)).max() > 0.1


def test_layers_that_share_weights_are_packed_once() -> None:
    skip_unless_native("fp32")
    few, many = (replace(BERT, num_hidden_groups=1, num_hidden_layers=layers) for layers in (1, 12))
    weights = random_model(many)[1]
    packed = [NativeEncoder(config, weights, precision="fp32", threads=1) for config in (few, many)]
    assert packed[0]._model._panels.nbytes == packed[1]._model._panels.nbytes
    ids, lengths = random_tokens(BERT, [9, 20])
    first, stopped = packed[0].hidden_states(ids, lengths), packed[1].hidden_states(ids, lengths, layers=1)
    np.testing.assert_array_equal(first, stopped)


# Sentence vectors of all-MiniLM-L6-v2 on real sentences: the largest difference of fp32 (the goal of the project), the
# lowest mean cosine of bf16 and int8.
@pytest.mark.parametrize(
    ("precision", "lowest_mean"), [("fp32", 0.9999999), ("bf16", 0.9999), ("int8", 0.995)]
)
def test_sentence_vectors_of_the_real_model_are_torchs(
    precision: NativePrecision, lowest_mean: float, minilm: Path, shared_data: Path
) -> None:
    skip_unless_native(precision)
    from embedkit.checkpoint.folder import read_model_folder
    from embedkit.checkpoint.sentence_folder import load_model
    from embedkit.model.sentence import SentenceEncoder
    from embedkit.tokenization.tokenizer import Tokenizer

    folder = read_model_folder(minilm)
    model = load_model(folder).eval()
    assert isinstance(model, SentenceEncoder)
    lines = (shared_data / "sts/stsb/dev.tsv").read_text(encoding="utf-8").splitlines()[1:41]
    batch = Tokenizer.load(minilm).encode([text for line in lines for text in line.split("\t")[:2]])
    expected = reference(model.encoder, batch.input_ids, batch.lengths)
    weights = {name: weight.numpy() for name, weight in model.encoder.state_dict().items()}
    native = NativeEncoder(folder.config, weights, precision=precision, threads=1)
    hidden = native.hidden_states(batch.input_ids, batch.lengths)
    starts = np.cumsum(batch.lengths) - batch.lengths
    ours, theirs = (np.add.reduceat(h, starts) for h in (hidden, expected))  # means, but for their length
    assert cosines(ours, theirs).mean() > lowest_mean
    if precision == "fp32":
        ours, theirs = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (ours, theirs))
        assert abs(ours - theirs).max() < 1e-5

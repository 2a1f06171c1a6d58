"""The kernels of a sparse model's head, against numpy in double precision, for every set of instructions that runs here."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from embedkit.checkpoint.mlm_arrays import MlmWeights
from embedkit.inference.numpy_runtime.term_head import TermHead
from embedkit.model.config import EncoderConfig
from embedkit.model.sparse_config import TermPooling
from embedkit.native import dispatch
from embedkit.native.library import NativePrecision
from embedkit.native.terms import LargestLogits, why_no_terms
from tests.native.models import BERT

if reason := dispatch.why_not_here("fp32"):
    pytest.skip(reason, allow_module_level=True)

LENGTHS = (1, 191, 192, 7, 193, 1, 400, 2)  # around a block of rows, and over several
Float32 = NDArray[np.float32]


@pytest.fixture(params=dispatch.levels_here())
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("EMBEDKIT_CPU", request.param)
    return str(request.param)


def a_head(terms: int, width: int, hidden: int) -> tuple[EncoderConfig, MlmWeights]:
    rng = np.random.default_rng(terms)

    def draw(*shape: int, around: float = 0.0, spread: float = 1.0) -> Float32:
        return rng.normal(around, spread, shape).astype(np.float32)

    config = EncoderConfig(**{**vars(BERT), "hidden_size": hidden, "num_attention_heads": 1})
    dense, norm = draw(width, hidden, spread=0.125), draw(width, around=1.0, spread=0.125)
    weights = MlmWeights(dense, draw(width), norm, draw(width), draw(terms, width), draw(terms))
    return config, weights


def token_vectors(hidden: int, lengths: tuple[int, ...] = LENGTHS) -> tuple[Float32, NDArray[np.int64]]:
    rows = np.random.default_rng(1).normal(size=(sum(lengths), hidden)).astype(np.float32)
    return rows, np.array(lengths)


def by_numpy(
    config: EncoderConfig, weights: MlmWeights, rows: Float32, lengths: NDArray[np.int64]
) -> Float32:
    return TermHead(config, weights)._largest(rows, lengths)


@pytest.mark.parametrize(("terms", "hidden"), [(1, 16), (65, 48), (700, 64)])
def test_the_largest_logits_are_those_of_numpy(level: str, terms: int, hidden: int) -> None:
    config, weights = a_head(terms, hidden, hidden)
    rows, lengths = token_vectors(hidden)
    for threads in (1, 3):
        found = LargestLogits(config, weights, precision="fp32", threads=threads)(rows, lengths)
        np.testing.assert_allclose(found, by_numpy(config, weights, rows, lengths), rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_codes_give_nearly_the_same(level: str, precision: NativePrecision) -> None:
    if reason := dispatch.why_not_here(precision):
        pytest.skip(reason)
    config, weights = a_head(700, 64, 64)
    rows, lengths = token_vectors(64)
    found = LargestLogits(config, weights, precision=precision, threads=2)(rows, lengths)
    wanted = by_numpy(config, weights, rows, lengths)
    cosines = np.sum(found * wanted, axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosines.min() > 0.9995


@pytest.mark.parametrize("precision", ["fp32", "int8", "bf16"])
def test_a_sequences_bits_depend_neither_on_its_company_nor_on_threads(
    level: str, precision: NativePrecision
) -> None:
    if reason := dispatch.why_not_here(precision):
        pytest.skip(reason)
    config, weights = a_head(130, 48, 48)
    rows, lengths = token_vectors(48)
    logits = LargestLogits(config, weights, precision=precision, threads=2)
    together = logits(rows, lengths)
    alone = LargestLogits(config, weights, precision=precision, threads=1)
    ends = np.cumsum(lengths)
    for number, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        found = alone(rows[end - length : end], lengths[number : number + 1])
        assert np.array_equal(found[0], together[number])


def test_a_vector_that_is_not_finite_is_seen_in_its_sequence_alone(level: str) -> None:
    config, weights = a_head(65, 16, 16)
    rows, lengths = token_vectors(16, (3, 5, 2))
    sound = LargestLogits(config, weights, precision="fp32", threads=1)(rows, lengths)
    rows[4, 2], rows[6, 0] = np.nan, np.inf
    found = LargestLogits(config, weights, precision="fp32", threads=1)(rows, lengths)
    assert np.isnan(found[1]).all()
    assert np.array_equal(found[[0, 2]], sound[[0, 2]])


def test_no_sequences_are_none_and_wrong_lengths_are_refused() -> None:
    config, weights = a_head(65, 16, 16)
    logits = LargestLogits(config, weights, precision="fp32", threads=1)
    assert logits(np.empty((0, 16), np.float32), np.empty(0, np.int64)).shape == (0, 65)
    for lengths in ([2, 2], [3, 0]):
        with pytest.raises(ValueError, match="each must be at least 1"):
            logits(np.zeros((3, 16), np.float32), np.array(lengths))


def test_a_head_that_the_kernels_cannot_compute_is_left_to_numpy() -> None:
    config, weights = a_head(9, 24, 24)
    assert why_no_terms(config) == "it has 24 dimensions, no multiple of 16"
    rows, lengths = token_vectors(24, (2, 3))
    pooling = TermPooling()
    wanted = TermHead(config, weights)(rows, lengths, pooling)
    assert np.array_equal(TermHead(config, weights, precision="fp32")(rows, lengths, pooling), wanted)

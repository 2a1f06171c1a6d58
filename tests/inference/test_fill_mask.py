"""Predictions at [MASK]: those of the network, in the order of the masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.pretraining import load_pretraining
from embedkit.errors import CheckpointError, RecordError
from embedkit.inference.fill_mask import fill_mask
from tests.tiny_masked_lm import write_tiny_masked_lm

ROUNDING = 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_masked_lm(tmp_path_factory.mktemp("mlm") / "model")


def test_each_mask_is_predicted_in_order(folder: Path) -> None:
    found = fill_mask(
        read_model_folder(folder), ["the [MASK] sees the [MASK].", "a [MASK]"], top_k=3, device="cpu"
    )
    assert [filling.text for filling in found] == [
        "the [MASK] sees the [MASK].",
        "the [MASK] sees the [MASK].",
        "a [MASK]",
    ]
    for filling in found:
        assert len(filling.tokens) == 3
        assert list(filling.probabilities) == sorted(filling.probabilities, reverse=True)
        assert 0 < sum(filling.probabilities) <= 1


def test_probabilities_are_those_of_the_network(folder: Path) -> None:
    read = read_model_folder(folder)
    (filling,) = fill_mask(read, ["a girl [MASK] a song"], top_k=5)
    model, _ = load_pretraining(read, fresh_heads=False)
    ids = torch.from_numpy(read.tokenizer.encode(["a girl [MASK] a song"]).input_ids)
    with torch.no_grad():
        logits, _ = model.eval()(ids, [len(ids)], torch.tensor([3]))  # [CLS] a girl [MASK]
    best = logits[0].softmax(-1).topk(5)
    assert [read.tokenizer.backend.decode([token]) for token in best.indices.tolist()] == list(filling.tokens)
    np.testing.assert_allclose(filling.probabilities, best.values, atol=ROUNDING)


def test_what_cannot_be_filled_is_refused(folder: Path, tiny_model: Path) -> None:
    read = read_model_folder(folder)
    with pytest.raises(RecordError, match=r"the text 'no mask' has 0 \[MASK\]"):
        fill_mask(read, ["no mask"])
    with pytest.raises(RecordError, match=r"has 1 \[MASK\], of which 0 are within the 32 tokens"):
        fill_mask(read, ["the cat " * 40 + "[MASK]"])
    with pytest.raises(CheckpointError, match="has no masked-language-model head"):
        fill_mask(read_model_folder(tiny_model), ["a [MASK]"])

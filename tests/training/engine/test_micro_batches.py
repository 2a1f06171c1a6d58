from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.training.engine.micro_batches import PackedEncoder, embed_texts, encode_layers
from embedkit.training.engine.ranks import alone

TEXTS = ["the dog sleeps", "a girl", "the horse runs and runs in the water 12 34"]


def test_what_fills_up_changes_no_vector(tiny_model: Path) -> None:
    model = load_sentence_encoder(read_model_folder(tiny_model))
    batch = read_model_folder(tiny_model).tokenizer.encode(TEXTS)
    tokens = torch.from_numpy(batch.input_ids)
    with torch.no_grad():
        found = PackedEncoder(model).eval()(tokens, batch.lengths.tolist())
        torch.testing.assert_close(
            found, model.forward_packed(tokens, batch.lengths.tolist()), atol=1e-6, rtol=0
        )


def test_the_last_of_all_layers_is_the_vector_itself(tiny_model: Path) -> None:
    model = load_sentence_encoder(read_model_folder(tiny_model))
    batch = read_model_folder(tiny_model).tokenizer.encode(TEXTS)
    tokens = torch.from_numpy(batch.input_ids)
    with torch.no_grad():
        layers = encode_layers(model, tokens, batch.lengths.tolist())
        assert layers.shape == (3, 2, 32)
        torch.testing.assert_close(layers[:, -1], model.forward_packed(tokens, batch.lengths.tolist()))
    assert not torch.allclose(layers[:, 0], layers[:, 1])


@pytest.mark.parametrize("budget", [8, 4096])
def test_texts_are_embedded_in_their_order_as_the_encoder_does(tiny_model: Path, budget: int) -> None:
    folder = read_model_folder(tiny_model)
    module = PackedEncoder(load_sentence_encoder(folder)).train()
    found = embed_texts(module, folder.tokenizer, TEXTS, alone(precision="fp32"), budget=budget, prompt="a ")
    wanted = Encoder.load(tiny_model, device="cpu").encode(TEXTS, prompt="a ")
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert module.training  # as it was before

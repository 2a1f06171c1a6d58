"""The cross-encoder's network: what it leaves out changes nothing, and an exit is a shorter model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from embedkit.model.classification import ClassificationHead, SequenceClassifier
from embedkit.model.config import EncoderConfig, HeadConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.routing_config import RecursionConfig
from tests.tiny import ROUTED_SHAPES, tiny_config
from tests.tiny_cross_encoder import tiny_classifier

LENGTHS = [9, 9, 5, 3, 3, 3, 1]
# fp32 over two to five layers with products of other shapes
TOLERANCE = 4e-6
MODERN: dict[str, Any] = {
    "type_vocab_size": 0,
    "position": "rope",
    "norm_first": True,
    "gated_mlp": True,
    "norm_bias": False,
    "attention_bias": False,
    "num_hidden_layers": 3,
    "local_attention": 4,
    "global_attn_every_n_layers": 2,
}
SHAPES: dict[str, dict[str, Any]] = {  # Any: fields of EncoderConfig
    "bert": {},
    "mpnet": {"type_vocab_size": 0, "relative_attention_num_buckets": 8},
    "albert": {"embedding_size": 16, "num_hidden_groups": 1, "num_hidden_layers": 3},
    "modernbert": MODERN,
    "modernbert ending locally": MODERN | {"num_hidden_layers": 2},
    # The last layer of these has experts, is behind a recursion by a router, or within one.
    "experts": ROUTED_SHAPES["experts"],
    "expert choice": ROUTED_SHAPES["token choice"] | {"recursion": RecursionConfig()},
    "token choice": {"num_hidden_layers": 4, "recursion": RecursionConfig(routing="token_choice")},
}


def tokens(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 100, (sum(LENGTHS),), generator=generator)
    return ids, torch.randint(0, 2, ids.shape, generator=generator)


@torch.no_grad()
def score(
    model: SequenceClassifier,
    ids: torch.Tensor,
    lengths: Sequence[int],
    types: torch.Tensor,
    *,
    layers: int | None = None,
) -> torch.Tensor:
    logits: torch.Tensor = model.head(model.pooled(ids, lengths, types, layers=layers))
    return logits


@pytest.mark.parametrize("name", SHAPES)
def test_pooling_computes_less_than_forward_and_gives_the_same(name: str) -> None:
    model = tiny_classifier(**SHAPES[name])
    ids, types = tokens()
    with torch.no_grad():
        (whole,) = model(ids, LENGTHS, types)
    torch.testing.assert_close(score(model, ids, LENGTHS, types), whole, atol=TOLERANCE, rtol=0)
    assert whole.std() > 0.1


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_sequence_scores_the_same_alone_and_among_others(pooling: str) -> None:
    torch.manual_seed(0)
    head = HeadConfig(num_labels=2, pooling=pooling)  # type: ignore[arg-type] # of the two that there are
    model = SequenceClassifier(TransformerEncoder(tiny_config()), head).eval()
    ids, types = tokens()
    together = score(model, ids, LENGTHS, types)
    start = 0
    for row, length in enumerate(LENGTHS):
        part = slice(start, start + length)
        torch.testing.assert_close(
            score(model, ids[part], [length], types[part])[0], together[row], atol=TOLERANCE, rtol=0
        )
        start += length


@pytest.mark.parametrize("name", SHAPES)
def test_exits_are_the_scores_of_a_model_with_fewer_layers(name: str) -> None:
    model = tiny_classifier(**SHAPES[name])
    count = model.encoder.config.num_hidden_layers
    ids, types = tokens()
    with torch.no_grad():
        exits = model(ids, LENGTHS, types, exits=range(1, count + 1))
    assert exits.shape == (count, len(LENGTHS), 1)
    for layers in range(1, count + 1):
        early = score(model, ids, LENGTHS, types, layers=layers)
        torch.testing.assert_close(early, exits[layers - 1], atol=TOLERANCE, rtol=0)
    assert (exits[0] - exits[-1]).abs().max() > 0.1


def test_head_is_dense_tanh_and_one_number_a_label() -> None:
    """With identity weights and no biases: tanh(1) + 2 tanh(0.5) = 0.7616 + 0.9242 = 1.6858."""
    shape = EncoderConfig(vocab_size=4, hidden_size=2, num_attention_heads=1)
    head = ClassificationHead(shape, HeadConfig()).eval()
    assert head.dense is not None
    with torch.no_grad():
        head.dense.weight.copy_(torch.eye(2))
        head.out.weight.copy_(torch.tensor([[1.0, 2.0]]))
        score = head(torch.tensor([[1.0, 0.5]]))
    np.testing.assert_allclose(score.numpy(), [[1.6858]], atol=5e-5)


def test_gradients_reach_every_parameter() -> None:
    model = tiny_classifier()
    ids, types = tokens()
    model(ids, LENGTHS, types).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == []


def test_head_config_refuses_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="num_labels is 0; it must be at least 1"):
        HeadConfig(num_labels=0)
    with pytest.raises(ValueError, match="classifier_pooling is 'max'; it must be one of cls, mean"):
        HeadConfig(pooling="max")  # type: ignore[arg-type] # the point

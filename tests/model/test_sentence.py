"""The sentence encoder: packed equals padded through pooling, dense layers and normalization."""

from __future__ import annotations

import pytest
import torch

from embedkit.model.config import DenseConfig, PoolingMode, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from tests.tiny import tiny_config

ROUNDING = 2e-5  # two layers of float32 sums in another order, with large weights
LENGTHS = [7, 3, 3, 1]
IDS = torch.randint(1, 200, (4, 7), generator=torch.Generator().manual_seed(0))
MASK = torch.arange(7) < torch.tensor(LENGTHS)[:, None]


def make(config: SentenceConfig) -> SentenceEncoder:
    torch.manual_seed(0)
    return SentenceEncoder(TransformerEncoder(tiny_config()), config).eval()


@pytest.mark.parametrize(
    "pooling",
    [("mean",), ("cls",), ("max",), ("last",), ("weighted_mean",), ("mean_sqrt_len",), ("max", "cls")],
)
def test_packed_and_padded_sentences_are_equal(pooling: tuple[PoolingMode, ...]) -> None:
    width = 32 * len(pooling)
    dense = (
        DenseConfig(in_features=width, out_features=10),
        DenseConfig(in_features=10, out_features=6, bias=False),
    )
    model = make(SentenceConfig(pooling=pooling, dense=dense, normalize=True))
    with torch.inference_mode():
        padded = model(IDS, MASK)
        packed = model.forward_packed(IDS[MASK], LENGTHS)
    assert padded.shape == (4, 6)
    torch.testing.assert_close(packed, padded, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(packed.norm(dim=1), torch.ones(4))


def test_poolings_are_concatenated_in_their_order() -> None:
    one, two, both = (make(SentenceConfig(pooling=modes)) for modes in (("max",), ("cls",), ("max", "cls")))
    with torch.inference_mode():
        expected = torch.cat([one(IDS, MASK), two(IDS, MASK)], dim=1)
        torch.testing.assert_close(both(IDS, MASK), expected, rtol=0, atol=0)


def test_dense_layers_are_linear_and_activation() -> None:
    model = make(SentenceConfig(dense=(DenseConfig(in_features=2, out_features=1, activation="relu"),)))
    linear = model.dense[0][0]  # type: ignore[index] # a Sequential
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0]]))
        linear.bias.fill_(-3.0)
    assert model.head(torch.tensor([[1.0, 2.0], [0.5, 0.5]])).tolist() == [[2.0], [0.0]]


def test_skip_leaves_the_first_tokens_out_of_the_pooling_but_not_of_the_attention() -> None:
    model = make(SentenceConfig())
    ids, lengths = IDS[:2].flatten(), [7, 7]
    with torch.inference_mode():
        tokens = model.encoder.forward_packed(ids, lengths).view(2, 7, -1)
        expected = tokens[:, 3:].mean(dim=1)
        torch.testing.assert_close(model.forward_packed(ids, lengths, skip=3), expected, rtol=0, atol=1e-6)


def test_normalizing_half_precision_gives_the_nearest_unit_vectors() -> None:
    model = make(SentenceConfig(normalize=True))
    pooled = torch.randn(8, 768, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = torch.nn.functional.normalize(pooled.float(), dim=1).bfloat16()
    assert torch.equal(model.head(pooled), expected)


def test_gradients_flow_from_the_sentence_to_the_token_table() -> None:
    model = make(SentenceConfig(dense=(DenseConfig(in_features=32, out_features=4),), normalize=True)).train()
    model(IDS, MASK)[:, 0].sum().backward()
    gradient = model.encoder.embeddings.tokens.weight.grad
    assert gradient is not None
    touched = gradient.abs().sum(dim=1).nonzero().flatten().tolist()
    assert touched == sorted(set(IDS[MASK].tolist()))

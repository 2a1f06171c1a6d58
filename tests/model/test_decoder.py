"""The decoder: what it may look at, by hand and as a property; packed and cached equal one by one; gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from embedkit.model.decoder_layers import (
    CausalSelfAttention,
    CrossAttention,
    DecoderLayer,
    EncodedSource,
    Places,
    Sight,
    TokenLayout,
)
from embedkit.model.text_generator import TextGenerator, grouped_lengths
from tests.finite_differences import assert_gradients
from tests.tiny_generator import DECODERS, decoder_config, tiny_generator

ROUNDING = 2e-5  # two layers of float32 sums in another order, with large weights
CPU = torch.device("cpu")


def test_a_layout_spreads_tokens_and_collects_them_again() -> None:
    """Lengths 2 and 1: the table is [[1, 2], [3, 0]], or to the right [[1, 2], [0, 3]]."""
    packed = torch.tensor([[1.0], [2.0], [3.0]])
    layout = TokenLayout.of([2, 1], CPU)
    assert layout.spread(packed)[..., 0].tolist() == [[1, 2], [3, 0]]
    assert torch.equal(layout.collect(layout.spread(packed)), packed)
    filled = layout.filled(CPU)
    assert filled is not None
    assert filled.tolist() == [[True, True], [True, False]]
    right = TokenLayout.of([2, 1], CPU, to_the_right=True)
    assert right.spread(packed)[..., 0].tolist() == [[1, 2], [0, 3]]
    full = TokenLayout.of([3], CPU)
    assert (full.places, full.filled(CPU)) == (None, None)
    assert full.spread(packed)[..., 0].tolist() == [[1, 2, 3]]


def test_sequences_of_one_source_add_up() -> None:
    assert grouped_lengths([3, 2, 4], [2, 1]) == [5, 4]
    assert grouped_lengths([3, 2], None) == [3, 2]
    with pytest.raises(ValueError, match="counts add up to 2; there are 3 sequences"):
        grouped_lengths([1, 1, 1], [2])


def as_is(linear: nn.Linear) -> None:
    """Make a linear layer give what it gets, once or several times side by side."""
    with torch.no_grad():
        times = linear.out_features // linear.in_features
        linear.weight.copy_(torch.eye(linear.in_features).repeat(times, 1))
        linear.bias.zero_()


ONE_HEAD: dict[str, Any] = {
    "hidden_size": 2,
    "num_attention_heads": 1,
    "intermediate_size": 2,
    "encoder_size": 2,
}


def test_self_attention_by_hand() -> None:
    """Tokens (1, 0) and (0, 1), queries, keys and values as they are, one head of 2, so that scores are divided by √2.

    The first token sees itself alone: (1, 0). The second scores 0 with the first and 1/√2 with itself:
    weights 1 / (1 + e^.7071) = .3302 and .6698, so (.3302, .6698).
    """
    attention = CausalSelfAttention(decoder_config(**ONE_HEAD)).eval()
    as_is(attention.qkv)
    as_is(attention.out)
    found = attention(torch.eye(2), TokenLayout.of([2], CPU), Sight(causal=True), None)
    second = 1 / (1 + math.exp(1 / math.sqrt(2)))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [second, 1 - second]]), rtol=0, atol=1e-6)


def test_cross_attention_by_hand() -> None:
    """Two sources, (1, 0), (0, 1) and (0, 1) alone; a token (1, 0) reads each.

    Of the first its scores are 1/√2 and 0: it takes .6698 of (1, 0) and .3302 of (0, 1). Of the second there is but one token;
    the zeros that fill up its row are masked, else the token would score 0 as they do, and half of (0, 1) would be left.
    """
    attention = CrossAttention(decoder_config(**ONE_HEAD), 2).eval()
    for linear in (attention.query, attention.key_value, attention.out):
        as_is(linear)
    layout = TokenLayout.of([2, 1], CPU)
    hidden = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    filled = layout.filled(CPU)
    assert filled is not None
    source = EncodedSource(hidden, layout, filled.view(2, 1, 1, 2))
    reading, token = TokenLayout.of([1, 1], CPU), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    found = attention(token, reading, attention.keys_values(source), source.mask)
    share = 1 / (1 + math.exp(-1 / math.sqrt(2)))
    wanted = torch.tensor([[share, 1 - share], [0.0, 1.0]])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    unmasked = attention(token, reading, attention.keys_values(source), None)
    torch.testing.assert_close(unmasked[1], torch.tensor([0.0, 0.5]), rtol=0, atol=1e-6)


MODELS = {name: tiny_generator(**fields) for name, fields in DECODERS.items()}
LANGUAGE_MODEL = tiny_generator(encoder_size=None)


def random_ids(lengths: list[int], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 150, (length,), generator=generator) for length in lengths]


def one_by_one(model: TextGenerator, source: Tensor | None, target: Tensor) -> Tensor:
    """The obvious twin: one source, one target, no padding."""
    read = None if source is None else model.encode(source, [len(source)])
    return model.logits(model(target, [len(target)], read))


@pytest.mark.parametrize("name", DECODERS)
@given(
    sources=st.lists(st.tuples(st.integers(1, 12), st.lists(st.integers(1, 9), min_size=1, max_size=3)), min_size=1, max_size=4),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_several_targets_of_several_sources_give_what_each_gives_alone(
    name: str, sources: list[tuple[int, list[int]]], seed: int
) -> None:
    model = MODELS[name]
    read = random_ids([length for length, _ in sources], seed)
    targets = [random_ids(lengths, seed + 1 + i) for i, (_, lengths) in enumerate(sources)]
    flat = [target for own in targets for target in own]
    with torch.inference_mode():
        source = model.encode(torch.cat(read), [len(ids) for ids in read])
        together = model.logits(
            model(torch.cat(flat), [len(ids) for ids in flat], source, [len(own) for own in targets])
        )
        alone = [one_by_one(model, ids, own) for ids, each in zip(read, targets, strict=True) for own in each]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("model", [*MODELS.values(), LANGUAGE_MODEL], ids=[*DECODERS, "language model"])
def test_what_comes_later_changes_nothing_before_it(model: TextGenerator) -> None:
    source = None if model.encoder is None else torch.tensor([2, 9, 30, 3])
    first = torch.tensor([2, 20, 21, 22, 23])
    other = torch.tensor([2, 20, 21, 99, 98])
    with torch.inference_mode():
        one, two = (one_by_one(model, source, ids) for ids in (first, other))
    assert torch.equal(one[:3], two[:3])
    assert not torch.allclose(one[3:], two[3:], atol=1e-3)


def test_the_source_changes_every_token() -> None:
    model, target = MODELS["norm first"], torch.tensor([2, 20, 21])
    with torch.inference_mode():
        one, two = (one_by_one(model, torch.tensor([2, number, 3]), target) for number in (30, 31))
    assert ((one - two).abs().amax(dim=1) > 1e-3).all()


def test_output_and_input_share_their_table() -> None:
    shared = MODELS["norm first"]
    assert shared.decoder.tokens is None
    assert shared.encoder is not None
    assert shared.output_weights[0] is shared.table is shared.encoder.embeddings.tokens.weight
    own = MODELS["norm after"]
    assert own.decoder.output is not None
    assert own.output_weights[0] is own.decoder.output.weight
    assert own.table is not own.output_weights[0]
    names = [name for name, _ in shared.named_parameters() if name.endswith("tokens.weight")]
    assert names == ["encoder.embeddings.tokens.weight"]


def test_fresh_weights_of_a_decoder_that_norms_first_grow_with_no_layer() -> None:
    """What 2 layers of a language model add to, 2 times each, is drawn with a deviation smaller by √4 (GPT-2)."""
    torch.manual_seed(0)
    layers = TextGenerator(None, decoder_config(encoder_size=None, hidden_size=256)).decoder.layers
    layer = layers[0]
    assert isinstance(layer, DecoderLayer)
    ratio = layer.attention.qkv.weight.std() / layer.attention.out.weight.std()
    assert float(ratio.detach()) == pytest.approx(2.0, rel=0.02)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="encoder_size is None; the encoder's vectors have 32"):
        TextGenerator(MODELS["narrow"].encoder, decoder_config(encoder_size=None))
    with pytest.raises(ValueError, match=r"token table, which is \(207, 32\); .* are \(207, 16\)"):
        TextGenerator(
            MODELS["narrow"].encoder,
            decoder_config(hidden_size=16, num_attention_heads=2, share_embeddings=True),
        )
    with pytest.raises(ValueError, match="a sequence has 41 tokens; this decoder takes at most 40"):
        LANGUAGE_MODEL(torch.zeros(41, dtype=torch.long), [41])
    with pytest.raises(ValueError, match="a language model has no encoder"):
        LANGUAGE_MODEL.encode(torch.tensor([2]), [1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 30}, "hidden_size 30 is not a multiple of num_attention_heads 4"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; it must be at least 1"),
        ({"position": "rope"}, "position is 'rope'; it must be one of learned, sinusoidal"),
        ({"encoder_size": 0}, "encoder_size is 0; it must be at least 1"),
        ({"encoder_size": None, "share_embeddings": True}, "a language model has no encoder to share a table with"),
    ],
)  # fmt: skip
def test_a_config_checks_its_ranges(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decoder_config(**fields)


@pytest.mark.parametrize("norm_first", [True, False])
def test_gradients_of_a_layer_are_those_of_finite_differences(norm_first: bool) -> None:
    """Two sources of unequal length, the first with two targets: in double precision, weights and inputs alike."""
    torch.manual_seed(0)
    fields = {"hidden_size": 4, "num_attention_heads": 2, "intermediate_size": 3, "encoder_size": 3}
    config = decoder_config(norm_first=norm_first, hidden_dropout_prob=0.0, **fields)
    layer = DecoderLayer(config).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.7)
    lengths, layout = [2, 1, 3], TokenLayout.of([3, 2], CPU)
    filled = layout.filled(CPU)
    assert filled is not None
    places = Places(TokenLayout.of(lengths, CPU), TokenLayout.of([3, 3], CPU), Sight(causal=True))
    hidden = torch.randn(6, 4, dtype=torch.double, requires_grad=True)
    read = torch.randn(5, 3, dtype=torch.double, requires_grad=True)
    weights = tuple(layer.parameters())

    def compute(hidden: Tensor, read: Tensor, *_: Tensor) -> Tensor:
        source = EncodedSource(read, layout, filled.view(2, 1, 1, 3))
        out: Tensor = layer(hidden, places, source, None)
        return out

    assert_gradients(compute, [hidden, read, *weights])

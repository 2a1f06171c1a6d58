"""The encoder: packed equals padded for every family, masks hide, dropout rests in evaluation, and how it is drawn."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedkit.model.embeddings import sinusoidal_table
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.layers import Run
from tests.tiny import FAMILY_SHAPES, JINA_CODE_SHAPE, ROUTED_SHAPES, VARIANT_SHAPES, tiny_config

ROUNDING = 2e-5  # two layers of float32 sums in another order, with large weights

SHAPES = (
    FAMILY_SHAPES
    | VARIANT_SHAPES
    | ROUTED_SHAPES
    | {"sinusoidal": {"position": "sinusoidal", "hidden_act": "relu"}, "jina v2 for code": JINA_CODE_SHAPE}
)


def make(family: str, **fields: object) -> TransformerEncoder:
    torch.manual_seed(0)
    return TransformerEncoder(tiny_config(**SHAPES[family] | fields)).eval()


ENCODERS = {family: make(family) for family in SHAPES}


@pytest.mark.parametrize("family", SHAPES)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=5, deadline=None)
@example(lengths=[40, 17, 17, 16, 3, 1], seed=0)
def test_packed_and_padded_batches_give_the_same_numbers(family: str, lengths: list[int], seed: int) -> None:
    check_packed(ENCODERS[family], lengths, seed, torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("family", SHAPES)
def test_packed_and_padded_batches_give_the_same_numbers_on_a_gpu(family: str) -> None:
    """With padding far from real tokens, beyond the window of local attention."""
    check_packed(make(family).cuda(), [40, 17, 17, 16, 3, 1], 0, torch.device("cuda"))


def check_packed(encoder: TransformerEncoder, lengths: list[int], seed: int, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 200, (len(lengths), max(lengths)), generator=generator).to(device)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).to(device)
    types = (
        torch.randint(0, encoder.config.type_vocab_size, ids.shape, generator=generator).to(device)
        if encoder.config.type_vocab_size
        else None
    )
    with torch.inference_mode():
        padded = encoder(ids, mask, types)[mask]
        packed = encoder.forward_packed(ids[mask], lengths, None if types is None else types[mask])
    torch.testing.assert_close(packed, padded, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("family", SHAPES)
def test_what_stands_at_padding_changes_nothing(family: str) -> None:
    encoder = ENCODERS[family]
    ids = torch.randint(1, 200, (1, 30), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(30)[None] < 5
    other = ids.masked_fill(~mask, 3)
    with torch.inference_mode():
        first, second = encoder(ids, mask), encoder(other, mask)
    torch.testing.assert_close(first[mask], second[mask], rtol=0, atol=0)
    assert torch.isfinite(first[mask]).all()


def test_local_attention_reaches_half_the_window_to_each_side() -> None:
    """A window of 6 reaches 3 tokens: one local layer spreads a change of token 20 over the tokens 17 to 23."""
    encoder = ENCODERS["modernbert"]
    run = Run(0, 1, 40)
    hidden = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    other = hidden.clone()
    other[20] += torch.arange(32)
    with torch.inference_mode():
        _, biases = encoder.embed(torch.ones(40, dtype=torch.long), [run], None)
        for local, touched in ((True, range(17, 24)), (False, range(40))):
            layer = encoder.layer(1)
            difference = layer(hidden, [run], biases[local]) - layer(other, [run], biases[local])
            assert difference.abs().amax(dim=1).nonzero().flatten().tolist() == list(touched)


def test_every_token_may_attend_to_something_also_padding_far_from_real_tokens() -> None:
    """A row without anything is NaN with some kernels, and a NaN among the values reaches the real tokens."""
    encoder = ENCODERS["modernbert"]
    mask = torch.arange(30)[None] < 5
    _, biases = encoder.embed(torch.ones(30, dtype=torch.long), [Run(0, 1, 30, mask)], None)
    allowed = biases[True][0].mask
    assert allowed is not None
    assert bool(allowed.any(dim=-1).all())


def test_a_change_of_order_changes_the_vectors() -> None:
    for family, encoder in ENCODERS.items():
        with torch.inference_mode():
            ordered, changed = encoder(torch.tensor([[5, 6, 7]]))[0], encoder(torch.tensor([[6, 5, 7]]))[0]
        assert (ordered - changed[[1, 0, 2]]).abs().max() > 1e-3, family


def test_dropout_works_in_training_and_rests_in_evaluation() -> None:
    encoder = make("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5)
    ids = torch.arange(1, 21)[None]
    assert torch.equal(encoder(ids), encoder(ids))
    encoder.train()
    assert (encoder(ids) - encoder(ids)).abs().max() > 1e-3
    encoder = make("bert", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.0).train()
    assert (encoder(ids) - encoder(ids)).abs().max() > 1e-3


@pytest.mark.parametrize("family", SHAPES)
def test_every_trained_parameter_gets_a_gradient(family: str) -> None:
    encoder = make(family).train()
    types = torch.arange(5)[None] % encoder.config.type_vocab_size if encoder.config.type_vocab_size else None
    encoder(torch.arange(1, 6)[None], None, types).square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if not parameter.requires_grad:
            drawn_once = "embeddings.positions.weight" if family == "sinusoidal" else "form.features"
            assert name.endswith(drawn_once)
            assert parameter.grad is None
        else:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_fresh_weights_are_cut_normals_and_biases_zero() -> None:
    encoder = TransformerEncoder(tiny_config(hidden_size=128, vocab_size=2000, initializer_range=0.02))
    for name, parameter in encoder.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert parameter.abs().max() <= 0.04
            # A normal cut at two deviations has 0.8796 of its deviation (1 - 2·2·φ(2) / (Φ(2) - Φ(-2)) = 0.7737).
            assert parameter.std().item() == pytest.approx(0.02 * 0.8796, rel=0.05), name


def test_the_sinusoidal_table_by_hand() -> None:
    """Size 4: frequencies 1 and 1/100; all divided by sqrt(4)."""
    table = sinusoidal_table(3, 4)
    expected = [[math.sin(p), math.cos(p), math.sin(p / 100), math.cos(p / 100)] for p in range(3)]
    torch.testing.assert_close(table, torch.tensor(expected) / 2, rtol=0, atol=1e-6)
    assert sinusoidal_table(3, 5).shape == (3, 5)
    encoder = make("sinusoidal")
    assert encoder.embeddings.positions is not None
    torch.testing.assert_close(encoder.embeddings.positions.weight.data, sinusoidal_table(64, 32))


def test_states_are_what_each_layer_gives() -> None:
    for family in ("bert", "modernbert", "albert", "relative"):
        encoder = ENCODERS[family]
        ids = torch.arange(5, 15)
        with torch.inference_mode():
            states = list(encoder.states(ids, [Run(0, 1, 10)], None))
            assert len(states) == encoder.config.num_hidden_layers + 1
            last = encoder.finish(states[-1])
            torch.testing.assert_close(last, encoder.forward_packed(ids, [10]), rtol=0, atol=0)
            assert (states[0] - states[1]).abs().max() > 0.01


def test_albert_computes_consecutive_layers_with_one_module() -> None:
    encoder = ENCODERS["albert"]
    modules = [encoder.layer(i) for i in range(4)]
    assert modules[0] is modules[1]
    assert modules[2] is modules[3]
    assert modules[1] is not modules[2]


def test_too_long_sequences_and_wrong_masks_are_refused() -> None:
    encoder = make("roberta", max_position_embeddings=10)
    with pytest.raises(ValueError, match="a sequence has 9 tokens; this encoder takes at most 8"):
        encoder(torch.ones(1, 9, dtype=torch.long))
    with pytest.raises(ValueError, match=r"attention_mask is torch\.int64; it must be bool"):
        encoder(torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match="lengths add up to 5; input_ids has 4 tokens"):
        encoder.forward_packed(torch.ones(4, dtype=torch.long), [2, 3])

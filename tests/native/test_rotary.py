"""Rotary positions and local attention (ModernBERT): the angles are the model's own, and a window ends where it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from embedkit.model.config import EncoderConfig
from embedkit.model.positions import rotary_table
from embedkit.native.encoder import NativeEncoder
from embedkit.native.library import NativePrecision
from embedkit.native.rotary import rotary_angles, rotary_rows
from tests.native.models import (
    FAMILIES,
    MODERN,
    PRECISIONS,
    cosines,
    random_model,
    random_tokens,
    reference,
    skip_unless_native,
)

REACH = MODERN.local_attention // 2
LOCAL = replace(MODERN, num_hidden_layers=1, global_attn_every_n_layers=2, global_attn_offset=1)  # one layer
# Around a whole vector and a tile, around the window (12 and 24), and many times as long.
LENGTHS = [1, 2, REACH, REACH + 1, REACH + 2, 24, 25, 31, 33, 64, 97, 256]


@pytest.mark.parametrize("family", ["modernbert", "nomic", "gte"])
@pytest.mark.parametrize("local", [False, True])
def test_angles_are_those_of_the_model(family: str, local: bool) -> None:
    config = replace(FAMILIES[family], max_position_embeddings=2048)
    cos, sin = rotary_table(
        config.max_tokens,
        head_size=config.head_size,
        theta=config.local_rope_theta if local else config.global_rope_theta,
        device=torch.device("cpu"),
        factor=1.0 if local else config.rope_factor,
    )
    half = config.head_size // 2
    rows = rotary_rows(config, local=local)
    # One unit in the last place of a frequency, 6e-8, at position 2048.
    np.testing.assert_allclose(rows[:, :half], cos[:, :half], rtol=0, atol=2e-4)
    np.testing.assert_allclose(rows[:, half:], sin[:, :half], rtol=0, atol=2e-4)


def test_angles_by_hand() -> None:
    """Of heads of 32 and base 16: the second pair turns by 16^(-2/32) = 0.841 a token."""
    config = replace(MODERN, global_rope_theta=16.0, max_position_embeddings=3)
    angles = rotary_angles(config, local=False)
    assert angles.shape == (3, 16)
    np.testing.assert_allclose(angles[:, 0], [0, 1, 2])
    np.testing.assert_allclose(angles[:, 1], [0, 0.8409, 1.6818], rtol=1e-4)


def fields_of(config: EncoderConfig) -> dict[str, EncoderConfig]:
    """The model as it would be without one of what this file is about."""
    return {
        "no window": replace(config, local_attention=0),
        "a window that is narrower by one on each side": replace(config, local_attention=22),
        "another base in global layers": replace(config, global_rope_theta=500.0),
        "another base in local layers": replace(config, local_rope_theta=500.0),
        "other layers global": replace(config, global_attn_offset=1),
    }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_windows_and_positions_count_as_in_torch(precision: NativePrecision) -> None:
    skip_unless_native(precision)
    encoder, weights = random_model(MODERN)
    ids, lengths = random_tokens(MODERN, LENGTHS)
    expected = reference(encoder, ids, lengths)
    hidden = NativeEncoder(MODERN, weights, precision=precision, threads=2).hidden_states(ids, lengths)
    if precision == "fp32":
        np.testing.assert_allclose(hidden, expected, rtol=0, atol=1e-5)
    else:
        assert cosines(hidden, expected).mean() > 0.999
    for what, changed in fields_of(MODERN).items():
        other = NativeEncoder(changed, weights, precision=precision, threads=1).hidden_states(ids, lengths)
        far = cosines(other, hidden)[-97 - 256 :]
        assert far.mean() < (0.9999 if precision == "fp32" else 0.998), (what, far.mean())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("place", [0, 5, 47, 48, 99])
def test_a_token_moves_those_within_its_reach_alone(place: int, precision: NativePrecision) -> None:
    skip_unless_native(precision)
    native = NativeEncoder(LOCAL, random_model(LOCAL)[1], precision=precision, threads=1)
    ids, lengths = random_tokens(LOCAL, [100])
    hidden = native.hidden_states(ids, lengths)
    ids[place] = (ids[place] + 1) % LOCAL.vocab_size
    moved = (native.hidden_states(ids, lengths) != hidden).any(axis=1)
    np.testing.assert_array_equal(moved, abs(np.arange(100) - place) <= REACH)


def test_what_is_not_finite_stays_within_reach_and_a_few_rows() -> None:
    """Beyond the window a power is 0, and 0 times infinity is not: a block of queries is spoiled, and no more."""
    skip_unless_native("fp32")
    weights = random_model(LOCAL)[1]
    weights["embeddings.tokens.weight"] = weights["embeddings.tokens.weight"].copy()
    weights["embeddings.tokens.weight"][7, 3] = np.nan
    native = NativeEncoder(LOCAL, weights, precision="fp32", threads=1)
    ids, lengths = random_tokens(LOCAL, [200])
    ids[ids == 7] = 8
    clean = native.hidden_states(ids, lengths)
    ids[100] = 7
    hidden = native.hidden_states(ids, lengths)
    distance = abs(np.arange(200) - 100)
    assert not np.isfinite(hidden[distance <= REACH]).any()
    np.testing.assert_array_equal(hidden[distance > REACH + 32], clean[distance > REACH + 32])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_window_of_one_is_the_token_itself(precision: NativePrecision) -> None:
    """Then a text is as good as its tokens apart, at position 0: of one key, no turn matters."""
    skip_unless_native(precision)
    config = replace(LOCAL, local_attention=1)
    native = NativeEncoder(config, random_model(config)[1], precision=precision, threads=1)
    ids, lengths = random_tokens(config, [40])
    whole, apart = native.hidden_states(ids, lengths), native.hidden_states(ids, np.ones(40, np.int64))
    assert cosines(whole, apart).min() > 0.99999


@pytest.mark.parametrize("keys", [[1, 1], [7, 40], [12, 3], [5, 90], [12, 100]])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_keys_that_none_attends_to_and_queries_without_any(
    keys: list[int], precision: NativePrecision
) -> None:
    """A query whose window holds nothing else attends to itself, as in torch."""
    skip_unless_native(precision)
    encoder, weights = random_model(MODERN)
    ids, lengths = random_tokens(MODERN, [12, 100])
    with torch.inference_mode():
        expected = encoder.forward_packed(torch.from_numpy(ids), lengths.tolist(), num_keys=keys).numpy()
    native = NativeEncoder(MODERN, weights, precision=precision, threads=1)
    found = native.hidden_states(ids, lengths, num_keys=np.array(keys))
    if precision == "fp32":
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    else:
        assert cosines(found, expected).mean() > 0.998


def test_a_window_and_distances_go_together() -> None:
    """No family has both; MPNet's biases in a window."""
    skip_unless_native("fp32")
    config = replace(FAMILIES["mpnet"], local_attention=24, global_attn_every_n_layers=2)
    encoder, weights = random_model(config)
    assert encoder.relative_bias is not None
    with torch.no_grad():
        encoder.relative_bias.weight.mul_(20)
    ids, lengths = random_tokens(config, LENGTHS)
    hidden = NativeEncoder(config, weights, precision="fp32", threads=1).hidden_states(ids, lengths)
    np.testing.assert_allclose(hidden, reference(encoder, ids, lengths), rtol=0, atol=2e-5)


def test_layers_that_stop_early_end_in_the_last_norm() -> None:
    skip_unless_native("fp32")
    encoder, weights = random_model(MODERN)
    ids, lengths = random_tokens(MODERN, [50])
    whole = NativeEncoder(MODERN, weights, precision="fp32", threads=1)
    for layers in (1, 2, 3):
        short = replace(MODERN, num_hidden_layers=layers)
        expected = NativeEncoder(short, weights, precision="fp32", threads=1).hidden_states(ids, lengths)
        np.testing.assert_array_equal(whole.hidden_states(ids, lengths, layers=layers), expected)
    del encoder.layers[1:]
    encoder.config = replace(MODERN, num_hidden_layers=1)
    found = whole.hidden_states(ids, lengths, layers=1)
    np.testing.assert_allclose(found, reference(encoder, ids, lengths), rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1000, 2047, 2048])
def test_a_text_of_two_thousand_tokens_is_torchs(length: int) -> None:
    skip_unless_native("fp32")
    config = replace(FAMILIES["modernbert, heads of 64"], max_position_embeddings=2048, num_hidden_layers=3)
    encoder, weights = random_model(config)
    ids, lengths = random_tokens(config, [length])
    one, two = (NativeEncoder(config, weights, precision="fp32", threads=threads) for threads in (1, 2))
    hidden = one.hidden_states(ids, lengths)
    np.testing.assert_allclose(hidden, reference(encoder, ids, lengths), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(two.hidden_states(ids, lengths), hidden)
    np.testing.assert_array_equal(two.first_states(ids, lengths), hidden[:1])


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("modernbert", "merged tokens have no position"),
        ("nomic", "merged tokens have no position"),
        ("norms first, silu, learned positions", "tokens are compared behind a norm"),
    ],
)
def test_what_merging_cannot_do_is_said(family: str, reason: str) -> None:
    skip_unless_native("fp32")
    _, weights = random_model(FAMILIES[family])
    with pytest.raises(ValueError, match=rf"merge_tokens is 0.2; {reason}.*Leave it out"):
        NativeEncoder(FAMILIES[family], weights, precision="fp32", merge_tokens=0.2)

"""Recursion: worked examples, plain loops as its twins, the fixed case as ALBERT's, fewer recursions, and independence of others."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedkit.model.config import EncoderConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.layers import AttentionBias, Run
from embedkit.model.recursion import highest
from embedkit.model.routing import recording
from embedkit.model.routing_config import RecursionConfig
from tests.tiny import ROUTED_SHAPES, tiny_config

ROUNDING = 2e-5  # float32 sums in another order


def make(shape: dict[str, object], *, seed: int = 0) -> TransformerEncoder:
    torch.manual_seed(seed)
    return TransformerEncoder(tiny_config(**shape)).eval()


EXPERT_CHOICE = make(ROUTED_SHAPES["expert choice"])
TOKEN_CHOICE = make(ROUTED_SHAPES["token choice"])


def by_loop(encoder: TransformerEncoder, ids: Tensor) -> tuple[Tensor, list[int]]:
    """Encode one sequence as the module's first lines say it, token by token; return its vectors and depths."""
    config = encoder.config
    recursion = config.recursion
    assert recursion is not None
    assert encoder.recursion is not None
    runs = [Run(0, 1, len(ids))]
    hidden, _ = encoder.embed(ids, runs, None)

    def layers(rows: Tensor, first: int, stop: int) -> Tensor:
        for number in range(first, stop):
            rows = encoder.layer(number)(rows, [Run(0, 1, len(rows))], [AttentionBias(None, None)])
        return rows

    hidden = layers(hidden, 0, recursion.num_first_layers)
    start, block = hidden.clone(), recursion.num_first_layers + recursion.num_block_layers
    router = encoder.recursion.router.weight
    depths = [0] * len(ids)
    if recursion.routing == "expert_choice":
        active = list(range(len(ids)))
        for step in range(recursion.num_recursions):
            score = {token: float(hidden[token] @ router[step]) for token in active}
            keep = -(-len(ids) * (recursion.num_recursions - step) // recursion.num_recursions)
            active = sorted(sorted(active, key=lambda token: -score[token])[:keep])
            done = layers(hidden[active], recursion.num_first_layers, block)
            hidden = hidden.clone()
            for row, token in enumerate(active):
                gate = 1 / (1 + torch.tensor(-score[token]).exp())
                hidden[token] = hidden[token] + gate * (done[row] - hidden[token])
                depths[token] += 1
    else:
        probabilities = (start @ router.T).softmax(dim=-1)
        depths = (probabilities.argmax(dim=-1) + 1).tolist()
        for step in range(recursion.num_recursions):
            active = [token for token, depth in enumerate(depths) if depth > step]
            if not active:
                break
            done = layers(hidden[active], recursion.num_first_layers, block)
            hidden = hidden.clone()
            for row, token in enumerate(active):
                hidden[token] = done[row]
                if depths[token] == step + 1:
                    gate = probabilities[token, step]
                    hidden[token] = start[token] + gate * (done[row] - start[token])
    return layers(hidden, recursion.end, config.num_hidden_layers), depths


@pytest.mark.parametrize("encoder", [EXPERT_CHOICE, TOKEN_CHOICE], ids=["expert choice", "token choice"])
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_packed_recursion_equals_a_loop_over_each_sequence_alone(
    encoder: TransformerEncoder, lengths: list[int], seed: int
) -> None:
    """Which is to say: no vector and no depth depends on what else is in the batch."""
    ids = torch.randint(1, 200, (sum(lengths),), generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode(), recording() as log:
        packed = encoder.forward_packed(ids, lengths)
    assert log.depths is not None
    for found, depths, own in zip(
        *(torch.split(rows, lengths) for rows in (packed, log.depths, ids)), strict=True
    ):
        with torch.inference_mode():
            expected, wanted = by_loop(encoder, own)
        torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)
        assert depths.tolist() == wanted


def test_the_highest_of_each_sequence_by_hand() -> None:
    scores = torch.tensor([3.0, 1.0, 2.0, 5.0, 7.0])
    assert highest(scores, [3, 2], [2, 1]).tolist() == [0, 2, 4]
    assert highest(scores, [3, 2], [3, 2]).tolist() == [0, 1, 2, 3, 4]
    assert highest(scores, [1, 4], [1, 1]).tolist() == [0, 4]
    equal = torch.ones(5)
    assert highest(equal, [3, 2], [2, 1]).tolist() == [0, 1, 3]  # of equal scores the earlier


def test_ever_fewer_tokens_take_a_recursion() -> None:
    """Of 10 tokens and 3 recursions: ⌈10 · 3/3⌉, ⌈10 · 2/3⌉, ⌈10 · 1/3⌉; of a single one always it."""
    recursion = RecursionConfig()
    assert [recursion.num_selected(10, step) for step in range(3)] == [10, 7, 4]
    assert [recursion.num_selected(1, step) for step in range(3)] == [1, 1, 1]
    with torch.inference_mode(), recording() as log:
        EXPERT_CHOICE.forward_packed(torch.arange(1, 12), [10, 1])
    assert log.step_lengths == [[10, 1], [7, 1], [4, 1]]
    assert log.depths is not None
    assert sorted(log.depths.tolist()) == sorted([3] * 4 + [2] * 3 + [1] * 3 + [3])


def test_a_gate_by_hand() -> None:
    """With scores of 0 the gate is 1/2: after one recursion of one a token stands half way to what the layer makes of it."""
    encoder = make({"num_hidden_layers": 2, "recursion": RecursionConfig(num_recursions=1)})
    assert encoder.recursion is not None
    with torch.inference_mode():
        encoder.recursion.router.weight.zero_()
        ids, runs = torch.tensor([5, 6, 7]), [Run(0, 1, 3)]
        before, biases = encoder.embed(ids, runs, None)
        before = encoder.layer(0)(before, runs, biases[False])
        expected = (before + encoder.layer(1)(before, runs, biases[False])) / 2
        torch.testing.assert_close(encoder.forward_packed(ids, [3]), expected, rtol=0, atol=ROUNDING)


def test_a_depth_by_hand() -> None:
    """Scores (0, ln 3): depth 2 with probability 3/4; the token ends three quarters of the way to the second recursion's output."""
    encoder = make(
        {"num_hidden_layers": 3, "recursion": RecursionConfig(routing="token_choice", num_recursions=2)}
    )
    assert encoder.recursion is not None
    with torch.inference_mode():
        ids, runs = torch.tensor([5, 6, 7]), [Run(0, 1, 3)]
        before, biases = encoder.embed(ids, runs, None)
        before = encoder.layer(0)(before, runs, biases[False])
        router = encoder.recursion.router.weight.zero_()
        # A score of ln 3 for each of these three tokens: the least squares solution, which is exact.
        router[1] = torch.linalg.lstsq(before, torch.full((3,), 3.0).log()[:, None]).solution[:, 0]
        twice = before
        for _ in range(2):
            twice = encoder.layer(1)(twice, runs, biases[False])
        expected = before + 0.75 * (twice - before)
        torch.testing.assert_close(encoder.forward_packed(ids, [3]), expected, rtol=0, atol=1e-4)


def test_at_a_fixed_depth_with_a_block_of_one_layer_it_is_albert() -> None:
    shared = make({"num_hidden_layers": 4, "num_hidden_groups": 1})
    recursion = RecursionConfig(routing="fixed", num_recursions=4, num_first_layers=0)
    plain = make({"num_hidden_layers": 4, "recursion": recursion})
    assert plain.state_dict().keys() == shared.state_dict().keys()
    plain.load_state_dict(shared.state_dict())
    ids = torch.arange(1, 12)
    with torch.inference_mode():
        found, expected = (encoder.forward_packed(ids, [7, 4]) for encoder in (plain, shared))
    assert torch.equal(found, expected)


def test_a_block_of_two_layers_recurs_in_turn() -> None:
    """One layer, three times a block of two, two layers: modules 0, 1 2, 1 2, 1 2, 3, 4."""
    config = tiny_config(num_hidden_layers=9, recursion=RecursionConfig(routing="fixed", num_block_layers=2))
    assert config.num_distinct_layers == 5
    assert [config.module_of(layer) for layer in range(9)] == [0, 1, 2, 1, 2, 1, 2, 3, 4]
    assert config.recursion is not None
    assert [config.recursion.step_of(layer) for layer in range(9)] == [None, 0, 0, 1, 1, 2, 2, None, None]


@pytest.mark.parametrize("name", ["expert choice", "token choice"])
def test_fewer_recursions_are_the_first_ones(name: str) -> None:
    """With 2 of 3 recursions a token goes as deep as before, at most 2; with all of them nothing changes."""
    encoder = make(ROUTED_SHAPES[name])
    fewer = _limited(encoder, 2)
    ids = torch.randint(1, 200, (40,), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        with recording() as log:
            whole = encoder.forward_packed(ids, [25, 15])
        with recording() as other:
            part = fewer.forward_packed(ids, [25, 15])
        assert torch.equal(_limited(encoder, 3).forward_packed(ids, [25, 15]), whole)
    assert log.depths is not None
    assert other.depths is not None
    assert other.depths.tolist() == log.depths.clamp(max=2).tolist()
    assert not torch.allclose(part, whole)


def _limited(encoder: TransformerEncoder, recursions: int) -> TransformerEncoder:
    """Run the same weights with fewer recursions, as a folder is loaded with them."""
    limited = TransformerEncoder(encoder.config.with_recursions(recursions)).eval()
    limited.load_state_dict(encoder.state_dict())
    return limited


def test_fewer_recursions_of_a_fixed_depth_are_those_of_a_shallower_model() -> None:
    encoder = make({"num_hidden_layers": 5, "recursion": RecursionConfig(routing="fixed")})
    shallow = TransformerEncoder(
        replace(
            encoder.config,
            num_hidden_layers=3,
            recursion=RecursionConfig(routing="fixed", num_recursions=1),
        )
    ).eval()
    shallow.load_state_dict(encoder.state_dict())
    ids = torch.arange(1, 9)
    with torch.inference_mode():
        found, expected = (each.forward_packed(ids, [8]) for each in (_limited(encoder, 1), shallow))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["expert choice", "token choice"])
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """Of the router, whose scores are also gates, and of a weight that every recursion uses; choices stay the same nearby."""
    encoder = make(ROUTED_SHAPES[name] | {"initializer_range": 0.5}).double()
    assert encoder.recursion is not None
    ids, lengths = torch.randint(1, 200, (8,), generator=torch.Generator().manual_seed(3)), [5, 3]
    router = encoder.recursion.router.weight
    shared = encoder.layer(1).attention.out.weight

    def run(router: Tensor, shared: Tensor) -> Tensor:
        return encoder.forward_packed(ids, lengths)

    with recording() as log:
        run(router, shared)
    assert log.depths is not None
    assert len(set(log.depths.tolist())) > 1
    assert torch.autograd.gradcheck(run, (router, shared), fast_mode=True)


def test_the_vectors_after_each_layer_end_with_those_of_the_whole() -> None:
    for name in ("expert choice", "token choice", "experts in a recursion"):
        encoder = make(ROUTED_SHAPES[name])
        ids, runs = torch.arange(1, 20), [Run(0, 1, 19)]
        with torch.inference_mode():
            hidden, biases = encoder.embed(ids, runs, None)
            states = list(encoder.walk(hidden, runs, biases))
            assert len(states) == encoder.config.num_hidden_layers, name
            assert torch.equal(states[-1], encoder.forward_packed(ids, [19])), name
            assert all(not torch.equal(one, other) for one, other in pairwise(states))


def test_padding_on_either_side_changes_nothing() -> None:
    """Packed first, so that a text with padding before it has the positions of one without."""
    ids = torch.arange(1, 13).view(1, 12)
    for encoder in (EXPERT_CHOICE, TOKEN_CHOICE, make(ROUTED_SHAPES["experts"])):
        with torch.inference_mode():
            alone = encoder(ids)
            for before, after in ((0, 5), (5, 0), (3, 2)):
                wide = torch.nn.functional.pad(ids, (before, after))
                mask = torch.nn.functional.pad(torch.ones_like(ids, dtype=torch.bool), (before, after))
                found = encoder(wide, mask)
                torch.testing.assert_close(found[mask], alone[0], rtol=0, atol=ROUNDING)
                assert not found[~mask].any()


def test_experts_in_a_recursion_are_told_which_tokens_they_compute() -> None:
    """The log counts the real tokens alone, in each recursion: those of the first sequence, of which fewer and fewer go on."""
    encoder = make(ROUTED_SHAPES["experts in a recursion"])
    ids = torch.randint(1, 200, (30,), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        with recording() as log:
            log.real_tokens = 20
            encoder.forward_packed(ids, [20, 10])
        with recording() as alone:
            encoder.forward_packed(ids[:20], [20])
    assert [len(each.logits) for each in log.counted_choices()] == [
        len(each.logits) for each in alone.counted_choices()
    ]
    for one, other in zip(log.counted_choices(), alone.counted_choices(), strict=True):
        assert one.router == other.router
        torch.testing.assert_close(one.logits, other.logits, rtol=0, atol=1e-4)
    assert log.counted_depths() is not None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_recursions": 0}, "num_recursions is 0; it must be at least 1"),
        ({"num_block_layers": 0}, "num_block_layers is 0; it must be at least 1"),
        ({"num_first_layers": -1}, "num_first_layers is -1; it must be at least 0"),
        ({"routing": "free"}, "routing is 'free'; it must be one of fixed, expert_choice, token_choice"),
        ({"trained_recursions": 2}, "num_recursions is 3; the model was trained with 2. Choose no more"),
    ],
)
def test_a_recursion_that_cannot_be_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecursionConfig(**fields)  # type: ignore[arg-type] # wrong values are the point


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"num_hidden_layers": 3, "recursion": RecursionConfig()},
            r"num_recursions is 3: 1 layers and 3 × 1 are 4; num_hidden_layers is 3, which counts layers",
        ),
        (
            {"num_hidden_layers": 80, "recursion": RecursionConfig(num_recursions=70)},
            "num_recursions is 70; a sequence has at most 64 tokens, and each recursion takes fewer",
        ),
        (
            {"num_hidden_layers": 4, "num_hidden_groups": 2, "recursion": RecursionConfig()},
            "num_hidden_groups and recursion both share layers; set one of them",
        ),
        (
            {"num_hidden_layers": 4, "position": "rope", "recursion": RecursionConfig()},
            "recursion.routing is 'expert_choice': attention is among some tokens of a text",
        ),
        (
            {
                "num_hidden_layers": 4,
                "norm_first": True,
                "recursion": RecursionConfig(routing="fixed", num_first_layers=0),
            },
            "num_first_layers is 0; with norm_first the first layer has one norm less",
        ),
    ],
)
def test_an_encoder_that_cannot_recur_so_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**fields)


def test_asking_for_recursions_that_a_model_has_not_is_refused() -> None:
    config = tiny_config(**ROUTED_SHAPES["expert choice"])
    with pytest.raises(
        ValueError, match=r"recursions is 4; the model was trained with 3\. Choose from 1 to 3"
    ):
        config.with_recursions(4)
    with pytest.raises(ValueError, match="recursions is 0; the model was trained with 3"):
        config.with_recursions(0)
    with pytest.raises(
        ValueError, match=r"recursions is 2; the model has no layers that recur\. Leave it out"
    ):
        EncoderConfig().with_recursions(2)
    assert config.with_recursions(3) is config

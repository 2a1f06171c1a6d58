"""Each form of attention: by hand, beside a slow twin that follows the paper's formula, and against finite differences."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from embedkit.model.additive import additive_scores
from embedkit.model.attention_form import diversity_penalty
from embedkit.model.layers import AttentionBias, SelfAttention, runs_of
from embedkit.model.linear_attention import (
    FEATURE_FLOOR,
    low_rank,
    orthogonal_features,
    random_feature_attention,
    random_feature_weights,
)
from embedkit.model.positions import rotary_table
from embedkit.model.relative_positions import clipped_distances, relative_scores, relative_values
from tests.finite_differences import assert_gradients
from tests.tiny import tiny_config

ROUNDING = 1e-10  # of float64, over a few dozen numbers

FORMS: dict[str, dict[str, object]] = {
    "dot": {},
    "relative": {"position": "relative", "max_relative_position": 2},
    "additive": {"attention": "additive"},
    "bilinear": {"attention": "bilinear"},
    "low rank": {"attention": "low_rank", "attention_rank": 3, "max_position_embeddings": 8},
    "random features": {"attention": "random_features", "attention_features": 12},
}


def make(form: str, **fields: object) -> SelfAttention:
    """A layer's attention of two heads of four, in float64, with weights far from those that it starts with."""
    torch.manual_seed(0)
    config = tiny_config(hidden_size=8, num_attention_heads=2, **FORMS[form] | fields)
    attention = SelfAttention(config).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return attention.eval()


def vectors(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def heads_of(attention: SelfAttention, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one sequence, (H, T, d) each."""
    parts = attention.qkv(hidden).view(len(hidden), 3, attention.num_heads, -1).permute(1, 2, 0, 3)
    return parts[0], parts[1], parts[2]


def twin(attention: SelfAttention, hidden: Tensor) -> Tensor:
    """One sequence by the papers' formulas, number by number where they are about pairs of tokens: (T, D) -> (T, D)."""
    query, key, value = heads_of(attention, hidden)
    form, (count, size) = attention.form, (len(hidden), attention.head_size)
    context = torch.zeros(attention.num_heads, count, size, dtype=torch.float64)
    for head in range(attention.num_heads):
        q, k, v = query[head], key[head], value[head]
        if form.kind == "low_rank":
            k, v = form.low_rank_keys[:, :count] @ k, form.low_rank_values[:, :count] @ v
        for i in range(count):
            scores, values = [], []
            for j in range(len(k)):
                after = v[j]
                if form.relative:
                    reach = len(form.relative_keys) // 2
                    place = max(-reach, min(reach, j - i)) + reach
                    score = q[i] @ (k[j] + form.relative_keys[place]) / math.sqrt(size)
                    after = v[j] + form.relative_values[place]
                elif form.kind == "additive":
                    score = form.score[head] @ torch.tanh(q[i] + k[j])
                elif form.kind == "bilinear":
                    score = q[i] @ form.score[head] @ k[j] / math.sqrt(size)
                else:
                    score = q[i] @ k[j] / math.sqrt(size)
                scores.append(score)
                values.append(after)
            weights = torch.stack(scores).softmax(dim=0)
            context[head, i] = weights @ torch.stack(values)
    out: Tensor = attention.out(context.transpose(0, 1).reshape(count, -1))
    return out


@pytest.mark.parametrize("form", [form for form in FORMS if form != "random features"])
@pytest.mark.parametrize("training", [False, True])
def test_a_form_equals_its_formula(form: str, training: bool) -> None:
    """In training on a CPU the usual forms take another way than in evaluation."""
    attention = make(form, attention_probs_dropout_prob=0.0).train(training)
    hidden = vectors(7, 8)
    runs = runs_of([4, 3])
    found = attention(hidden, runs, [AttentionBias(None, None)] * 2)
    expected = torch.cat([twin(attention, hidden[:4]), twin(attention, hidden[4:])])
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_finite_differences(form: str) -> None:
    attention = make(form, attention_probs_dropout_prob=0.0).train()
    names = [name for name, parameter in attention.named_parameters() if parameter.requires_grad]
    values = [attention.get_parameter(name).detach().clone().requires_grad_() for name in names]

    def run(hidden: Tensor, *weights: Tensor) -> Tensor:
        replaced = dict(zip(names, weights, strict=True))
        arguments = (hidden, runs_of([3, 2]), [AttentionBias(None, None)] * 2)
        out: Tensor = torch.func.functional_call(attention, replaced, arguments)
        return out

    assert_gradients(run, [vectors(5, 8).requires_grad_(), *values])


@pytest.mark.parametrize("form", [form for form in FORMS if form != "low rank"])
def test_weights_are_those_that_the_context_is_mixed_with(form: str) -> None:
    attention = make(form)
    hidden, run = vectors(5, 8), runs_of([5])[0]
    weights = attention.weights(hidden, run, AttentionBias(None, None))[0]  # (H, T, T)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 5, dtype=torch.float64))
    value = heads_of(attention, hidden)[2]
    context = weights @ value
    if attention.form.relative:
        context = context + relative_values(weights[None], attention.form.relative_values)[0]
    expected = attention.out(context.transpose(0, 1).reshape(5, -1))
    torch.testing.assert_close(
        attention(hidden, [run], [AttentionBias(None, None)]), expected, rtol=0, atol=ROUNDING
    )


def test_low_rank_attention_has_no_weights_of_tokens() -> None:
    with pytest.raises(ValueError, match="weighs mixtures of tokens; no token has a weight of its own"):
        make("low rank").weights(vectors(5, 8), runs_of([5])[0], AttentionBias(None, None))


def test_distances_by_hand() -> None:
    """Of four tokens with a reach of 2: three to the right counts as two."""
    expected = [[2, 3, 4, 4], [1, 2, 3, 4], [0, 1, 2, 3], [0, 0, 1, 2]]
    assert clipped_distances(4, 2, torch.device("cpu")).tolist() == expected


def test_relative_positions_by_hand() -> None:
    """One head of size 1, two tokens, a reach of 1: a(-1), a(0), a(1) are 10, 20 and 30, queries 1 and 2, weights ¼ and ¾."""
    table = torch.tensor([[10.0], [20.0], [30.0]])
    query = torch.tensor([1.0, 2.0]).view(1, 1, 2, 1)
    assert relative_scores(query, table)[0, 0].tolist() == [[20.0, 30.0], [20.0, 40.0]]
    weights = torch.tensor([[0.25, 0.75], [0.25, 0.75]]).view(1, 1, 2, 2)
    # token 0: ¼·20 + ¾·30; token 1: ¼·10 + ¾·20
    assert relative_values(weights, table).flatten().tolist() == [27.5, 17.5]


def test_relative_positions_know_distances_alone() -> None:
    """A shift of all tokens changes nothing, and without values a(0) alone is as if there were no distance."""
    attention = make("relative")
    hidden = vectors(3, 8)
    padded = torch.cat([hidden, hidden])
    one = attention(hidden, runs_of([3]), [AttentionBias(None, None)])
    both = attention(padded, runs_of([3, 3]), [AttentionBias(None, None)])
    torch.testing.assert_close(both, torch.cat([one, one]), rtol=0, atol=ROUNDING)


def test_additive_scores_by_hand() -> None:
    """Size 2, v = (1, -2), q = (0, 1), keys (0, 0) and (1, -1): v·tanh(0, 1) and v·tanh(1, 0)."""
    query, key = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    found = additive_scores(query[None, None], key[None, None], torch.tensor([[1.0, -2.0]]))
    assert found.flatten().tolist() == pytest.approx([-2 * math.tanh(1), math.tanh(1)])


def test_additive_scores_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key = vectors(2, 2, 5, 4).requires_grad_(), vectors(2, 2, 7, 4, seed=2).requires_grad_()
    score = vectors(2, 4, seed=3).requires_grad_()
    weights = vectors(2, 2, 5, 7, seed=4)

    def run() -> list[Tensor]:
        found = additive_scores(query, key, score)
        return [found, *torch.autograd.grad((found * weights).sum(), (query, key, score))]

    whole = run()
    monkeypatch.setattr("embedkit.model.additive.GROUP_NUMBERS", 1)  # query by query
    for ours, theirs in zip(run(), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=ROUNDING)
    plain = (score[:, None, None] * torch.tanh(query[..., None, :] + key[..., None, :, :])).sum(dim=-1)
    torch.testing.assert_close(whole[0], plain, rtol=0, atol=ROUNDING)


def test_a_bilinear_form_starts_as_the_dot_product() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(tiny_config(attention="bilinear")).eval()
    attention.form.reset_parameters(0.02)
    plain = SelfAttention(tiny_config()).eval()
    plain.load_state_dict({k: v for k, v in attention.state_dict().items() if "form" not in k})
    hidden, runs, biases = torch.randn(6, 32), runs_of([6]), [AttentionBias(None, None)]
    torch.testing.assert_close(
        attention(hidden, runs, biases), plain(hidden, runs, biases), rtol=0, atol=1e-6
    )


def test_low_rank_mixtures_by_hand() -> None:
    """Two mixtures of at most three tokens, of which there are two: 1·5 + 2·7 and 4·5 + 5·7; with a third one padded as well."""
    mixtures = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    keys = torch.tensor([5.0, 7.0]).view(1, 1, 2, 1)
    assert low_rank(keys, mixtures, None).flatten().tolist() == [19.0, 55.0]
    padded = torch.tensor([5.0, 7.0, 100.0]).view(1, 1, 3, 1)
    mask = torch.tensor([[True, True, False]])
    assert low_rank(padded, mixtures, mask).flatten().tolist() == [19.0, 55.0]


def test_random_features_are_orthogonal_and_as_long_as_normal_vectors() -> None:
    torch.manual_seed(0)
    features = orthogonal_features(2000, 8, like=torch.zeros(1, dtype=torch.float64))
    for start in (0, 8, 1992):
        block = features[start : start + 8]
        products = block @ block.mT
        torch.testing.assert_close(products, torch.diag(products.diagonal()), rtol=0, atol=1e-9)
    # The square of a length is chi-squared of 8 degrees: mean 8, deviation 4, of the mean of 2,000 a tenth.
    assert float(features.square().sum(dim=1).mean()) == pytest.approx(8, abs=0.4)
    assert orthogonal_features(3, 8, like=torch.zeros(1)).shape == (3, 8)


def test_random_feature_attention_by_hand() -> None:
    """Size 1, one feature w = 2, queries and keys of 0 and 1: features exp(2x - x²/2), each at most 1, and the floor."""
    features = torch.tensor([[2.0]], dtype=torch.float64)
    x = torch.tensor([0.0, 1.0], dtype=torch.float64).view(1, 1, 2, 1)
    value = torch.tensor([3.0, 5.0], dtype=torch.float64).view(1, 1, 2, 1)
    small = math.exp(-1.5) + FEATURE_FLOOR  # exp(0) / exp(1.5): the larger is 1
    expected = (small * 3 + (1 + FEATURE_FLOOR) * 5) / (
        small + 1 + FEATURE_FLOOR
    )  # one feature: all queries alike
    found = random_feature_attention(x, x, value, features, None)
    assert found.flatten().tolist() == pytest.approx([expected, expected])


def test_many_random_features_come_near_the_softmax() -> None:
    """The estimate is unbiased: of 20,000 features .003 are missing, of two million .0002.

    With directions that are not uniform, as QR alone leaves them, .014 would be, however many features there are.
    """
    torch.manual_seed(0)
    query, key, value = vectors(1, 1, 6, 4) / 2, vectors(1, 1, 6, 4, seed=2) / 2, vectors(1, 1, 6, 4, seed=3)
    features = orthogonal_features(20_000, 4, like=query)
    exact = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    found = random_feature_attention(query, key, value, features, None)
    torch.testing.assert_close(found, exact, rtol=0, atol=0.006)
    weights = random_feature_weights(query, key, features, None)
    torch.testing.assert_close(weights @ value, found, rtol=0, atol=ROUNDING)


def test_random_features_of_large_queries_and_keys_stay_finite() -> None:
    """Exponents of hundreds, of which only differences count."""
    torch.manual_seed(0)
    query, key, value = 40 * torch.randn(1, 2, 5, 8), 40 * torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    found = random_feature_attention(query, key, value, orthogonal_features(32, 8, like=query), None)
    assert torch.isfinite(found).all()
    assert found.abs().max() <= value.abs().max() + 1e-5  # a mean of values


def test_rotary_positions_in_a_layer_equal_the_rotated_pairs() -> None:
    """Each pair of numbers (x, y) of a query or key at place p turns by p·θ^(-2i/d): Su et al. 2021, eq. 15."""
    attention = make("dot")
    hidden = vectors(5, 8)
    query, key, value = heads_of(attention, hidden)

    def turn(x: Tensor) -> Tensor:
        turned = x.clone()
        for head, place, i in product(range(2), range(5), range(2)):
            angle = place * 100.0 ** (-2 * i / 4)
            one, two = x[head, place, i], x[head, place, i + 2]
            turned[head, place, i] = one * math.cos(angle) - two * math.sin(angle)
            turned[head, place, i + 2] = two * math.cos(angle) + one * math.sin(angle)
        return turned

    weights = (turn(query) @ turn(key).mT / 2).softmax(dim=-1)
    expected = attention.out((weights @ value).transpose(0, 1).reshape(5, -1))
    table = rotary_table(5, head_size=4, theta=100.0, device=torch.device("cpu"))
    found = attention(hidden, runs_of([5]), [AttentionBias(None, table)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # the table is of float32


def test_the_penalty_of_equal_distributions_by_hand() -> None:
    """Two heads on the same of two tokens: AAᵀ is all ones, and two of them should be 0; on one each: nothing."""
    same, apart = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
    flat = torch.full((2, 2), 0.5)  # AAᵀ is ½ throughout: 4 · ¼
    found = diversity_penalty(torch.stack([same, apart, flat]))
    assert found.tolist() == [2.0, 0.0, 1.0]


@pytest.mark.parametrize("form", ["dot", "relative", "additive", "bilinear", "low rank"])
def test_watched_heads_give_the_penalty_of_every_token_and_the_same_context(form: str) -> None:
    attention = make(form, attention_probs_dropout_prob=0.0).train()
    hidden, runs, biases = vectors(7, 8), runs_of([4, 3]), [AttentionBias(None, None)] * 2
    expected = attention(hidden, runs, biases)
    found: list[Tensor] = []
    attention.form.watched = found
    torch.testing.assert_close(attention(hidden, runs, biases), expected, rtol=0, atol=ROUNDING)
    assert [len(part) for part in found] == [4, 3]
    if form != "low rank":
        weights = attention.weights(hidden[:4], runs[0], biases[0])[0]  # (H, T, T)
        first = weights[:, 0] @ weights[:, 0].mT - torch.eye(2, dtype=torch.float64)
        torch.testing.assert_close(found[0][0], first.square().sum(), rtol=0, atol=ROUNDING)
    attention.eval()
    attention(hidden, runs, biases)
    assert len(found) == 2


@pytest.mark.parametrize("form", FORMS)
def test_bfloat16_is_near_float64(form: str) -> None:
    attention = make(form)
    hidden, runs, biases = vectors(6, 8), runs_of([6]), [AttentionBias(None, None)]
    exact = attention(hidden, runs, biases)
    rough = attention.bfloat16()(hidden.bfloat16(), runs, biases)
    assert rough.dtype == torch.bfloat16
    assert (rough.double() - exact).abs().max() < 0.15 * exact.abs().max()

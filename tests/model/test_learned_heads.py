"""What a sentence encoder learns beside dense layers: pooling by attention, means of layers, similarities."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from embedkit.model.attention_pooling import AttentionPooling
from embedkit.model.config import SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.learned_parts import AttentionPoolingConfig, LearnedKind, SimilarityConfig
from embedkit.model.sentence import LayerMean, SentenceEncoder
from embedkit.model.shapes import sentence_shapes
from embedkit.model.similarity import LearnedSimilarity, Similarity
from tests.tiny import VARIANT_SHAPES, tiny_config

ROUNDING = 1e-10  # of float64

HEADS: dict[str, SentenceConfig] = {
    "attention": SentenceConfig(pooling=(), attention=AttentionPoolingConfig(size=6)),
    "structured mean": SentenceConfig(pooling=(), attention=AttentionPoolingConfig(aspects=3, size=6)),
    "structured concat": SentenceConfig(
        pooling=(), attention=AttentionPoolingConfig(aspects=3, size=6, combine="concat"), normalize=True
    ),
    "layers": SentenceConfig(layer_start=0),
    "later layers": SentenceConfig(pooling=("cls", "max"), layer_start=1),
    "bilinear": SentenceConfig(normalize=True, similarity=SimilarityConfig(kind="bilinear")),
    "additive": SentenceConfig(normalize=True, similarity=SimilarityConfig(kind="additive", size=5)),
    "fields": SentenceConfig(
        normalize=True, similarity=SimilarityConfig(kind="fields", fields=("title", "text"))
    ),
}


def vectors(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pooling(aspects: int, combine: str = "mean") -> AttentionPooling:
    torch.manual_seed(0)
    config = AttentionPoolingConfig(aspects=aspects, size=5, combine=combine)  # type: ignore[arg-type] # a test's word
    return AttentionPooling(4, config).double()


def test_pooling_by_hand() -> None:
    """Tokens 0 and ln 3 through W₁ = 1 and a tanh that W₂ undoes: weights ¼ and ¾, so ¾ ln 3."""
    module = AttentionPooling(1, AttentionPoolingConfig(size=1))
    token = math.log(3)
    with torch.no_grad():
        module.inner.weight.fill_(1.0)
        module.inner.bias.zero_()
        module.aspects.weight.fill_(token / math.tanh(token))
    tokens = torch.tensor([0.0, token]).view(1, 2, 1)
    assert module.weights(tokens, None).flatten().tolist() == pytest.approx([0.25, 0.75])
    assert module(tokens, None).item() == pytest.approx(0.75 * token)


@pytest.mark.parametrize("combine", ["mean", "concat"])
@pytest.mark.parametrize("aspects", [1, 3])
def test_pooling_equals_the_formula(aspects: int, combine: str) -> None:
    module, tokens = pooling(aspects, combine), vectors(2, 6, 4)
    found = module(tokens, None)
    for sentence, row in zip(tokens, found, strict=True):
        means = []
        for aspect in module.aspects.weight:
            scores = [aspect @ torch.tanh(module.inner.weight @ h + module.inner.bias) for h in sentence]
            weights = torch.stack(scores).softmax(dim=0)
            means.append(sum(w * h for w, h in zip(weights, sentence, strict=True)))
        stacked = torch.stack(means)
        expected = stacked.mean(dim=0) if combine == "mean" else stacked.flatten()
        torch.testing.assert_close(row, expected, rtol=0, atol=ROUNDING)


def test_pooling_passes_over_padding_and_gives_zeros_where_nothing_is_left() -> None:
    module, tokens = pooling(3), vectors(2, 6, 4)
    mask = torch.tensor([[False, True, True, True, False, False], [False] * 6])
    found = module(tokens, mask)
    torch.testing.assert_close(found[:1], module(tokens[:1, 1:4], None), rtol=0, atol=ROUNDING)
    assert not found[1].any()


def test_gradients_of_pooling_are_those_of_finite_differences() -> None:
    module = pooling(2, "concat")
    weights = [parameter.detach().clone().requires_grad_() for parameter in module.parameters()]
    names = [name for name, _ in module.named_parameters()]
    mask = torch.tensor([[True, True, True], [True, True, False]])

    def run(tokens: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(
            module, dict(zip(names, values, strict=True)), (tokens, mask)
        )
        return out

    assert torch.autograd.gradcheck(run, (vectors(2, 3, 4).requires_grad_(), *weights))


def test_watched_aspects_give_the_penalty_of_each_sentence() -> None:
    module, tokens = pooling(3).train(), vectors(2, 6, 4)
    module.watched = []
    module(tokens, None)
    (found,) = module.watched
    weights = module.weights(tokens, None)[1]
    expected = (weights @ weights.mT - torch.eye(3, dtype=torch.float64)).square().sum()
    torch.testing.assert_close(found[1], expected, rtol=0, atol=ROUNDING)
    module.eval()(tokens, None)
    assert len(module.watched) == 1


def test_a_mean_of_layers_by_hand() -> None:
    """Weights 1 and 3 of the last two of three states: (1·10 + 3·20) / 4."""
    mean = LayerMean(2, 1)
    with torch.no_grad():
        mean.layer_weights.copy_(torch.tensor([1.0, 3.0]))
    states = (torch.tensor([[value]]) for value in (99.0, 10.0, 20.0))
    assert mean(states).item() == 17.5
    with pytest.raises(ValueError, match="layer_start is 3; the encoder has 2 layers"):
        LayerMean(2, 3)


@pytest.mark.parametrize("kind", ["bilinear", "additive"])
def test_a_learned_similarity_equals_its_formula_and_has_its_gradient(kind: LearnedKind) -> None:
    torch.manual_seed(0)
    learned = LearnedSimilarity(4, SimilarityConfig(kind=kind, size=3)).double()
    for parameter in learned.parameters():
        torch.nn.init.normal_(parameter)
    first, second = vectors(3, 4), vectors(5, 4, seed=2)
    matrix = learned(first, second)
    assert matrix.shape == (3, 5)
    for i, u in enumerate(first):
        for j, v in enumerate(second):
            if kind == "bilinear":
                expected = u @ learned.weight @ v
            else:  # √4 = 2
                inner = learned.first.weight @ (2 * u) + learned.first.bias + learned.second.weight @ (2 * v)
                expected = learned.score @ torch.tanh(inner)
            torch.testing.assert_close(matrix[i, j], expected, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(learned.pairs(first, second[:3]), matrix.diagonal(), rtol=0, atol=ROUNDING)
    names = [name for name, _ in learned.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in learned.parameters()]

    def run(u: Tensor, v: Tensor, *weights: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(learned, dict(zip(names, weights, strict=True)), (u, v))
        return out

    assert torch.autograd.gradcheck(run, (first.requires_grad_(), second.requires_grad_(), *values))


def test_a_bilinear_similarity_starts_as_the_cosine() -> None:
    similarity = Similarity("bilinear", LearnedSimilarity(4, SimilarityConfig(kind="bilinear")).double())
    cosine = Similarity("cosine")
    first, second = vectors(3, 4), vectors(3, 4, seed=2)
    torch.testing.assert_close(similarity.matrix(first, second), cosine.matrix(first, second))
    torch.testing.assert_close(similarity.pairs(first, second), cosine.pairs(first, second))


def test_plain_similarities_by_hand() -> None:
    """(3, 4) and (4, 3): 24; by the lengths 5 and 5; by √2."""
    first, second = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    for kind, expected in (("dot", 24.0), ("cosine", 24 / 25), ("scaled", 24 / math.sqrt(2))):
        similarity = Similarity(kind)  # type: ignore[arg-type] # one of the five
        assert float(similarity.matrix(first, second)) == pytest.approx(expected)
        assert float(similarity.pairs(first, second)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="similarity 'dot' goes with weights of its own kind alone"):
        Similarity("dot", LearnedSimilarity(4, SimilarityConfig(kind="bilinear")))


@pytest.mark.parametrize("head", HEADS)
def test_packed_and_padded_batches_give_the_same_sentence_vectors(head: str) -> None:
    torch.manual_seed(0)
    model = SentenceEncoder(TransformerEncoder(tiny_config()), HEADS[head]).eval()
    lengths = [9, 9, 4, 1]
    ids = torch.randint(1, 200, (4, 9))
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    wider = torch.cat([ids, torch.full((4, 5), 7)], dim=1), torch.cat([mask, torch.zeros(4, 5).bool()], dim=1)
    with torch.inference_mode():
        packed = model.forward_packed(ids[mask], lengths)
        for padded in (model(ids, mask), model(*wider)):
            torch.testing.assert_close(packed, padded, rtol=0, atol=2e-5)
    assert packed.shape == (4, HEADS[head].embedding_size(32))


@pytest.mark.parametrize("head", HEADS)
def test_shapes_are_told_from_the_config_alone(head: str) -> None:
    model = SentenceEncoder(TransformerEncoder(tiny_config()), HEADS[head])
    named = sentence_shapes(model.encoder.config, HEADS[head])
    for part in ("layer_mean", "attention_pooling", "similarity"):
        module = getattr(model, part)
        shapes = {} if module is None else {k: tuple(v.shape) for k, v in module.state_dict().items()}
        assert named.get(part, {}) == shapes


@pytest.mark.parametrize("variant", VARIANT_SHAPES)
def test_sentences_of_every_variant_are_the_same_in_two_layouts(variant: str) -> None:
    torch.manual_seed(0)
    config = tiny_config(**VARIANT_SHAPES[variant])
    model = SentenceEncoder(TransformerEncoder(config), HEADS["structured mean"]).eval()
    lengths = [20, 6, 6, 2]
    ids = torch.randint(2, 200, (4, 40))
    mask = torch.arange(40) < torch.tensor(lengths)[:, None]
    with torch.inference_mode():
        packed = model.forward_packed(ids[mask], lengths)
        shuffled = model(ids[[2, 0, 3, 1]], mask[[2, 0, 3, 1]])
    torch.testing.assert_close(shuffled, packed[[2, 0, 3, 1]], rtol=0, atol=2e-5)

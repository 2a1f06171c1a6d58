"""Our losses of embeddings against those of sentence-transformers, in value and gradient, on the same random tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.training import losses

pytestmark = pytest.mark.parity

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

from sentence_transformers import SentenceTransformer  # noqa: E402  (after the check)
from sentence_transformers.base.modules import Transformer  # noqa: E402
from sentence_transformers.sentence_transformer import losses as st  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402
from tokenizers.models import WordLevel  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

TOLERANCE = 1e-5  # float32, sums in another order
BATCH, WIDTH = 6, 8

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])
ALIKE = torch.tensor([True, False, True, False, False, True])
SCORES = torch.tensor([0.1, 0.9, 0.4, 0.4, 0.7, 1.0])
COSINE: Any = st.SiameseDistanceMetric.COSINE_DISTANCE  # Any, here and below: the library is untyped

Loss = Callable[..., Tensor]


class Given(nn.Module):
    """A model that "encodes" what it is given, so that their losses see our tensors."""

    def __init__(self, key: str = "embedding") -> None:
        super().__init__()
        self.key = key
        self.device = torch.device("cpu")
        self.max_seq_length = 8
        backend = Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="a"))
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="a")

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features[self.key]}

    def get_embedding_dimension(self) -> int:
        return WIDTH


def theirs(loss: Any, labels: Tensor | None = None) -> Loss:
    return lambda *columns: loss([{"embedding": column} for column in columns], labels)


def unit(*columns: Tensor) -> list[Tensor]:
    return [F.normalize(column, dim=1) for column in columns]


def our_info_nce(*columns: Tensor, symmetric: bool = False) -> Tensor:
    first, *others = unit(*columns)
    return losses.info_nce(first, torch.cat(others), temperature=0.05, symmetric=symmetric)


def assert_equal(ours: Loss, reference: Loss, inputs: list[Tensor]) -> None:
    results = []
    for loss in (ours, reference):
        copies = [x.clone().requires_grad_() for x in inputs]
        value = loss(*copies)
        results.append((value.detach(), torch.autograd.grad(value, copies)))
    (value, gradients), (their_value, their_gradients) = results
    assert value.item() == pytest.approx(their_value.item(), abs=TOLERANCE, rel=TOLERANCE)
    for ours_, theirs_ in zip(gradients, their_gradients, strict=True):
        assert theirs_.abs().max() > 1e-4  # else there is nothing to compare
        torch.testing.assert_close(ours_, theirs_, rtol=0, atol=TOLERANCE)


def columns(count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, BATCH, WIDTH, generator=generator))


MARGINS = torch.linspace(-1, 3, 2 * BATCH).reshape(BATCH, 2)
TEACHER = torch.linspace(-2, 2, 3 * BATCH).reshape(3, BATCH).T.contiguous()
M = Given()

# name -> number of columns, ours, theirs, their labels
ENCODER_LOSSES: dict[str, tuple[int, Loss, Callable[[], Any], Tensor | None]] = {
    "info_nce": (2, our_info_nce, lambda: st.MultipleNegativesRankingLoss(M), None),
    "info_nce, negatives": (4, our_info_nce, lambda: st.MultipleNegativesRankingLoss(M), None),
    "info_nce, symmetric": (
        3,
        partial(our_info_nce, symmetric=True),
        lambda: st.MultipleNegativesRankingLoss(
            M, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
        ),
        None,
    ),
    "simcse": (
        2,
        lambda a, b: losses.simcse(*unit(a, b)),
        lambda: st.MultipleNegativesRankingLoss(M, scale=20.0),
        None,
    ),
    "cosine_regression": (
        2,
        lambda u, v: losses.cosine_regression(u, v, SCORES),
        lambda: st.CosineSimilarityLoss(M),
        SCORES,
    ),
    "cosent": (2, lambda u, v: losses.cosent(u, v, SCORES), lambda: st.CoSENTLoss(M), SCORES),
    "angle": (2, lambda u, v: losses.angle(u, v, SCORES), lambda: st.AnglELoss(M), SCORES),
    "contrastive": (
        2,
        lambda u, v: losses.contrastive(u, v, ALIKE, margin=1.5),
        lambda: st.ContrastiveLoss(M, COSINE, margin=1.5),
        ALIKE.long(),
    ),
    "online_contrastive": (
        2,
        lambda u, v: losses.online_contrastive(u, v, ALIKE, margin=1.5),
        lambda: st.OnlineContrastiveLoss(M, COSINE, margin=1.5),
        ALIKE.long(),
    ),
    "online_contrastive, one kind": (
        2,
        lambda u, v: losses.online_contrastive(u, v, ALIKE | True),
        lambda: st.OnlineContrastiveLoss(M, COSINE),
        torch.ones(BATCH, dtype=torch.long),
    ),
    "triplet": (3, losses.triplet, lambda: st.TripletLoss(M), None),
    "triplet, cosine": (
        3,
        partial(losses.triplet, margin=0.5, distance="cosine"),
        lambda: st.TripletLoss(M, st.TripletDistanceMetric.COSINE, triplet_margin=0.5),
        None,
    ),
    "embedding_mse": (
        1,
        lambda u: losses.embedding_mse(u, columns(1, 9)[0]),
        lambda: st.MSELoss(M),
        columns(1, 9)[0],
    ),
    "margin_mse": (
        4,
        lambda q, p, n, m: losses.margin_mse(
            (q * p).sum(1), torch.stack([(q * n).sum(1), (q * m).sum(1)], dim=1), MARGINS
        ),
        lambda: st.MarginMSELoss(M),
        MARGINS,
    ),
    "kl_distillation": (
        4,
        lambda q, *ds: losses.kl_distillation(
            torch.stack([(q * d).sum(1) for d in ds], dim=1), TEACHER, temperature=2.0
        ),
        lambda: st.DistillKLDivLoss(M, temperature=2.0),
        TEACHER,
    ),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ENCODER_LOSSES)
def test_encoder_losses(name: str, seed: int) -> None:
    count, ours, make, labels = ENCODER_LOSSES[name]
    assert_equal(ours, theirs(make(), labels), columns(count, seed))


BATCH_TRIPLETS: dict[str, tuple[Loss, Callable[[], Any]]] = {
    "all": (losses.batch_all_triplet, lambda: st.BatchAllTripletLoss(M)),
    "hard": (losses.batch_hard_triplet, lambda: st.BatchHardTripletLoss(M)),
    "soft": (
        partial(losses.batch_hard_triplet, margin="soft"),
        lambda: st.BatchHardSoftMarginTripletLoss(M),
    ),
    "semi-hard": (
        partial(losses.batch_semi_hard_triplet, margin=1.0),
        lambda: st.BatchSemiHardTripletLoss(M, margin=1.0),
    ),
    "hard, cosine": (
        partial(losses.batch_hard_triplet, margin=0.5, distance="cosine"),
        lambda: st.BatchHardTripletLoss(
            M, st.BatchHardTripletLossDistanceFunction.cosine_distance, margin=0.5
        ),
    ),
}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", BATCH_TRIPLETS)
def test_batch_triplet_losses(name: str, seed: int) -> None:
    ours, make = BATCH_TRIPLETS[name]
    assert_equal(lambda u: ours(u, LABELS), theirs(make(), LABELS), columns(1, seed))


@pytest.mark.parametrize("normalize", [True, False])
def test_pair_classification(normalize: bool) -> None:
    loss: Any = st.SoftmaxLoss(M, WIDTH, 3)
    inputs = unit(*columns(2, 0)) if normalize else columns(2, 0)
    weight, bias = loss.classifier.weight, loss.classifier.bias
    ours = partial(losses.pair_classification, classes=LABELS, weight=weight, bias=bias)
    assert_equal(ours, theirs(loss, LABELS), inputs)


@pytest.mark.parametrize(("strategy", "margin"), [("absolute", 0.0), ("absolute", 0.1), ("relative", 0.3)])
def test_false_negatives_are_those_of_gist(strategy: str, margin: float) -> None:
    guides = unit(*columns(3, 7))
    guides[1] = F.normalize(
        guides[0] + 0.7 * guides[1], dim=1
    )  # positives near their anchors, not always nearest
    guides[2] = F.normalize(guides[0].roll(1, 0) + 0.7 * guides[2], dim=1)
    gist: Any = st.GISTEmbedLoss(
        Given(),
        Given("guide"),
        temperature=0.05,
        margin_strategy=strategy,
        margin=margin,
        contrast_anchors=False,
        contrast_positives=False,
    )
    similarities = guides[0] @ torch.cat(guides[1:]).T
    excluded = losses.false_negatives(similarities, margin=margin, relative=strategy == "relative")
    assert excluded.any()
    assert not excluded.all(dim=1).any()

    def reference(*inputs: Tensor) -> Tensor:
        value: Tensor = gist(
            [{"embedding": x, "guide": g} for x, g in zip(inputs, guides, strict=True)], None
        )
        return value

    def ours(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
        a, p, n = unit(a, p, n)
        return losses.info_nce(a, torch.cat([p, n]), temperature=0.05, excluded=excluded)

    assert_equal(ours, reference, columns(3, 0))


def test_matryoshka() -> None:
    model = Given()
    inner = st.MultipleNegativesRankingLoss(model)
    loss = st.MatryoshkaLoss(model, inner, [2, 5, 8], [0.5, 1.0, 2.0])
    ours = losses.matryoshka(our_info_nce, dims=[2, 5, 8], weights=[0.5, 1.0, 2.0])
    assert_equal(ours, theirs(loss), columns(3, 0))


class GivenLayers(Transformer):  # type: ignore[misc]  # the library is untyped
    """A transformer whose layers' token embeddings are given, one token a text."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.auto_model = nn.Module()
        self.auto_model.config = nn.Module()  # any object with attributes will do
        self.auto_model.config.output_hidden_states = False  # type: ignore[assignment]

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        layers = list(features["layers"].unsqueeze(2).unbind(1))
        features.update(all_layer_embeddings=layers, token_embeddings=layers[-1])  # in place, as theirs
        return features


class FirstToken(nn.Module):
    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {**features, "sentence_embedding": features["token_embeddings"][:, 0]}


def test_adaptive_layer() -> None:
    model = SentenceTransformer(modules=[GivenLayers(), FirstToken()], device="cpu")
    loss: Any = st.AdaptiveLayerLoss(model, st.CosineSimilarityLoss(model), n_layers_per_step=-1)
    generator = torch.Generator().manual_seed(0)
    inputs = list(torch.randn(2, BATCH, 3, WIDTH, generator=generator))
    ours = losses.adaptive_layer(lambda u, v: losses.cosine_regression(u, v, SCORES))
    assert_equal(ours, lambda *layers: loss([{"layers": x} for x in layers], SCORES), inputs)


class Denoising(st.DenoisingAutoEncoderLoss):  # type: ignore[misc]  # the library is untyped
    """Their loss with given logits in the place of a decoder; id 0 is padding."""

    def __init__(self, logits: Tensor) -> None:
        nn.Module.__init__(self)
        self.encoder = Given()
        self.need_retokenization = False
        self.tokenizer_decoder = type("Tokens", (), {"pad_token_id": 0})
        self.logits = logits

    def decoder(self, **_: Any) -> tuple[Tensor]:
        return (self.logits[:, :-1].contiguous(),)


def test_token_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 9, (4, 5), generator=generator)
    ids[1, 3:] = 0
    source = {"embedding": torch.zeros(4, WIDTH), "attention_mask": torch.ones(4, 5)}

    def reference(logits: Tensor) -> Tensor:
        value: Tensor = Denoising(logits)([source, {"input_ids": ids}], None)
        return value

    ours = partial(losses.token_cross_entropy, input_ids=ids, attention_mask=ids != 0)
    assert_equal(ours, reference, [torch.randn(4, 5, 9, generator=generator)])

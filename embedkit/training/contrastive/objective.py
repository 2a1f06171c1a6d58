"""From the vectors of a batch's texts to one number: the loss of a data set, with whatever it trains besides the encoder.

A batch's distinct texts are encoded once; a row knows its texts by their numbers among them. So one piece of code serves ragged
negatives, texts that several rows share, cached gradients and many devices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.training import losses
from embedkit.training.contrastive.recipe import (
    ALIKE_OR_NOT,
    DEFAULT_MARGIN,
    TRIPLET_MARGIN,
    LossName,
    LossRecipe,
)
from embedkit.training.losses.denoising import SentenceDecoder
from embedkit.training.rows.examples import Examples

Ints = NDArray[np.int64]
NORMALIZED = ("info_nce", "simcse", "margin_mse", "kl_distillation")  # that take cosines by products


@dataclass(frozen=True)
class BatchRows:
    """Where the vectors of B rows lie among the U vectors of the batch's texts.

    Shapes:
        first, second: (B,); negatives: (B, K), -1 where a row has fewer
        rows: the rows themselves, for scores, labels and the like
    """

    rows: Examples
    first: Tensor
    second: Tensor | None
    negatives: Tensor | None
    original_ids: Tensor | None = None  # tsdae: (B, T) the whole texts
    original_mask: Tensor | None = None


class Objective(nn.Module):
    """A loss of one data set, as a module: a learned temperature, a classifier or a decoder are its parameters."""

    def __init__(
        self,
        loss: LossName,
        recipe: LossRecipe,
        *,
        embedding_size: int,
        num_classes: int = 0,
        normalize: bool = True,
        decoder: SentenceDecoder | None = None,
    ) -> None:
        super().__init__()
        self.loss, self.recipe, self._normalize = loss, recipe, normalize
        self.log_temperature: nn.Parameter | None = None
        if recipe.learn_temperature and loss in ("info_nce", "simcse"):
            self.log_temperature = nn.Parameter(torch.tensor(recipe.temperature).log())
        self.classifier = (
            nn.Linear(3 * embedding_size, num_classes) if loss == "pair_classification" else None
        )
        self.decoder = decoder

    @property
    def temperature(self) -> float | Tensor:
        return self.recipe.temperature if self.log_temperature is None else self.log_temperature.exp()

    def forward(self, embeddings: Tensor, batch: BatchRows, guide: Tensor | None = None) -> Tensor:
        """Return the loss of a batch.

        Shapes:
            embeddings: (U, E), or (U, L, E) with adaptive layers; guide: (U, G) another model's vectors
            returns: ()
        """
        function, parts = self._bound(embeddings, batch, guide)
        if self.recipe.matryoshka and embeddings.shape[-1] not in self.recipe.matryoshka:
            dims: tuple[int, ...] = (*self.recipe.matryoshka, embeddings.shape[-1])
        else:
            dims = self.recipe.matryoshka
        if dims and self.loss not in ("pair_classification", "tsdae", "embedding_mse"):
            function = losses.matryoshka(function, dims=dims)
        if embeddings.dim() == 3:
            function = losses.adaptive_layer(function)
        return function(*parts)

    def _bound(
        self, embeddings: Tensor, batch: BatchRows, guide: Tensor | None
    ) -> tuple[losses.EmbeddingLoss, list[Tensor]]:
        """Return the loss as a function of embeddings alone, and the embeddings to give it."""
        recipe, loss, rows = self.recipe, self.loss, batch.rows
        first = embeddings[batch.first]
        if loss == "embedding_mse":
            assert rows.vectors is not None
            return partial(_swap, losses.embedding_mse, self._tensor(rows.vectors, embeddings)), [first]
        if loss.startswith("batch_"):
            assert rows.labels is not None
            return self._in_batch_triplet(self._tensor(rows.labels, embeddings)), [first]
        if loss == "tsdae":
            return partial(self._denoise, batch), [first]
        assert batch.second is not None
        second = embeddings[batch.second]
        match loss:
            case "info_nce" | "simcse":
                return self._info_nce(embeddings, batch, guide)
            case "triplet" | "margin_mse" | "kl_distillation":
                return self._with_negatives(embeddings, batch)
            case "cosent" | "angle":
                assert rows.scores is not None
                of_pairs = losses.cosent if loss == "cosent" else losses.angle
                scores = self._tensor(rows.scores, embeddings)
                return lambda u, v: of_pairs(u, v, scores, scale=recipe.similarity_scale), [first, second]
            case "cosine_regression":
                assert rows.scores is not None
                scaled = self._tensor(scaled_scores(rows, recipe), embeddings)
                return lambda u, v: losses.cosine_regression(u, v, scaled), [first, second]
        assert rows.labels is not None
        labels = self._tensor(rows.labels, embeddings)
        if loss == "pair_classification":
            assert self.classifier is not None
            weight, bias = self.classifier.weight, self.classifier.bias
            return lambda u, v: losses.pair_classification(u, v, labels, weight=weight, bias=bias), [
                first,
                second,
            ]
        pull = losses.contrastive if loss == "contrastive" else losses.online_contrastive
        margin = recipe.margin or DEFAULT_MARGIN[loss]
        alike = labels == rows.classes.index(ALIKE_OR_NOT[1])
        return lambda u, v: pull(u, v, alike, margin=margin), [first, second]

    def _info_nce(
        self, embeddings: Tensor, batch: BatchRows, guide: Tensor | None
    ) -> tuple[losses.EmbeddingLoss, list[Tensor]]:
        assert batch.second is not None
        documents = batch.second
        if batch.negatives is not None:
            extra = torch.unique(batch.negatives[batch.negatives >= 0])
            documents = torch.cat([documents, extra])  # (N,)
        # A text that stands among the negatives of other rows, too, is no negative of its own query.
        same = documents[None, :] == batch.second[:, None]  # (B, N)
        same.diagonal().fill_(False)
        if guide is not None:
            unit = F.normalize(guide, dim=-1)
            same = same | self._false_negatives(unit[batch.first] @ unit[documents].T)

        def of(queries: Tensor, found: Tensor) -> Tensor:
            queries, found = self._unit(queries), self._unit(found)
            excluded = same
            if self.recipe.false_negatives == "margin":
                excluded = same | self._false_negatives(queries @ found.T)
            return losses.info_nce(
                queries,
                found,
                temperature=self.temperature,
                symmetric=self.recipe.symmetric,
                excluded=excluded if bool(excluded.any()) else None,
            )

        return of, [embeddings[batch.first], embeddings[documents]]

    def _false_negatives(self, similarities: Tensor) -> Tensor:
        return losses.false_negatives(similarities, margin=self.recipe.false_negative_margin)

    def _with_negatives(
        self, embeddings: Tensor, batch: BatchRows
    ) -> tuple[losses.EmbeddingLoss, list[Tensor]]:
        assert batch.second is not None
        assert batch.negatives is not None
        recipe = self.recipe
        real = batch.negatives >= 0  # (B, K)
        if self.loss == "triplet":
            rows, _ = real.nonzero(as_tuple=True)  # one triplet for each negative
            negatives = batch.negatives[real]
            margin: float | Literal["soft"] = (
                "soft" if recipe.soft_margin else recipe.margin or TRIPLET_MARGIN
            )
            function = partial(losses.triplet, margin=margin, distance="cosine")
            return function, [
                embeddings[batch.first[rows]],
                embeddings[batch.second[rows]],
                embeddings[negatives],
            ]
        assert batch.rows.margins is not None
        margins = self._tensor(batch.rows.margins, embeddings)

        def of(queries: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
            queries, positives, negatives = map(self._unit, (queries, positives, negatives))
            near = recipe.score_scale * (queries * positives).sum(-1)  # (B,)
            far = recipe.score_scale * (queries[:, None] * negatives.view(*real.shape, -1)).sum(-1)  # (B, K)
            if self.loss == "margin_mse":
                return losses.margin_mse(near, far, margins)
            candidates = torch.cat([near[:, None], far], dim=1)
            teacher = torch.cat([torch.zeros_like(near)[:, None], -margins.nan_to_num()], dim=1)
            mask = F.pad(real, (1, 0), value=True)
            return losses.kl_distillation(candidates, teacher, mask=mask)

        return of, [
            embeddings[batch.first],
            embeddings[batch.second],
            embeddings[batch.negatives.clamp(min=0).flatten()],
        ]

    def _in_batch_triplet(self, labels: Tensor) -> losses.EmbeddingLoss:
        recipe = self.recipe
        margin = recipe.margin or TRIPLET_MARGIN
        if self.loss == "batch_hard_triplet":
            hard: float | Literal["soft"] = "soft" if recipe.soft_margin else margin
            return lambda e: losses.batch_hard_triplet(e, labels, margin=hard, distance="cosine")
        of = losses.batch_all_triplet if self.loss == "batch_all_triplet" else losses.batch_semi_hard_triplet
        return lambda e: of(e, labels, margin=margin, distance="cosine")

    def _denoise(self, batch: BatchRows, embeddings: Tensor) -> Tensor:
        assert self.decoder is not None
        assert batch.original_ids is not None
        assert batch.original_mask is not None
        logits = self.decoder(batch.original_ids, embeddings)
        return losses.token_cross_entropy(logits, batch.original_ids, batch.original_mask)

    def _unit(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings, dim=-1) if self._normalize else embeddings

    @staticmethod
    def _tensor(array: NDArray[np.generic], like: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(like.device)


def _swap(function: Callable[[Tensor, Tensor], Tensor], second: Tensor, first: Tensor) -> Tensor:
    return function(first, second)


def scaled_scores(rows: Examples, recipe: LossRecipe) -> NDArray[np.float32]:
    """Map scores from the recipe's range to 0…1; without a range they stay, and must lie within -1…1."""
    assert rows.scores is not None
    if not recipe.score_range:
        return rows.scores
    low, high = recipe.score_range
    return ((rows.scores - low) / (high - low)).astype(np.float32)

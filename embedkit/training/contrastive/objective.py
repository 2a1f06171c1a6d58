"""From the vectors of a batch's texts to one number: the loss of a data set, with whatever it trains besides the encoder.

A batch's distinct texts are encoded once; a row knows its texts by their numbers among them. So one piece of code serves ragged
negatives, texts that several rows share, cached gradients and many devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.model.field_experts import FieldExperts
from embedkit.model.late_interaction import MaxSimilarity
from embedkit.model.similarity import Similarity
from embedkit.training import losses
from embedkit.training.contrastive.recipe import LossRecipe
from embedkit.training.loss import Loss
from embedkit.training.loss_table import SIMILARITY, SOFT_MARGIN
from embedkit.training.losses.denoising import SentenceDecoder
from embedkit.training.rows.examples import ALIKE_OR_NOT, Examples

Ints = NDArray[np.int64]
Bound = tuple[losses.EmbeddingLoss, list[Tensor]]  # a loss of embeddings alone, and these embeddings


@dataclass(frozen=True)
class BatchRows:
    """Where the vectors of B rows lie among the U vectors of the batch's texts.

    Shapes:
        first, second: (B,); negatives: (B, K), -1 where a row has fewer
        documents: (M, F) the texts of documents with fields, -1 for a missing one; `second` and `negatives` are then rows of it
        rows: the rows themselves, for scores, labels and the like
    """

    rows: Examples
    first: Tensor
    second: Tensor | None
    negatives: Tensor | None
    original_ids: Tensor | None = None  # tsdae: (B, T) the whole texts
    original_mask: Tensor | None = None
    documents: Tensor | None = None


class Objective(nn.Module):
    """A loss of one data set, as a module: a learned temperature, a classifier or a decoder are its parameters."""

    def __init__(
        self,
        loss: Loss,
        recipe: LossRecipe,
        *,
        embedding_size: int,
        num_classes: int = 0,
        normalize: bool = True,
        similarity: Similarity | MaxSimilarity | None = None,
        decoder: SentenceDecoder | None = None,
    ) -> None:
        """`similarity` None compares as each loss does by itself; the weights of a learned one are the encoder's."""
        super().__init__()
        self._similarity = similarity
        self.loss, self.recipe, self._normalize = loss, recipe, normalize
        self.log_temperature: nn.Parameter | None = None
        if recipe.learn_temperature and loss.takes == "documents":
            self.log_temperature = nn.Parameter(torch.tensor(recipe.temperature).log())
        self.classifier = nn.Linear(3 * embedding_size, num_classes) if loss.takes == "classes" else None
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
        if dims and self.loss.nested:
            function = losses.matryoshka(function, dims=dims)
        if embeddings.dim() == 3:
            function = losses.adaptive_layer(function)
        return function(*parts)

    def _bound(self, embeddings: Tensor, batch: BatchRows, guide: Tensor | None) -> Bound:
        match self.loss.takes:
            case "documents":
                return self._of_documents(embeddings, batch, guide)
            case "triplets":
                return self._of_triplets(embeddings, batch)
            case "margins":
                return self._of_margins(embeddings, batch)
            case "whole texts":
                return partial(self._denoise, batch), [embeddings[batch.first]]
        known = self._known(batch.rows).to(embeddings.device)
        keywords = self._keywords()
        parts = [self._queries(embeddings, batch.first)]
        if batch.second is not None:
            parts.append(self._documents(embeddings, batch, batch.second))
        return lambda *texts: self.loss.function(*texts, known, **keywords), parts

    def _queries(self, embeddings: Tensor, numbers: Tensor) -> Tensor:
        """Return the vectors of texts of the first column, as they are compared."""
        found, experts = embeddings[numbers], self._experts
        return found if experts is None else experts.queries(found)

    def _documents(self, embeddings: Tensor, batch: BatchRows, numbers: Tensor) -> Tensor:
        """Return the vectors of texts of the other columns, or of documents with fields, as they are compared."""
        if self._experts is None:
            return embeddings[numbers]
        assert batch.documents is not None
        missing = embeddings.new_zeros(1, embeddings.shape[-1])  # stands at -1
        return self._experts.documents(torch.cat([embeddings, missing])[batch.documents[numbers]])

    @property
    def _experts(self) -> FieldExperts | None:
        return None if self._similarity is None else self._similarity.experts

    def _known(self, rows: Examples) -> Tensor:
        """Return what is known of each row besides its texts."""
        match self.loss.takes:
            case "scores":
                found = rows.scores
            case "unit scores":
                found = scaled_scores(rows, self.recipe)
            case "vectors":
                found = rows.vectors
            case _:  # labels, classes, alike
                assert rows.labels is not None
                labels = torch.from_numpy(rows.labels)
                return labels == rows.classes.index(ALIKE_OR_NOT[1]) if self.loss.takes == "alike" else labels
        assert found is not None
        return torch.from_numpy(np.ascontiguousarray(found))

    def _keywords(self) -> dict[str, Any]:  # Any: of whatever types the functions' keywords are
        loss, recipe = self.loss, self.recipe
        found: dict[str, Any] = {name: getattr(recipe, value) for name, value in loss.keywords.items()}
        if loss.margin is not None:
            soft = recipe.soft_margin and SOFT_MARGIN in loss.settings
            found["margin"] = "soft" if soft else recipe.margin or loss.margin
        if self._similarity is not None and SIMILARITY in loss.settings:
            found["similarity"] = self._similarity.pairs
        if loss.takes in ("triplets", "labels"):
            found["distance"] = "cosine"
        if self.classifier is not None:
            found |= {"weight": self.classifier.weight, "bias": self.classifier.bias}
        return found

    def _of_documents(self, embeddings: Tensor, batch: BatchRows, guide: Tensor | None) -> Bound:
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

        compare = None if self._similarity is None else self._similarity.matrix

        def of(queries: Tensor, found: Tensor) -> Tensor:
            queries, found = self._unit(queries), self._unit(found)
            excluded = same
            if self.recipe.false_negatives == "margin":
                compared = queries @ found.T if compare is None else compare(queries, found)
                excluded = same | self._false_negatives(compared)
            return self.loss.function(
                queries,
                found,
                temperature=self.temperature,
                symmetric=self.recipe.symmetric,
                excluded=excluded if bool(excluded.any()) else None,
                similarity=compare,
            )

        return of, [
            self._queries(embeddings, batch.first),
            self._documents(embeddings, batch, documents),
        ]

    def _false_negatives(self, similarities: Tensor) -> Tensor:
        return losses.false_negatives(similarities, margin=self.recipe.false_negative_margin)

    def _of_triplets(self, embeddings: Tensor, batch: BatchRows) -> Bound:
        assert batch.second is not None
        assert batch.negatives is not None
        real = batch.negatives >= 0  # (B, K)
        rows, _ = real.nonzero(as_tuple=True)  # one triplet for each negative
        parts = [
            self._queries(embeddings, batch.first[rows]),
            self._documents(embeddings, batch, batch.second[rows]),
            self._documents(embeddings, batch, batch.negatives[real]),
        ]
        return partial(self.loss.function, **self._keywords()), parts

    def _of_margins(self, embeddings: Tensor, batch: BatchRows) -> Bound:
        assert batch.second is not None
        assert batch.negatives is not None
        assert batch.rows.margins is not None
        margins = torch.from_numpy(batch.rows.margins).to(embeddings.device)  # (B, K)
        scale = self.recipe.score_scale
        compare = _product if self._similarity is None else self._similarity.pairs

        def of(queries: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
            queries, positives, negatives = map(self._unit, (queries, positives, negatives))
            near = scale * compare(queries, positives)  # (B,)
            far = scale * compare(queries[:, None], negatives.view(*margins.shape, -1))  # (B, K)
            return self.loss.function(near, far, margins)

        negatives = batch.negatives.clamp(min=0).flatten()
        return of, [
            self._queries(embeddings, batch.first),
            self._documents(embeddings, batch, batch.second),
            self._documents(embeddings, batch, negatives),
        ]

    def _denoise(self, batch: BatchRows, embeddings: Tensor) -> Tensor:
        assert self.decoder is not None
        assert batch.original_ids is not None
        assert batch.original_mask is not None
        logits = self.decoder(batch.original_ids, embeddings)
        return self.loss.function(logits, batch.original_ids, batch.original_mask)

    def _unit(self, embeddings: Tensor) -> Tensor:
        # A similarity that was named normalizes by itself what it wants so.
        unit = self._normalize and self._similarity is None
        return F.normalize(embeddings, dim=-1) if unit else embeddings


def _product(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum(-1)


def scaled_scores(rows: Examples, recipe: LossRecipe) -> NDArray[np.float32]:
    """Map scores from the recipe's range to 0…1; without a range they stay, and must lie within -1…1."""
    assert rows.scores is not None
    if not recipe.score_range:
        return rows.scores
    low, high = recipe.score_range
    return ((rows.scores - low) / (high - low)).astype(np.float32)

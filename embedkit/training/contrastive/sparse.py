"""Contrastive training of a learned sparse model: dot products of weights of terms, and a penalty on how many a text has.

The penalty of B texts is Σ_v (1/B Σ_i w_iv)², what comparing two texts costs if terms are spread alike (FLOPS). Those of queries and of documents
are weighed apart, and their weights grow with the square of the step.

Source: Paria et al. 2020, https://arxiv.org/abs/2004.05665, section 3; Formal et al. 2021, https://arxiv.org/abs/2107.05720, section 3.2.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from embedkit.checkpoint.folder import ModelFolder, read_model_folder
from embedkit.checkpoint.sparse import is_sparse, read_sparse_folder
from embedkit.checkpoint.sparse_weights import load_sparse, sparse_of, write_sparse
from embedkit.errors import TrainingError
from embedkit.inference.sample import SAMPLE_TEXTS
from embedkit.model.config import SentenceConfig
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.sparse import SparseModel
from embedkit.models import find_model
from embedkit.training.contrastive.data_sets import DataSet
from embedkit.training.contrastive.entries import Entries
from embedkit.training.contrastive.recipe import ContrastiveRecipe, SparseRecipe
from embedkit.training.contrastive.training import Contrastive
from embedkit.training.engine.journey import Shares
from embedkit.training.engine.lora import merged
from embedkit.training.engine.ranks import Ranks
from embedkit.training.engine.run_folder import RunFolder


def start_sparse(model: str, recipe: ContrastiveRecipe) -> tuple[ModelFolder, SparseModel, tuple[str, ...]]:
    """Make the model of a folder: a sparse one is trained on, any other encoder becomes one; also name what is new.

    Raises:
        CheckpointError: the folder cannot be read, or its family has no masked-language-model head.
        TrainingError: the recipe asks for what a sparse model does not have.
    """
    assert recipe.sparse is not None
    _check(recipe)
    if not is_sparse(find_model(model)):
        folder = read_model_folder(model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.run.seed)
            made, fresh = sparse_of(folder, recipe.sparse.pooling, weigh_queries=recipe.sparse.weigh_queries)
        if fresh:
            _begin_sparse(made, folder)
        return _compared_by_dot(folder), made, fresh
    read = read_sparse_folder(model)
    loaded = load_sparse(read)
    if (
        loaded.pooling != recipe.sparse.pooling
        or (loaded.query_weights is not None) != recipe.sparse.weigh_queries
    ):
        raise TrainingError(
            f"{read.path}: it pools by {loaded.pooling.strategy} of {loaded.pooling.activation}, and its queries have "
            f"{'weights of tokens' if loaded.query_weights is not None else 'the model of documents'}; the recipe asks otherwise. Set "
            "sparse.strategy, sparse.activation and sparse.weigh_queries as they are there"
        )
    document = read.sides["document"].model
    assert document is not None  # or it was not loaded
    return _compared_by_dot(document), loaded, ()


FIRST_TERMS = 100  # of a text, before the first step


@torch.no_grad()
def _begin_sparse(model: SparseModel, folder: ModelFolder) -> None:
    """Give a fresh head the bias with which sample texts have about FIRST_TERMS terms: without it half of the vocabulary has a weight."""
    tokens = folder.tokenizer.encode(SAMPLE_TEXTS)
    model.eval()
    hidden = model.encoder.forward_packed(torch.from_numpy(tokens.input_ids), tokens.lengths.tolist())
    inner, table = model.mlm.transform(hidden), model.encoder.embeddings.tokens.weight
    owners = torch.repeat_interleave(torch.from_numpy(tokens.lengths))
    largest = [(inner[owners == text] @ table.T).amax(0) for text in range(len(tokens))]
    count = min(FIRST_TERMS, len(table) - 1)
    least = torch.stack([logits.topk(count + 1).values[-1] for logits in largest])
    model.mlm.bias.fill_(-float(least.mean()))


def _compared_by_dot(folder: ModelFolder) -> ModelFolder:
    modules = replace(folder.modules, sentence=SentenceConfig(), similarity="dot", truncate_dim=None)
    return replace(folder, modules=modules)


def _check(recipe: ContrastiveRecipe) -> None:
    """Refuse settings that are of dense models.

    Raises:
        TrainingError: there are some.
    """
    loss, head = recipe.loss, recipe.head
    wrong = {
        "loss.matryoshka": bool(loss.matryoshka),
        "loss.adaptive_layers": loss.adaptive_layers,
        "loss.similarity": loss.similarity not in ("dot", None),
        "loss.guide": loss.guide is not None,
        "loss.aspect_diversity": loss.aspect_diversity > 0,
        "multi_vector": recipe.multi_vector is not None,
        "head.fields": bool(head.fields),
        "head.pooling": head.pooling is not None,
        "head.layer_start": head.layer_start is not None,
    }
    if asked := [name for name, given in wrong.items() if given]:
        raise TrainingError(
            f"{asked[0]} is of other kinds of models, and this trains a learned sparse one. Leave it out"
        )


def flops(weights: Tensor) -> Tensor:
    """Return Σ_v (mean weight of term v)²: (B, V) -> ().

    Worked example: rows (1, 0) and (1, 2): means 1 and 1, so 2.
    """
    return weights.mean(dim=0).square().sum()


class SparseContrastive(Contrastive):
    """The journey of `embedkit train contrastive` with a recipe that has a part `sparse`."""

    _step: int | None = None  # of the training step under way

    @property
    def _sparse(self) -> SparseRecipe:
        assert self._recipe.sparse is not None
        return self._recipe.sparse

    def backward(self, module: nn.Module, step: int, ranks: Ranks) -> Shares:
        self._step, self._measured = step, dict[str, Tensor | float]()
        try:
            shares = super().backward(module, step, ranks)
        finally:
            self._step = None
        measured = {name: value / ranks.world for name, value in self._measured.items()}
        return replace(shares, values={**shares.values, **measured})

    def _skips(self) -> tuple[int, ...]:
        """Mark queries that are computed without the model; all others are read whole."""
        assert isinstance(self._model, SparseModel)
        return (0, 0) if self._model.query_weights is None else (1, 0)

    def _loss_of(self, each: DataSet, entries: Entries, embeddings: Tensor, ranks: Ranks) -> Tensor:
        value = super()._loss_of(each, entries, embeddings, ranks)
        if self._step is None:
            return value
        share = self._sparse.share(self._step)
        groups = torch.from_numpy(entries.groups).to(embeddings.device)
        for group, name, weight in (
            (0, "query", self._sparse.query_flops),
            (1, "document", self._sparse.document_flops),
        ):
            weights = embeddings[groups == group]
            if not len(weights):
                continue
            penalty = flops(weights)
            value = value + share * weight * penalty
            self._measured[f"{name}_flops"] = penalty.detach()
            self._measured[f"{name}_terms"] = (weights.detach() > 0).sum(1).float().mean()
        return value

    def _check_evaluation(self, model: SentenceEncoder | SparseModel) -> None:
        if self.evaluation:
            raise TrainingError(
                "--evaluate measures cosines of dense vectors, and this trains a learned sparse model. Leave it out: the loss on "
                "held-out rows decides; measure the finished model with: embedkit evaluate retrieval"
            )

    def save(self, folder: RunFolder) -> None:
        assert isinstance(self._model, SparseModel)
        prompts = dict(self._folder.modules.prompts)
        if self._recipe.prompts.first or self._recipe.prompts.second:
            prompts |= {"query": self._recipe.prompts.first, "document": self._recipe.prompts.second}
        modules = replace(self._folder.modules, max_seq_length=self._tokenizer.max_length, prompts=prompts)
        with folder.publishing() as draft:
            write_sparse(
                draft,
                merged(self._model, self._recipe.lora),
                self._tokenizer,
                modules,
                family=self._folder.family,
                max_active_dims=self._sparse.max_active_dims,
            )

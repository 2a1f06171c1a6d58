"""What stands on the encoder of a model in training: its folder's own head, or another one that the recipe asks for, fresh."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch

from embedkit.checkpoint.folder import ModelFolder
from embedkit.errors import TrainingError
from embedkit.model.config import DenseConfig, PoolingMode, SentenceConfig
from embedkit.model.late_interaction import MaxSimilarity
from embedkit.model.learned_parts import AttentionPoolingConfig, Combine, SimilarityConfig
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.similarity import Similarity
from embedkit.model.sparse import SparseModel
from embedkit.training.contrastive.recipe import ContrastiveRecipe, HeadRecipe
from embedkit.training.loss import Loss
from embedkit.training.loss_table import SIMILARITY, losses_of


def with_head(
    folder: ModelFolder, model: SentenceEncoder, recipe: ContrastiveRecipe
) -> tuple[ModelFolder, SentenceEncoder]:
    """Put the recipe's head on a model, and return it with a folder that says so; what stays keeps its weights.

    Raises:
        TrainingError: the head does not fit the encoder, or what the model has already.
    """
    before = folder.modules
    sentence = _similar(_pooled(before.sentence, recipe.head, folder), recipe)
    wanted = "fields" if recipe.head.fields else recipe.loss.similarity
    compared = before.similarity if wanted is None else "dot" if wanted in ("dot", "scaled") else "cosine"
    made = replace(folder, modules=replace(before, sentence=sentence, similarity=compared))
    _check(made, recipe)
    if sentence == before.sentence:
        return made, model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        try:
            fresh = SentenceEncoder(model.encoder, sentence)
        except ValueError as exc:
            raise TrainingError(f"head.{exc}") from exc
    _keep(model, fresh)
    return made, fresh.train(model.training)


def _pooled(sentence: SentenceConfig, head: HeadRecipe, folder: ModelFolder) -> SentenceConfig:
    if head.layer_start is not None:
        sentence = replace(sentence, layer_start=head.layer_start)
    if head.pooling is None:
        return sentence
    if head.pooling != "attention":
        return replace(sentence, pooling=(cast("PoolingMode", head.pooling),), attention=None)
    combine: Combine = "mean" if head.combine == "mean" else "concat"
    pooling = AttentionPoolingConfig(aspects=head.aspects, size=head.size, combine=combine)
    if pooling == sentence.attention:
        return sentence  # it is trained further
    hidden = folder.config.hidden_size
    dense = sentence.dense
    if head.combine == "project":
        wide = pooling.pooled_size(hidden)
        dense = (DenseConfig(in_features=wide, out_features=hidden, activation="identity"), *dense)
    return replace(sentence, pooling=(), attention=pooling, dense=dense)


def _similar(sentence: SentenceConfig, recipe: ContrastiveRecipe) -> SentenceConfig:
    kind, fields = recipe.loss.similarity, recipe.head.fields
    if fields:
        return replace(sentence, normalize=True, similarity=SimilarityConfig(kind="fields", fields=fields))
    if kind is None:
        return sentence
    if kind not in ("bilinear", "additive"):
        return replace(sentence, similarity=None)
    if sentence.similarity is not None and sentence.similarity.kind == kind:
        return sentence  # it is trained further
    return replace(sentence, normalize=True, similarity=SimilarityConfig(kind=kind, size=recipe.head.size))


def _check(folder: ModelFolder, recipe: ContrastiveRecipe) -> None:
    sentence = folder.modules.sentence
    width = sentence.pooled_size(folder.config.hidden_size)
    for layer in sentence.dense:
        if layer.in_features != width:
            raise TrainingError(
                f"the head pools to {width} dimensions, and the model's next layer takes {layer.in_features}. "
                "Set head.pooling=attention with head.combine=project, or leave head.pooling out"
            )
        width = layer.out_features
    if sentence.layer_start is not None and recipe.loss.adaptive_layers:
        raise TrainingError(
            "loss.adaptive_layers trains every layer by itself, and this head takes a mean of layers. Leave one of them out"
        )
    if fields_of(folder, recipe):
        _check_fields(recipe)
    if sentence.similarity is not None and recipe.loss.matryoshka:
        raise TrainingError(
            f"loss.matryoshka cuts vectors, and a {sentence.similarity.kind} similarity compares all dimensions. "
            "Leave one of them out"
        )


def _check_fields(recipe: ContrastiveRecipe) -> None:
    for setting, is_on, why in (
        ("loss.adaptive_layers", recipe.loss.adaptive_layers, "trains every layer by itself"),
        ("loss.guide", recipe.loss.guide is not None, "compares single texts"),
    ):
        if is_on:
            raise TrainingError(
                f"{setting} {why}, and documents here have fields, each with its expert. Leave one of them out"
            )


def fields_of(folder: ModelFolder, recipe: ContrastiveRecipe) -> tuple[str, ...]:
    """Return the fields of the documents that a model is trained on: the recipe's, else the folder's own; () for plain texts."""
    similarity = _similar(folder.modules.sentence, recipe).similarity
    return () if similarity is None else similarity.fields


def _keep(before: SentenceEncoder, fresh: SentenceEncoder) -> None:
    """Take over the weights of the parts that are as they were."""
    for ours, theirs in zip(reversed(fresh.dense), reversed(before.dense), strict=False):
        ours.load_state_dict(theirs.state_dict())
    for part, field in (
        ("layer_mean", "layer_start"),
        ("attention_pooling", "attention"),
        ("similarity", "similarity"),
    ):
        alike = getattr(before.config, field) == getattr(fresh.config, field)
        if alike and getattr(before, part) is not None:
            getattr(fresh, part).load_state_dict(getattr(before, part).state_dict())


def similarity_of(model: SentenceEncoder | SparseModel, recipe: ContrastiveRecipe) -> Similarity | None:
    """Return how losses compare the vectors of a model with its head; None: in the way that each takes by itself."""
    if model.similarity is not None:
        return Similarity(model.similarity.config.kind, model.similarity)
    return None if recipe.loss.similarity is None else Similarity(recipe.loss.similarity)


def check_compares(where: str, loss: Loss, similarity: Similarity | MaxSimilarity | None) -> None:
    """Refuse a loss that compares vectors, but not by the similarity that the model is to have.

    Raises:
        TrainingError: it says which losses would.
    """
    if isinstance(similarity, MaxSimilarity) and SIMILARITY not in loss.settings:
        raise cannot_compare(
            f"{where}: loss {loss.name!r}", "takes one vector a text, and a multi-vector model has several"
        )
    compares = loss.takes not in ("classes", "vectors", "whole texts")
    if similarity is None or similarity.kind == "cosine" or not compares or SIMILARITY in loss.settings:
        return
    raise cannot_compare(
        f"{where}: loss {loss.name!r}", f"compares by cosine, and the model's similarity is {similarity.kind}"
    )


def cannot_compare(what: str, why: str) -> TrainingError:
    """Return the error of a loss that cannot compare by the model's similarity; it says which losses would."""
    able = [each.name for each in losses_of("contrastive") if SIMILARITY in each.settings]
    return TrainingError(f"{what} {why}. Take a loss that compares by any: {', '.join(able)}")

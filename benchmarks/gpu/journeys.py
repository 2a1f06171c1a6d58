"""Tiny runs of every kind of training, with an optimizer that moves in proportion to the gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from embedkit.checkpoint.names import Family
from embedkit.encoding.encoder import Encoder
from embedkit.recipe import load_recipe
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.distillation.recipe import DistillRecipe
from embedkit.training.distillation.student import make_student
from embedkit.training.distillation.teacher import TeacherCache
from embedkit.training.distillation.training import Distillation, taught_texts
from embedkit.training.engine.journey import Journey
from embedkit.training.engine.recipes import OptimRecipe, RunRecipe
from embedkit.training.pretraining.corpus import Corpus
from embedkit.training.reranker.reading import read_ranked_lists
from embedkit.training.reranker.recipe import RerankerRecipe
from embedkit.training.reranker.start import start_from
from embedkit.training.reranker.training import RerankerTraining
from embedkit.types import Float32
from tests.training import contrastive_runs, corpora
from tests.training.contrastive_runs import rows_of, write_rows

from .models import sentence_folder

# Adam divides by the size of the gradient: a weight whose gradient is only rounding would move as far as any other.
STEADY = tuple(text for text in contrastive_runs.BASE if text.startswith("optim."))


@dataclass(frozen=True)
class Run:
    """A journey with its recipe."""

    journey: Journey
    run: RunRecipe
    optim: OptimRecipe


Make = Callable[..., Run]  # takes more settings, which override its own


def silence(module: nn.Module) -> None:
    """Turn off all dropout, in our modules and in torch's."""
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.p = 0.0
        elif isinstance(getattr(child, "dropout", None), float):
            child.dropout = 0.0  # type: ignore[assignment] # an attribute, no module


def pretraining(place: Path, *settings: str) -> Run:
    tokenizer, corpus = _corpus(place)
    recipe = corpora.make_recipe(*STEADY, *settings)
    return Run(corpora.make_journey(corpus, tokenizer, recipe), recipe.run, recipe.optim)


@cache
def _corpus(place: Path) -> tuple[Tokenizer, Corpus]:
    texts = corpora.write_texts(place / "corpus.jsonl")
    tokenizer = corpora.make_tokenizer(texts)
    return tokenizer, corpora.make_corpus(place / "corpus", texts, tokenizer)


def contrastive(place: Path, kind: str, *settings: str, family: Family = "bert") -> Run:
    """Train on rows of a kind; `data.micro_tokens=128` makes several parts, whose gradients are cached."""
    recipe = contrastive_runs.make_recipe(*settings)
    journey = contrastive_runs.make_journey(sentence_folder(place, family), [_rows(place, kind)], recipe)
    return Run(journey, recipe.run, recipe.optim)


@cache
def _rows(place: Path, kind: str) -> Path:
    width = 64  # of the tiny models' vectors
    rows = rows_of(kind)
    draw = np.random.default_rng(0)
    if kind == "vectors":
        rows = [row | {"vector": draw.uniform(-1, 1, width).tolist()} for row in rows]
    return write_rows(place / f"rows-{kind}.jsonl", rows)


def distillation(place: Path, *settings: str) -> Run:
    own = ("run.precision=fp32", "run.evaluate_every=3", "run.save_every=3", "data.batch_size=8")
    cut = ("data.max_length=32", "data.micro_tokens=128", "data.held_out=0.1")
    recipe = load_recipe(DistillRecipe, overrides=(*own, *cut, *STEADY, *settings))
    teacher = Encoder.load(sentence_folder(place, "bert"), device="cpu", backend="torch", max_seq_length=32)
    texts = [row["text"] for row in rows_of("texts", 60)]

    def embed(some: Sequence[str]) -> Float32:
        return teacher.encode(some, on_truncate="ok")

    cache_of_teacher = TeacherCache(place / "teacher", {"teacher": "tiny"}, teacher.dimension)
    list(cache_of_teacher.fill(texts, embed))
    taught = taught_texts(cache_of_teacher, texts, recipe.student.dimension)
    student = make_student(
        recipe.student,
        teacher.folder,
        texts,
        axes=taught.axes,
        max_length=32,
        seed=recipe.run.seed,
        embed=embed,
    )
    return Run(Distillation(student, taught, recipe, teacher={}), recipe.run, recipe.optim)


def reranker(place: Path, kind: str, *settings: str) -> Run:
    own = (
        "batch_queries=6",
        "held_out=0.2",
        "run.precision=fp32",
        "run.evaluate_every=3",
        "run.save_every=3",
    )
    recipe = load_recipe(RerankerRecipe, overrides=(*own, *STEADY, *settings))
    lists = read_ranked_lists([str(_lists(place, kind))])
    start = start_from(sentence_folder(place, "bert"), num_labels=max(1, len(lists.classes)), seed=0)
    return Run(RerankerTraining(start, lists, recipe), recipe.run, recipe.optim)


@cache
def _lists(place: Path, kind: str) -> Path:
    """Write lists of four texts with the labels or scores of a kind."""
    if kind == "class":
        return write_rows(place / "lists-class.jsonl", rows_of("classified", 40))
    draw = np.random.default_rng(0)
    texts = [row["text"] for row in rows_of("texts", 160)]
    values = {"binary": [1, 0, 0, 0], "graded": [2, 0, 1, 0], "teacher": [3.5, -1.0, 0.5, -2.0]}[kind]
    rows = [
        {
            "query": f"{texts[number]} {number}",
            "texts": [texts[other] for other in draw.permutation(len(texts))[:4]],
            "scores" if kind == "teacher" else "labels": values,
        }
        for number in range(40)
    ]
    return write_rows(place / f"lists-{kind}.jsonl", rows)


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}

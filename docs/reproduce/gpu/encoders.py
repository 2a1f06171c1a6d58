"""Distil the small encoder from the teacher, choosing the loss by short runs, and the tiny one from the small."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from data import Special, Texts, mixed_precision
from evaluation import Results, measure
from losses import LossWeights, distillation_loss
from model import Student, embed, load_start, save_student
from progress import rounded, say
from sampling import Sampler
from students import align, mixed, smaller
from teacher import Teacher
from torch import Tensor
from training import Step, adamw, train, trapezoid
from vocabulary import first_pieces, keep_tokens

from embedkit.checkpoint.folder import ModelFolder, read_model_folder
from embedkit.training.distillation.vocabulary_pruning import with_tokens

LOSSES = {
    "cosine": LossWeights(4),
    "cosine, similarities": LossWeights(2, 1),
    "cosine, similarities, contrast .1": LossWeights(2, 1, 0.1),
    "cosine, similarities, contrast .3": LossWeights(2, 1, 0.3),
}
USUAL = "cosine, similarities, contrast .1"
CHOSEN = "cosine, similarities, contrast .3"  # by the runs for the shipped models
OLD_KINDS = "old kinds of text only"
SHARES = (1.0, 0.85, 0.7)
SHORTER = (256, 128, 64)
TINY_LAYERS, TINY_RATE = (0, 2, 5), 1.6  # and its learning rate, beside small's
WARMUP = 0.04


@dataclass(frozen=True)
class EncoderOptions:
    start: str
    tokens: int
    rate: float
    ablation_seconds: float
    small_seconds: float
    tiny_seconds: float
    warm_steps: int
    kept_tokens: int
    inner: int
    compiled: bool


class Run:
    """What all runs share: the texts, the teacher, the start, and the results so far."""

    def __init__(self, state: Path, options: EncoderOptions) -> None:
        self.state, self.options = state, options
        self.folder: ModelFolder = read_model_folder(options.start)
        self.texts = Texts(state / "texts.npz", Special.of(self.folder))
        self.teacher = Teacher.load(state)
        self.base = load_start(self.folder)
        self.results: Results = {}

    def measure(self, name: str, student: Student, cost: dict[str, float] | None = None) -> float:
        result = measure(self.dev_vectors(student), self.texts)
        self.results[name] = result | (cost or {})
        say(name, rounded(result))
        return result["score"]

    def dev_vectors(self, student: Student) -> Tensor:
        return embed(student, self.texts, self.texts.dev_rows, self.options.tokens)

    def sampler(self, seed: int, only: Callable[[str], bool] = lambda source: True) -> Sampler:
        return Sampler(self.texts, self.teacher, self.options.tokens, seed, only=only)

    def train(
        self,
        student: Student,
        weights: LossWeights,
        sampler: Sampler,
        *,
        name: str,
        seconds: float,
        rate: float,
        steps: int | None = None,
    ) -> dict[str, float]:
        def step() -> Step:
            batch = sampler.batch()
            with mixed_precision():
                vectors = student.vectors(self.texts, batch.rows.flatten())
            vectors = vectors.view(*batch.rows.shape, -1)  # (n, c, D)
            wanted = self.teacher.of(batch.rows)
            loss, parts = distillation_loss(vectors, wanted, self.teacher.axes, weights)
            return Step(loss, parts, int((self.texts.lens[batch.rows] + 2).sum()))

        optimizer = adamw(student, rate)
        return train(
            student, step, optimizer, trapezoid(rate, WARMUP), name=name, seconds=seconds, steps=steps
        )


def encoders(state: Path, options: EncoderOptions) -> Results:
    """Train both encoders and write the folders `small` and `tiny` into `state`; return what each run reached."""
    torch.manual_seed(0)
    run = Run(state, options)
    run.measure("start", run.base)
    align(run.base, run.texts, run.teacher, options.tokens)
    run.base.size = options.tokens if options.compiled else 0
    weights = _choose_loss(run)
    small = _train_small(run, weights)
    _train_tiny(run, small, weights)
    return run.results


def _choose_loss(run: Run) -> LossWeights:
    """Train a copy of the start with each loss for some seconds; also one on the old kinds of text alone."""
    options = run.options
    sampler = run.sampler(1)
    if options.warm_steps:  # so that no run pays for what is compiled and loaded once
        short = {"name": "warm-up", "seconds": 0, "rate": 1e-5, "steps": options.warm_steps}
        run.train(copy.deepcopy(run.base), LOSSES[USUAL], sampler, **short)
    if not options.ablation_seconds:
        return LOSSES[CHOSEN]
    scores = {name: _try(run, name, weights, sampler) for name, weights in LOSSES.items()}
    _try(run, OLD_KINDS, LOSSES[USUAL], run.sampler(1, only=lambda source: source.startswith("o_")))
    best = max(scores, key=scores.__getitem__)
    say("chosen:", best)
    return LOSSES[best]


def _try(run: Run, name: str, weights: LossWeights, sampler: Sampler) -> float:
    student = copy.deepcopy(run.base)
    cost = run.train(
        student, weights, sampler, name=name, seconds=run.options.ablation_seconds, rate=run.options.rate
    )
    return run.measure(f"ablation: {name}", student, cost)


def _train_small(run: Run, weights: LossWeights) -> Student:
    options = run.options
    trained = copy.deepcopy(run.base)
    cost = run.train(
        trained, weights, run.sampler(2), name="small", seconds=options.small_seconds, rate=options.rate
    )
    mixtures = {share: mixed(trained, run.base, share) for share in SHARES}
    scores = {share: run.measure(f"small, share {share}", each, cost) for share, each in mixtures.items()}
    small = mixtures[max(scores, key=scores.__getitem__)]
    vectors = run.dev_vectors(small)
    for size in SHORTER:
        if size < small.width:
            run.results[f"small, {size} dimensions"] = measure(vectors[:, :size], run.texts)
    save_student(run.state / "small", small, run.folder.tokenizer)
    return small


def _train_tiny(run: Run, small: Student, weights: LossWeights) -> None:
    options, tokenizer = run.options, run.folder.tokenizer
    vocabulary = tokenizer.backend.get_vocab()
    special = np.array([vocabulary[token] for token in tokenizer.special_tokens.values()])
    kept = keep_tokens(run.texts.counts, vocabulary, special, options.kept_tokens)
    rows = first_pieces(kept, vocabulary, vocabulary[tokenizer.special_tokens["unk"]])
    tiny = smaller(small, kept, rows, layers=TINY_LAYERS, inner=options.inner)
    tiny.size = small.size
    rate = options.rate * TINY_RATE
    cost = run.train(tiny, weights, run.sampler(3), name="tiny", seconds=options.tiny_seconds, rate=rate)
    run.measure("tiny", tiny, cost)
    save_student(run.state / "tiny", tiny, with_tokens(tokenizer, kept.tolist()))

"""Distillation: a student learns to give the teacher's vectors, whose cost is paid once (`embedkit.training.distillation.teacher`).

Source: Reimers and Gurevych 2020, https://arxiv.org/abs/2004.09813, eq. 1, with one language; Hinton et al. 2015.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.checkpoint.sentence_folder import write_model
from embedkit.errors import TrainingError
from embedkit.model.sentence import SentenceEncoder
from embedkit.recipe import as_table
from embedkit.tokenization.batching import micro_batches
from embedkit.tokenization.kinds import token_kinds
from embedkit.training import loss_table
from embedkit.training.distillation.recipe import DistillRecipe
from embedkit.training.distillation.student import Student, principal_axes
from embedkit.training.distillation.student_folder import ALIGNED_TEXTS, aligning_axes, nearest_turn
from embedkit.training.distillation.teacher import TeacherCache
from embedkit.training.engine.evaluation_sets import EvaluationSet, evaluation_hashes, row_cosines
from embedkit.training.engine.journey import HeldOut, Shares
from embedkit.training.engine.micro_batches import PackedEncoder, embed_texts, forward
from embedkit.training.engine.ranks import Ranks, synchronized
from embedkit.training.engine.routing_losses import StepRouting, check_routing
from embedkit.training.engine.routing_tally import Tally
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.losses import similarity_distillation
from embedkit.training.rows.sampling import Shuffled, split_rows

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
PCA_SAMPLE = 50_000  # vectors that the principal axes are found from


@dataclass(frozen=True)
class TaughtTexts:
    """Texts with the row of each one's vector in the teacher's cache.

    Shapes:
        rows: (N,); vectors: (rows of the cache, E), memory-mapped; axes: (E', E) where vectors are cut
    """

    texts: Sequence[str]
    rows: Ints
    vectors: Floats
    axes: Floats | None
    fingerprint: str
    kinds: Sequence[str] = ()  # one for each text, or none

    def targets(self, numbers: Ints) -> Floats:
        """Return the vectors that the student is to give: (B, E')."""
        found = np.asarray(self.vectors[self.rows[numbers]], dtype=np.float32)
        return found if self.axes is None else found @ self.axes.T

    def turn_of(self, student: Callable[[Sequence[str]], Floats]) -> Floats:
        """Find the turn of a student's vectors that brings them nearest to the targets: (E', E), orthonormal rows."""
        some = _sample(len(self.rows), ALIGNED_TEXTS)
        vectors = student([self.texts[number] for number in some])
        return nearest_turn(self.targets(some), vectors)


def taught_texts(
    cache: TeacherCache,
    texts: Sequence[str],
    dimension: int | None,
    *,
    student: Callable[[Sequence[str]], Floats] | None = None,
    kinds: Sequence[str] = (),
) -> TaughtTexts:
    """Look up the teacher's vectors of texts, and find the axes that they are turned to.

    These are the principal ones where vectors are to be shorter, or those of a `student` of before, given as what encodes texts.

    Raises:
        TrainingError: there are too few texts for so many axes, or more axes than dimensions.
    """
    rows, vectors = cache.rows(texts), cache.vectors()
    axes = None
    if student is not None:
        some = _sample(len(rows), ALIGNED_TEXTS)
        axes = aligning_axes(student([texts[number] for number in some]), vectors[rows[some]])
    elif dimension is not None:
        axes = principal_axes(vectors[rows[_sample(len(rows), PCA_SAMPLE)]], dimension)
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8") + b"\0")
    return TaughtTexts(texts, rows, vectors, axes, digest.hexdigest(), kinds)


def _sample(count: int, most: int) -> Ints:
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def _places(kinds: Sequence[str]) -> dict[str, Ints]:
    """Say where each kind stands, in order of their names."""
    return {kind: np.flatnonzero([each == kind for each in kinds]) for kind in sorted(set(kinds))}


class Distillation:
    """The journey of `embedkit train distill`."""

    def __init__(
        self,
        student: Student,
        taught: TaughtTexts,
        recipe: DistillRecipe,
        *,
        teacher: Mapping[str, Any],  # Any: whatever JSON holds
        evaluation: Sequence[EvaluationSet] = (),
    ) -> None:
        self._student, self._taught, self._recipe = student, taught, recipe
        self._teacher, self.evaluation = teacher, evaluation
        # A static student has no layers: its work is additions only.
        self._config = student.model.encoder.config if isinstance(student.model, SentenceEncoder) else None
        check_routing(self._config, recipe.routing)
        self._module = PackedEncoder(student.model)
        data = recipe.data
        self.train_texts, self.held_out = split_rows(
            len(taught.texts), data.held_out, most=data.evaluate_texts
        )
        self._held_out_kinds = _places(
            [taught.kinds[number] for number in self.held_out] if taught.kinds else []
        )
        if not len(self.train_texts):
            raise TrainingError(
                f"{len(taught.texts)} texts, of which {len(self.held_out)} are held out, leave none to train on; give more texts"
            )
        self._batches = Shuffled(self.train_texts, batch_size=data.batch_size, seed=recipe.run.seed)
        self._pointwise = loss_table.find_loss("distill", recipe.loss).function

    @property
    def module(self) -> PackedEncoder:
        return self._module

    @property
    def described(self) -> str:
        return self._student.described

    @property
    def axes(self) -> Floats | None:
        """What the teacher's vectors are turned and cut to: (E', E), or None where they are taken as they are."""
        return self._taught.axes

    @property
    def held_out_texts(self) -> list[str]:
        return [self._taught.texts[number] for number in self.held_out]

    def manifest(self) -> Mapping[str, Any]:  # Any: whatever JSON holds
        data = {
            "texts": self._taught.fingerprint,
            "teacher": dict(self._teacher),
            "evaluation": evaluation_hashes(self.evaluation),
        }
        return {"recipe": as_table(self._recipe), "data": data}

    def batch(self, step: int) -> Ints:
        """Return the numbers of the texts of a step, over all devices."""
        return self._batches.batch(step)

    def backward(self, module: nn.Module, step: int, ranks: Ranks) -> Shares:
        whole = self.batch(step)
        mine = whole[ranks.rank :: ranks.world]
        batch = self._student.tokenizer.encode([self._taught.texts[number] for number in mine])
        targets = torch.from_numpy(self._taught.targets(mine)).to(ranks.device)
        bank = targets if ranks.world == 1 else torch.from_numpy(self._taught.targets(whole)).to(ranks.device)
        parts = list(micro_batches(batch.lengths, self._recipe.data.micro_tokens))
        routing = StepRouting(self._config, self._recipe.routing, ranks)

        def encode(rows: Ints) -> Tensor:
            with routing.watching():
                return forward(module, batch.take(rows), ranks)

        routing.count_first(encode, parts)
        total = torch.zeros((), device=ranks.device)
        for number, rows in enumerate(parts):
            with synchronized(module, last=number == len(parts) - 1):
                vectors = encode(rows)
                share = self._loss(vectors, targets[torch.from_numpy(rows)], bank) * (len(rows) / len(whole))
                routing.settle()
                torch.autograd.backward(routing.added(share) * ranks.world)
            total += share.detach()
        flops = (2 + routing.forward_passes) * routing.flops(batch.lengths.tolist())
        return Shares({"loss": total, **routing.values()}, int(batch.lengths.sum()), flops)

    def _loss(self, vectors: Tensor, targets: Tensor, bank: Tensor) -> Tensor:
        loss: Tensor = self._pointwise(vectors, targets)
        if self._recipe.similarity_weight:
            temperature = self._recipe.similarity_temperature
            similarity = similarity_distillation(vectors, targets, bank, temperature=temperature)
            loss = loss + self._recipe.similarity_weight * similarity
        return loss

    def evaluate(self, module: nn.Module, ranks: Ranks) -> HeldOut:
        """Measure the cosine to the teacher on held-out texts, and the evaluation sets; the first decides what is best."""
        tally = Tally(self._config, ranks.device, kinds=token_kinds(self._student.tokenizer))
        vectors = self.embed(module, self.held_out_texts, ranks, tally=tally)
        targets = self._taught.targets(self.held_out)
        given, wanted = torch.from_numpy(vectors), torch.from_numpy(targets)
        loss = float(self._loss(given, wanted, wanted))
        cosines = row_cosines(vectors, targets)
        values = {"loss": loss, "cosine": float(cosines.mean()), **tally.measures()}
        for kind, of_kind in self._held_out_kinds.items():
            values[f"cosine of {kind}"] = float(cosines[of_kind].mean())
        for each in self.evaluation:
            values[each.measure_name] = each.measure(
                lambda texts, role: self.embed(module, texts, ranks, role)
            )
        return HeldOut(values, loss)

    def embed(
        self,
        module: nn.Module,
        texts: Sequence[str],
        ranks: Ranks,
        role: str | None = None,
        *,
        tally: Tally | None = None,
    ) -> Floats:
        """Encode texts as the finished model would, in fp32; `tally` counts what its routers do."""
        prompts = self._student.modules.prompts
        prompt = prompts.get(role, "") if role else ""
        return embed_texts(
            module,
            self._student.tokenizer,
            texts,
            ranks.in_fp32(),
            budget=self._recipe.data.micro_tokens,
            prompt=prompt,
            tally=tally,
        )

    def save(self, folder: RunFolder) -> None:
        student = self._student
        with folder.publishing() as draft:
            write_model(draft, student.model, student.tokenizer, student.modules, family=student.family)

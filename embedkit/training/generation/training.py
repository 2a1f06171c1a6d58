"""Training an encoder–decoder: pairs of texts in, a text generator out.

1. A step takes `batch_sources` sources of an endless shuffled stream: a pure function of seed and step.
2. Of each it takes up to `targets_per_source` targets, drawn anew each time.
3. Sources are encoded once; the decoder reads them and says each target's tokens, shown those before (teacher forcing).

Source: Sutskever et al. 2014, https://arxiv.org/abs/1409.3215; Vaswani et al. 2017, https://arxiv.org/abs/1706.03762.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.checkpoint.generation_weights import write_generator
from embedkit.errors import TrainingError
from embedkit.generation.targets import Targets, make_targets
from embedkit.recipe import as_table
from embedkit.tokenization.batch import TokenBatch
from embedkit.training.engine.journey import HeldOut, Shares
from embedkit.training.engine.ranks import Ranks, synchronized
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.generation.objective import TeacherForcing, forced, generator_flops
from embedkit.training.generation.pairs import SourceTargets
from embedkit.training.generation.recipe import GenerationRecipe
from embedkit.training.generation.start import GeneratorStart
from embedkit.training.rows.sampling import Shuffled
from embedkit.training.rows.unknown_tokens import UnknownTokens

Ints = NDArray[np.int64]
WINDOW = 4096  # texts tokenized together


@dataclass(frozen=True)
class PairBatch:
    """Some sources, longest first, each with its targets after those of the one before.

    Shapes:
        counts: (B,) targets of each source
    """

    sources: TokenBatch
    targets: Targets
    counts: Ints

    @property
    def num_tokens(self) -> int:
        """What is read and what is said."""
        return len(self.sources.input_ids) + len(self.targets.said)


class GenerationTraining:
    """The journey of `embedkit train generation`."""

    def __init__(
        self, start: GeneratorStart, data: SourceTargets, recipe: GenerationRecipe, *, parts: int = 1
    ) -> None:
        """Hold some sources out. A batch is dealt out to `parts`: devices times accumulation.

        Raises:
            TrainingError: a batch has fewer sources than parts.
            RecordError: there are fewer than two sources.
        """
        if recipe.batch_sources < parts:
            raise TrainingError(
                f"batch_sources is {recipe.batch_sources} for {parts} parts (devices × run.accumulate); each part needs a source. Raise it"
            )
        self._start, self._recipe = start, recipe
        self._data_fingerprint = data.fingerprint
        self.train, self.held_out = data.split(recipe.held_out, most=recipe.evaluate_sources)
        self._module = TeacherForcing(start.model, label_smoothing=recipe.label_smoothing)
        self._batches = Shuffled(
            np.arange(len(self.train)), batch_size=recipe.batch_sources, seed=recipe.run.seed
        )

    @property
    def module(self) -> TeacherForcing:
        return self._module

    def manifest(self) -> Mapping[str, Any]:  # Any: whatever JSON holds
        data = {
            "pairs": self._data_fingerprint,
            "tokenizer": self._start.tokenizer.fingerprint,
            "origin": self._start.origin,
        }
        return {"recipe": as_table(self._recipe), "data": data}

    def warnings(self) -> Iterator[str]:
        """Say what of the training texts the model does not read or write: what is cut, and what its vocabulary lacks."""
        tokenizer = self._start.tokenizer
        targets = [target for each in self.train.targets for target in each]
        room = tokenizer.max_length - tokenizer.single.num_special
        for what, texts, most, key in (
            ("sources", self.train.sources, room, "max_source_tokens"),
            ("targets", targets, self._recipe.max_target_tokens - 1, "max_target_tokens"),
        ):
            cut, seen = 0, UnknownTokens(tokenizer)
            for start in range(0, len(texts), WINDOW):
                for ids in tokenizer.ids(texts[start : start + WINDOW]):
                    cut += len(ids) > most
                    seen.add(ids)
            if cut:
                yield f"{cut:,} of {len(texts):,} {what} are longer than {most} tokens and are cut (set {key})"
            yield from seen.warnings(what)

    def chosen(self, step: int) -> list[tuple[str, list[str]]]:
        """Return the sources of a step and the targets taken of each: a pure function of the data, the recipe and `step`."""
        rng = np.random.default_rng([self._recipe.run.seed, step, 2])
        most = self._recipe.targets_per_source
        found = []
        for row in self._batches.batch(step).tolist():
            targets = self.train.targets[row]
            order = rng.permutation(len(targets))[:most]
            found.append((self.train.sources[row], [targets[i] for i in order]))
        return found

    def make_batch(self, chosen: list[tuple[str, list[str]]]) -> PairBatch:
        """Make tokens of sources and targets, the longest source first."""
        tokenizer = self._start.tokenizer
        sources = tokenizer.encode([source for source, _ in chosen])
        order = np.argsort(-sources.lengths, kind="stable")
        targets = [target for i in order for target in chosen[i][1]]
        return PairBatch(
            sources.take(order),
            make_targets(tokenizer, targets, max_tokens=self._recipe.max_target_tokens),
            np.array([len(chosen[i][1]) for i in order], dtype=np.int64),
        )

    def backward(self, module: nn.Module, step: int, ranks: Ranks) -> Shares:
        chosen = self.chosen(step)
        accumulate = self._recipe.run.accumulate
        parts = ranks.world * accumulate
        # All parts are made: the mean is over the tokens of the whole batch.
        batches = [self.make_batch(chosen[number::parts]) for number in range(parts)]
        total = sum(len(batch.targets.said) for batch in batches)
        sums: Tensor | float = 0.0
        tokens, flops = 0, 0.0
        for i in range(accumulate):
            batch = batches[ranks.rank * accumulate + i]
            with synchronized(module, last=i == accumulate - 1):
                found = self._forward(module, batch, ranks) / total
                torch.autograd.backward(found[0] * ranks.world)
            sums = sums + found.detach()
            tokens += batch.num_tokens
            flops += 3 * self._flops(batch)
        return Shares(named(sums), tokens, flops)

    def _forward(self, module: nn.Module, batch: PairBatch, ranks: Ranks) -> Tensor:
        return forced(module, batch.targets, ranks, batch.sources, batch.counts.tolist())

    def _flops(self, batch: PairBatch) -> float:
        seen = np.repeat(batch.sources.lengths, batch.counts)
        return generator_flops(self._start.model, batch.targets.lengths, batch.sources.lengths, seen)

    def evaluate(self, module: nn.Module, ranks: Ranks) -> HeldOut:
        """Measure the held-out sources with the first of their targets: the likelihood, without smoothing."""
        held_out, most = self.held_out, self._recipe.targets_per_source
        rows = list(zip(held_out.sources, (list(each[:most]) for each in held_out.targets), strict=True))
        # As many parts on every rank, about a step's size each: sharded weights are gathered together.
        parts = max(1, len(rows) // (self._recipe.batch_sources * ranks.world)) * ranks.world
        if parts > len(rows):
            raise TrainingError(
                f"{len(rows)} held-out sources for {parts} devices; raise held_out or give more data"
            )
        sums: Tensor | float = 0.0
        tokens = 0
        for number in range(ranks.rank, parts, ranks.world):
            batch = self.make_batch(rows[number::parts])
            sums = sums + self._forward(module, batch, ranks)
            tokens += len(batch.targets.said)
        return measured(sums, tokens, ranks)

    def save(self, folder: RunFolder) -> None:
        with folder.publishing() as draft:
            write_generator(
                draft,
                self._start.model,
                self._start.tokenizer,
                family=self._start.family,
                generation=asdict(self._recipe.generation),
                stored=self._recipe.stored,
            )


def named(sums: Tensor | float) -> dict[str, Tensor | float]:
    """Name the three sums of a step; they are shares of means already."""
    assert isinstance(sums, Tensor)
    loss, nats, right = sums.unbind()
    return {"loss": loss, "likelihood_loss": nats, "accuracy": right}


def measured(sums: Tensor | float, tokens: int, ranks: Ranks) -> HeldOut:
    """Turn sums over held-out tokens into what is reported; the criterion is the mean negative log-likelihood, in nats."""
    assert isinstance(sums, Tensor)
    totals = ranks.total({"nats": sums[1], "right": sums[2], "tokens": tokens})
    loss = totals["nats"] / totals["tokens"]
    values = {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700)),
        "accuracy": totals["right"] / totals["tokens"],
    }
    return HeldOut(values, loss)

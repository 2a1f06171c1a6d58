"""Training a language model: plain texts in, a decoder that continues them out.

Documents come from the same token cache as masked language modelling's, and batches from the same endless shuffled stream. A document
is `[CLS] text [SEP]`; it is cut into sequences of predictions, so that each token but the first is predicted once an epoch. A later
sequence is shown the last token of the one before it. No sequence spans two documents.

Source: Radford et al. 2018, Improving Language Understanding by Generative Pre-Training, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.checkpoint.generation_weights import write_generator
from embedkit.generation.targets import Targets
from embedkit.recipe import as_table
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.journey import HeldOut, Shares
from embedkit.training.engine.ranks import Ranks, synchronized
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.generation.objective import TeacherForcing, forced, generator_flops
from embedkit.training.generation.recipe import LanguageModelRecipe
from embedkit.training.generation.start import GeneratorStart
from embedkit.training.generation.training import measured, named
from embedkit.training.pretraining.batches import Pieces, Plan, Stream
from embedkit.training.pretraining.corpus import Corpus

Ints = NDArray[np.int64]
EVALUATION_SEED = 0  # the held-out sequences are read in the same order in every run


@dataclass(frozen=True)
class Windows:
    """Sequences of predictions of a corpus.

    Shapes:
        pieces: P starts (where the first token that is predicted stands in the corpus) and lengths (predictions)
        opening, closing: (P,) bool, whether a sequence begins its document, and whether it says its end
    """

    pieces: Pieces
    opening: NDArray[np.bool_]
    closing: NDArray[np.bool_]


def cut_windows(corpus: Corpus, documents: Ints, length: int) -> Windows:
    """Cut documents, each a token longer by its end, into sequences of `length` predictions and a shorter rest."""
    begin = corpus.document_starts[documents]
    sizes = corpus.document_starts[documents + 1] - begin + 1
    counts = -(-sizes // length)
    number = np.arange(int(counts.sum())) - np.repeat(
        np.cumsum(counts) - counts, counts
    )  # within its document
    lengths = np.minimum(length, np.repeat(sizes, counts) - number * length)
    closing = number == np.repeat(counts, counts) - 1
    return Windows(Pieces(np.repeat(begin, counts) + number * length, lengths), number == 0, closing)


def window_targets(corpus: Corpus, windows: Windows, rows: Ints, tokenizer: Tokenizer) -> Targets:
    """Return what the decoder is shown and what it must say in some sequences, the longest first."""
    start, end = [tokenizer.special_id("cls")], [tokenizer.special_id("sep")]
    rows = rows[np.argsort(-windows.pieces.lengths[rows], kind="stable")]
    shown, said = [], []
    for row in rows.tolist():
        first, size = int(windows.pieces.starts[row]), int(windows.pieces.lengths[row])
        stop = first + size - bool(windows.closing[row])
        own = corpus.tokens[first:stop].tolist() + (end if windows.closing[row] else [])
        before = start if windows.opening[row] else [int(corpus.tokens[first - 1])]
        shown.append([*before, *own[:-1]])
        said.append(own)
    return Targets.of(list(zip(shown, said, strict=True)), [False] * len(rows))


class LanguageModelTraining:
    """The journey of `embedkit train lm`."""

    def __init__(
        self, start: GeneratorStart, corpus: Corpus, recipe: LanguageModelRecipe, *, parts: int = 1
    ) -> None:
        """Hold some documents out. A batch is dealt out to `parts`: devices times accumulation.

        Raises:
            TrainingError: a part would hold less than a sequence, or there are too few documents.
        """
        self._start, self._corpus, self._recipe = start, corpus, recipe
        self._module = TeacherForcing(start.model, label_smoothing=recipe.label_smoothing)
        train, held_out = corpus.split(recipe.held_out, key="held_out")
        self._windows = cut_windows(corpus, train, recipe.sequence_length)
        self._held_out = cut_windows(corpus, held_out, recipe.sequence_length)
        self._stream = Stream(self._windows.pieces, num_special=0, seed=recipe.run.seed)
        self._plan = Plan.of(recipe.text(), recipe.run.steps, parts)
        self.documents, self.held_out_documents = len(train), len(held_out)

    @property
    def module(self) -> TeacherForcing:
        return self._module

    @property
    def tokens_per_epoch(self) -> int:
        return self._stream.tokens

    def manifest(self) -> Mapping[str, Any]:  # Any: whatever JSON holds
        data = {
            "corpus": self._corpus.fingerprint,
            "tokenizer": self._start.tokenizer.fingerprint,
            "origin": self._start.origin,
        }
        return {"recipe": as_table(self._recipe), "data": data}

    def rows(self, step: int) -> Ints:
        """Return the sequences of a step, over all devices: a pure function of the corpus, the recipe and `step`."""
        _, start, stop = self._plan.window(step)
        return self._stream.window(start, stop)

    def backward(self, module: nn.Module, step: int, ranks: Ranks) -> Shares:
        rows = self.rows(step)
        rows = rows[np.argsort(-self._windows.pieces.lengths[rows], kind="stable")]
        total = int(self._windows.pieces.lengths[rows].sum())
        accumulate = self._recipe.run.accumulate
        parts = ranks.world * accumulate
        sums: Tensor | float = 0.0
        tokens, flops = 0, 0.0
        for i in range(accumulate):
            own = rows[ranks.rank * accumulate + i :: parts]
            targets = window_targets(self._corpus, self._windows, own, self._start.tokenizer)
            with synchronized(module, last=i == accumulate - 1):
                found = forced(module, targets, ranks) / total
                torch.autograd.backward(found[0] * ranks.world)
            sums = sums + found.detach()
            tokens += len(targets.said)
            flops += 3 * generator_flops(self._start.model, targets.lengths, None, None)
        return Shares(named(sums), tokens, flops)

    def evaluate(self, module: nn.Module, ranks: Ranks) -> HeldOut:
        """Measure the held-out sequences, the same every time."""
        recipe, lengths = self._recipe, self._held_out.pieces.lengths
        order = np.random.default_rng(EVALUATION_SEED).permutation(len(lengths))
        rows = order[: max(1, int((np.cumsum(lengths[order]) <= recipe.evaluate_tokens).sum()))]
        size = max(recipe.sequence_length, recipe.batch_tokens // (ranks.world * recipe.run.accumulate))
        # As many parts on every rank: sharded weights are gathered together.
        count = -(-int(lengths[rows].sum()) // (size * ranks.world)) * ranks.world
        sums: Tensor | float = 0.0
        tokens = 0
        for number in range(ranks.rank, count, ranks.world):
            own = rows[number::count] if len(rows) > number else rows[:0]
            targets = window_targets(self._corpus, self._held_out, own, self._start.tokenizer)
            sums = sums + forced(module, targets, ranks)
            tokens += len(targets.said)
        return measured(sums, tokens, ranks)

    def save(self, folder: RunFolder) -> None:
        with folder.publishing() as draft:
            write_generator(
                draft,
                self._start.model,
                self._start.tokenizer,
                family=None,
                generation=asdict(self._recipe.generation),
                stored=self._recipe.stored,
            )

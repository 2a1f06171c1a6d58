"""`CrossEncoder`: a query and texts in, one score a text out.

1. Pairs of a window are tokenized, the query once, while the window before is computed.
2. They are sorted by length and cut into batches of equal work, without padding.
3. The network gives logits, the model's activation makes scores of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedkit.checkpoint.classification import ClassifierFolder, read_classifier_folder
from embedkit.errors import CheckpointError
from embedkit.inference.backend import Backend
from embedkit.inference.choice import CPU_TOKEN_BUDGET, Choice, token_budget
from embedkit.inference.loading import choose, load_backend
from embedkit.inference.numpy_runtime.activations import ACTIVATIONS
from embedkit.reranking.calibration import FILE, Calibration, read_calibration
from embedkit.reranking.pairs import (
    PairCounts,
    PairWindow,
    count_cut_queries,
    windows_of_groups,
    windows_of_pairs,
)
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.strength import PROBABILITIES
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.batching import micro_batches, one_ahead
from embedkit.tokenization.tokenizer import Truncation
from embedkit.types import Device, Float32, WantedPrecision, WantedRuntime


class CrossEncoder(Reranker):
    """Scores pairs of texts with one model.

    `counts` adds up what was scored since it was made.

    >>> model = CrossEncoder.load("path/to/cross-encoder")              # doctest: +SKIP
    >>> model.score("how tall is K2?", ["8,611 m", "a band"]).shape      # doctest: +SKIP
    (2,)
    """

    def __init__(
        self,
        folder: ClassifierFolder,
        backend: Backend,
        *,
        choice: Choice | None = None,
        truncation: Truncation = "second",
        layers: int | None = None,
        label: str | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """`layers` scores after so many of them; `label` names the one of several labels that is the score.

        With a `calibration` scores are probabilities, whatever the model's own activation.

        Raises:
            CheckpointError: there is no such label, or there are fewer layers.
        """
        count = folder.config.num_hidden_layers
        if layers is not None and not 1 <= layers <= count:
            raise CheckpointError(
                f"{folder.path}: {layers} layers were asked for; the model has {count}. Choose between 1 and that"
            )
        if label is not None and label not in folder.labels:
            raise CheckpointError(
                f"{folder.path}: there is no label {label!r}; its labels are {', '.join(folder.labels)}"
            )
        self.folder = folder
        self.name = folder.name
        self.weight = folder.rerank_weight
        self.backend = backend
        self.choice = choice
        self.truncation: Truncation = truncation
        self.layers = layers
        self.label = label
        self.calibration = calibration
        self.token_budget = CPU_TOKEN_BUDGET if choice is None else token_budget(choice)
        self.counts = PairCounts()

    def __repr__(self) -> str:
        return f"CrossEncoder {self.folder.path}, {self.backend!r}"

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: Device = "auto",
        precision: WantedPrecision = "fp32",
        force_precision: bool = False,
        max_seq_length: int | None = None,
        truncation: Truncation = "second",
        layers: int | None = None,
        label: str | None = None,
        probabilities: bool = False,
        backend: WantedRuntime = "auto",
        interactive: bool = False,
    ) -> CrossEncoder:
        """Load a `…ForSequenceClassification` folder, as transformers or sentence-transformers write it.

        `probabilities` takes the calibration beside the model. `interactive` says that somebody waits for the answer to one
        query: the precision "auto" is then what was found best before, else fp32, and nothing is measured. What was chosen
        is in `choice`.

        Raises:
            CheckpointError: the folder is not a cross-encoder that we can compute, or lacks the label or layers.
            DeviceError: the device or the precision is not available here.
        """
        read = read_classifier_folder(folder, max_seq_length=max_seq_length)
        calibration = read_calibration(read.path) if probabilities else None
        choice = choose(
            read,
            device=device,
            precision=precision,
            force=force_precision,
            backend=backend,
            interactive=interactive,
        )
        return cls(
            read,
            load_backend(read, choice),
            choice=choice,
            truncation=truncation,
            layers=layers,
            label=label,
            calibration=calibration,
        )

    def score(self, query: str, texts: Sequence[str]) -> Float32:
        """Score texts against one query: -> (K,) float32, higher is better.

        Raises:
            CheckpointError: the model has several labels and none was chosen.
        """
        return self.score_pairs([query] * len(texts), texts)

    def score_pairs(self, queries: Sequence[str], texts: Sequence[str]) -> Float32:
        """Score query i with text i: -> (N,) float32.

        The score is what the model's activation makes of the logit; of several labels it is the log-odds of the chosen
        one, and with a calibration a probability.

        Raises:
            CheckpointError: the model has several labels and none was chosen.
            ValueError: there are not as many queries as texts.
        """
        self.check_single()
        return self.scores_of(self.logits(queries, texts))

    def strength(self, score: float) -> float:
        """As `Reranker.strength`: by the calibration beside the model, else by the probability that its own log-odds mean."""
        if self.calibration is not None:
            return PROBABILITIES.strength(score)
        odds = score
        if len(self.folder.labels) == 1 and self.folder.activation == "sigmoid":
            odds = math.log(max(score, 1e-9) / max(1 - score, 1e-9))
        return PROBABILITIES.strength(float(self.probabilities(odds)))

    def probabilities(self, log_odds: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the probability that log-odds mean, of the same shape.

        By the calibration that is used or stands beside the model; without one they are taken as they are.
        """
        return (self.calibration or self._fitted).probabilities(log_odds)

    @cached_property
    def _fitted(self) -> Calibration:
        """The calibration beside the model; without one log-odds are what they are."""
        if (self.folder.path / FILE).is_file():
            return read_calibration(self.folder.path)
        return Calibration(temperature=1.0, offset=0.0, num_pairs=0, error_before=0.0, error_after=0.0)

    def log_odds(self, queries: Sequence[str], texts: Sequence[str]) -> Float32:
        """Return what a calibration is fitted on: the logit of query i with text i before any activation, (N,) float32.

        Raises:
            CheckpointError: the model has several labels and none was chosen.
        """
        self.check_single()
        return self.log_odds_of(self.logits(queries, texts))

    def logits(self, queries: Sequence[str], texts: Sequence[str]) -> Float32:
        """Return the network's raw output for query i with text i: -> (N, C) float32, a column a label."""
        if isinstance(queries, str) or isinstance(texts, str):
            raise TypeError("queries or texts is one string; each must be a sequence of strings")
        if len(queries) != len(texts):
            raise ValueError(f"{len(queries)} queries and {len(texts)} texts; there must be as many of each")
        found = [logits for _, logits in self._windows(windows_of_pairs(queries, texts))]
        return np.concatenate(found) if found else np.empty((0, len(self.folder.labels)), dtype=np.float32)

    def score_groups(self, groups: Iterable[tuple[str, Sequence[str]]]) -> Iterator[Float32]:
        """Score a stream of queries, each with its texts: yields (K,) float32 for each, in order, also where K = 0.

        Pairs of several queries are computed together; memory does not grow with the stream.

        Raises:
            CheckpointError: the model has several labels and none was chosen.
        """
        self.check_single()
        return self._groups(groups)

    def _groups(self, groups: Iterable[tuple[str, Sequence[str]]]) -> Iterator[Float32]:
        for window, logits in self._windows(windows_of_groups(groups)):
            yield from np.split(self.scores_of(logits), np.cumsum(window.sizes)[:-1])

    def check_single(self) -> None:
        """Refuse a model whose output is not one score a pair.

        Raises:
            CheckpointError: it has several labels and none was chosen.
        """
        labels = self.folder.labels
        if len(labels) > 1 and self.label is None:
            raise CheckpointError(
                f"{self.folder.path}: the model has {len(labels)} labels ({', '.join(labels)}); a reranker gives one score "
                "a pair. Rerank with a model of one label",
                ", or choose the label that means relevant with --label NAME",
            )

    def _windows(self, windows: Iterable[PairWindow]) -> Iterator[tuple[PairWindow, Float32]]:
        """Yield each window with its logits, (N, C), tokenizing one while the one before is computed."""

        def tokenized(window: PairWindow) -> tuple[PairWindow, TokenBatch, PairCounts]:
            return window, *self.tokenize(window.queries, window.texts)

        for window, batch, counts in one_ahead(tokenized, windows):
            logits = self.batch_logits(batch)
            self.counts += counts
            yield window, logits

    def tokenize(self, queries: Sequence[str], texts: Sequence[str]) -> tuple[TokenBatch, PairCounts]:
        """Make tokens of one window of pairs, and count them: the first step of scoring; then `batch_logits`, `scores_of`."""
        batch = self.folder.encode_pairs(queries, texts, truncation=self.truncation)
        cut = count_cut_queries(batch, queries, self.folder.tokenizer, self.truncation)
        return batch, PairCounts(len(batch), int(batch.lengths.sum()), int(batch.truncated.sum()), cut)

    def batch_logits(self, batch: TokenBatch) -> Float32:
        """Run all pairs, longest first, in batches of about `token_budget` tokens: -> (N, C)."""
        out = np.empty((len(batch), len(self.folder.labels)), dtype=np.float32)
        for rows in micro_batches(batch.lengths, self.token_budget):
            out[rows] = self.backend.class_logits(batch.take(rows), layers=self.layers)
        return out

    def scores_of(self, logits: Float32) -> Float32:
        """Turn (N, C) logits into (N,) scores."""
        odds = self.log_odds_of(logits)
        if self.calibration is not None:
            return self.calibration.probabilities(odds).astype(np.float32)
        if len(self.folder.labels) > 1:
            return odds
        return ACTIVATIONS[self.folder.activation](odds)

    def log_odds_of(self, logits: Float32) -> Float32:
        """Turn (N, C) logits into (N,) log-odds of the one label, or of the chosen one."""
        if len(self.folder.labels) == 1:
            return np.ascontiguousarray(logits[:, 0])
        assert self.label is not None
        column = self.folder.labels.index(self.label)
        others = np.delete(logits, column, axis=1)
        result: Float32 = logits[:, column] - np.logaddexp.reduce(others, axis=1)
        return result

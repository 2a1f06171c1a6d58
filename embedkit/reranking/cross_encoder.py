"""`CrossEncoder`: a query and texts in, one score a text out.

1. Pairs of a window are tokenized, the query once, while the window before is computed.
2. They are sorted by length and cut into batches of equal work, without padding.
3. The network gives logits, the model's activation makes scores of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedkit.checkpoint.classification import ClassifierFolder, read_classifier_folder
from embedkit.errors import CheckpointError
from embedkit.inference.choice import CPU_TOKEN_BUDGET, Choice, token_budget
from embedkit.inference.classifier import Scorer, ScoringHead, choose, load_scorer
from embedkit.inference.numpy_runtime.activations import ACTIVATIONS
from embedkit.reranking.calibration import Calibration, read_calibration
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.tokenizer import Truncation
from embedkit.types import Device, Float32, WantedPrecision, WantedRuntime

# Pairs sorted by length together: enough for batches of nearly equal lengths, few enough to answer soon.
WINDOW_PAIRS = 1024


@dataclass(frozen=True)
class PairCounts:
    """What a cross-encoder has scored so far; `truncated` pairs lost tokens, in `cut_queries` of them the query did."""

    pairs: int = 0
    tokens: int = 0
    truncated: int = 0
    cut_queries: int = 0

    def __add__(self, other: PairCounts) -> PairCounts:
        return PairCounts(
            self.pairs + other.pairs,
            self.tokens + other.tokens,
            self.truncated + other.truncated,
            self.cut_queries + other.cut_queries,
        )


class CrossEncoder:
    """Scores pairs of texts with one model; a `Reranker`.

    `counts` adds up what was scored since it was made.

    >>> model = CrossEncoder.load("path/to/cross-encoder")              # doctest: +SKIP
    >>> model.score("how tall is K2?", ["8,611 m", "a band"]).shape      # doctest: +SKIP
    (2,)
    """

    def __init__(
        self,
        folder: ClassifierFolder,
        scorer: Scorer,
        head: ScoringHead,
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
        self.weight = folder.rerank_weight
        self.scorer, self.head = scorer, head
        self.choice = choice
        self.truncation: Truncation = truncation
        self.layers = layers
        self.label = label
        self.calibration = calibration
        self.token_budget = CPU_TOKEN_BUDGET if choice is None else token_budget(choice)
        self.counts = PairCounts()

    def __repr__(self) -> str:
        choice = self.choice
        how = "" if choice is None else f", {choice.runtime} on {choice.device}, {choice.precision}"
        return f"CrossEncoder {self.folder.path}{how}"

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
        few: bool = False,
    ) -> CrossEncoder:
        """Load a `…ForSequenceClassification` folder, as transformers or sentence-transformers write it.

        `probabilities` takes the calibration beside the model. With `few` the precision "auto" measures nothing: it is what
        was found best before, else fp32. What was chosen stands in `choice`.

        Raises:
            CheckpointError: the folder is not a cross-encoder that we can compute, or lacks the label or layers.
            DeviceError: the device or the precision is not to be had here.
        """
        read = read_classifier_folder(folder, max_seq_length=max_seq_length)
        calibration = read_calibration(read.path) if probabilities else None
        choice = choose(
            read, device=device, precision=precision, force=force_precision, backend=backend, few=few
        )
        return cls(
            read,
            *load_scorer(read, choice),
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
        return self._scores(self.logits(queries, texts))

    def log_odds(self, queries: Sequence[str], texts: Sequence[str]) -> Float32:
        """Return what a calibration is fitted on: the logit of query i with text i before any activation, (N,) float32.

        Raises:
            CheckpointError: the model has several labels and none was chosen.
        """
        self.check_single()
        return self._log_odds(self.logits(queries, texts))

    def logits(self, queries: Sequence[str], texts: Sequence[str]) -> Float32:
        """Return the network's raw output for query i with text i: -> (N, C) float32, a column a label."""
        if isinstance(queries, str) or isinstance(texts, str):
            raise TypeError("queries or texts is one string; each must be a sequence of strings")
        if len(queries) != len(texts):
            raise ValueError(f"{len(queries)} queries and {len(texts)} texts; there must be as many of each")
        windows = [slice(start, start + WINDOW_PAIRS) for start in range(0, len(texts), WINDOW_PAIRS)]
        pairs = ((queries[window], texts[window]) for window in windows)
        found = list(self._windows(pairs))
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
        sizes: list[list[int]] = []  # of the groups of each window that is not yet handed on

        def windows() -> Iterator[tuple[list[str], list[str]]]:
            queries: list[str] = []
            texts: list[str] = []
            counts: list[int] = []
            for query, own in groups:
                queries += [query] * len(own)
                texts += own
                counts.append(len(own))
                if len(texts) >= WINDOW_PAIRS:
                    sizes.append(counts)
                    yield queries, texts
                    queries, texts, counts = [], [], []
            if counts:
                sizes.append(counts)
                yield queries, texts

        for logits in self._windows(windows()):
            edges = np.cumsum(sizes.pop(0))
            yield from np.split(self._scores(logits), edges[:-1])

    def check_single(self) -> None:
        """Refuse a model whose output is not one score a pair.

        Raises:
            CheckpointError: it has several labels and none was chosen.
        """
        labels = self.folder.labels
        if len(labels) > 1 and self.label is None:
            raise CheckpointError(
                f"{self.folder.path}: the model has {len(labels)} labels ({', '.join(labels)}); a reranker gives one score "
                "a pair. Choose the label that means relevant: --label NAME"
            )

    def _windows(self, pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> Iterator[Float32]:
        """Yield the logits of each window, tokenizing one while the one before is computed."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize") as thread:
            waiting: Future[tuple[TokenBatch, int]] | None = None
            for queries, texts in pairs:
                following = thread.submit(self._tokenize, queries, texts)
                if waiting is not None:
                    yield self._compute(*waiting.result())
                waiting = following
            if waiting is not None:
                yield self._compute(*waiting.result())

    def _tokenize(self, queries: Sequence[str], texts: Sequence[str]) -> tuple[TokenBatch, int]:
        batch = self.folder.tokenizer.encode_pairs(queries, texts, truncation=self.truncation)
        return batch, self._count_cut_queries(batch, queries)

    def _count_cut_queries(self, batch: TokenBatch, queries: Sequence[str]) -> int:
        rows = np.flatnonzero(batch.truncated).tolist()
        if not rows or batch.untruncated_lengths is None:
            return 0
        tokenizer = self.folder.tokenizer
        room = tokenizer.max_length - tokenizer.pair.num_special
        distinct = list(dict.fromkeys(queries[row] for row in rows))
        sizes = {query: len(ids) for query, ids in zip(distinct, tokenizer.ids(distinct), strict=True)}
        cut = 0
        for row in rows:
            left = sizes[queries[row]]
            # The one keeps a token for the text, the other halves the room between two long texts.
            cut += left >= room if self.truncation == "second" else left > room // 2
        return int(cut)

    def _compute(self, batch: TokenBatch, cut_queries: int) -> Float32:
        """Run all pairs, longest first, in batches of about `token_budget` tokens: -> (N, C)."""
        order = np.argsort(-batch.lengths, kind="stable")
        ends = np.cumsum(batch.lengths[order])
        out = np.empty((len(order), len(self.folder.labels)), dtype=np.float32)
        start = 0
        while start < len(order):
            done = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + self.token_budget, side="right")))
            rows = order[start:stop]
            out[rows] = self._forward(batch.take(rows))
            start = stop
        truncated = int(batch.truncated.sum())
        self.counts += PairCounts(len(batch), int(batch.lengths.sum()), truncated, cut_queries)
        return out

    def _forward(self, batch: TokenBatch) -> Float32:
        if not self.folder.token_types:
            batch = replace(batch, token_type_ids=None)
        return self.head(self.scorer.pooled(batch, layers=self.layers))

    def _scores(self, logits: Float32) -> Float32:
        """Turn (N, C) logits into (N,) scores."""
        odds = self._log_odds(logits)
        if self.calibration is not None:
            return self.calibration.probabilities(odds).astype(np.float32)
        if len(self.folder.labels) > 1:
            return odds
        return ACTIVATIONS[self.folder.activation](odds)

    def _log_odds(self, logits: Float32) -> Float32:
        if len(self.folder.labels) == 1:
            return np.ascontiguousarray(logits[:, 0])
        assert self.label is not None
        column = self.folder.labels.index(self.label)
        others = np.delete(logits, column, axis=1)
        result: Float32 = logits[:, column] - np.logaddexp.reduce(others, axis=1)
        return result

"""Training a cross-encoder: lists of candidates in, a `SequenceClassifier` out.

1. A step takes `batch_queries` lists of an endless shuffled stream: a pure function of seed and step.
2. Of each list it takes up to `candidates`, relevant ones first, and adds random texts of the data as negatives.
3. All pairs are scored in one packed pass, after each exit; the loss is the mean over the exits.

Source: Nogueira and Cho 2019, https://arxiv.org/abs/1901.04085; the losses name theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.checkpoint.classification_weights import write_classifier
from embedkit.checkpoint.names import Family
from embedkit.errors import EvaluationError, TrainingError
from embedkit.model.classification import SequenceClassifier
from embedkit.recipe import as_table
from embedkit.reranking.calibration import fit_calibration, write_calibration
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training import losses
from embedkit.training.engine.loop import Shares
from embedkit.training.engine.ranks import Ranks, autocast, synchronized
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.reranker.ranked_lists import Ints, RankedLists
from embedkit.training.reranker.recipe import POINTWISE, RerankerRecipe, RerankLoss, resolve_loss

logger = logging.getLogger(__name__)

EVALUATION_STEP = 2**32  # stands for no step: held-out lists are sampled the same every time


@dataclass(frozen=True)
class ListBatch:
    """B lists of K candidates as numbers of texts.

    Shapes:
        queries: (B,); candidates, relevance: (B, K), candidates -1 where a list is shorter
    """

    queries: Ints
    candidates: Ints
    relevance: NDArray[np.float32]

    def part(self, number: int, parts: int) -> ListBatch:
        """Take every `parts`-th list from `number` on."""
        return ListBatch(
            self.queries[number::parts], self.candidates[number::parts], self.relevance[number::parts]
        )

    def weight(self, loss: RerankLoss) -> float:
        """Count what the loss is a mean over: candidates, negatives, couples in order, or lists."""
        real = self.candidates >= 0
        match loss:
            case _ if loss in POINTWISE:
                return float(real.sum())
            case "margin_mse":
                return float(real.sum() - len(real))
            case "ranknet" | "lambda":
                higher = self.relevance[:, :, None] > self.relevance[:, None, :]
                return float((higher & real[:, :, None] & real[:, None, :]).sum())
            case _:
                return float(len(real))


class RerankerTraining:
    """The journey of `embedkit train reranker`."""

    def __init__(
        self,
        model: SequenceClassifier,
        tokenizer: Tokenizer,
        family: Family,
        data: RankedLists,
        recipe: RerankerRecipe,
        *,
        token_types: bool,
        origin: str,
        parts: int = 1,
    ) -> None:
        """Hold some queries out and check that what is left can be learnt from.

        A batch is dealt out to `parts`: devices times accumulation.

        Raises:
            TrainingError: the loss does not fit the data, or no list has what it needs.
        """
        self.loss = resolve_loss(recipe.loss, data)
        if recipe.batch_queries < parts:
            raise TrainingError(
                f"batch_queries is {recipe.batch_queries} for {parts} parts (devices × run.accumulate); each part needs a query. Raise it"
            )
        if self.loss not in POINTWISE and recipe.candidates + recipe.random_negatives < 2:
            raise TrainingError(
                f"candidates is {recipe.candidates} and random_negatives {recipe.random_negatives}; loss {self.loss!r} compares "
                "at least 2 texts of a query. Raise one of them"
            )
        self._model, self._family, self._recipe = model, family, recipe
        self._tokenizer = tokenizer
        self._data_fingerprint, self._origin, self._token_types = data.fingerprint, origin, token_types
        usable = _usable(data, self.loss, recipe.random_negatives)
        self.num_unusable = len(data) - len(usable)
        train, held_out = data.take(usable).split(
            recipe.held_out, most=recipe.evaluate_queries, seed=recipe.run.seed
        )
        self.train, self.held_out = train, held_out
        self._pool = np.unique(data.candidates[data.candidates >= 0])  # what random negatives are drawn from
        self._exits = tuple(sorted({*recipe.exits, model.encoder.config.num_hidden_layers}))
        if self._exits[-1] != model.encoder.config.num_hidden_layers:
            raise TrainingError(
                f"exits is {list(recipe.exits)}; the model has {model.encoder.config.num_hidden_layers} layers. Name fewer"
            )

    @property
    def module(self) -> SequenceClassifier:
        return self._model

    def manifest(self) -> Mapping[str, Any]:  # Any: whatever JSON holds
        data = {
            "lists": self._data_fingerprint,
            "tokenizer": self._tokenizer.fingerprint,
            "origin": self._origin,
        }
        return {"recipe": as_table(self._recipe), "data": data}

    def batch(self, step: int) -> ListBatch:
        """Return the whole batch of a step, over all devices: a pure function of the data, the recipe and `step`."""
        size, count, seed = self._recipe.batch_queries, len(self.train), self._recipe.run.seed
        places = np.arange(step * size, (step + 1) * size)
        rows = np.empty(size, dtype=np.int64)
        for epoch in np.unique(places // count):
            here = places // count == epoch
            rows[here] = np.random.default_rng([seed, int(epoch), 1]).permutation(count)[places[here] % count]
        return self._sample(self.train, rows, np.random.default_rng([seed, step, 2]))

    def _sample(self, lists: RankedLists, rows: Ints, rng: np.random.Generator) -> ListBatch:
        """Choose the candidates of each list: one relevant first, then others in random order, then random texts."""
        width, extra = self._recipe.candidates, self._recipe.random_negatives
        table = np.full((len(rows), width + extra), -1, dtype=np.int64)
        values = np.zeros(table.shape, dtype=np.float32)
        for i, row in enumerate(rows):
            own = np.flatnonzero(lists.candidates[row] >= 0)
            relevance = lists.relevance[row]
            order = rng.permutation(own)
            if lists.meaning != "class":
                best = order[np.argmax(relevance[order])]
                rest = order[order != best]
                if self.loss == "softmax":  # one positive a list
                    rest = rest[relevance[rest] <= 0]
                order = np.concatenate([[best], rest])
            chosen = order[:width]
            table[i, : len(chosen)] = lists.candidates[row, chosen]
            values[i, : len(chosen)] = relevance[chosen]
            if extra:
                drawn = rng.choice(self._pool, size=extra + len(own))
                strangers = drawn[~np.isin(drawn, lists.candidates[row])][:extra]
                table[i, len(chosen) : len(chosen) + len(strangers)] = strangers
        used = (table >= 0).any(axis=0)
        return ListBatch(lists.queries[rows], table[:, used], values[:, used])

    def backward(self, module: nn.Module, step: int, ranks: Ranks) -> Shares:
        whole = self.batch(step)
        accumulate = self._recipe.run.accumulate
        total = whole.weight(self.loss)
        values: dict[str, Tensor | float] = {"loss": 0.0}
        tokens, flops = 0, 0.0
        for i in range(accumulate):
            part = whole.part(ranks.rank * accumulate + i, ranks.world * accumulate)
            with synchronized(module, last=i == accumulate - 1):
                logits, lengths = self._forward(module, part, ranks)
                losses_of = [self._loss(scores, part) for scores in logits]
                share = part.weight(self.loss) / max(total, 1.0)
                loss = torch.stack(losses_of).mean() * share
                (loss * ranks.world).backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
            values["loss"] = values["loss"] + loss.detach()
            tokens += int(lengths.sum())
            flops += 3 * self._flops(lengths)
        return Shares(values, tokens, flops)

    def _forward(self, module: nn.Module, part: ListBatch, ranks: Ranks) -> tuple[Tensor, Ints]:
        """Score all candidates of some lists after each exit: -> (X, P, C) over the P real ones in their order."""
        texts = self.train.texts
        real = part.candidates >= 0
        queries = [texts[number] for number in np.repeat(part.queries, real.sum(axis=1)).tolist()]
        pairs = self._tokenizer.encode_pairs(
            queries, [texts[number] for number in part.candidates[real].tolist()], truncation="second"
        )
        order = np.argsort(-pairs.lengths, kind="stable")
        batch = pairs.take(order)
        ids = torch.from_numpy(batch.input_ids).to(ranks.device)
        types = None
        if self._token_types and batch.token_type_ids is not None:
            types = torch.from_numpy(batch.token_type_ids).to(ranks.device)
        with autocast(ranks, self._recipe.run.precision):
            logits = module(ids, batch.lengths.tolist(), types, exits=self._exits)
        back = torch.from_numpy(np.argsort(order)).to(ranks.device)
        return logits.float()[:, back], batch.lengths

    def _loss(self, logits: Tensor, part: ListBatch) -> Tensor:
        """Return the mean loss of some lists from the (P, C) logits of their real candidates."""
        real = torch.from_numpy(part.candidates >= 0).to(logits.device)
        relevance = torch.from_numpy(part.relevance).to(logits.device)
        if self.loss == "classes":
            return F.cross_entropy(logits, relevance[real].long())
        flat = logits[:, 0]
        if self.loss == "bce":
            return losses.binary_cross_entropy(
                flat, relevance[real], positive_weight=self._recipe.positive_weight
            )
        if self.loss == "mse":
            return F.mse_loss(flat, relevance[real])
        scores = torch.zeros(real.shape, device=logits.device).masked_scatter(real, flat)
        match self.loss:
            case "softmax":
                return losses.softmax_cross_entropy(scores, mask=real)
            case "ranknet":
                return losses.ranknet(scores, relevance, mask=real)
            case "listnet":
                return losses.listnet(scores, relevance, mask=real)
            case "listmle":
                return losses.listmle(scores, relevance, mask=real)
            case "lambda":
                return losses.lambda_loss(scores, relevance, mask=real)
            case "kl":
                return losses.kl_distillation(
                    scores, relevance, temperature=self._recipe.temperature, mask=real
                )
            case _:  # margin_mse, over the real negatives alone
                margins = (scores[:, :1] - scores[:, 1:])[real[:, 1:]]
                wanted = (relevance[:, :1] - relevance[:, 1:])[real[:, 1:]]
                return F.mse_loss(margins, wanted)

    def evaluate(self, module: nn.Module, ranks: Ranks) -> Mapping[str, float]:
        """Measure the held-out lists, sampled the same every time: the loss, and accuracy or mean reciprocal rank."""
        whole = self._held_out_batch()
        # As many parts on every rank, about a step's size each: sharded weights are gathered together.
        parts = max(1, len(whole.queries) // (self._recipe.batch_queries * ranks.world)) * ranks.world
        if parts > len(whole.queries):
            raise TrainingError(
                f"{len(whole.queries)} held-out queries for {parts} devices; raise held_out or give more data"
            )
        sums: dict[str, Tensor | float] = {}
        for number in range(ranks.rank, parts, ranks.world):
            part = whole.part(number, parts)
            logits, _ = self._forward(module, part, ranks)
            share = part.weight(self.loss) / max(whole.weight(self.loss), 1.0)
            found = {"loss": torch.stack([self._loss(scores, part) for scores in logits]).mean() * share}
            found |= self._quality(logits[-1], part, len(whole.queries))
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value
        return ranks.total(sums)

    def _held_out_batch(self) -> ListBatch:
        rng = np.random.default_rng([self._recipe.run.seed, EVALUATION_STEP, 2])
        return self._sample(self.held_out, np.arange(len(self.held_out)), rng)

    def _quality(self, logits: Tensor, part: ListBatch, count: int) -> dict[str, Tensor]:
        """Return this part's share of the accuracy (classes) or of the mean reciprocal rank (lists of several)."""
        real = torch.from_numpy(part.candidates >= 0).to(logits.device)
        relevance = torch.from_numpy(part.relevance).to(logits.device)
        if self.loss == "classes":
            return {"accuracy": (logits.argmax(dim=1) == relevance[real]).sum() / count}
        if real.shape[1] < 2:
            return {}
        scores = torch.full(real.shape, -torch.inf, device=logits.device).masked_scatter(real, logits[:, 0])
        best = relevance.masked_fill(~real, -torch.inf).argmax(dim=1, keepdim=True)
        # An equal score counts as half before: a model that gives all the same gains nothing by the order of the data.
        mine = scores.gather(1, best)
        rank = 0.5 + (scores > mine).sum(dim=1) + 0.5 * (scores == mine).sum(dim=1)
        return {"mrr": (1 / rank).sum() / count}

    def _flops(self, lengths: Ints) -> float:
        """Count the multiplications and additions of a forward pass: products of weights and of attention."""
        encoder = self._model.encoder
        per_token = 2 * sum(p.numel() for layer in encoder.layers for p in layer.parameters() if p.ndim > 1)
        repeats = encoder.config.num_hidden_layers / len(encoder.layers)
        attention = (
            4 * encoder.config.hidden_size * encoder.config.num_hidden_layers * float((lengths**2).sum())
        )
        return per_token * repeats * int(lengths.sum()) + attention

    def save(self, folder: RunFolder) -> None:
        """Write the model; where held-out pairs allow it, with a calibration (not of sharded weights: this is one rank)."""
        labels = self.train.classes or ("LABEL_0",)
        with folder.publishing() as draft:
            write_classifier(
                draft,
                self._model,
                self._tokenizer,
                family=self._family,
                labels=labels,
                activation="sigmoid" if self.loss == "bce" else "identity",
                rerank_weight=self._recipe.rerank_weight,
            )
            if self.train.meaning == "binary" and self._recipe.run.strategy == "ddp":
                self._calibrate(draft)

    def _calibrate(self, draft: Path) -> None:
        whole = self._held_out_batch()
        device = next(self._model.parameters()).device
        self._model.eval()
        found = []
        with torch.no_grad():
            for start in range(0, len(whole.queries), self._recipe.batch_queries):
                rows = slice(start, start + self._recipe.batch_queries)
                part = ListBatch(whole.queries[rows], whole.candidates[rows], whole.relevance[rows])
                found.append(self._forward(self._model, part, Ranks(0, 1, device))[0][-1, :, 0].cpu())
        try:
            fitted = fit_calibration(torch.cat(found).numpy(), whole.relevance[whole.candidates >= 0])
        except EvaluationError as exc:
            logger.warning("no calibration was written: %s", exc)
            return
        write_calibration(draft, fitted)


def _usable(data: RankedLists, loss: RerankLoss, random_negatives: int) -> Ints:
    """Return the lists that the loss can learn from: those of single pairs all, others where candidates differ.

    Raises:
        TrainingError: there is none.
    """
    if loss in POINTWISE:
        return np.arange(len(data))
    real = data.candidates >= 0
    low = np.where(real, data.relevance, np.inf).min(axis=1)
    high = np.where(real, data.relevance, -np.inf).max(axis=1)
    if random_negatives and data.meaning != "teacher":
        usable = high > 0
    else:
        usable = high > low
    rows = np.flatnonzero(usable)
    if not len(rows):
        raise TrainingError(
            f"none of the {len(data)} queries has candidates of different relevance, which loss {loss!r} compares. "
            "Give negatives (embedkit mine), or add random ones with --set random_negatives=4"
        )
    return rows

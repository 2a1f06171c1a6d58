"""Training a cross-encoder: lists of candidates in, a `SequenceClassifier` out.

1. A step takes `batch_queries` lists of an endless shuffled stream: a pure function of seed and step.
2. Of each list it takes up to `candidates`, relevant ones first, and adds random texts of the data as negatives.
3. All pairs are scored in one packed pass, after each exit; the loss is the mean over the exits.

Source: Nogueira and Cho 2019, https://arxiv.org/abs/1901.04085; the losses name theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embedkit.checkpoint.adapter_writing import AdapterOf
from embedkit.checkpoint.classification_weights import write_classifier
from embedkit.checkpoint.names import BASE_PREFIX, head_names
from embedkit.checkpoint.weights import export_tensors
from embedkit.errors import EvaluationError, TrainingError
from embedkit.model.classification import SequenceClassifier
from embedkit.recipe import as_table
from embedkit.reranking.calibration import fit_calibration, write_calibration
from embedkit.training.engine.journey import HeldOut, Shares
from embedkit.training.engine.lora import adapt, adapter_of, leave_adapter, merged
from embedkit.training.engine.ranks import Ranks, alone, autocast, synchronized
from embedkit.training.engine.routing_losses import StepRouting, check_routing
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.reranker.list_batches import ListBatch, ListSampler, usable_lists
from embedkit.training.reranker.objective import list_loss, quality
from embedkit.training.reranker.ranked_lists import Ints, RankedLists
from embedkit.training.reranker.recipe import RerankerRecipe, resolve_loss
from embedkit.training.reranker.start import Start
from embedkit.training.rows.sampling import Shuffled
from embedkit.training.rows.unknown_tokens import unknown_warnings

logger = logging.getLogger(__name__)

EVALUATION_STEP = 2**32  # stands for no step: held-out lists are sampled the same every time


class RerankerTraining:
    """The journey of `embedkit train reranker`."""

    def __init__(
        self,
        start: Start,
        data: RankedLists,
        recipe: RerankerRecipe,
        *,
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
        if not self.loss.pointwise and recipe.candidates + recipe.random_negatives < 2:
            raise TrainingError(
                f"candidates is {recipe.candidates} and random_negatives {recipe.random_negatives}; loss {self.loss.name!r} compares "
                "at least 2 texts of a query. Raise one of them"
            )
        self._start, self._model, self._recipe = start, start.model, recipe
        check_routing(start.model.encoder.config, recipe.routing)
        self._adapter = _adapter_of(start, recipe)
        adapt(start.model.encoder, recipe.lora, seed=recipe.run.seed)
        self._data_fingerprint = data.fingerprint
        usable = usable_lists(data, self.loss, recipe.random_negatives)
        self.num_unusable = len(data) - len(usable)
        train, held_out = data.take(usable).split(
            recipe.held_out, most=recipe.evaluate_queries, seed=recipe.run.seed
        )
        self.train, self.held_out = train, held_out
        self._sampler = ListSampler(
            data, self.loss, candidates=recipe.candidates, random_negatives=recipe.random_negatives
        )
        self._batches = Shuffled(np.arange(len(train)), batch_size=recipe.batch_queries, seed=recipe.run.seed)
        layers = start.model.encoder.config.num_hidden_layers
        self._exits = tuple(sorted({*recipe.exits, layers}))
        if self._exits[-1] != layers:
            raise TrainingError(f"exits is {list(recipe.exits)}; the model has {layers} layers. Name fewer")

    @property
    def module(self) -> SequenceClassifier:
        return self._model

    def warnings(self) -> Iterator[str]:
        """Say where the vocabulary does not know much of the texts."""
        return unknown_warnings(self._start.tokenizer, self.train.texts, "texts")

    def manifest(self) -> Mapping[str, Any]:  # Any: whatever JSON holds
        data = {
            "lists": self._data_fingerprint,
            "tokenizer": self._start.tokenizer.fingerprint,
            "origin": self._start.origin,
        }
        return {"recipe": as_table(self._recipe), "data": data}

    def batch(self, step: int) -> ListBatch:
        """Return the whole batch of a step, over all devices: a pure function of the data, the recipe and `step`."""
        rng = np.random.default_rng([self._recipe.run.seed, step, 2])
        return self._sampler.sample(self.train, self._batches.batch(step), rng)

    def backward(self, module: nn.Module, step: int, ranks: Ranks) -> Shares:
        whole = self.batch(step)
        accumulate = self._recipe.run.accumulate
        total = max(whole.weight(self.loss), 1.0)
        parts = [whole.part(ranks.rank * accumulate + i, ranks.world * accumulate) for i in range(accumulate)]
        routing = StepRouting(self._model.encoder.config, self._recipe.routing, ranks)

        def forward(part: ListBatch) -> tuple[Tensor, Ints]:
            with routing.watching():
                return self._forward(module, part, ranks)

        routing.count_first(forward, parts)
        summed: Tensor | float = 0.0
        found = []
        for i, part in enumerate(parts):
            with synchronized(module, last=i == accumulate - 1):
                logits, lengths = forward(part)
                routing.settle()
                loss = self._mean_loss(logits, part) * (part.weight(self.loss) / total)
                torch.autograd.backward(routing.added(loss) * ranks.world)
            summed = summed + loss.detach()
            found.append(lengths)
        tokens = np.concatenate(found)
        flops = (2 + routing.forward_passes) * routing.flops(tokens.tolist())
        return Shares({"loss": summed, **routing.values()}, int(tokens.sum()), flops)

    def _mean_loss(self, logits: Tensor, part: ListBatch) -> Tensor:
        """Return the mean over exits, (X, P, C), of the mean loss of some lists."""
        losses = [list_loss(scores, part, self.loss, self._recipe) for scores in logits]
        return torch.stack(losses).mean()

    def _forward(self, module: nn.Module, part: ListBatch, ranks: Ranks) -> tuple[Tensor, Ints]:
        """Score all candidates of some lists after each exit: -> (X, P, C) over the P real ones in their order."""
        texts = self.train.texts
        real = part.candidates >= 0
        queries = [texts[number] for number in np.repeat(part.queries, real.sum(axis=1)).tolist()]
        pairs = self._start.tokenizer.encode_pairs(
            queries, [texts[number] for number in part.candidates[real].tolist()], truncation="second"
        )
        order = np.argsort(-pairs.lengths, kind="stable")
        batch = pairs.take(order)
        ids = torch.from_numpy(batch.input_ids).to(ranks.device)
        types = None
        if self._start.token_types and batch.token_type_ids is not None:
            types = torch.from_numpy(batch.token_type_ids).to(ranks.device)
        with autocast(ranks):
            logits = module(ids, batch.lengths.tolist(), types, exits=self._exits)
        back = torch.from_numpy(np.argsort(order)).to(ranks.device)
        return logits.float()[:, back], batch.lengths

    def evaluate(self, module: nn.Module, ranks: Ranks) -> HeldOut:
        """Measure the held-out lists, sampled the same every time: the loss, and accuracy or mean reciprocal rank."""
        whole = self._held_out_batch()
        # As many parts on every rank, about a step's size each: sharded weights are gathered together.
        parts = max(1, len(whole.queries) // (self._recipe.batch_queries * ranks.world)) * ranks.world
        if parts > len(whole.queries):
            raise TrainingError(
                f"{len(whole.queries)} held-out queries for {parts} devices; raise held_out or give more data"
            )
        total = max(whole.weight(self.loss), 1.0)
        sums: dict[str, Tensor | float] = {}
        for number in range(ranks.rank, parts, ranks.world):
            part = whole.part(number, parts)
            logits, _ = self._forward(module, part, ranks)
            share = part.weight(self.loss) / total
            found = {"loss": self._mean_loss(logits, part) * share}
            found |= quality(logits[-1], part, self.loss, count=len(whole.queries))
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value
        values = ranks.total(sums)
        return HeldOut(values, values["loss"])

    def _held_out_batch(self) -> ListBatch:
        rng = np.random.default_rng([self._recipe.run.seed, EVALUATION_STEP, 2])
        return self._sampler.sample(self.held_out, np.arange(len(self.held_out)), rng)

    def save(self, folder: RunFolder) -> None:
        """Write the model; where held-out pairs allow it, with a calibration (not of sharded weights: this is one rank)."""
        labels = self.train.classes or ("LABEL_0",)
        with folder.publishing() as draft:
            model = merged(self._model, self._recipe.lora)
            write_classifier(
                draft,
                model,
                self._start.tokenizer,
                family=self._start.family,
                labels=labels,
                activation=self.loss.activation,
                rerank_weight=self._recipe.rerank_weight,
            )
            if self._adapter is not None:
                family = self._start.family
                head = export_tensors(model.head, head_names(family, model.encoder.config, model.config))
                leave_adapter(
                    draft,
                    self._model.encoder,
                    family,
                    self._adapter,
                    prefix=BASE_PREFIX[family],
                    head=head,
                )
            if self.train.meaning == "binary" and self._recipe.run.strategy == "ddp":
                self._calibrate(draft)

    def _calibrate(self, draft: Path) -> None:
        whole = self._held_out_batch()
        ranks = alone(next(self._model.parameters()).device, "fp32")
        self._model.eval()
        found = []
        with torch.no_grad():
            for start in range(0, len(whole.queries), self._recipe.batch_queries):
                rows = slice(start, start + self._recipe.batch_queries)
                part = ListBatch(whole.queries[rows], whole.candidates[rows], whole.relevance[rows])
                found.append(self._forward(self._model, part, ranks)[0][-1, :, 0].cpu())
        try:
            fitted = fit_calibration(torch.cat(found).numpy(), whole.relevance[whole.candidates >= 0])
        except EvaluationError as exc:
            logger.warning("no calibration was written: %s", exc)
            return
        write_calibration(draft, fitted)


def _adapter_of(start: Start, recipe: RerankerRecipe) -> AdapterOf | None:
    if recipe.lora is not None and recipe.lora.save == "adapter" and start.fresh_head:
        raise TrainingError(
            f"lora.save is 'adapter', and {start.path} has no classification head, of which a config would have to tell. "
            "Take lora.save=merged, or start from a cross-encoder"
        )
    return adapter_of(recipe.lora, start.path, task="SEQ_CLS", is_adapter=start.is_adapter)

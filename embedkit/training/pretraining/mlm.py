"""Pretraining: masked language modelling and next-sentence prediction over a corpus.

Source: Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1 and appendix A; sentence order as in Lan et al. 2020,
https://arxiv.org/abs/1909.11942, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.checkpoint.folder import ModelFolder
from embedkit.checkpoint.hf_config import family_of
from embedkit.checkpoint.names import Family
from embedkit.checkpoint.pretraining import load_pretraining, write_pretraining
from embedkit.errors import TrainingError
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.heads import MaskedLMHead, NextSentenceHead
from embedkit.model.pretraining import PretrainingModel
from embedkit.recipe import as_table
from embedkit.tokenization.kinds import token_kinds
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.diversity import watch_heads
from embedkit.training.engine.journey import HeldOut, Shares
from embedkit.training.engine.ranks import Ranks, autocast, synchronized
from embedkit.training.engine.recipes import PretrainRecipe
from embedkit.training.engine.routing_losses import StepRouting, check_routing
from embedkit.training.engine.routing_tally import Tally
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.pretraining.batches import Plan, Stream
from embedkit.training.pretraining.corpus import Corpus
from embedkit.training.pretraining.masked_batches import BatchMaker, MaskedBatch

Ints = NDArray[np.int64]
EVALUATION_SEED = 20_181_011  # the day BERT's paper came out; held-out masks are the same in every run


class Pretraining:
    """The journey of `embedkit train mlm`."""

    def __init__(
        self,
        model: PretrainingModel,
        tokenizer: Tokenizer,
        family: Family,
        corpus: Corpus,
        recipe: PretrainRecipe,
        *,
        parts: int = 1,
        origin: str = "scratch",
    ) -> None:
        self._model, self._tokenizer, self._family = model, tokenizer, family
        self._corpus, self._recipe, self._origin = corpus, recipe, origin
        check_routing(model.encoder.config, recipe.routing)
        self._kinds = token_kinds(tokenizer)
        text, seed = recipe.text, recipe.run.seed
        self._penalty = watch_heads(model.encoder, recipe.head_diversity)
        self._maker = BatchMaker(corpus, tokenizer, recipe)
        train, held_out = corpus.split(text.held_out)
        self._lengths = (text.sequence_length, text.short_length)
        self._plan = Plan.of(text, recipe.run.steps, parts)
        self._streams = [
            _stream(self._maker, train, length, seed)
            for length in self._lengths[: 2 if text.short_steps else 1]
        ]
        self._held_out = _stream(self._maker, held_out, text.sequence_length, EVALUATION_SEED)
        self.held_out_documents, self.documents = len(held_out), len(train)

    @property
    def module(self) -> PretrainingModel:
        return self._model

    @property
    def tokens_per_epoch(self) -> int:
        return self._streams[0].tokens

    def manifest(self) -> Mapping[str, Any]:  # Any: whatever JSON holds
        data = {
            "corpus": self._corpus.fingerprint,
            "tokenizer": self._tokenizer.fingerprint,
            "origin": self._origin,
        }
        return {"recipe": as_table(self._recipe), "data": data}

    def batch(self, step: int) -> MaskedBatch:
        """Return the whole batch of a step, over all devices: a pure function of the corpus, the recipe and `step`."""
        short, start, stop = self._plan.window(step)
        stream = self._streams[short]
        rng = np.random.default_rng([self._recipe.run.seed, step, 2])
        return self._maker.batch(stream.pieces, stream.window(start, stop), self._lengths[short], rng)

    def backward(self, module: nn.Module, step: int, ranks: Ranks) -> Shares:
        whole = self.batch(step)
        accumulate = self._recipe.run.accumulate
        parts = [whole.part(ranks.rank * accumulate + i, ranks.world * accumulate) for i in range(accumulate)]
        routing = StepRouting(self._model.encoder.config, self._recipe.routing, ranks)

        def forward(part: MaskedBatch) -> dict[str, Tensor]:
            if self._penalty is not None:
                self._penalty.clear()
            with routing.watching():
                return self._forward(module, part, whole, ranks)

        routing.count_first(forward, parts)
        values: dict[str, Tensor | float] = {}
        for i, part in enumerate(parts):
            with synchronized(module, last=i == accumulate - 1):
                measured = forward(part)
                routing.settle()
                loss = routing.added(measured["loss"])
                if self._penalty is not None:
                    measured["head_diversity"] = self._penalty.take(len(part.visible)) / len(whole.visible)
                    loss = loss + self._penalty.weight * measured["head_diversity"]
                torch.autograd.backward(loss * ranks.world)
            for name, value in measured.items():
                values[name] = values.get(name, 0.0) + value.detach()
        lengths = np.concatenate([part.lengths for part in parts])
        head = sum(self._head_flops(part) for part in parts)
        flops = (2 + routing.forward_passes) * (routing.flops(lengths.tolist()) + head)
        return Shares({**values, **routing.values()}, int(lengths.sum()), flops)

    def _forward(
        self, module: nn.Module, part: MaskedBatch, whole: MaskedBatch, ranks: Ranks
    ) -> dict[str, Tensor]:
        """Return the part's share of the whole batch's means: loss, accuracy and, with pairs, those of the second task."""

        def move(array: Ints) -> Tensor:
            return torch.from_numpy(array).to(ranks.device, non_blocking=True)

        places = np.flatnonzero(part.chosen)
        types = None if part.token_type_ids is None else move(part.token_type_ids)
        with autocast(ranks):
            logits, pair_logits = module(move(part.visible), part.lengths.tolist(), move(places), types)
        return pretraining_loss(
            logits,
            move(part.original[places]),
            pair_logits,
            None if part.follows is None else move(part.follows),
            num_masked=int(whole.chosen.sum()),
            num_pairs=len(whole.lengths),
        )

    def evaluate(self, module: nn.Module, ranks: Ranks) -> HeldOut:
        """Measure the held-out pieces, the same with the same masks every time."""
        text = self._recipe.text
        rng = np.random.default_rng(EVALUATION_SEED)
        limit = min(text.evaluate_tokens, self._held_out.tokens)
        rows = self._held_out.window(0, limit)
        whole = self._maker.batch(self._held_out.pieces, rows, text.sequence_length, rng)
        size = max(text.sequence_length, text.batch_tokens // (ranks.world * self._recipe.run.accumulate))
        # As many parts on every rank: sharded weights are gathered together.
        count = -(-len(whole.visible) // (size * ranks.world))
        tally = Tally(self._model.encoder.config, ranks.device, kinds=self._kinds)
        sums: dict[str, Tensor | float] = {}
        for i in range(count):
            part = whole.part(ranks.rank * count + i, count * ranks.world)
            with tally.watching(part.visible):
                found = self._forward(module, part, whole, ranks)
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value
        tally.exchange(ranks)
        values = ranks.total(sums)
        return HeldOut(values | tally.measures(), values["loss"])

    def _head_flops(self, part: MaskedBatch) -> float:
        """Count the multiplications and additions of the head's forward pass."""
        config = self._model.encoder.config
        return 2.0 * config.hidden_size * (config.hidden_size + config.vocab_size) * int(part.chosen.sum())

    def save(self, folder: RunFolder) -> None:
        tokenizer = self._tokenizer.with_max_length(self._recipe.text.sequence_length)
        with folder.publishing() as draft:
            write_pretraining(draft, self._model, tokenizer, self._family)


def _stream(maker: BatchMaker, documents: Ints, length: int, seed: int) -> Stream:
    return Stream(maker.pieces(documents, length), num_special=maker.num_special, seed=seed)


def pretraining_loss(
    logits: Tensor,
    targets: Tensor,
    pair_logits: Tensor | None = None,
    follows: Tensor | None = None,
    *,
    num_masked: int,
    num_pairs: int,
) -> dict[str, Tensor]:
    """Return loss and accuracy of both tasks as shares of means over `num_masked` places and `num_pairs` pairs.

    Shapes:
        logits: (M, V); targets: (M,); pair_logits: (B, 2); follows: (B,)
        returns: scalars "loss" (the sum of both losses, in nats), "accuracy" and, with pairs, "mlm_loss", "pair_loss", "pair_accuracy"
    Source: Devlin et al. 2019, appendix A.2: the loss is the sum of the two mean likelihoods.
    """
    logits = logits.float()
    mlm = F.cross_entropy(logits, targets, reduction="sum") / num_masked
    found = {"loss": mlm, "accuracy": (logits.argmax(-1) == targets).sum() / num_masked}
    if pair_logits is None or follows is None:
        return found
    pair = F.cross_entropy(pair_logits.float(), follows, reduction="sum") / num_pairs
    right = (pair_logits.argmax(-1) == follows).sum() / num_pairs
    return found | {"loss": mlm + pair, "mlm_loss": mlm, "pair_loss": pair, "pair_accuracy": right}


def fresh_model(recipe: PretrainRecipe, tokenizer: Tokenizer) -> tuple[PretrainingModel, Family]:
    """Make a model of the recipe's shape with weights drawn from its seed.

    Raises:
        TrainingError: the sequences would be longer than the position table.
    """
    config = recipe.model.config(vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.special_id("pad"))
    _check_length(recipe, config.max_tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        pair = None if recipe.masking.next_sentence == "none" else NextSentenceHead(config)
        model = PretrainingModel(TransformerEncoder(config), MaskedLMHead(config), pair)
    _freeze(model, recipe.freeze_layers)
    return model, family_of(config)


def continued_model(
    recipe: PretrainRecipe, folder: ModelFolder
) -> tuple[PretrainingModel, Family, Sequence[str]]:
    """Load a model to train further; also name the heads that it lacked and that start fresh.

    Raises:
        CheckpointError: the folder's weights cannot be used.
        TrainingError: the sequences would be longer than the position table, or there are fewer layers than to freeze.
    """
    _check_length(recipe, folder.config.max_tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        model, fresh = load_pretraining(folder, next_sentence=recipe.masking.next_sentence != "none")
    _freeze(model, recipe.freeze_layers)
    return model, folder.family, fresh


def _check_length(recipe: PretrainRecipe, max_tokens: int) -> None:
    longest = max(recipe.text.sequence_length, recipe.text.short_length if recipe.text.short_steps else 0)
    if longest > max_tokens:
        raise TrainingError(
            f"text.sequence_length is {longest}; the model's position table ends at {max_tokens} tokens. "
            "Lower it, or raise model.max_position_embeddings of a fresh model"
        )


def _freeze(model: PretrainingModel, layers: int) -> None:
    """Keep the embeddings and the first `layers` layers as they are; 0 trains everything."""
    count = len(model.encoder.layers)
    if layers > count:
        raise TrainingError(f"freeze_layers is {layers}; the model has {count} layers to freeze")
    if layers:
        for frozen in (model.encoder.embeddings, *model.encoder.layers[:layers]):
            frozen.requires_grad_(False)

"""Contrastive fine-tuning: rows of texts with what is known about them make a sentence encoder.

One step:

1. draw a data set and one of its batches (`embedkit.training.rows.sampling`)
2. encode the batch's distinct texts, packed, each device its share; in several parts where they are many
3. gather the vectors of all devices and compute the loss of the whole batch (`embedkit.training.contrastive.objective`)
4. go backward: at once, or through cached gradients (`embedkit.training.engine.grad_cache`) where there are several parts

Source: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084; each loss names its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.checkpoint.folder import ModelFolder, fingerprint, read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder, save_sentence_encoder
from embedkit.errors import TrainingError
from embedkit.model.sentence import SentenceEncoder
from embedkit.recipe import as_table
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.contrastive.data_sets import DataSet, Entries, entries_of
from embedkit.training.contrastive.objective import BatchRows, Objective
from embedkit.training.contrastive.recipe import ContrastiveRecipe
from embedkit.training.engine.evaluation_sets import Embed, EvaluationSet, evaluation_hashes
from embedkit.training.engine.gather import gather_rows
from embedkit.training.engine.grad_cache import cached_backward
from embedkit.training.engine.loop import Shares
from embedkit.training.engine.micro_batches import PackedEncoder, embed_texts, forward
from embedkit.training.engine.ranks import Ranks, synchronized
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.engine.sharding import BatchPart, average_gradients, shard
from embedkit.training.rows.sampling import Mixture

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class ContrastiveModule(nn.Module):
    """The encoder and what the losses train besides it; forward encodes packed tokens."""

    def __init__(self, encoder: PackedEncoder, objectives: Sequence[Objective]) -> None:
        super().__init__()
        self.encoder = encoder
        self.objectives = nn.ModuleList(objectives)

    def forward(self, input_ids: Tensor, lengths: Sequence[int], skip: int = 0) -> Tensor:
        vectors: Tensor = self.encoder(input_ids, lengths, skip)
        return vectors


@dataclass(frozen=True)
class Guide:
    """A model that says which in-batch documents are right answers too."""

    encoder: PackedEncoder
    tokenizer: Tokenizer
    fingerprint: str


class Contrastive:
    """The journey of `embedkit train contrastive`."""

    def __init__(
        self,
        folder: ModelFolder,
        model: SentenceEncoder,
        sets: Sequence[DataSet],
        recipe: ContrastiveRecipe,
        *,
        origin: str,
        evaluation: Sequence[EvaluationSet] = (),
        guide: Guide | None = None,
    ) -> None:
        self._folder, self._recipe, self._origin = folder, recipe, origin
        self._sets, self.evaluation, self._guide = sets, evaluation, guide
        if not evaluation and all(each.held_out is None for each in sets):
            raise TrainingError(
                f"the held-out rows ({', '.join(str(each.num_held_out) for each in sets)}) make no batch to measure the loss on. "
                "Hold out more with --set data.held_out=0.1, or measure with --evaluate SET"
            )
        limit = recipe.data.max_length
        self._tokenizer = folder.tokenizer if limit is None else folder.tokenizer.with_max_length(limit)
        encoder = PackedEncoder(model, all_layers=recipe.loss.adaptive_layers)
        self._module = ContrastiveModule(encoder, [each.objective for each in sets])
        self._model = model
        self._mixture = Mixture(
            [each.num_train for each in sets],
            steps=recipe.run.steps,
            mixing=recipe.data.mixing,
            seed=recipe.run.seed,
        )

    @property
    def module(self) -> ContrastiveModule:
        return self._module

    @property
    def shares(self) -> Sequence[float]:
        """The share of the steps that each data set gets."""
        return [float(share) for share in self._mixture.shares]

    def described(self) -> list[str]:
        """Say of each data set what it is and what is made of it."""
        return [each.described(each.examples.short_name) for each in self._sets]

    def manifest(self) -> Mapping[str, Any]:  # Any: whatever JSON holds
        data = {
            "origin": self._origin,
            "sets": [
                {
                    "name": each.examples.short_name,
                    "kind": each.examples.kind,
                    "loss": each.loss,
                    "rows": each.fingerprint,
                }
                for each in self._sets
            ],
            "evaluation": evaluation_hashes(self.evaluation),
            "guide": None if self._guide is None else self._guide.fingerprint,
        }
        return {"recipe": as_table(self._recipe), "data": data}

    def entries(self, step: int) -> tuple[DataSet, Entries]:
        """Return the batch of a step: its data set, its distinct texts and its rows."""
        number, place = self._mixture.at(step)
        each = self._sets[number]
        rng = np.random.default_rng([self._recipe.run.seed, step, 4])
        return each, entries_of(each, each.train.batch(place), self._recipe, rng)

    def backward(self, module: nn.Module, step: int, ranks: Ranks) -> Shares:
        each, entries = self.entries(step)
        parts, order, length_sum = self._parts(entries, ranks)

        def encode(part: BatchPart) -> Tensor:
            return forward(module, part.tokens, ranks, self._recipe.run.precision, skip=part.skip)

        def loss(embeddings: Tensor) -> Tensor:
            return self._whole_loss(each, entries, embeddings, order, ranks)

        # Gradients are averaged below, once: those of the losses' own weights come from outside the wrapped forward.
        with synchronized(module, last=False):
            if len(parts) == 1:
                value = loss(encode(parts[0]))
                torch.autograd.backward(value)
            else:
                value = cached_backward(encode, parts, loss)
        if ranks.world > 1:
            average_gradients(self._module, ranks)
        passes = 3 if len(parts) == 1 else 4
        values: dict[str, Tensor | float] = {"loss": value.detach() / ranks.world}
        temperature = each.objective.temperature
        if isinstance(temperature, Tensor):
            values["temperature"] = temperature.detach() / ranks.world
        return Shares(values, length_sum, passes * self._flops(parts))

    def _parts(self, entries: Entries, ranks: Ranks) -> tuple[list[BatchPart], Ints, int]:
        """Tokenize a batch's texts and share them among the devices; see `shard`."""
        tokens = self._tokenizer.encode(entries.texts)
        parts, order = shard(
            tokens, entries.groups, self._skips(), ranks, budget=self._recipe.data.micro_tokens
        )
        return parts, order, sum(int(part.tokens.lengths.sum()) for part in parts)

    def _skips(self) -> tuple[int, ...]:
        """Say how many tokens of the first column's texts, and of the others', are not pooled."""
        if self._folder.modules.sentence.pool_prompt:
            return (0, 0)
        prompts = (self._recipe.prompts.first, self._recipe.prompts.second)
        prefix = len(self._tokenizer.single.prefix)
        return tuple(prefix + len(self._tokenizer.ids([prompt])[0]) if prompt else 0 for prompt in prompts)

    def _whole_loss(
        self, each: DataSet, entries: Entries, embeddings: Tensor, order: Ints, ranks: Ranks
    ) -> Tensor:
        """Compute the loss of the whole batch from this device's share of its vectors."""
        if ranks.world > 1:
            missing = len(order) // ranks.world - len(embeddings)
            filling = embeddings.new_zeros(missing, *embeddings.shape[1:])
            embeddings = gather_rows(torch.cat([embeddings, filling]))
        places = np.empty(len(entries.texts), dtype=np.int64)
        real = np.flatnonzero(order >= 0)
        places[order[real]] = real
        embeddings = embeddings[
            torch.from_numpy(places).to(ranks.device)
        ]  # (U, ...) in the order of the texts
        batch = self._batch_rows(entries, ranks)
        guide = self._guidance(entries, ranks)
        value: Tensor = each.objective(embeddings, batch, guide)
        return value

    def _batch_rows(self, entries: Entries, ranks: Ranks) -> BatchRows:
        def move(array: Ints | None) -> Tensor | None:
            return None if array is None else torch.from_numpy(array).to(ranks.device)

        first = move(entries.first)
        assert first is not None
        ids = mask = None
        if entries.originals:
            padded, real, _ = self._tokenizer.encode(entries.originals).padded(
                self._folder.config.pad_token_id
            )
            ids, mask = torch.from_numpy(padded).to(ranks.device), torch.from_numpy(real).to(ranks.device)
        return BatchRows(entries.rows, first, move(entries.second), move(entries.negatives), ids, mask)

    def _guidance(self, entries: Entries, ranks: Ranks) -> Tensor | None:
        if self._guide is None:
            return None
        self._guide.encoder.to(ranks.device)
        budget = self._recipe.data.micro_tokens
        vectors = embed_texts(
            self._guide.encoder,
            self._guide.tokenizer,
            entries.plain,
            ranks,
            precision=self._recipe.run.precision,
            budget=budget,
        )
        return torch.from_numpy(vectors).to(ranks.device)

    def _flops(self, parts: Sequence[BatchPart]) -> float:
        """Count the multiplications and additions of a forward pass: products of weights and of attention."""
        config = self._folder.config
        layers = self._model.encoder.layers
        per_layer = (
            2 * sum(p.numel() for layer in layers for p in layer.parameters() if p.ndim > 1) / len(layers)
        )
        lengths = np.concatenate([part.tokens.lengths for part in parts])
        attention = 4 * config.hidden_size * float((lengths**2).sum())
        return config.num_hidden_layers * (per_layer * float(lengths.sum()) + attention)

    def evaluate(self, module: nn.Module, ranks: Ranks) -> Mapping[str, float]:
        """Measure the loss of held-out rows, and the evaluation sets, whose mean decides what is best where there are any."""
        losses = []
        rng = np.random.default_rng(0)
        for each in self._sets:
            for number in range(self._recipe.data.evaluate_batches if each.held_out is not None else 0):
                assert each.held_out is not None
                entries = entries_of(each, each.held_out.batch(number), self._recipe, rng)
                parts, order, _ = self._parts(entries, ranks)
                vectors = [
                    forward(module, part.tokens, ranks, self._recipe.run.precision, skip=part.skip)
                    for part in parts
                ]
                stacked = torch.cat(vectors)
                if self._recipe.loss.adaptive_layers:
                    stacked = stacked[:, None].expand(-1, 2, -1)  # in evaluation all layers are the last one
                losses.append(float(self._whole_loss(each, entries, stacked, order, ranks)))
        values = {"held_out_loss": float(np.mean(losses))} if losses else {}
        measures = {each.measure_name: each.measure(self.embedder(module, ranks)) for each in self.evaluation}
        best = -float(np.mean(list(measures.values()))) if measures else values["held_out_loss"]
        return {"loss": best, **values, **measures}

    def embedder(self, module: nn.Module, ranks: Ranks) -> Embed:
        """Return the function that evaluation sets embed texts with, as the finished model would."""
        prompts = {"query": self._recipe.prompts.first, "document": self._recipe.prompts.second}
        skips = dict(zip(prompts, self._skips(), strict=True))

        def embed(texts: Sequence[str], role: str) -> Floats:
            budget = self._recipe.data.micro_tokens
            return embed_texts(
                module,
                self._tokenizer,
                texts,
                ranks,
                precision=self._recipe.run.precision,
                budget=budget,
                prompt=prompts[role],
                skip=skips[role],
            )

        return embed

    def save(self, folder: RunFolder) -> None:
        prompts = dict(self._folder.modules.prompts)
        if self._recipe.prompts.first or self._recipe.prompts.second:
            prompts |= {"query": self._recipe.prompts.first, "document": self._recipe.prompts.second}
        modules = self._folder.modules
        modules = type(modules)(
            sentence=modules.sentence,
            max_seq_length=self._tokenizer.max_length,
            lowercase=modules.lowercase,
            prompts=prompts,
            default_prompt_name=modules.default_prompt_name,
            similarity=modules.similarity,
            truncate_dim=modules.truncate_dim,
        )
        with folder.publishing() as draft:
            save_sentence_encoder(draft, self._model, self._tokenizer, modules, family=self._folder.family)


def load_guide(folder: str) -> Guide:
    """Load the model of a folder as a guide.

    Raises:
        CheckpointError: it is not a sentence encoder that we can compute.
    """
    read = read_model_folder(folder)
    model = load_sentence_encoder(read)
    return Guide(PackedEncoder(model), read.tokenizer, str(fingerprint(read)["weights"]))

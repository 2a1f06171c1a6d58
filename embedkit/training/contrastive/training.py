"""Contrastive fine-tuning: rows of texts with what is known about them make a sentence encoder.

One step:

1. draw a data set and one of its batches (`embedkit.training.rows.sampling`)
2. encode the batch's distinct texts, packed, each device its share; in several parts where they are many
3. gather the vectors of all devices and compute the loss of the whole batch (`embedkit.training.contrastive.objective`)
4. go backward: at once, or through cached gradients (`embedkit.training.engine.grad_cache`) where there are several parts

Source: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084; each loss names its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.checkpoint.folder import ModelFolder
from embedkit.checkpoint.multi_vector_weights import save_multi_vector
from embedkit.checkpoint.weights import save_sentence_encoder
from embedkit.errors import TrainingError
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.similarity import LearnedSimilarity
from embedkit.model.sparse import SparseModel
from embedkit.recipe import as_table
from embedkit.tokenization.kinds import token_kinds
from embedkit.training.contrastive.data_sets import DataSet
from embedkit.training.contrastive.entries import Entries
from embedkit.training.contrastive.guide import Guide
from embedkit.training.contrastive.objective import BatchRows, Objective
from embedkit.training.contrastive.penalties import Penalized
from embedkit.training.contrastive.recipe import ContrastiveRecipe
from embedkit.training.contrastive.tokens import TokenModule, TokenTexts
from embedkit.training.engine.diversity import watch_aspects, watch_heads
from embedkit.training.engine.evaluation_sets import Embed, EvaluationSet, evaluation_hashes
from embedkit.training.engine.grad_cache import cached_backward
from embedkit.training.engine.journey import HeldOut, Shares
from embedkit.training.engine.lora import adapt, adapter_of, leave_adapter, merged
from embedkit.training.engine.micro_batches import PackedEncoder, embed_texts, forward
from embedkit.training.engine.ranks import Ranks, synchronized
from embedkit.training.engine.routing_losses import StepRouting, check_routing
from embedkit.training.engine.routing_tally import Tally
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.engine.sharding import BatchPart, average_gradients, in_order, shard
from embedkit.training.rows.sampling import Mixture
from embedkit.training.rows.unknown_tokens import unknown_warnings

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


class Contrastive:
    """The journey of `embedkit train contrastive`."""

    def __init__(
        self,
        folder: ModelFolder,
        model: SentenceEncoder | SparseModel,
        sets: Sequence[DataSet],
        recipe: ContrastiveRecipe,
        *,
        origin: str,
        evaluation: Sequence[EvaluationSet] = (),
        guide: Guide | None = None,
        tokens: TokenTexts | None = None,
    ) -> None:
        """`tokens` is how the texts of a multi-vector model are read."""
        self._folder, self._origin, self._tokens = folder, origin, tokens
        # Markers are prompts of the model's own.
        self._recipe = recipe if tokens is None else replace(recipe, prompts=tokens.prompts)
        check_routing(model.encoder.config, recipe.routing)
        written = "learned sparse" if recipe.sparse else "multi-vector" if tokens is not None else None
        if written is not None and recipe.lora is not None and recipe.lora.save == "adapter":
            raise TrainingError(
                f"lora.save is 'adapter', and a {written} model is written whole. Take lora.save=merged"
            )
        self._adapter = adapter_of(
            recipe.lora,
            folder.encoder_path,
            task="FEATURE_EXTRACTION",
            is_adapter=folder.adapter is not None,
        )
        adapt(model.encoder, recipe.lora, seed=recipe.run.seed)
        self._kinds = token_kinds(folder.tokenizer)
        self._sets, self.evaluation, self._guide = sets, evaluation, guide
        if not evaluation and all(each.held_out is None for each in sets):
            raise TrainingError(
                f"the held-out rows ({', '.join(str(each.num_held_out) for each in sets)}) make no batch to measure the loss on. "
                "Hold out more with --set data.held_out=0.1, or measure with --evaluate SET"
            )
        limit = recipe.data.max_length
        self._tokenizer = folder.tokenizer if limit is None else folder.tokenizer.with_max_length(limit)
        self._check_evaluation(model)
        layers = model.encoder.config.num_hidden_layers if recipe.loss.adaptive_layers else 1
        self._penalties = {
            "head_diversity": watch_heads(model.encoder, recipe.loss.head_diversity),
            "aspect_diversity": watch_aspects(
                model.attention_pooling, recipe.loss.aspect_diversity, passes=layers
            ),
        }
        objectives = [each.objective for each in sets]
        self._module: ContrastiveModule | TokenModule
        if tokens is None:
            encoder = PackedEncoder(model, all_layers=recipe.loss.adaptive_layers)
            self._module = ContrastiveModule(encoder, objectives)
        else:
            assert isinstance(model, SentenceEncoder)  # those of a multi-vector model are
            self._module = TokenModule(model, objectives)
        self._model = model
        self._mixture = Mixture(
            [each.num_train for each in sets],
            steps=recipe.run.steps,
            mixing=recipe.data.mixing,
            seed=recipe.run.seed,
        )

    @property
    def module(self) -> ContrastiveModule | TokenModule:
        return self._module

    @property
    def shares(self) -> Sequence[float]:
        """The share of the steps that each data set gets."""
        return [float(share) for share in self._mixture.shares]

    def described(self) -> list[str]:
        """Say of each data set what it is and what is made of it."""
        return [each.described(each.examples.short_name) for each in self._sets]

    def warnings(self) -> Iterator[str]:
        """Name the data sets of whose texts the vocabulary does not know much."""
        for each in self._sets:
            what = f"texts of {each.examples.name}"
            yield from unknown_warnings(self._tokenizer, each.examples.texts, what)

    def manifest(self) -> Mapping[str, Any]:  # Any: whatever JSON holds
        data = {
            "origin": self._origin,
            "sets": [
                {
                    "name": each.examples.short_name,
                    "kind": each.examples.kind,
                    "loss": each.loss.name,
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
        return each, each.entries(each.train.batch(place), self._recipe, rng)

    def backward(self, module: nn.Module, step: int, ranks: Ranks) -> Shares:
        each, entries = self.entries(step)
        parts, order, width = self._parts(entries, ranks)
        penalized = Penalized(self._penalties, parts, ranks)
        routing = StepRouting(self._model.encoder.config, self._recipe.routing, ranks)

        def encode(part: BatchPart) -> Tensor:
            penalized.clear()
            with routing.watching():
                vectors = self._vectors(module, part, entries, ranks, width)
            return penalized.attach(vectors, part)

        def loss(embeddings: Tensor) -> Tensor:
            routing.settle()  # by now all texts were encoded, on every device
            return self._whole_loss(each, entries, embeddings, order, ranks)

        def auxiliary() -> Tensor | None:
            share = routing.share()
            return None if share is None else share * ranks.world

        # Gradients are averaged below, once: those of the losses' own weights come from outside the wrapped forward.
        with synchronized(module, last=False):
            if len(parts) == 1:
                value = loss(encode(parts[0]))
                share = auxiliary()
                torch.autograd.backward(value if share is None else value + share)
            else:
                value = cached_backward(encode, parts, loss, auxiliary=auxiliary)
        if ranks.world > 1:
            average_gradients(self._module, ranks)
        passes = 3 if len(parts) == 1 else 4
        lengths = np.concatenate([part.tokens.lengths for part in parts])
        values: dict[str, Tensor | float] = {"loss": value.detach() / ranks.world, **penalized.values}
        temperature = each.objective.temperature
        if isinstance(temperature, Tensor):
            values["temperature"] = temperature.detach() / ranks.world
        values |= routing.values()
        return Shares(values, int(lengths.sum()), passes * routing.flops(lengths.tolist()))

    def _parts(self, entries: Entries, ranks: Ranks) -> tuple[list[BatchPart], Ints, int]:
        """Tokenize a batch's texts and share them among the devices, see `shard`; and say how many vectors a text has at most."""
        budget, width = self._recipe.data.micro_tokens, 1
        if self._tokens is None:
            tokens, skips = self._tokenizer.encode(entries.texts), self._skips()
        else:
            tokens, skips = self._tokens.encode(entries.texts, entries.groups), (0, 0)
            width = self._tokens.width(tokens, entries.groups)
        return *shard(tokens, entries.groups, skips, ranks, budget=budget), width

    def _vectors(
        self, module: nn.Module, part: BatchPart, entries: Entries, ranks: Ranks, width: int
    ) -> Tensor:
        """Encode a part of a batch: -> (B, E), or of a multi-vector model (B, width·E)."""
        if self._tokens is None:
            return forward(module, part.tokens, ranks, skip=part.skip)
        groups = entries.groups[part.numbers]
        return self._tokens.forward(module, part.tokens, groups, ranks, width=width)

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
        embeddings = in_order(embeddings, order, ranks, count=len(entries.texts))  # (U, ...)
        return self._loss_of(each, entries, embeddings, ranks)

    def _loss_of(self, each: DataSet, entries: Entries, embeddings: Tensor, ranks: Ranks) -> Tensor:
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
        return BatchRows(
            entries.rows,
            first,
            move(entries.second),
            move(entries.negatives),
            ids,
            mask,
            move(entries.documents),
        )

    def _guidance(self, entries: Entries, ranks: Ranks) -> Tensor | None:
        if self._guide is None:
            return None
        return self._guide.vectors(entries.plain, ranks, budget=self._recipe.data.micro_tokens)

    def evaluate(self, module: nn.Module, ranks: Ranks) -> HeldOut:
        """Measure the loss of held-out rows, and the evaluation sets, whose mean decides what is best where there are any."""
        losses = []
        tally = Tally(self._model.encoder.config, ranks.device, kinds=self._kinds)
        rng = np.random.default_rng(0)
        for each in self._sets:
            for number in range(self._recipe.data.evaluate_batches if each.held_out is not None else 0):
                assert each.held_out is not None
                entries = each.entries(each.held_out.batch(number), self._recipe, rng)
                parts, order, width = self._parts(entries, ranks)
                vectors = []
                for part in parts:
                    with tally.watching(part.tokens.input_ids):
                        vectors.append(self._vectors(module, part, entries, ranks, width))
                stacked = torch.cat(vectors)
                if self._recipe.loss.adaptive_layers:
                    stacked = stacked[:, None].expand(-1, 2, -1)  # in evaluation all layers are the last one
                losses.append(float(self._whole_loss(each, entries, stacked, order, ranks)))
        loss = float(np.mean(losses)) if losses else None
        tally.exchange(ranks)
        values = {} if loss is None else {"loss": loss, "held_out_loss": loss, **tally.measures()}
        measures = {each.measure_name: self._measure(each, module, ranks) for each in self.evaluation}
        criterion = -float(np.mean(list(measures.values()))) if measures else values["loss"]
        return HeldOut({**values, **measures}, criterion)

    def _measure(self, each: EvaluationSet, module: nn.Module, ranks: Ranks) -> float:
        tokens = self._tokens
        if tokens is None:
            return each.measure(self.embedder(module, ranks, search=not each.pairs))
        budget = self._recipe.data.micro_tokens
        return each.measure_retrieval(partial(tokens.search, module, ranks, budget=budget))

    def _check_evaluation(self, model: SentenceEncoder | SparseModel) -> None:
        """Refuse to measure by cosine what is trained to be compared by no product of two texts' vectors."""
        for each in self.evaluation if self._tokens is not None else ():
            if each.pairs:
                raise TrainingError(
                    f"--evaluate {each.name} holds scored pairs, which single vectors are compared by; of a multi-vector model retrieval "
                    "is measured. Name a retrieval set, or leave it out"
                )
        kind = None if model.similarity is None else model.similarity.config.kind
        why = {
            "additive": "the model's similarity is additive, which is no product of two vectors",
            "fields": "the model compares queries with documents that have fields",
        }
        if self.evaluation and kind in why:
            raise TrainingError(
                f"--evaluate measures cosines, and {why[kind]}. Leave it out: the loss on held-out rows then decides"
            )

    def embedder(self, module: nn.Module, ranks: Ranks, *, search: bool = False) -> Embed:
        """Return the function that evaluation sets embed texts with, as the finished model would.

        In a `search` a bilinear similarity turns the queries.
        """
        prompts = {"query": self._recipe.prompts.first, "document": self._recipe.prompts.second}
        skips = dict(zip(prompts, self._skips(), strict=True))

        def embed(texts: Sequence[str], role: str) -> Floats:
            budget = self._recipe.data.micro_tokens
            vectors = embed_texts(
                module,
                self._tokenizer,
                texts,
                ranks,
                budget=budget,
                prompt=prompts[role],
                skip=skips[role],
            )
            learned = self._model.similarity
            if not search or role != "query" or not isinstance(learned, LearnedSimilarity):
                return vectors
            turned: Floats = vectors @ learned.weight.detach().cpu().numpy()
            return turned

        return embed

    def save(self, folder: RunFolder) -> None:
        assert isinstance(self._model, SentenceEncoder)
        model = merged(self._model, self._recipe.lora)
        if self._tokens is not None:
            made = self._tokens.folder
            with folder.publishing() as draft:
                save_multi_vector(
                    draft, model, made.encoder.tokenizer, made.modules, family=made.encoder.family
                )
            return
        modules = self._folder.modules
        prompts = dict(modules.prompts)
        if self._recipe.prompts.first or self._recipe.prompts.second:
            prompts |= {"query": self._recipe.prompts.first, "document": self._recipe.prompts.second}
        modules = replace(modules, max_seq_length=self._tokenizer.max_length, prompts=prompts)
        with folder.publishing() as draft:
            save_sentence_encoder(draft, model, self._tokenizer, modules, family=self._folder.family)
            if self._adapter is not None:
                leave_adapter(draft, self._model.encoder, self._folder.family, self._adapter)

"""Adapting a model to documents that nobody has labelled, stage by stage; what a stage wrote is passed over when the same call goes on.

1. queries: passages, derived queries, held-out ones; and those that a generator writes
2. mlm: the encoder is trained further by masked language modelling, where that is asked for
3. index, mine: hard negatives, found by the model itself
4. label: a cross-encoder judges them
5. train: contrastive training, and the mean of its weights with the start's
6. whiten: a linear map behind the pooling, found from the passages' vectors
7. rank: the map goes on to learn how hybrid search ranks the passages
8. measure: before and after

Sources: GPL, Wang et al. 2022, https://arxiv.org/abs/2112.07577; whitening, Su et al. 2021, https://arxiv.org/abs/2103.15316.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from typing import Any

from embedkit.checkpoint.classification import read_classifier_folder
from embedkit.checkpoint.folder import ModelFolder, fingerprint, read_model_folder
from embedkit.checkpoint.generation import read_generator_folder
from embedkit.data.reading import read_documents
from embedkit.data.records import Document
from embedkit.errors import TrainingError
from embedkit.models import model_name
from embedkit.pipelines.adapting.folder import AdaptFolder, read_json, read_rows, write_counts
from embedkit.pipelines.adapting.mapping import MappedPassages, check_mapped, map_vectors
from embedkit.pipelines.adapting.negatives import label, mine_negatives, read_labelled
from embedkit.pipelines.adapting.pairs import QueryPassage
from embedkit.pipelines.adapting.queries import derive, told
from embedkit.pipelines.adapting.recipe import AdaptRecipe, Progress, Sources, Stage
from embedkit.pipelines.adapting.report import compare, measure
from embedkit.pipelines.adapting.training import (
    SEARCHED,
    average,
    continue_pretraining,
    held_out_set,
    publish,
    train_encoder,
)
from embedkit.pipelines.mining import MiningModels
from embedkit.pipelines.models import load_cross_encoder, load_encoder
from embedkit.recipe import as_table
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.training.engine.evaluation_sets import evaluation_hashes
from embedkit.training.engine.ranks import Ranks, launched
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.pretraining.corpus import corpus_fingerprint


class Adaptation:
    """One adaptation; `run` goes through its stages."""

    def __init__(self, sources: Sources, recipe: AdaptRecipe, folder: AdaptFolder) -> None:
        """Look at the model; nothing is written.

        Raises:
            CheckpointError, TrainingError: a model is not there, is of another kind, or cannot be trained.
        """
        self.sources, self.recipe, self.folder = sources, recipe, folder
        self.mapped: MappedPassages | None = None  # unless the model was written by an earlier call
        self.model: ModelFolder = read_model_folder(sources.model)
        if self.model.static and recipe.steps:
            raise TrainingError(
                f"{self.model.path}: this is a static model, a table of token vectors; training is for a transformer's layers. "
                "Leave its training out (--steps 0), or name another --model"
            )
        if recipe.maps:
            check_mapped(self.model)
        if sources.reranker is not None and recipe.steps:
            read_classifier_folder(sources.reranker)  # before any work: it is needed half an hour later
        if sources.generator is not None and read_generator_folder(sources.generator).encoder is None:
            raise TrainingError(
                f"{sources.generator}: this is a language model, which goes on with a text and asks nothing. Name an encoder–decoder, such as "
                "`embedkit train generation` makes"
            )

    def manifest(self) -> dict[str, Any]:  # Any: whatever JSON holds
        """Say what decides the result."""
        sources = self.sources
        return {
            "recipe": as_table(self.recipe),
            "documents": corpus_fingerprint(sources.inputs, sources.reading, self.model.tokenizer),
            "model": {"name": model_name(self.model.path), **fingerprint(self.model)},
            "reranker": sources.reranker,
            "generator": sources.generator,
            "evaluation": evaluation_hashes(sources.evaluation),
        }

    def run(self, *, resume: bool = False) -> Iterator[Progress]:
        """Check what is there, then return the iterator over the stages. Stopped at any moment, the same with `resume` goes on.

        Raises:
            OutputError, TrainingError: the output is in use, there is nothing to resume, or it was started otherwise.
        """
        self.folder.check(resume=resume)
        self.folder.begin(self.manifest())
        return self._run()

    def _run(self) -> Iterator[Progress]:
        with launched(self.sources.computing.device) as ranks:
            if ranks.world > 1:
                raise TrainingError(
                    f"{ranks.world} processes were started; adapting runs in one, on one device. Start it without torchrun"
                )
            yield from self._stages(ranks)

    def _stages(self, ranks: Ranks) -> Iterator[Progress]:
        folder, recipe = self.folder, self.recipe
        if not folder.derived.is_file():
            yield from self.derive()
        yield Progress("queries", 1.0, told(self.counts), done=True)
        if recipe.steps:
            yield from self._train(ranks)
        if not RunFolder(folder.output).is_published(static=self.model.static):
            yield from self._write()
        last: Stage = "rank" if recipe.ranking_steps else "whiten" if recipe.whitening else "train"
        yield Progress(last, 1.0, "the model is written", done=True)
        if not folder.report.is_file():
            yield from self._measure()
        yield Progress("measure", 1.0, "", done=True)

    def _train(self, ranks: Ranks) -> Iterator[Progress]:
        folder, recipe = self.folder, self.recipe
        if recipe.mlm_steps and not folder.mlm.is_published():
            yield from continue_pretraining(folder, recipe, self.model, ranks)
        if not folder.mined.is_file():
            models = MiningModels("dense", self.sources.computing, model=self.sources.model, rerank=None)
            judged = self.sources.reranker is not None
            yield from mine_negatives(
                folder, recipe, models, self.pairs[: recipe.train_queries], judged=judged
            )
        if not folder.labelled.is_file():
            yield from label(folder, self.cross_encoder())
        labelled = read_labelled(folder.labelled)
        yield Progress("label", 1.0, f"{labelled.rows:,} rows to train on", done=True)
        if not folder.encoder.is_published():
            watched = held_out_set(folder.held_out, self.held_out, self.passages, most=SEARCHED)
            yield from train_encoder(folder, recipe, self.model, labelled, watched, ranks)

    def _write(self) -> Iterator[Progress]:
        """Write the model in the end: averaged, and mapped where that is asked for."""
        model = average(self.folder, self.recipe, self.model)
        if self.recipe.maps:
            self.mapped = yield from map_vectors(
                model, self.folder, self.recipe, self.model, self.passages, self.pairs, self.sources.computing
            )
        publish(model, self.folder, self.model, _card(self))

    @property
    def counts(self) -> dict[str, Any]:  # Any: numbers and a place
        """What the documents gave; the first stage must be through."""
        return read_json(self.folder.derived)

    @cached_property
    def passages(self) -> list[Document]:
        return list(read_documents([str(self.folder.passages)]))

    @cached_property
    def pairs(self) -> list[QueryPassage]:
        return [QueryPassage(**row) for row in read_rows(self.folder.pairs)]

    @cached_property
    def held_out(self) -> list[QueryPassage]:
        return [QueryPassage(**row) for row in read_rows(self.folder.held_out)]

    def derive(self) -> Iterator[Progress]:
        """Go through the first stage alone, as `embedkit.pipelines.adapting.queries.derive`."""
        return derive(self.folder, self.sources, self.recipe, self.model.tokenizer)

    def cross_encoder(self) -> CrossEncoder | None:
        """Load the model that judges negatives, if there is to be one."""
        name = self.sources.reranker
        return None if name is None else load_cross_encoder(name, self.sources.computing)

    def _measure(self) -> Iterator[Progress]:
        folder, sources = self.folder, self.sources
        held_out = held_out_set(folder.held_out, self.held_out, self.passages)
        mapped, self.mapped = self.mapped, None
        yield Progress("measure", 0.0, "before")
        known = mapped.before() if mapped is not None and not self.recipe.steps else None
        before = measure(load_encoder(sources.model, sources.computing), held_out, sources.evaluation, known)
        yield Progress("measure", 0.5, "after")
        known, mapped = (None if mapped is None else mapped.after()), None
        after = measure(load_encoder(folder.output, sources.computing), held_out, sources.evaluation, known)
        report = compare(
            self.held_out,
            before,
            after,
            passages=len(held_out.documents),
            mean_cosine=read_json(folder.mapped)["mean_cosine"] if self.recipe.maps else None,
            trained=bool(self.recipe.steps),
        )
        write_counts(folder.report, asdict(report))


def _card(adaptation: Adaptation) -> str:
    recipe = json.dumps(as_table(adaptation.recipe), indent=2)
    return (
        "---\npipeline_tag: sentence-similarity\ntags:\n- sentence-transformers\n- embedkit\n---\n\n# Adapted sentence encoder\n\n"
        f"{model_name(adaptation.model.path)}, adapted with `embedkit adapt`. {told(adaptation.counts)}.\n"
        f"What it was measured to bring stands in `training/report.json`.\n\n## Recipe\n\n```json\n{recipe}\n```\n"
    )

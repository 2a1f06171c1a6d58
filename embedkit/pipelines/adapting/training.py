"""Training on the documents: masked language modelling first if asked for, then contrastive training, and the mean with the start.

The steps are those of `embedkit.training`; a run that was stopped goes on from its last state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from embedkit.checkpoint.folder import ModelFolder, fingerprint, read_model_folder
from embedkit.checkpoint.pretraining import load_pretraining
from embedkit.checkpoint.sentence_folder import load_model, write_model
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.data.records import Document, ReadOptions, titled_text
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.static import StaticEncoder
from embedkit.pipelines.adapting.folder import AdaptFolder
from embedkit.pipelines.adapting.negatives import Labelled
from embedkit.pipelines.adapting.pairs import QueryPassage
from embedkit.pipelines.adapting.recipe import AdaptRecipe, Progress, Stage
from embedkit.recipe import load_recipe
from embedkit.storage.files import write_text
from embedkit.training.contrastive.data_sets import make_data_set, read_data_set
from embedkit.training.contrastive.head import with_head
from embedkit.training.contrastive.recipe import ContrastiveRecipe
from embedkit.training.contrastive.training import Contrastive
from embedkit.training.engine.evaluation_sets import EvaluationSet
from embedkit.training.engine.journey import Journey
from embedkit.training.engine.loop import train
from embedkit.training.engine.ranks import Ranks
from embedkit.training.engine.recipes import OptimRecipe, PretrainRecipe, RunRecipe
from embedkit.training.engine.reporting import Evaluated, Step
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.pretraining.corpus import build_corpus, corpus_fingerprint, open_corpus
from embedkit.training.pretraining.mlm import Pretraining, continued_model
from embedkit.training.reports.log import shown

# A state costs a tenth of a second, and Ctrl-C at worst the steps since the last.
SAVE_EVERY = 25
MLM_LENGTH = 128
MLM_HELD_OUT = 0.1  # of the passages, by hash: of fifty, the least that there are, 1 % would often be none
# Passages among which held-out queries are searched while training goes on: their own, and as many others as make up this number.
SEARCHED = 2000


def make_pretraining(
    folder: AdaptFolder, recipe: AdaptRecipe, model: ModelFolder
) -> tuple[Pretraining, PretrainRecipe]:
    """Tokenize the passages, unless they are, and make the run of masked language modelling."""
    inputs, reading = [str(folder.passages)], ReadOptions()
    digest = corpus_fingerprint(inputs, reading, model.tokenizer)
    if not folder.tokens.exists():
        for _ in build_corpus(inputs, reading, model.tokenizer, target=folder.tokens, fingerprint=digest):
            pass
    wanted = load_recipe(
        PretrainRecipe,
        preset="adapt",
        values={
            "run.steps": recipe.mlm_steps,
            "run.seed": recipe.seed,
            "run.save_every": SAVE_EVERY,
            "run.keep_last": 1,
            "text.held_out": MLM_HELD_OUT,
            "text.sequence_length": min(MLM_LENGTH, model.config.max_tokens),
        },
    )
    trained, family, _ = continued_model(wanted, model)
    corpus, origin = open_corpus(folder.tokens), _weights(model)
    return Pretraining(trained, model.tokenizer, family, corpus, wanted, origin=origin), wanted


def continue_pretraining(
    folder: AdaptFolder, recipe: AdaptRecipe, model: ModelFolder, ranks: Ranks
) -> Iterator[Progress]:
    """Train the model's encoder further by masked language modelling on the passages."""
    yield Progress("mlm", None, "tokenizing")
    journey, wanted = make_pretraining(folder, recipe, model)
    yield from _run(journey, wanted.run, wanted.optim, folder.mlm, ranks, stage="mlm")


def make_journey(
    rows: Path,
    recipe: AdaptRecipe,
    model: ModelFolder,
    scale: float | None,
    held_out: EvaluationSet,
    mlm: Path | None,
) -> tuple[Contrastive, ContrastiveRecipe]:
    """Make the contrastive run: MarginMSE where the rows have a cross-encoder's margins (`scale`), else InfoNCE."""
    prompts = model.modules.prompts
    evaluate_every = max(1, recipe.steps // recipe.evaluations)
    values: dict[str, object] = {
        "run.steps": recipe.steps,
        "run.seed": recipe.seed,
        "run.evaluate_every": evaluate_every,
        "run.save_every": SAVE_EVERY,
        "run.keep_last": 1,
        "run.patience": recipe.patience,
        "data.evaluate_batches": 1,
        "prompts.first": prompts.get("query", ""),
        "prompts.second": prompts.get("document", ""),
        "optim.lr": recipe.lr,
        "optim.warmup_steps": recipe.steps // 10,
    }
    values |= {"loss.false_negatives": "margin"} if scale is None else {"loss.score_scale": scale}
    wanted = load_recipe(ContrastiveRecipe, preset="contrastive", values=values)
    found = read_data_set(str(rows), {}, wanted.loss)
    assert found.examples.second is not None
    # A batch of InfoNCE holds no text twice: where passages are few, many would clash.
    size = max(2, min(recipe.batch_size, len(np.unique(found.examples.second)) // 4))
    wanted = replace(wanted, data=replace(wanted.data, batch_size=size))
    model, encoder = with_head(model, load_sentence_encoder(model), wanted)
    if mlm is not None:
        further, _ = load_pretraining(read_model_folder(mlm))
        encoder.encoder.load_state_dict(further.encoder.state_dict())
    data = make_data_set(found, wanted, model, encoder, number=0)
    origin = _weights(model) if mlm is None else _weights(read_model_folder(mlm))
    return Contrastive(model, encoder, [data], wanted, origin=origin, evaluation=[held_out]), wanted


def train_encoder(
    folder: AdaptFolder,
    recipe: AdaptRecipe,
    model: ModelFolder,
    labelled: Labelled,
    held_out: EvaluationSet,
    ranks: Ranks,
) -> Iterator[Progress]:
    """Train on the rows until held-out queries find their passages no better."""
    mlm = folder.mlm.output if recipe.mlm_steps else None
    journey, wanted = make_journey(folder.rows, recipe, model, labelled.scale, held_out, mlm)
    yield from _run(journey, wanted.run, wanted.optim, folder.encoder, ranks, stage="train")


def _run(
    journey: Journey, run: RunRecipe, optim: OptimRecipe, folder: RunFolder, ranks: Ranks, *, stage: Stage
) -> Iterator[Progress]:
    resume = (folder.path / "run.json").is_file()
    measured = ""
    for report in train(journey, run, optim, folder, ranks=ranks, resume=resume):
        if isinstance(report, Evaluated):
            named = (f"  {name} {value:.3f}" for name, value in shown(report.values).items())
            measured = "  held out" + "".join(named)
        elif isinstance(report, Step):
            yield Progress(stage, report.step / run.steps, f"loss {report.loss:.3f}{measured}")


def _weights(model: ModelFolder) -> str:
    return str(fingerprint(model)["weights"])


def average(folder: AdaptFolder, recipe: AdaptRecipe, model: ModelFolder) -> SentenceEncoder | StaticEncoder:
    """Return the model `share` of the way from the start's weights to the trained ones; the start where nothing was trained."""
    start = load_model(model)
    if recipe.steps:
        mix(start, load_sentence_encoder(read_model_folder(folder.encoder.output)), recipe.share)
    return start


def publish(
    encoder: SentenceEncoder | StaticEncoder, folder: AdaptFolder, model: ModelFolder, card: str
) -> None:
    """Write the adapted model beside what the stages wrote."""
    with RunFolder(folder.output).publishing() as draft:
        write_model(draft, encoder, model.tokenizer, model.modules, family=model.family)
        write_text(draft / "README.md", card)


def mix(start: nn.Module, trained: SentenceEncoder, share: float) -> None:
    """Move the weights of `start` a share of the way to those of `trained`.

    Source: Wortsman et al. 2022, https://arxiv.org/abs/2109.01903, section 3, whose alpha is the share.
    """
    with torch.no_grad():
        for own, other in zip(start.parameters(), trained.parameters(), strict=True):
            own.lerp_(other, share)


def held_out_set(
    path: Path, pairs: Sequence[QueryPassage], passages: Sequence[Document], *, most: int | None = None
) -> EvaluationSet:
    """Make the set that held-out queries are measured on: each finds its passage, which lacks it, among all others.

    Of these, the first make up the number, if there is a `most`.
    """
    own = {each.passage_id: each.passage for each in pairs}
    documents = dict(own)
    for each in passages:
        if most is not None and len(documents) >= max(most, len(own)):
            break
        documents.setdefault(each.doc_id, titled_text(each.title, each.text))
    numbered = {str(number): each for number, each in enumerate(pairs)}
    return EvaluationSet(
        name="derived queries",
        files=(path,),
        queries={number: each.query for number, each in numbered.items()},
        documents=documents,
        qrels={number: {each.passage_id: 1} for number, each in numbered.items()},
    )

"""The last stage but one: the model's vectors are whitened by those of the passages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from embedkit.checkpoint.folder import ModelFolder
from embedkit.checkpoint.sentence_folder import write_model
from embedkit.data.records import Document, titled_text
from embedkit.errors import TrainingError
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.static import StaticEncoder
from embedkit.pipelines.adapting.folder import AdaptFolder
from embedkit.pipelines.adapting.recipe import AdaptRecipe, Progress
from embedkit.pipelines.models import load_encoder
from embedkit.training.whitening import add_linear, before_normalization, fit_whitening
from embedkit.types import Computing

WINDOW = 256  # passages between two reports


def check_whitening(model: ModelFolder) -> None:
    """Refuse a model whose vectors are not compared by cosine.

    Raises:
        TrainingError: it is so.
    """
    modules = model.modules
    learned = modules.sentence.similarity
    if learned is None and (modules.similarity == "cosine" or modules.sentence.normalize):
        return
    how = modules.similarity if learned is None else f"a learned {learned.kind} similarity"
    raise TrainingError(
        f"{model.path}: its vectors are compared by {how}; whitening is for those compared by cosine. Leave it out: --whitening 0"
    )


def whiten(
    encoder: SentenceEncoder | StaticEncoder,
    folder: AdaptFolder,
    recipe: AdaptRecipe,
    model: ModelFolder,
    passages: Sequence[Document],
    computing: Computing,
) -> Iterator[Progress]:
    """Whiten a model's vectors by those of the passages, as the documents that they are searched as."""
    vectors = []
    shutil.rmtree(folder.averaged, ignore_errors=True)  # of a call that was stopped here
    modules = replace(model.modules, truncate_dim=None)  # the map is for all dimensions
    write_model(folder.averaged, before_normalization(encoder), model.tokenizer, modules, family=model.family)
    embedder = load_encoder(folder.averaged, computing)
    texts = [titled_text(each.title, each.text) for each in passages]
    prompt = embedder.role_prompt("document")
    for start in range(0, len(texts), WINDOW):
        yield Progress("whiten", start / len(texts), f"{start:,} of {len(texts):,} passages encoded")
        vectors.append(embedder.encode(texts[start : start + WINDOW], prompt=prompt, on_truncate="ok"))
    add_linear(encoder, fit_whitening(np.concatenate(vectors), recipe.whitening))
    shutil.rmtree(folder.averaged)

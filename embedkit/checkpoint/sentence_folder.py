"""Load and write a sentence encoder of either kind: a transformer's folder, or a static model's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from embedkit.checkpoint.arrays import load_sentence_weights
from embedkit.checkpoint.folder import WEIGHTS, ModelFolder
from embedkit.checkpoint.names import Family
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.checkpoint.static import TABLE, without_template, write_static_files
from embedkit.checkpoint.weights import (
    load_sentence_encoder,
    save_sentence_encoder,
    save_tensors,
)
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.static import StaticEncoder
from embedkit.storage.files import new_folder
from embedkit.tokenization.tokenizer import Tokenizer


def load_model(folder: ModelFolder) -> SentenceEncoder | StaticEncoder:
    """Build the model of a folder with its weights, in fp32, on the CPU, in evaluation mode.

    Raises:
        CheckpointError: weights are missing, unexpected, mis-shaped, or the file is damaged.
    """
    if not folder.static:
        return load_sentence_encoder(folder)
    table = load_sentence_weights(folder).encoder["tokens.weight"]
    model = StaticEncoder(*table.shape, normalize=folder.modules.sentence.normalize)
    with torch.no_grad():
        model.tokens.weight.copy_(torch.from_numpy(table))
    return model.eval()


def write_model(
    target: str | Path,
    model: SentenceEncoder | StaticEncoder,
    tokenizer: Tokenizer,
    modules: SentenceModules,
    *,
    family: Family | None,
) -> None:
    """Write a sentence-transformers folder of what the model is now; `family` is None for a static model.

    Raises:
        OutputError: the target exists, or cannot be written.
    """
    if isinstance(model, SentenceEncoder):
        assert family is not None
        modules = replace(modules, sentence=model.config)
        save_sentence_encoder(target, model, tokenizer, modules, family=family)
        return
    with new_folder(target) as folder:
        plain = without_template(tokenizer, max_length=tokenizer.max_length)
        write_static_files(folder, plain, modules, normalize=model.normalize)
        save_tensors(
            {TABLE: model.tokens.weight.detach().float().cpu().contiguous().clone()}, folder / WEIGHTS
        )

"""Make the folders that are shipped: the vocabulary of the tiny encoder cut to what fits, weights in 8 bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from model import Student, fresh_model, save_student
from progress import say
from vocabulary import commonest

from embedkit.checkpoint.converting import convert_folder
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.training.distillation.vocabulary_pruning import with_tokens

SHIPPED = {"small": "embedkit-small", "tiny": "embedkit-tiny", "static": "embedkit-static"}


def assemble(state: Path, output: Path, *, start: str, tiny_tokens: int) -> None:
    """Write `embedkit-small`, `embedkit-tiny` and, where it was trained, `embedkit-static` in int8 into `output`.

    `state/tiny-cut` is the tiny encoder in fp32 with the commonest of its tokens.
    """
    cut_vocabulary(state, start=start, size=tiny_tokens)
    output.mkdir(parents=True, exist_ok=True)
    for name, shipped in SHIPPED.items():
        source = state / ("tiny-cut" if name == "tiny" else name)
        if source.exists():
            convert_folder(source, output / shipped, dtype=torch.int8)
            size = sum(path.stat().st_size for path in (output / shipped).rglob("*") if path.is_file())
            say(f"{output / shipped}: {size / 1e6:.1f} MB")


def cut_vocabulary(state: Path, *, start: str, size: int) -> None:
    """Keep the tokens of the tiny encoder that the training texts use most."""
    folder = read_model_folder(state / "tiny")
    whole = read_model_folder(start).tokenizer.backend.get_vocab()
    with np.load(state / "texts.npz", allow_pickle=False) as stored:
        counts = stored["counts"]
    tokens = sorted(folder.tokenizer.backend.get_vocab().items(), key=lambda item: item[1])
    special = np.array(
        [number for name, number in tokens if name in folder.tokenizer.special_tokens.values()]
    )
    kept = commonest(counts[[whole[name] for name, _ in tokens]], special, size)
    trained = load_sentence_encoder(folder)
    model = fresh_model(replace(folder.config, vocab_size=len(kept)))
    state_dict = trained.state_dict()
    table = "encoder.embeddings.tokens.weight"
    state_dict[table] = state_dict[table][torch.from_numpy(kept)]
    model.load_state_dict(state_dict)
    save_student(state / "tiny-cut", Student(model), with_tokens(folder.tokenizer, kept.tolist()))

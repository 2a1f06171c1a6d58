"""Speed and memory of training, as `--dry-run` measures them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import torch

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.names import Family
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.data.records import ReadOptions
from embedkit.encoding.throughput import WORDS
from embedkit.model.pretraining import PretrainingModel
from embedkit.models import ENCODER, find_model
from embedkit.recipe import load_recipe
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.contrastive.data_sets import make_data_set, read_data_set
from embedkit.training.contrastive.recipe import ContrastiveRecipe
from embedkit.training.contrastive.training import Contrastive
from embedkit.training.engine.estimate import estimate
from embedkit.training.engine.journey import Journey
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.recipes import OptimRecipe, Precision, PretrainRecipe, RunRecipe
from embedkit.training.pretraining.corpus import Corpus, build_corpus, open_corpus
from embedkit.training.pretraining.mlm import Pretraining, fresh_model

from .check_training import need
from .setting import Setting
from .stages import Case, Measured

SHAPES = {
    "BERT base": (768, 12, 12, 3072),
    "MiniLM-L6": (384, 6, 12, 1536),
    "tiny": (32, 1, 2, 64),
}


def cases(setting: Setting) -> Iterator[Case]:
    pretraining, contrastive = partial(_pretraining, setting), partial(_contrastive, setting)
    yield "pretraining BERT base bf16, 128 tokens", partial(pretraining, "BERT base", "bf16", 128)
    yield "contrastive embedkit-small bf16", partial(contrastive, "bf16", 1024, 65_536)
    yield "pretraining BERT base bf16, 512 tokens", partial(pretraining, "BERT base", "bf16", 512)
    yield "pretraining BERT base fp32, 128 tokens", partial(pretraining, "BERT base", "fp32", 128)
    yield "contrastive embedkit-small bf16, gradients cached", partial(contrastive, "bf16", 4096, 65_536)
    yield "pretraining MiniLM-L6 bf16, 128 tokens", partial(pretraining, "MiniLM-L6", "bf16", 128)
    yield "contrastive embedkit-small fp32", partial(contrastive, "fp32", 1024, 65_536)


def _pretraining(setting: Setting, shape: str, precision: Precision, length: int) -> Measured:
    need(setting.device, precision)
    shape, length = setting.size(shape, "tiny"), setting.size(length, 16)
    recipe = _recipe(
        shape,
        f"text.sequence_length={length}",
        f"text.batch_tokens={setting.size(65_536, 64)}",
        f"run.precision={precision}",
        "text.held_out=0.1",
    )
    model, family = _model(shape, setting.device)
    corpus = _corpus(setting.place, setting.size(400, 100))
    return _estimate(
        setting, Pretraining(model, _tokenizer(), family, corpus, recipe), recipe.run, recipe.optim
    )


def _recipe(shape: str, *settings: str) -> PretrainRecipe:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    own = [f"model.{name}={value}" for name, value in zip(names, SHAPES[shape], strict=True)]
    return load_recipe(PretrainRecipe, overrides=[*own, "run.steps=1000", *settings])


@cache
def _model(shape: str, device: str) -> tuple[PretrainingModel, Family]:
    """Draw the weights once, since an estimate restores them, and on the device, which is fast."""
    with torch.device(device):
        return fresh_model(_recipe(shape), _tokenizer())


@cache
def _tokenizer() -> Tokenizer:
    return read_model_folder(find_model(ENCODER)).tokenizer


@cache
def _corpus(place: Path, documents: int) -> Corpus:
    """Write and tokenize documents of 800 random words."""
    draw = random.Random(0)
    path = place / "documents.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(documents):
            text = " ".join(f"{' '.join(draw.choices(WORDS, k=16))}." for _ in range(50))
            stream.write(json.dumps({"text": text}) + "\n")
    list(build_corpus([str(path)], ReadOptions(), _tokenizer(), place / "speed-corpus", "speed"))
    return open_corpus(place / "speed-corpus")


def _contrastive(setting: Setting, precision: Precision, batch_size: int, budget: int) -> Measured:
    """Fine-tune the shipped encoder on queries of 16 words with documents of 100."""
    need(setting.device, precision)
    own = [f"data.batch_size={setting.size(batch_size, 2)}", f"data.micro_tokens={setting.size(budget, 150)}"]
    settings = [*own, "run.steps=1000", f"run.precision={precision}", "data.held_out=0.1"]
    recipe = load_recipe(ContrastiveRecipe, overrides=settings)
    folder = read_model_folder(find_model(ENCODER))
    encoder = load_sentence_encoder(folder)
    rows = read_data_set(str(_pairs(setting.place, setting.size(50_000, 200))), {}, recipe.loss)
    data = make_data_set(rows, recipe, folder, encoder, number=0)
    journey = Contrastive(folder, encoder, [data], recipe, origin="shipped")
    return _estimate(setting, journey, recipe.run, recipe.optim)


@cache
def _pairs(place: Path, count: int) -> Path:
    draw = random.Random(0)
    path = place / "speed-pairs.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(count):
            query, document = (" ".join(draw.choices(WORDS, k=size)) for size in (16, 100))
            stream.write(json.dumps({"query": query, "positive": document}) + "\n")
    return path


def _estimate(setting: Setting, journey: Journey, run: RunRecipe, optim: OptimRecipe) -> Measured:
    setting.tidy()
    found = estimate(journey, run, optim, ranks=alone(setting.device), measured_steps=setting.size(5, 1))
    return Measured(
        {
            "tokens/s": found.tokens_per_second,
            "tokens per step": found.tokens_per_step,
            "ms per step": 1000 * found.seconds / found.steps,
            "share of peak": f"{found.share_of_peak:.1%}",
            "peak memory, MB": found.memory_bytes / 1e6,
        }
    )

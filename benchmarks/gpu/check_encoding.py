"""Encoding on the device against fp32 on the CPU: every family and precision, poolings, prompts, static models."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from embedkit.checkpoint.sentence_folder import write_model
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.encoding.encoder import Encoder
from embedkit.inference.precision_measuring import cosines
from embedkit.model.config import DenseConfig, SentenceConfig
from embedkit.model.sentence import SentenceEncoder
from embedkit.models import ENCODER
from embedkit.types import Device, Float32, Precision
from tests.tiny import tiny_tokenizer

from .models import FAMILIES, MAX_LENGTH, TEXTS, family_config, random_encoder, sentence_folder, static_folder
from .setting import PRECISIONS, Setting, relative_error
from .stages import Case, Measured

# Relative errors. In fp32 a different order of sums gives about 1e-6; TF32, which must not be used, gives 3e-4. For half
# precisions: four times the largest error measured on a CPU, 0.0009 (fp16) and 0.0075 (bf16).
LIMITS: dict[Precision, float] = {"fp32": 5e-5, "fp16": 4e-3, "bf16": 3e-2}
POOLINGS = {
    "cls": SentenceConfig(pooling=("cls",)),
    "max, last": SentenceConfig(pooling=("max", "last"), normalize=True),
    "weighted": SentenceConfig(pooling=("weighted_mean", "mean_sqrt_len")),
    "prompt not pooled, dense": SentenceConfig(
        pool_prompt=False, dense=(DenseConfig(in_features=64, out_features=24),), normalize=True
    ),
}


def cases(setting: Setting) -> Iterator[Case]:
    place = setting.place
    for family in FAMILIES:
        folder = sentence_folder(place, family)
        for precision in PRECISIONS:
            yield f"{family} {precision}", partial(compare, setting, str(folder), precision)
    for number, (name, sentence) in enumerate(POOLINGS.items()):
        folder = sentence_folder(place, "bert", name=str(number), sentence=sentence, prompt="a girl plays: ")
        for precision in PRECISIONS[:2]:
            yield f"pooling {name} {precision}", partial(compare, setting, str(folder), precision)
    for precision in PRECISIONS:
        yield f"static {precision}", partial(compare, setting, str(static_folder(place)), precision)
        yield f"{ENCODER} {precision}", partial(compare, setting, ENCODER, precision)
    base = _base_folder(setting)
    for precision in PRECISIONS:
        yield f"BERT base {precision}", partial(compare, setting, str(base), precision)


def compare(setting: Setting, folder: str, precision: Precision) -> Measured:
    texts = tuple(TEXTS[:: setting.size(1, 12)])
    found = vectors(folder, setting.device, precision, texts)
    wanted = vectors(folder, "cpu", "fp32", texts)
    worst = float(cosines(found, wanted).min())
    return Measured(
        {"error": relative_error(found, wanted), "1 - worst cosine": 1 - worst},
        {"error": LIMITS[precision]},
    )


@cache
def vectors(folder: str, device: Device, precision: Precision, texts: tuple[str, ...]) -> Float32:
    encoder = Encoder.load(folder, device=device, precision=precision, force_precision=True, backend="torch")
    queries = encoder.encode_queries(texts[: len(texts) // 4])
    return np.concatenate([queries, encoder.encode(texts, on_truncate="ok")])


def _base_folder(setting: Setting) -> Path:
    """Write an encoder with the layers of BERT base and the tiny vocabulary."""
    wide = setting.size({"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}, {})
    config = family_config(
        "bert", num_hidden_layers=setting.size(12, 3), initializer_range=setting.size(0.03, 0.1), **wide
    )
    sentence = SentenceConfig(normalize=True)
    folder = setting.place / "base"
    modules = SentenceModules(sentence=sentence, max_seq_length=MAX_LENGTH)
    with torch.device(setting.device):  # drawing the weights there is fast
        model = SentenceEncoder(random_encoder(config), sentence)
    write_model(folder, model, tiny_tokenizer(max_length=MAX_LENGTH), modules, family="bert")
    return folder

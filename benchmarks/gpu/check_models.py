"""The networks on the device: packed tokens against padded batches, cross-encoders, heads, position tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from embedkit.checkpoint.classification_weights import save_classifier
from embedkit.checkpoint.names import Family
from embedkit.encoding.encoder import Encoder
from embedkit.explaining.explain import explain
from embedkit.model.classification import SequenceClassifier
from embedkit.model.config import HeadConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.heads import MaskedLMHead, NextSentenceHead
from embedkit.model.positions import relative_position_buckets, rotary_table
from embedkit.model.pretraining import PretrainingModel
from embedkit.models import RERANKER
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.types import Device, Float32, Precision
from tests.tiny import tiny_tokenizer

from .check_encoding import LIMITS
from .models import (
    FAMILIES,
    MAX_LENGTH,
    TEXTS,
    family_config,
    random_batch,
    random_encoder,
    sentence_folder,
    shake,
)
from .setting import DTYPES, PRECISIONS, Setting, relative_error
from .stages import Case, Measured

# Longest first, as batches are; multiples of 8 and 16 among other lengths.
LENGTHS = np.array([128, 100, 64, 64, 37, 17, 17, 9, 3, 3, 3, 1], np.int64)


def packed_cases(setting: Setting) -> Iterator[Case]:
    for family in FAMILIES:
        encoder = random_encoder(family_config(family)).eval()
        wanted = _hidden(encoder, torch.device("cpu"), padded=False)
        for precision in PRECISIONS:
            yield f"{family} {precision}", partial(_packed, setting, encoder, wanted, precision)
    yield "numbers of relative positions", partial(_buckets, setting)
    yield "table of rotary positions", partial(_rotary, setting)


def _packed(setting: Setting, encoder: TransformerEncoder, wanted: Float32, precision: Precision) -> Measured:
    device = torch.device(setting.device)
    copy = TransformerEncoder(encoder.config).eval()
    copy.load_state_dict(encoder.state_dict())
    copy.to(device=device, dtype=DTYPES[precision])
    packed, padded = (_hidden(copy, device, padded=each) for each in (False, True))
    limit = LIMITS[precision]
    return Measured(
        {
            "packed to padded": relative_error(packed, padded),
            "packed to the CPU": relative_error(packed, wanted),
        },
        {"packed to padded": limit, "packed to the CPU": limit},
    )


@torch.inference_mode()
def _hidden(encoder: TransformerEncoder, device: torch.device, *, padded: bool) -> Float32:
    """Return the vectors of all real tokens, (N, D)."""
    config = encoder.config
    batch = random_batch(LENGTHS, config.vocab_size)
    if config.type_vocab_size > 1:
        batch = replace(batch, token_type_ids=np.arange(len(batch.input_ids)) % 2)
    if padded:
        ids, mask, types = (torch.from_numpy(each).to(device) for each in batch.padded(config.pad_token_id))
        hidden = encoder(ids, mask, types if config.type_vocab_size > 1 else None)[mask]
    else:
        kinds = batch.token_type_ids
        hidden = encoder.forward_packed(
            torch.from_numpy(batch.input_ids).to(device),
            LENGTHS.tolist(),
            None if kinds is None else torch.from_numpy(kinds).to(device),
        )
    found: Float32 = hidden.float().cpu().numpy()
    return found


def _buckets(setting: Setting) -> Measured:
    here, there = (
        relative_position_buckets(512, num_buckets=32, device=torch.device(name)).cpu()
        for name in ("cpu", setting.device)
    )
    return Measured({"different": int((here != there).sum())}, {"different": 0})


def _rotary(setting: Setting) -> Measured:
    here, there = (
        torch.stack(rotary_table(8192, head_size=64, theta=160_000.0, device=torch.device(name))).cpu()
        for name in ("cpu", setting.device)
    )
    # An angle of 8,191 is exact to 8,191 × 2^-24, and so is the frequency that it is computed from.
    return Measured({"largest difference": float((here - there).abs().max())}, {"largest difference": 4e-3})


def reranking_cases(setting: Setting) -> Iterator[Case]:
    families: tuple[Family, ...] = ("bert", "distilbert", "mpnet", "modernbert")
    for family in families:
        folder = _classifier_folder(setting.place, family)
        for precision in PRECISIONS:
            yield f"{family} {precision}", partial(_rerank, setting, str(folder), precision, None)
    yield (
        "bert fp32 after 1 layer",
        partial(_rerank, setting, str(_classifier_folder(setting.place, "bert")), "fp32", 1),
    )
    for precision in PRECISIONS:
        yield f"{RERANKER} {precision}", partial(_rerank, setting, RERANKER, precision, None)
        yield f"masked-language-model head {precision}", partial(_heads, setting, precision)
    yield "explanation of a score", partial(_explain, setting)


def _rerank(setting: Setting, folder: str, precision: Precision, layers: int | None) -> Measured:
    texts = tuple(TEXTS[:: setting.size(1, 12)])
    found = _logits(folder, setting.device, precision, layers, texts)
    wanted = _logits(folder, "cpu", "fp32", layers, texts)
    # A bias that all scores share must not make the error look small.
    centred = relative_error(found - wanted.mean(), wanted - wanted.mean())
    return Measured({"error": centred}, {"error": 4 * LIMITS[precision]})


@cache
def _logits(
    folder: str, device: Device, precision: Precision, layers: int | None, texts: tuple[str, ...]
) -> Float32:
    model = CrossEncoder.load(
        folder, device=device, precision=precision, force_precision=True, backend="torch", layers=layers
    )
    return model.logits(texts[:-1], texts[1:])


@cache
def _classifier_folder(place: Path, family: Family) -> Path:
    folder = place / f"classifier-{family}"
    head = HeadConfig(pooling="mean" if family == "modernbert" else "cls")
    if family == "modernbert":
        head = replace(head, activation="gelu", bias=False, norm=True)
    elif family == "distilbert":
        head = replace(head, activation="relu")
    model = SequenceClassifier(random_encoder(family_config(family)), head)
    shake(model.head, 3)
    save_classifier(folder, model.eval(), tiny_tokenizer(max_length=MAX_LENGTH), family=family)
    return folder


def _heads(setting: Setting, precision: Precision) -> Measured:
    """Compare the logits of the masked-language-model and next-sentence heads."""
    config = family_config("bert")
    found = []
    for device, dtype in (("cpu", torch.float32), (setting.device, DTYPES[precision])):
        encoder = random_encoder(config)
        model = PretrainingModel(encoder, MaskedLMHead(config), NextSentenceHead(config)).eval()
        shake(model, 5)
        model.to(device=device, dtype=dtype)
        batch = random_batch(LENGTHS, config.vocab_size)
        places = torch.arange(0, len(batch.input_ids), 7, device=device)
        with torch.inference_mode():
            logits, pairs = model(torch.from_numpy(batch.input_ids).to(device), LENGTHS.tolist(), places)
        found.append([each.float().cpu().numpy() for each in (logits, pairs)])
    (words, pairs), (our_words, our_pairs) = found
    limit = LIMITS[precision]
    return Measured(
        {"words": relative_error(our_words, words), "pairs": relative_error(our_pairs, pairs)},
        {"words": limit, "pairs": 2 * limit},
    )


def _explain(setting: Setting) -> Measured:
    folder = sentence_folder(setting.place, "bert")
    here, there = (
        explain(
            Encoder.load(folder, device=device, backend="torch"), "a girl sings", "the boy plays a red guitar"
        )
        for device in ("cpu", setting.device)
    )
    values = {
        "similarities": relative_error(there.similarities, here.similarities),
        "attention": relative_error(there.document.attention, here.document.attention),
    }
    return Measured(values, dict.fromkeys(values, LIMITS["fp32"]))

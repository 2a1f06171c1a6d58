"""Speed of encoding and reranking: the shipped models end to end, and random networks of well-known shapes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel

from embedkit.encoding.encoder import Encoder
from embedkit.encoding.throughput import WORDS
from embedkit.inference.choice import GPU_TOKEN_BUDGET
from embedkit.model.config import EncoderConfig, SentenceConfig
from embedkit.model.costs import encoder_flops
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from embedkit.models import ENCODER, RERANKER
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.batching import padded_batches
from embedkit.types import Precision

from .ceilings import tf32
from .models import SHAPES, random_batch
from .setting import DTYPES, Setting
from .stages import Case, Measured

Kind = Literal["short", "mixed", "long", "8,192"]
KINDS: tuple[Kind, ...] = ("short", "mixed", "long")
Way = Literal["packed", "padded", "without cuDNN", "through TF32"]


def cases(setting: Setting) -> Iterator[Case]:
    precisions: tuple[Precision, ...] = ("bf16", "fp32")
    for kind in KINDS:
        for precision in precisions:
            yield f"{ENCODER} {precision}, {kind} texts", partial(_encode, setting, kind, precision)
    for precision in precisions:
        yield f"{RERANKER} {precision}", partial(_rerank, setting, precision)
    for name in ("MiniLM-L6", "BERT base", "BERT large"):
        for kind in KINDS:
            yield _named(setting, name, "bf16", kind)
    for name in ("MiniLM-L6", "BERT base"):
        for precision in ("fp16", "fp32"):
            yield _named(setting, name, precision, "mixed")
    yield _named(setting, "BERT base", "bf16", "mixed", "padded")
    if setting.device == "cuda":
        yield _named(setting, "BERT base", "bf16", "mixed", "without cuDNN")
        yield _named(setting, "BERT base", "fp32", "mixed", "through TF32")
    for kind in ("mixed", "8,192"):
        yield _named(setting, "ModernBERT base", "bf16", kind)


def _named(setting: Setting, shape: str, precision: Precision, kind: Kind, way: Way = "packed") -> Case:
    return f"{shape} {precision}, {kind}, {way}", partial(_forward, setting, shape, precision, kind, way)


def lengths_of(kind: Kind, count: int) -> NDArray[np.int64]:
    """Draw text lengths in tokens, longest first, as of sentences, paragraphs and pages."""
    draw = np.random.default_rng(0)
    match kind:
        case "short":
            drawn = draw.normal(16, 5, count).clip(4, 32)
        case "mixed":
            drawn = draw.lognormal(np.log(80), 0.6, count).clip(8, 256)
        case "long":
            drawn = draw.uniform(384, 512, count)
        case "8,192":
            drawn = np.full(max(1, count // 64), 8192)
    return np.sort(drawn.astype(np.int64))[::-1].copy()


def _forward(setting: Setting, shape: str, precision: Precision, kind: Kind, way: Way) -> Measured:
    """Run a random network over one window of sorted texts, in the batches that `Encoder` makes."""
    config = setting.size(
        SHAPES[shape], EncoderConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=2)
    )
    lengths = lengths_of(setting.size(kind, "short"), setting.size(1024 if "large" in shape else 4096, 6))
    texts = random_batch(lengths, config.vocab_size)
    batches = [texts.take(rows) for rows in padded_batches(lengths, GPU_TOKEN_BUDGET)]
    setting.tidy()
    with torch.device(setting.device):
        model = SentenceEncoder(TransformerEncoder(config), SentenceConfig(normalize=True))
    model = model.to(DTYPES[precision]).eval()
    run = _padded if way == "padded" else _packed
    # cuDNN plans its kernels for every new shape, of which packed batches have many.
    others = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    kernels: AbstractContextManager[None] = sdpa_kernel(others) if way == "without cuDNN" else nullcontext()
    with torch.inference_mode(), kernels, tf32(way == "through TF32"):
        seconds = setting.seconds(lambda: [run(model, batch, setting.device) for batch in batches])
    # Local attention counts as global: the kernels compute whole sequences and mask what is out of reach.
    flops = encoder_flops(model.encoder.config, lengths.tolist())
    rate = "tf32" if way == "through TF32" else precision
    return Measured(
        {
            "texts/s": len(lengths) / seconds,
            "tokens/s": float(lengths.sum()) / seconds,
            "TFLOP/s": flops / seconds / 1e12,
            "share of rate": f"{setting.share_of_rate(flops, seconds, rate):.1%}",
            "share of bf16 peak": f"{setting.share_of_rate(flops, seconds, 'bf16'):.1%}",
            "peak memory, MB": setting.peak_mb(),
        }
    )


def _packed(model: SentenceEncoder, batch: TokenBatch, device: str) -> torch.Tensor:
    ids = torch.from_numpy(batch.input_ids).to(device)
    return model.forward_packed(ids, batch.lengths.tolist()).float().cpu()


def _padded(model: SentenceEncoder, batch: TokenBatch, device: str) -> torch.Tensor:
    ids, mask, _ = (torch.from_numpy(each).to(device) for each in batch.padded(0))
    vectors: torch.Tensor = model(ids, mask)
    return vectors.float().cpu()


def texts_of(kind: Kind, count: int) -> list[str]:
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=max(1, int(size) - 2))) for size in lengths_of(kind, count)]


def _encode(setting: Setting, kind: Kind, precision: Precision) -> Measured:
    """Encode four windows of texts, end to end."""
    encoder = Encoder.load(
        ENCODER, device=setting.device, precision=precision, force_precision=True, backend="torch"
    )
    texts = texts_of(kind, setting.size(16_384, 4))
    tokens = int(encoder.tokenizer.encode(texts).lengths.sum())
    setting.tidy()
    seconds = setting.seconds(lambda: encoder.encode(texts, on_truncate="ok"), spend=1.5, least=2)
    tokenizing = setting.seconds(lambda: encoder.tokenizer.encode(texts), spend=0.5, least=1)
    return Measured(
        {
            "texts/s": len(texts) / seconds,
            "tokens/s": tokens / seconds,
            "texts/s, tokenizing alone": len(texts) / tokenizing,
            "peak memory, MB": setting.peak_mb(),
        }
    )


def _rerank(setting: Setting, precision: Precision) -> Measured:
    """Score four windows of pairs of about 128 tokens, end to end."""
    model = CrossEncoder.load(
        RERANKER, device=setting.device, precision=precision, force_precision=True, backend="torch"
    )
    texts = [" ".join(random.Random(number).choices(WORDS, k=115)) for number in range(setting.size(4096, 2))]
    score: Callable[[], object] = partial(model.score, "how many people live on the water", texts)
    seconds = setting.seconds(score, spend=1.5, least=2)
    return Measured({"pairs/s": len(texts) / seconds, "peak memory, MB": setting.peak_mb()})

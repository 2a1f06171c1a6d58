"""Compare the native kernels with torch in tokens per second, without tokenization or pooling.

    python benchmarks/native.py [--threads N] [--levels LEVEL ...] [--lengths 15 59 200] [--tokens 3000] [--rounds 5]
                                [--model FOLDER | --shape modernbert] [--layers N] [--output FILE.json]

Batches hold sequences of one length, cut from SciFact abstracts: 15 tokens (a sentence), 59 (a paragraph) or 200 (an
abstract). Both run the encoder of all-MiniLM-L6-v2, or of --model, alternately; ratios are to torch in fp32. --shape is a base
model's with random weights and random tokens, or with its first --layers alone. The share of the
machine's rate divides the model's matrix products by the rate of torch's own product in that precision, measured in the same
run; where torch only emulates the precision, neither is measured. `--levels` are values of EMBEDKIT_CPU. To hold torch to
the same instructions, set ATEN_CPU_CAPABILITY=avx2 and ONEDNN_MAX_CPU_ISA=AVX2. With one thread times are those of the
processor, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import data_folder, in_turn, minilm_folder, report

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.sentence_folder import load_model
from embedkit.data.reading import read_documents
from embedkit.inference.torch_runtime.peak import has_rate, matmul_gflops
from embedkit.model.config import EncoderConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.native import dispatch
from embedkit.native.encoder import NativeEncoder, why_not
from embedkit.native.library import NativePrecision
from embedkit.tokenization.tokenizer import Tokenizer

# Shapes of base models; sizes of their configs on the Hugging Face hub.
MODERNBERT = EncoderConfig(
    vocab_size=50_368,
    num_hidden_layers=22,
    intermediate_size=1152,
    max_position_embeddings=8192,
    type_vocab_size=0,
    layer_norm_eps=1e-5,
    position="rope",
    norm_first=True,
    norm_bias=False,
    attention_bias=False,
    mlp_bias=False,
    gated_mlp=True,
    local_attention=128,
    global_attn_every_n_layers=3,
)
NOMIC = EncoderConfig(
    position="rope",
    max_position_embeddings=2048,
    global_rope_theta=1000.0,
    gated_mlp=True,
    hidden_act="silu",
    attention_bias=False,
    mlp_bias=False,
)
SHAPES = {"bert": EncoderConfig(), "modernbert": MODERNBERT, "nomic": NOMIC}
PRECISIONS: tuple[NativePrecision, ...] = ("fp32", "bf16", "int8")


def sequences(folder: Path, length: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut (B, length) ids from consecutive abstracts, each row between the tokenizer's special tokens."""
    documents = read_documents([str(data_folder() / "retrieval/scifact/corpus.jsonl.zst")])
    texts = [document.text for document, _ in zip(documents, range(200), strict=False)]
    batch = Tokenizer.load(folder).encode(texts)
    first, last = batch.input_ids[0], batch.input_ids[batch.lengths[0] - 1]
    words = batch.input_ids[(batch.input_ids != first) & (batch.input_ids != last)]
    count = max(1, tokens // length)
    inner = np.resize(words, (count, length - 2))
    ids = np.concatenate([np.full((count, 1), first), inner, np.full((count, 1), last)], axis=1)
    return ids.ravel(), np.full(count, length)


def flops_of(config: EncoderConfig, length: int) -> float:
    """Count the operations of a token's linear layers and attention, two per multiply-add."""
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    linear = 8 * hidden**2 + (6 if config.gated_mlp else 4) * hidden * inner
    seen = [
        min(length, config.local_attention + 1) if config.layer_is_local(number) else length
        for number in range(layers)
    ]
    return layers * linear + 4 * hidden * sum(seen)


def with_torch(encoder: TransformerEncoder, ids: np.ndarray, lengths: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return encoder.forward_packed(torch.from_numpy(ids), lengths.tolist())


def load_native(
    config: EncoderConfig, weights: dict[str, np.ndarray], levels: list[str], threads: int
) -> dict[str, NativeEncoder]:
    """Load what each level has, under the name `native PRECISION LEVEL`."""
    found = {}
    for level in levels:
        os.environ[dispatch.CPU] = level
        for precision in PRECISIONS:
            if why_not(config, precision) is None:
                encoder = NativeEncoder(config, weights, precision=precision, threads=threads)
                found[f"native {precision} {level}"] = encoder
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--levels", nargs="+", help="levels of instructions (default: the highest)")
    parser.add_argument("--lengths", nargs="+", type=int, default=[15, 59, 200], help="tokens per text")
    parser.add_argument("--model", type=Path, help="a model folder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--shape", choices=SHAPES, help="in its place a model of random weights")
    parser.add_argument("--layers", type=int, help="of --shape")
    parser.add_argument("--tokens", type=int, default=3000, help="tokens per call")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = None if arguments.shape else arguments.model or minilm_folder()
    if folder is None:
        layers = arguments.layers or SHAPES[arguments.shape].num_hidden_layers
        encoder = TransformerEncoder(replace(SHAPES[arguments.shape], num_hidden_layers=layers)).eval()
        what = f"a {arguments.shape} of {layers} layers"
    else:
        encoder = load_model(read_model_folder(folder)).encoder.eval()
        what = folder.parent.name if folder.name == "model" else folder.name
    config = encoder.config
    weights = {name: weight.numpy() for name, weight in encoder.state_dict().items()}
    half = deepcopy(encoder).bfloat16() if has_rate("bf16") else None
    rates = {precision: matmul_gflops(precision) for precision in PRECISIONS if has_rate(precision)}
    native = load_native(config, weights, arguments.levels or [dispatch.cpu_level()], arguments.threads)
    rows: list[dict[str, Any]] = []
    for length in arguments.lengths:
        if folder is None:
            lengths = np.full(max(1, arguments.tokens // length), length)
            ids = np.random.default_rng(length).integers(0, config.vocab_size, lengths.sum())
        else:
            ids, lengths = sequences(folder, length, arguments.tokens)
        tasks: dict[str, Callable[[], Any]] = {"torch fp32": partial(with_torch, encoder, ids, lengths)}
        if half is not None:
            tasks["torch bf16"] = partial(with_torch, half, ids, lengths)
        for name, ours in native.items():
            tasks[name] = partial(ours.hidden_states, ids, lengths)
        clock = time.process_time if arguments.threads == 1 else time.perf_counter
        timings = in_turn(tasks, rounds=arguments.rounds, clock=clock)
        for name, timing in timings.items():
            rate = rates.get(name.split()[1])  # type: ignore[call-overload] # the second word of a task is a precision
            speed = len(ids) / timing.best
            gflops = speed * flops_of(config, length) / 1e9
            rows.append(
                {
                    "length": length,
                    "with": name,
                    "tokens/s": round(speed),
                    "ratio of best": round(timings["torch fp32"].best / timing.best, 2),
                    "ratio of median": round(timings["torch fp32"].median / timing.median, 2),
                    "GFLOP/s": round(gflops),
                    "of the rate": f"{gflops / rate:.0%} of {rate:.0f}" if rate else "-",
                }
            )
    report(f"The encoder of {what}, {arguments.threads} threads", rows, output=arguments.output)


if __name__ == "__main__":
    main()

"""Compare encoding throughput on this CPU with sentence-transformers, ONNX Runtime and OpenVINO, on the same model and texts.

    python benchmarks/encode.py [--rounds 3] [--texts 1000] [--precisions fp32 bf16 int8]
                               [--backends native torch onnx openvino] [--output FILE.json]

There are three kinds of text: short (STS sentences), mixed (paragraphs of 20 to 250 tokens from SQuAD and Simple
Wikipedia) and long (SciFact abstracts). Ratios are to sentence-transformers with its defaults in the same run. The share of
the machine's rate divides the model's matrix products over real tokens by the rate of torch's own matrix product in that
precision. ONNX Runtime and OpenVINO run the graph of `embedkit model export` inside our encoder, which sorts texts,
tokenizes while others are computed, and gives each core one piece of a batch. OpenVINO's int8 is its own: weights are
quantized per column, activations in groups of 128.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
from timing import data_folder, in_turn, minilm_folder, report

from embedkit.data.reading import read_documents
from embedkit.encoding.encoder import Encoder
from embedkit.errors import DeviceError, MissingExtraError
from embedkit.inference.torch_runtime.peak import has_rate, matmul_gflops

NAMES = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}


def texts_by_kind(data: Path, size: int) -> dict[str, list[str]]:
    """Sample the three kinds of text, the same ones in every run."""
    draw = random.Random(0)
    sentences = []
    for line in (data / "sts/stsb/train.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        sentences += line.split("\t")[:2]
    squad = [
        document.text
        for document in read_documents([str(data / "retrieval/squad_v11_train/corpus.jsonl.zst")])
    ]
    articles = islice(read_documents([str(data / "text/simplewiki.jsonl.zst")]), 20_000)
    wiki = [part for article in articles for part in article.text.split("\n")]
    paragraphs = [text for text in squad + wiki if 80 <= len(text) <= 1100]  # about 20 to 250 tokens
    abstracts = [
        f"{d.title} {d.text}" for d in read_documents([str(data / "retrieval/scifact/corpus.jsonl.zst")])
    ]
    return {
        "short": draw.sample(sentences, size),
        "mixed": draw.sample(paragraphs, size // 2),
        "long": draw.sample(abstracts, size // 4),
    }


def flops_of(encoder: Encoder, lengths: np.ndarray) -> float:
    """Count the operations of the linear layers and of attention over real tokens, two per multiply-add."""
    config = encoder.folder.config
    d, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    linear = 2 * (4 * d * d + 2 * d * inner) * layers
    attention = 4 * d * layers
    return float(linear * lengths.sum() + attention * (lengths.astype(np.float64) ** 2).sum())


def load_ours(folder: Path, backends: list[str], precisions: list[str]) -> dict[str, Encoder]:
    """Load each backend in each precision available here; name the others, with the reason, and leave them out."""
    ours = {}
    for backend, precision in product(backends, precisions):
        try:
            encoder = Encoder.load(folder, device="cpu", precision=precision, backend=backend)  # type: ignore[arg-type] # named by the user
        except (DeviceError, MissingExtraError) as exc:
            print(f"left out: {exc}")
            continue
        ours[f"{NAMES.get(backend, f'embedkit {backend}')} {precision}"] = encoder
    return ours


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--texts",
        type=int,
        default=1000,
        help="number of short texts; half as many mixed ones, a quarter as many long ones",
    )
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "int8"])
    parser.add_argument("--backends", nargs="+", default=["native", "torch", "onnx", "openvino"])
    parser.add_argument("--model", type=Path, default=None, help="a model folder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    from sentence_transformers import SentenceTransformer

    folder = arguments.model or minilm_folder()
    peer = SentenceTransformer(str(folder), device="cpu")
    ours = load_ours(folder, arguments.backends, arguments.precisions)
    precisions = {encoder.precision for encoder in ours.values()}
    rates = {precision: matmul_gflops(precision) for precision in precisions if has_rate(precision)}
    rows: list[dict[str, Any]] = []
    for kind, texts in texts_by_kind(data_folder(), arguments.texts).items():
        tasks: dict[str, Callable[[], Any]] = {
            "sentence-transformers": partial(peer.encode, texts, show_progress_bar=False)
        }
        for name, encoder in ours.items():
            tasks[name] = partial(encoder.encode, texts, on_truncate="ok")
        timings = in_turn(tasks, rounds=arguments.rounds)
        reference = peer.encode(texts, show_progress_bar=False)
        base = timings["sentence-transformers"]
        for name, timing in timings.items():
            row: dict[str, Any] = {
                "texts": kind,
                "with": name,
                "texts/s": round(len(texts) / timing.best, 1),
                "ratio of best": round(base.best / timing.best, 2),
                "ratio of median": round(base.median / timing.median, 2),
            }
            if name != "sentence-transformers":
                encoder = ours[name]
                batch = encoder.tokenizer.encode(texts)
                vectors = encoder.encode(texts, on_truncate="ok")
                cosine = (
                    (vectors * reference).sum(1)
                    / np.linalg.norm(vectors, axis=1)
                    / np.linalg.norm(reference, axis=1)
                )
                row["tokens/s"] = round(int(batch.lengths.sum()) / timing.best)
                row["GFLOP/s"] = round(flops_of(encoder, batch.lengths) / timing.best / 1e9)
                rate = rates.get(encoder.precision)
                row["of the rate"] = f"{row['GFLOP/s'] / rate:.0%} of {rate:.0f}" if rate else "-"
                row["cosine mean"] = f"{cosine.mean():.6f}"
                row["worst"] = f"{cosine.min():.6f}"
            rows.append(row)
    report(
        f"Encoding with {folder.parent.name if folder.name == 'model' else folder.name}",
        rows,
        output=arguments.output,
    )


if __name__ == "__main__":
    main()

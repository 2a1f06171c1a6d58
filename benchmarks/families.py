"""What computes each family of models here, in each precision, and how fast: the table of docs/models.md.

    python benchmarks/families.py [--threads 1] [--hidden 384] [--layers 6] [--heads 12] [--rounds 5] [--families NAME ...] [--markdown]

Every family is run with random weights at one size, 6 layers of 384 with 12 heads, so that speeds tell its pieces apart and not its
checkpoints: feed-forward layers are 4 times as wide as the layers, 8/3 times where they have a gate, which is as much work, and half as
many keys as queries where a family has fewer. A run encodes 2,048 tokens: 16 texts of 32, 8 of 128 and one of 512, without tokenizing
and pooling. Runs of all families and precisions alternate; what is reported is the best of each. What computes them is what `--backend
auto` takes. With one thread times are those of the processor, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, get_args

import numpy as np
from timing import in_turn, report

from embedkit.checkpoint.names import HubFamily
from embedkit.errors import DeviceError
from embedkit.inference.choice import choose_runtime
from embedkit.machine import cpu_name
from embedkit.model.attention_config import DisentangledConfig
from embedkit.model.config import EncoderConfig
from embedkit.model.costs import num_parameters
from embedkit.native.dispatch import cpu_level
from embedkit.native.library import NativePrecision
from tests.tiny import FAMILY_SHAPES, tiny_config

LENGTHS = [128] * 8 + [32] * 16 + [512]
VOCABULARY = 10_000
PRECISIONS = get_args(NativePrecision)
# The rows of the table: those of one row have the same pieces. `static` has no layers.
ROWS: Mapping[str, tuple[HubFamily, ...]] = {
    "BERT": ("bert",),
    "RoBERTa, XLM-R, CamemBERT": ("roberta", "xlm-roberta", "camembert"),
    "DistilBERT": ("distilbert",),
    "MPNet": ("mpnet",),
    "ALBERT": ("albert",),
    "ELECTRA": ("electra",),
    "DeBERTa v2, v3": ("deberta-v2",),
    "ModernBERT": ("modernbert",),
    "NomicBERT": ("nomic_bert",),
    "GTE (`new`)": ("gte",),
    "Jina v2": ("jina_bert",),
    "Jina v3": ("jina_embeddings_v3",),
    "EuroBERT": ("eurobert",),
    "T5": ("t5",),
    "mT5": ("mt5",),
    "Llama": ("llama",),
    "Mistral": ("mistral",),
    "Qwen2": ("qwen2",),
    "Qwen3": ("qwen3",),
    "Gemma 3": ("gemma3_text",),
    "GPT-2": ("gpt2",),
    "static": (),
}
# What of a family's pieces has a size of its own, as its usual checkpoints have it.
SIZES: Mapping[HubFamily, dict[str, Any]] = {
    "albert": {"embedding_size": 128, "num_hidden_groups": 1},
    "electra": {"embedding_size": 128},
    "deberta-v2": {"disentangled": DisentangledConfig()},
    "modernbert": {"local_attention": 128},
    "gemma3_text": {"local_attention": 512},
    "mistral": {"local_attention": 4096, "global_attn_every_n_layers": 1, "global_attn_offset": 0},
    "llama": {"rope_scaling": None},
    "t5": {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
    "mt5": {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
}
Ids = np.ndarray


def shape(family: HubFamily, *, hidden: int, layers: int, heads: int) -> EncoderConfig:
    """Return a family's pieces at a size."""
    tiny = tiny_config(**FAMILY_SHAPES[family])
    common = {
        "initializer_range": 0.02,  # with more, attention would lie so far apart that its numbers underflow, which is slow
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "head_dim": None,
        "num_key_value_heads": heads // 2 if tiny.num_key_value_heads is not None else None,
        "intermediate_size": hidden * 8 // 3 if tiny.gated_mlp else 4 * hidden,
        "max_position_embeddings": max(1024, tiny.max_position_embeddings),
        "query_pre_attn_scalar": None if tiny.query_pre_attn_scalar is None else 1.0,
    }
    return replace(tiny, **(common | SIZES.get(family, {})))


def runtime_of(config: EncoderConfig | None, precision: NativePrecision) -> str | None:
    """Name what `--backend auto` takes on this machine's processor; None where nothing computes the model in this precision."""
    try:
        return choose_runtime(config, precision, "cpu").runtime
    except DeviceError:
        return None


def with_torch(encoder: Any, ids: Ids) -> None:  # Any: a TransformerEncoder
    import torch

    with torch.inference_mode():
        encoder.forward_packed(torch.from_numpy(ids), LENGTHS)


def with_table(table: Ids, ids: Ids) -> None:
    """Compute the means of a static model's vectors as its backend does."""
    starts = np.cumsum([0, *LENGTHS[:-1]])
    means = np.add.reduceat(table[ids], starts) / np.array(LENGTHS, dtype=np.float32)[:, None]
    means / np.linalg.norm(means, axis=1, keepdims=True)


def tasks_of(
    config: EncoderConfig, wanted: Mapping[NativePrecision, str], ids: Ids, threads: int
) -> dict[str, Callable[[], Any]]:
    """Return what runs a family once in each precision, and in torch in fp32 beside it, by `RUNTIME PRECISION`."""
    import torch

    from embedkit.model.encoder import TransformerEncoder
    from embedkit.native.encoder import NativeEncoder

    torch.manual_seed(0)
    encoder = TransformerEncoder(config).eval()
    tasks: dict[str, Callable[[], Any]] = {"torch fp32": partial(with_torch, encoder, ids)}
    for precision, runtime in wanted.items():
        name = f"{runtime} {precision}"
        if runtime == "native":
            weights = {name: weight.numpy() for name, weight in encoder.state_dict().items()}
            native = NativeEncoder(config, weights, precision=precision, threads=threads)
            tasks[name] = partial(native.hidden_states, ids, np.array(LENGTHS))
        elif name not in tasks:
            half = TransformerEncoder(config).eval().bfloat16()
            tasks[name] = partial(with_torch, half, ids)
    return tasks


def measure(names: Sequence[str], given: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row of the table for each of the names: speeds in tokens per second."""
    ids = np.random.default_rng(0).integers(5, VOCABULARY, sum(LENGTHS))
    tasks: dict[str, Callable[[], Any]] = {}
    rows: list[dict[str, Any]] = []
    for name in names:
        config = None
        if ROWS[name]:
            config = shape(ROWS[name][0], hidden=given.hidden, layers=given.layers, heads=given.heads)
        found = {precision: runtime_of(config, precision) for precision in PRECISIONS}
        wanted = {precision: runtime for precision, runtime in found.items() if runtime is not None}
        if config is None:
            table = np.random.default_rng(0).standard_normal((VOCABULARY, given.hidden), dtype=np.float32)
            tasks[f"{name}: numpy fp32"] = partial(with_table, table, ids)
            parameters = table.size
        else:
            parameters = num_parameters(config)
            for task, run in tasks_of(config, wanted, ids, given.threads).items():
                tasks[f"{name}: {task}"] = run
        rows.append({"family": name, "parameters": parameters, "runtimes": wanted})
    clock = time.process_time if given.threads == 1 else time.perf_counter
    timings = in_turn(tasks, rounds=given.rounds, clock=clock)
    for row in rows:
        runtimes = row.pop("runtimes")
        row["torch fp32"] = _speed(timings, f"{row['family']}: torch fp32")
        for precision in PRECISIONS:
            runtime = runtimes.get(precision)
            row[precision] = runtime or "-"
            row[f"{precision} tokens/s"] = _speed(timings, f"{row['family']}: {runtime} {precision}")
    return rows


def _speed(timings: Mapping[str, Any], name: str) -> int | None:
    return round(sum(LENGTHS) / timings[name].best) if name in timings else None


def cells(rows: Sequence[dict[str, Any]], first: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the rows as text: what computes each precision, tokens per second, and in brackets how many times the first row's.

    A precision that nothing computes here has no column.
    """
    found = []
    computed = [name for name in PRECISIONS if any(row[f"{name} tokens/s"] is not None for row in rows)]
    for row in rows:
        cell = {
            "family": row["family"],
            "parameters, M": f"{row['parameters'] / 1e6:.1f}",
            "torch in fp32": _cell(row["torch fp32"], first["torch fp32"]),
        }
        for precision in computed:
            speed = _cell(row[f"{precision} tokens/s"], first[f"{precision} tokens/s"])
            cell[precision] = row[precision] if speed == "-" else f"{row[precision]}: {speed}"
        found.append(cell)
    return found


def _cell(speed: int | None, of: int | None) -> str:
    if speed is None:
        return "-"
    digits = len(str(speed)) - 3
    shown = f"{round(speed, -max(0, digits)):,}"
    return shown if of is None else f"{shown} ({speed / of:.{2 if speed < 10 * of else 0}f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--families", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="NAME")
    parser.add_argument("--markdown", action="store_true", help="print the table as it stands in the docs")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    import torch

    torch.set_num_threads(given.threads)
    rows = measure(given.families, given)
    table = cells(rows, rows[0])
    if given.markdown:
        head = list(table[0])
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *(list(row.values()) for row in table)]
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    else:
        size = f"{given.layers} layers of {given.hidden}, {given.threads} thread(s), tokens/s (times {rows[0]['family']}'s)"
        report(f"Families at {size}", [dict(row) for row in table], output=None)
    print(f"{cpu_name()}, {cpu_level()} kernels, torch {torch.__version__}", file=sys.stderr)


if __name__ == "__main__":
    main()

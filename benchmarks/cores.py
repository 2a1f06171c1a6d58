"""Say what limits encoding on many cores: what runs on all of them, what on one alone, and the throughput that follows.

    python benchmarks/cores.py [--precision int8] [--texts 4000] [--rounds 5] [--cores 1 2 16 64] [--kernels TOKENS_PER_SECOND]
                               [--output FILE.json]

Five times are taken of a window of texts: of the tokenizers library, where it reads some, and of the kernels, which use all cores; of
the kernel that cuts texts into pieces, in one thread; and of Python around both, which runs in two threads of which one at a time has
the interpreter. On n cores a token then takes

    max(both of Python's, the pieces' and Python's before, the kernels' and the library's / n + Python's around the kernels),

since a window is tokenized while the one before is computed, and no kernel runs while Python prepares the next call. That is a
model, not a measurement: it knows no memory that cores share, and no core that waits for the last text. `--kernels` puts
another processor's rate of one core in the place of this one's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from encode import texts_by_kind
from timing import data_folder, minilm_folder, report

from embedkit.encoding.encoder import Encoder


def two_times(task: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Return the processor's seconds of the calling thread and of all others, those of the fastest of some runs."""
    found = []
    for _ in range(rounds):
        own, everything = time.thread_time(), time.process_time()
        task()
        own, everything = time.thread_time() - own, time.process_time() - everything
        found.append((own, everything - own))
    return min(own for own, _ in found), min(others for _, others in found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model folder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2, 16, 64])
    parser.add_argument("--kernels", type=float, help="tokens per second of one core, in place of this one's")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    folder = arguments.model or minilm_folder()
    encoder = Encoder.load(folder, device="cpu", precision=arguments.precision, backend="native")
    prompt = encoder.read_prompt(None)
    rows = []
    for kind, texts in texts_by_kind(data_folder(), arguments.texts).items():
        window = encoder.tokenize(texts, prompt, on_truncate="ok")
        tokens = int(window.batch.lengths.sum())

        def compute(window: Any = window) -> None:
            encoder.finish(encoder.pooled(window.batch, skip=prompt.skip), window)

        def tokenize(texts: list[str] = texts) -> None:
            encoder.tokenize(texts, prompt, on_truncate="ok")

        def cut(joined: bytes = "\0".join(texts).encode(), count: int = len(texts)) -> None:
            table = encoder.tokenizer.pieces._table
            if table is not None:
                table.cut(joined, count)

        before, library = (each / tokens for each in two_times(tokenize, arguments.rounds))
        pieces = two_times(cut, arguments.rounds)[0] / tokens
        before -= pieces
        around, kernels = (each / tokens for each in two_times(compute, arguments.rounds))
        if arguments.kernels:
            kernels = 1 / arguments.kernels
        row: dict[str, Any] = {"texts": kind}
        for name, each in (
            ("tokenizers", library),
            ("kernels", kernels),
            ("pieces", pieces),
            ("Python before", before),
            ("around", around),
        ):
            row[f"{name}, k/s"] = round(1 / each / 1000)
        for cores in arguments.cores:
            seconds = max(before + around, before + pieces, (kernels + library) / cores + around)
            row[f"{cores} cores, k/s"] = round(1 / seconds / 1000)
            row[f"of {cores}"] = f"{(kernels + library) / cores / seconds:.0%}"
        rows.append(row)
    report(f"What limits many cores, {arguments.precision}", rows, output=arguments.output)


if __name__ == "__main__":
    main()

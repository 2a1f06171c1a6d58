"""Find the most similar pair among 10,000 sentences, from a text file to the printed pair, cold start included.

    python benchmarks/pairs.py [--rounds 3] [--precisions fp32]

This is the task of Reimers and Gurevych 2019, section 1: 65 hours with a cross-encoder, about 5 seconds with
sentence-transformers on a V100. Here `embedkit pairs` and a script with sentence-transformers run alternately, as whole
processes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from timing import data_folder, in_turn, minilm_folder, report

PEER = """
import sys
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import paraphrase_mining
texts = open(sys.argv[2], encoding="utf-8").read().splitlines()
model = SentenceTransformer(sys.argv[1], device="cpu", local_files_only=True)
score, first, second = paraphrase_mining(model, texts, show_progress_bar=False, top_k=1)[0]
print(score, texts[first], texts[second], sep="\\t")
"""


def run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--precisions", nargs="+", default=["fp32"])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    sentences: dict[str, None] = {}
    for split in ("train", "dev", "test"):
        for line in (data_folder() / f"sts/stsb/{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]:
            sentences |= dict.fromkeys(line.split("\t")[:2])
    model = str(minilm_folder())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sentences.txt"
        file.write_text("\n".join(list(sentences)[: arguments.size]) + "\n", encoding="utf-8")
        program = str(Path(sys.executable).with_name("embedkit"))
        tasks = {"sentence-transformers": partial(run, [sys.executable, "-c", PEER, model, str(file)])}
        for precision in arguments.precisions:
            command = [
                program,
                "pairs",
                str(file),
                "--model",
                model,
                "--top-k",
                "1",
                "--precision",
                precision,
                "--json",
            ]
            tasks[f"embedkit {precision}"] = partial(run, command)
        timings = in_turn(tasks, rounds=arguments.rounds)
        for name, task in tasks.items():
            print(name, task().strip(), sep="\t")
    base = timings["sentence-transformers"]
    rows = [
        {
            "with": name,
            "best s": round(timing.best, 2),
            "median s": round(timing.median, 2),
            "ratio of best": round(base.best / timing.best, 2),
        }
        for name, timing in timings.items()
    ]
    report(
        f"Most similar pair of {min(len(sentences), arguments.size):,} sentences",
        rows,
        output=arguments.output,
    )


if __name__ == "__main__":
    main()

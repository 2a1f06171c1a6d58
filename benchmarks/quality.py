"""Figures of all-MiniLM-L6-v2 and BM25 on real test sets, beside those that are known: makes docs/results.md anew.

    python benchmarks/quality.py [--output docs/results.md] [--model FOLDER] [--cache-dir FOLDER]

Collections are encoded once (some minutes on two cores) and kept in the cache; after that it takes seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from timing import data_folder, minilm_folder, surroundings

SETS = ("scifact", "cacm", "cisi")
# What is known of all-MiniLM-L6-v2, and how near we must come: SciFact and STS-B as published (MTEB leaderboard), CACM
# and CISI as measured with sentence-transformers on these files.
KNOWN = {
    ("scifact", "dense"): (0.645, 0.003),
    ("cacm", "dense"): (0.410, 0.005),
    ("cisi", "dense"): (0.420, 0.005),
    ("stsb", "spearman"): (0.8203, 0.0005),
}
LOWEST_BM25_ON_SCIFACT = 0.67
HEADER = """# Results

Measured by `python benchmarks/quality.py`, which writes this page. nDCG@10 as trec_eval computes it (linear gain); title and
text joined, documents uncut but for the 256 tokens that the model reads; fp32. BM25 is `--mode text` (SQLite FTS5, Porter
stemming, k1 = 1.2, b = 0.75), hybrid fuses both by reciprocal rank with equal weights and nothing tuned.
"""


def embedkit(*arguments: str) -> list[dict[str, Any]]:
    """Run a command and return its JSON lines."""
    command = [sys.executable, "-c", "from cli.main import run; run()", *arguments, "--json", "--quiet"]
    repository = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=repository)
    return [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]


def measure(data: Path, model: Path, cache: list[str]) -> dict[tuple[str, str], float]:
    """Return (set, system) -> nDCG@10, and the two correlations of STS-B."""
    folders = [str(data / "retrieval" / name) for name in SETS]
    found: dict[tuple[str, str], float] = {}
    modes = ["--mode", "dense", "--mode", "hybrid"]
    for row in embedkit("evaluate", "retrieval", *folders, "--model", str(model), *modes, *cache):
        kind = (
            "BM25" if row["system"] == "BM25" else "hybrid" if row["system"].endswith(" hybrid") else "dense"
        )
        found[row["dataset"], kind] = row["values"]["ndcg@10"]
    (sts,) = embedkit("evaluate", "similarity", str(data / "sts/stsb/test.tsv"), "--model", str(model))
    for name in ("spearman", "pearson"):
        found["stsb", name] = sts["values"][name]
    return found


def page(found: dict[tuple[str, str], float]) -> str:
    """Write the figures as Markdown."""
    lines = [HEADER, "| nDCG@10 | BM25 | all-MiniLM-L6-v2 | known | hybrid |", "|---|---:|---:|---:|---:|"]
    for name in SETS:
        ours = " | ".join(f"{found[name, kind]:.4f}" for kind in ("BM25", "dense"))
        known, near = KNOWN[name, "dense"]
        lines.append(f"| {name} | {ours} | {known:.3f} ± {near:.3f} | {found[name, 'hybrid']:.4f} |")
    known, near = KNOWN["stsb", "spearman"]
    lines += ["", "| STS-B test | all-MiniLM-L6-v2 | known |", "|---|---:|---:|"]
    lines.append(
        f"| Spearman × 100 | {100 * found['stsb', 'spearman']:.2f} | {100 * known:.2f} ± {100 * near:.2f} |"
    )
    lines.append(f"| Pearson × 100 | {100 * found['stsb', 'pearson']:.2f} | |")
    lines += ["", "With " + ", ".join(f"{name} {what}" for name, what in surroundings().items()) + ".", ""]
    return "\n".join(lines)


def misses(found: dict[tuple[str, str], float]) -> list[str]:
    """Name the figures that are not where they must be."""
    wrong = [
        f"{name} {kind}: {found[name, kind]:.4f}; known is {known} ± {near}"
        for (name, kind), (known, near) in KNOWN.items()
        if abs(found[name, kind] - known) > near
    ]
    if found["scifact", "BM25"] < LOWEST_BM25_ON_SCIFACT:
        wrong.append(
            f"scifact BM25: {found['scifact', 'BM25']:.4f}; wanted {LOWEST_BM25_ON_SCIFACT} at least"
        )
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--model", type=Path, default=None, help="the folder of all-MiniLM-L6-v2")
    parser.add_argument("--cache-dir", type=Path)
    arguments = parser.parse_args()
    cache = ["--cache-dir", str(arguments.cache_dir.resolve())] if arguments.cache_dir else []
    found = measure(data_folder().resolve(), (arguments.model or minilm_folder()).resolve(), cache)
    text = page(found)
    print(text)
    if arguments.output is not None:
        arguments.output.write_text(text, encoding="utf-8")
    if wrong := misses(found):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()

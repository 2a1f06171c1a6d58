"""One query from a cold shell: time and memory of `embedkit search` and of a sentence-transformers script.

    python benchmarks/cold.py DOCUMENTS [--size 10000] [--rounds 7] [--rerank] [--output FILE.json]

DOCUMENTS is any file that `embedkit index build` reads, such as one text per line; its first `--size` texts, cut to 300
characters, are indexed with all-MiniLM-L6-v2. The other library's script does the minimum that answers the same question:
load the model, encode the query, multiply it with the same vectors from a .npy file, print the ten best texts. Runs
alternate, and files are in the page cache, as after any earlier query. `--rerank` adds a search in which a cross-encoder
of the same shape reranks 100 candidates.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from timing import minilm_folder, report

from embedkit.data.reading import read_documents
from embedkit.encoding.encoder import Encoder

QUERY = "energy from the wind"
EMBEDKIT = [sys.executable, "-c", "from cli.main import run; run()"]
PEER = """
import json, sys
import numpy as np
from sentence_transformers import SentenceTransformer
model, vectors, texts, query = sys.argv[1:]
encoder = SentenceTransformer(model, device="cpu")
scores = np.load(vectors) @ encoder.encode(query, normalize_embeddings=True)
lines = open(texts, encoding="utf-8").read().splitlines()
for row in np.argsort(-scores)[:10]:
    print(json.dumps({"score": float(scores[row]), "text": lines[row]}))
"""
# Starts the command from a small process: the kernel's peak memory figure includes the starting process.
LAUNCHER = """
import os, sys, time
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled once
started = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print("measured", time.perf_counter() - started, usage.ru_maxrss, status, file=sys.stderr)
"""


def run(command: Sequence[str]) -> tuple[float, float, list[dict[str, Any]]]:
    """Run a command; return its time in seconds, its peak memory in MB, and the JSON lines it printed."""
    launcher = [sys.executable, "-S", "-c", LAUNCHER, *command]
    done = subprocess.run(
        launcher, capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=True
    )
    word, seconds, kilobytes, status = done.stderr.splitlines()[-1].split()
    if word != "measured" or int(status):
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return (
        float(seconds),
        int(kilobytes) / 1000,
        [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")],
    )


def prepare(documents: str, size: int, folder: Path) -> list[str]:
    """Write the texts one per line, their vectors, and an index of them; return the texts."""
    lines = (" ".join(document.text.split())[:300] for document in read_documents([documents]))
    texts = list(islice((line for line in lines if line), size))
    (folder / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    encoder = Encoder.load(minilm_folder(), device="cpu")
    np.save(folder / "vectors.npy", encoder.encode(texts, on_truncate="ok"))
    words = [
        "index",
        "build",
        "texts.txt",
        "--text-unit",
        "line",
        "--index",
        "i",
        "--precision",
        "fp32",
        "--quiet",
    ]
    model = ["--model", str(minilm_folder())]
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from cli.main import run; run()"
    root = str(Path(__file__).parent.parent)
    subprocess.run([sys.executable, "-c", program, root, *words, *model], cwd=folder, check=True)
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("documents")
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rerank", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        texts = prepare(arguments.documents, arguments.size, folder)
        search = [*EMBEDKIT, "search", str(folder / "i"), QUERY, "--json"]
        peer = [str(minilm_folder()), str(folder / "vectors.npy"), str(folder / "texts.txt"), QUERY]
        commands = {
            "sentence-transformers script": [sys.executable, "-c", PEER, *peer],
            "embedkit search": search,
            "embedkit --help": [*EMBEDKIT, "--help"],
        }
        if arguments.rerank:
            from rerank import write_reranker

            reranker = str(write_reranker(folder / "reranker"))
            commands["embedkit search --rerank, 100 candidates"] = [*search, "--rerank", reranker]
        rows = measure(commands, arguments.rounds)
    report(f"One query over {len(texts):,} texts from a cold shell", rows, output=arguments.output)


def measure(commands: dict[str, list[str]], rounds: int) -> list[dict[str, Any]]:
    """Run all commands alternately; the first run of each is not counted."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    answers: dict[str, str] = {}
    for number in range(rounds + 1):
        for name, command in commands.items():
            seconds, megabytes, lines = run(command)
            if number:
                runs[name].append((seconds, megabytes))
            answers[name] = lines[0]["text"] if lines else ""
    peer, ours = list(answers.values())[:2]
    if peer != ours:
        sys.exit(f"the two searches found different texts: {peer!r} and {ours!r}")
    slowest = min(seconds for seconds, _ in runs["sentence-transformers script"])
    rows = []
    for name, several in runs.items():
        best = min(seconds for seconds, _ in several)
        rows.append(
            {
                "command": name,
                "best s": round(best, 3),
                "median s": round(median(seconds for seconds, _ in several), 3),
                "ratio of best": round(slowest / best, 1),
                "peak MB": round(max(megabytes for _, megabytes in several)),
            }
        )
    return rows


if __name__ == "__main__":
    main()

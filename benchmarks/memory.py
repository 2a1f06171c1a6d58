"""Peak memory and time of `embedkit index build` over long documents and over folders, by kind of file.

    python benchmarks/memory.py TEXTS [--sizes 1 4 16 48] [--kinds txt jsonl md html] [--model FOLDER] [--output FILE.json]

TEXTS is any file that `embedkit index build` reads, such as simplewiki.jsonl.zst; its texts are joined into books of so many
megabytes. Each book is indexed by itself in a process of its own, as one document, and so is a folder of files of 20 KB, and
one of books of 4 MB. The column "MB / MB" is what a megabyte of the input adds: to the peak of the next smaller size of that
kind, for the first to that of a file of three words.

The usual model is a static one with the tokenizer of the shipped encoder and random vectors as long as its: what a network
takes to compute is the same for books of all sizes. `--model embedkit-small` measures the whole. `--search` adds what a
search of each index takes of the processor, by words and by meaning, one hit a document, the best of five.
"""

from __future__ import annotations

import argparse
import html
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from timing import report

from embedkit.data.reading import read_documents

FEW_WORDS = "one two three\n"
FILE_BYTES, BOOK_BYTES = 20_000, 4_000_000
# Starts the command from a small process: the kernel's peak memory figure includes the starting process.
LAUNCHER = """
import os, sys, time
started = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print("measured", time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, status, file=sys.stderr)
"""


def as_page(text: str) -> str:
    """Write a page of paragraphs, in which every fifth word is a link."""
    paragraphs = []
    for line in text.split("\n"):
        words = html.escape(line).split(" ")
        words[::5] = [f'<a href="/wiki/{word[:8]}">{word}</a>' for word in words[::5]]
        paragraphs.append(f"<p>{' '.join(words)}</p>\n")
    return f"<!DOCTYPE html><html><body>{''.join(paragraphs)}</body></html>"


WRITERS: dict[str, Callable[[str], str]] = {
    "txt": str,
    "md": str,
    "jsonl": lambda text: json.dumps({"id": "book", "text": text}, ensure_ascii=False) + "\n",
    "html": as_page,
}


def book(texts: Iterator[str], num_bytes: int) -> str:
    """Join texts up to so many bytes of UTF-8."""
    parts: list[bytes] = []
    left = num_bytes
    while left > 0:
        parts.append(f"{next(texts)}\n\n".encode())
        left -= len(parts[-1])
    return b"".join(parts)[:num_bytes].decode(errors="ignore")


def write_inputs(source: str, sizes: list[int], kinds: list[str], folder: Path) -> dict[str, list[Path]]:
    """Write the books and folders; return them by kind, the smallest first."""
    texts = (document.text for document in read_documents([source]))
    whole = book(texts, max(sizes) * 1_000_000)
    raw = whole.encode()
    found: dict[str, list[Path]] = {}
    for kind in kinds:
        for size in sizes:
            text = raw[: size * 1_000_000].decode(errors="ignore")
            found.setdefault(f"one .{kind}", []).append(folder / f"{size}.{kind}")
            found[f"one .{kind}"][-1].write_text(WRITERS[kind](text), encoding="utf-8")
    for name, each in (("folder of 20 KB files", FILE_BYTES), ("folder of 4 MB files", BOOK_BYTES)):
        for size in sizes:
            if size * 1_000_000 < each:
                continue
            place = folder / f"{name} {size}"
            place.mkdir()
            for number, start in enumerate(range(0, size * 1_000_000, each)):
                (place / f"{number}.txt").write_bytes(
                    raw[start : start + each].decode(errors="ignore").encode()
                )
            found.setdefault(name, []).append(place)
    return found


def write_static(folder: Path) -> Path:
    """Write the model that is used where none is named."""
    import torch

    from embedkit.checkpoint.sentence_folder import write_model
    from embedkit.checkpoint.st_modules import SentenceModules
    from embedkit.model.static import StaticEncoder
    from embedkit.models import ENCODER, find_model
    from embedkit.tokenization.tokenizer import Tokenizer

    torch.manual_seed(0)
    tokenizer = Tokenizer.load(find_model(ENCODER)).with_max_length(256)
    model = StaticEncoder(tokenizer.vocab_size, 384, normalize=True)
    write_model(folder, model, tokenizer, SentenceModules(), family=None)
    return folder


def build(inputs: Path, index: Path, model: str) -> tuple[float, float, float]:
    """Build an index; return seconds, seconds of the processor, and the peak in MB."""
    program = "import sys; sys.path.insert(0, sys.argv.pop(1)); from cli.main import run; run()"
    root = str(Path(__file__).resolve().parent.parent)
    words = ["index", "build", str(inputs), "--index", str(index), "--model", model, "--precision", "fp32"]
    words += ["--max-line-bytes", "200000000", "--quiet"]
    command = [sys.executable, "-S", "-c", LAUNCHER, sys.executable, "-c", program, root, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    word, seconds, processor, kilobytes, status = done.stderr.splitlines()[-1].split()
    if word != "measured" or int(status):
        sys.exit(f"{' '.join(words)} failed:\n{done.stderr}")
    return float(seconds), float(processor), int(kilobytes) / 1000


def search(index: Path) -> dict[str, float]:
    """Return the milliseconds of the processor that a warm search by words and by meaning takes, one hit a document."""
    from indexes import Index

    with Index.open(index) as opened:
        query = np.random.default_rng(0).standard_normal((1, opened.settings.dimension)).astype(np.float32)
        searches: dict[str, Callable[[], object]] = {
            "words ms": lambda: opened.search_text(["the first president"], group=True),
            "meaning ms": lambda: opened.search(query, group=True),
        }
        return {name: round(1000 * min(map(_seconds, [run] * 5)), 1) for name, run in searches.items()}


def _seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16, 48])
    parser.add_argument("--kinds", nargs="+", choices=list(WRITERS), default=list(WRITERS))
    parser.add_argument("--model")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = arguments.model or str(write_static(folder / "model"))
        (folder / "few.txt").write_text(FEW_WORDS, encoding="utf-8")
        *_, base = build(folder / "few.txt", folder / "few.index", model)
        rows.append({"input": "three words", "MB": 0, "peak MB": round(base)})
        for kind, inputs in write_inputs(
            arguments.texts, sorted(arguments.sizes), arguments.kinds, folder
        ).items():
            size, peak = 0.0, base
            for number, path in enumerate(inputs):
                index = folder / f"{kind} {number}.index"
                seconds, processor, now = build(path, index, model)
                files = [path] if path.is_file() else list(path.iterdir())
                here = sum(file.stat().st_size for file in files) / 1e6
                row = {"input": kind, "MB": round(here, 1), "peak MB": round(now)}
                row |= {"MB / MB": round((now - peak) / (here - size), 1)}
                row |= {"s": round(seconds, 1), "processor s": round(processor, 1)}
                rows.append(row | (search(index) if arguments.search else {}))
                print(rows[-1], file=sys.stderr, flush=True)
                size, peak = here, now
    report("Building an index of long documents", rows, output=arguments.output)


if __name__ == "__main__":
    main()

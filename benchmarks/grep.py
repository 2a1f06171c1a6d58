"""`embedkit grep`: the speed of the first build, and of later calls from a cold shell.

    python benchmarks/grep.py build [--bytes 400000] [--rounds 3]
    python benchmarks/grep.py calls [--files 20000] [--real] [--rounds 5] [--work DIR]

build: texts per second of a first call over files of Python's standard library, beside those of `Encoder.encode_windows`
alone on the same passages, alternating in one process.

calls: the first call over the standard library with its tests and over a tree of `--files` files copied from the packages that
are installed here; then, each in a new process, a call that finds nothing changed, one after a single file has changed, and
`embedkit search` on the same index, which looks at no file. With --real the vectors are the model's; without it they are drawn and
texts are cut every 900 characters, which changes no time but that of the first call. Times are wall-clock seconds and, beside them, processor seconds: on a machine
that other work shares only the second can be compared.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
from timing import report

from cli.shared.threads import limit_spinning
from embedkit.encoding.embedder import Embedder
from embedkit.encoding.encoder import Encoder
from embedkit.pipelines.grep import refresh as refreshing
from embedkit.pipelines.grep.folder import Folder
from embedkit.pipelines.grep.home import cached_home
from embedkit.types import Computing, Float32

QUERY = "how is a path split into its parts"
EMBEDKIT = [sys.executable, "-c", "from cli.main import run; run()"]
SUFFIXES = (".py", ".pyi", ".md", ".txt", ".h", ".rst")
# Starts the command from a small process: the kernel's peak memory figure includes the starting process.
LAUNCHER = """
import os, sys, time
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed is compiled once
started = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
spent = time.perf_counter() - started
print("measured", spent, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, status, file=sys.stderr)
"""


def call(command: Sequence[str]) -> tuple[float, float, float]:
    """Run a command; return its wall-clock and processor seconds and its peak memory in MB."""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCHER, *command],
        capture_output=True,
        text=True,
        cwd=root,
        check=True,
    )
    word, wall, processor, kilobytes, status = done.stderr.splitlines()[-1].split()
    if word != "measured" or int(status) or not done.stdout:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return float(wall), float(processor), int(kilobytes) / 1000


class Drawn(Embedder):
    """Gives each text a vector that is drawn: what a search of them costs does not depend on what they mean."""

    def __call__(self, texts: Sequence[str]) -> Float32:
        seeds = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) for text in texts]
        found = np.stack(
            [np.random.default_rng(seed).standard_normal(self.encoder.dimension) for seed in seeds]
        )
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


class Noting(Embedder):
    """Embeds, and keeps the texts."""

    def __init__(self, encoder: Encoder, role: Literal["document"]) -> None:
        super().__init__(encoder, role)
        self.seen: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Float32:
        self.seen.extend(texts)
        return super().__call__(texts)


def cut(title: str, text: str) -> list[tuple[int, int]]:
    """Cut a text as often as the model's splitter does, without its tokens."""
    return (
        [(start, min(start + 900, len(text))) for start in range(0, len(text), 900)] if text.strip() else []
    )


def standard_library(target: Path) -> None:
    """Copy the standard library with its tests."""
    source = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("site-packages", "__pycache__"))


def installed_files(target: Path, count: int) -> None:
    """Copy so many files of the packages that are installed, the smallest first."""
    source = Path(sysconfig.get_path("purelib"))
    found = [path for path in source.rglob("*") if path.suffix in SUFFIXES and path.is_file()]
    found.sort(key=lambda path: (path.stat().st_size, path.as_posix()))
    if len(found) < count:
        sys.exit(f"{source}: {len(found):,} files; --files {count:,} needs as many")
    for path in found[:count]:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def age(root: Path) -> None:
    """Let all files and folders be a day old, as those of a user mostly are."""
    then = time.time() - 86_400.5
    for folder, _, names in os.walk(root):
        for name in names:
            os.utime(Path(folder) / name, (then, then))
        os.utime(folder, (then, then))


def measure_calls(root: Path, name: str, rounds: int, *, real: bool) -> Iterator[dict[str, Any]]:
    age(root)
    home = cached_home(root.resolve())
    home.make()
    folder = Folder(home, Computing())
    if not real:
        drawn = Drawn(Encoder.load("embedkit-small", interactive=True), "document")
        folder._embedder = lambda num_bytes: drawn  # type: ignore[method-assign]
        refreshing._Refresh._split = lambda self, encoder, index: cut  # type: ignore[method-assign]
    wall, processor = time.perf_counter(), time.process_time()
    last = list(folder.refresh())[-1]
    yield {
        "folder": name,
        "call": "first" + ("" if real else ", vectors drawn"),
        "s": round(time.perf_counter() - wall, 1),
        "processor s": round(time.process_time() - processor, 1),
        "passages/s": round(last.passages / last.seconds),
    }
    status = folder.status()
    print(
        f"{name}: {status.files:,} files, {status.passages:,} passages, {status.num_bytes / 1e6:,.1f} MB in the cache"
    )
    grep = [*EMBEDKIT, "grep", QUERY, str(root), "-k", "5", "--refresh", "30s"]
    search = [*EMBEDKIT, "search", str(home.index), QUERY, "-k", "5"]
    changing = random.Random(0)
    files = [path for path in sorted(root.rglob("*.py")) if 500 < path.stat().st_size < 3000]
    call(grep)  # files and folders whose times have not settled are noted again
    runs: dict[str, list[tuple[float, float, float]]] = {}
    for number in range(rounds):
        runs.setdefault("nothing changed", []).append(call(grep))
        path = changing.choice(files)
        path.write_text(
            path.read_text(encoding="utf-8", errors="replace") + f"\n# {number}\n", encoding="utf-8"
        )
        runs.setdefault("one file changed", []).append(call(grep))
        time.sleep(0.1)
        call(grep)
        runs.setdefault("embedkit search", []).append(call(search))
    for kind, several in runs.items():
        walls, processors, peaks = zip(*several, strict=True)
        yield {
            "folder": name,
            "call": kind,
            "s": round(min(walls), 2),
            "processor s": round(min(processors), 2),
            "median processor s": round(median(processors), 2),
            "peak MB": round(max(peaks)),
        }


def measure_build(num_bytes: int, rounds: int) -> list[dict[str, Any]]:
    runs: dict[str, list[tuple[int, float, float]]] = {"first call": [], "encode alone": []}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "lib"
        taken, files = 0, sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
        random.Random(0).shuffle(files)
        root.mkdir()
        for path in files:
            if taken < num_bytes:
                taken += path.stat().st_size
                shutil.copyfile(path, root / path.name)
        age(root)
        encoder = Encoder.load("embedkit-small", precision="auto")
        for number in range(rounds):
            os.environ["EMBEDKIT_CACHE"] = f"{temporary}/cache{number}"
            home = cached_home(root.resolve())
            home.make()
            folder = Folder(home, Computing())
            noting = Noting(encoder, "document")
            folder._embedder = lambda _, noting=noting: noting  # type: ignore[method-assign,misc]
            wall, processor = time.perf_counter(), time.process_time()
            last = list(folder.refresh())[-1]
            runs["first call"].append(
                (last.passages, time.perf_counter() - wall, time.process_time() - processor)
            )
            embedder = Embedder(encoder, "document")
            wall, processor = time.perf_counter(), time.process_time()
            for start in range(0, len(noting.seen), 1024):
                embedder(noting.seen[start : start + 1024])
            runs["encode alone"].append(
                (len(noting.seen), time.perf_counter() - wall, time.process_time() - processor)
            )
    rows = []
    for name, several in runs.items():
        rows.append(
            {
                "what": name,
                "passages": several[0][0],
                "passages/s": round(max(count / wall for count, wall, _ in several), 1),
                "passages per processor s": round(max(count / spent for count, _, spent in several), 1),
            }
        )
    return rows


def main() -> None:
    limit_spinning()  # as the command does
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["build", "calls"])
    parser.add_argument("--bytes", type=int, default=400_000)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--only", choices=["library", "files"])
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "build":
        rows = measure_build(arguments.bytes, arguments.rounds)
        report("The first call of embedkit grep", rows, output=arguments.output)
        return
    if arguments.work is not None:
        arguments.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.work) as temporary:
        os.environ["EMBEDKIT_CACHE"] = str(Path(temporary) / "cache")
        rows = []
        trees: dict[str, tuple[str, Callable[[Path], None]]] = {
            "library": ("standard library", standard_library),
            "files": (f"{arguments.files:,} files", lambda target: installed_files(target, arguments.files)),
        }
        for kind, (name, make) in trees.items():
            if arguments.only not in (None, kind):
                continue
            root = Path(temporary) / name.replace(" ", "-").replace(",", "")
            make(root)
            rows += measure_calls(root, name, arguments.rounds, real=arguments.real)
    report("embedkit grep from a cold shell", rows, output=arguments.output)


if __name__ == "__main__":
    main()

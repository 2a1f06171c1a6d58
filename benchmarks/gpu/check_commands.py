"""The tests marked gpu, and the command line with `--device cuda`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from embedkit.types import Float32

from .check_encoding import LIMITS
from .models import TEXTS, sentence_folder
from .packages import WANTED, missing
from .setting import Setting, relative_error
from .stages import Case, Measured, SkipError

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def cases(setting: Setting) -> Iterator[Case]:
    yield "pytest -m gpu", partial(_tests, setting)
    yield "encode", partial(_encode, setting)
    yield "index build, search and rerank", partial(_search, setting)
    yield "train mlm", partial(_train, setting)


def _tests(setting: Setting) -> Measured:
    """Run the tests marked gpu; their output is kept beside the results."""
    _need("pytest", "hypothesis")
    # Collect only their files: others may import packages that are missing here.
    files = sorted(path for path in (REPOSITORY / "tests").rglob("test_*.py") if _has_gpu_tests(path))
    # Warnings of the packages of this machine are not failures.
    how = ("-m", "gpu", "-p", "no:cacheprovider", "-W", "default")
    command = [sys.executable, "-m", "pytest", *how, *map(str, files[: setting.size(len(files), 1)])]
    output = setting.output / "tests.txt"
    with output.open("w", encoding="utf-8") as stream:
        code = subprocess.run(
            command, cwd=REPOSITORY, stdout=stream, stderr=subprocess.STDOUT, check=False
        ).returncode
    last = output.read_text(encoding="utf-8").strip().rpartition("\n")[2]
    counts = {
        word: int(found.group(1)) if (found := re.search(rf"(\d+) {word}", last)) else 0
        for word in ("passed", "failed", "error", "skipped")
    }
    limits = {"failed": 0, "error": 0, "exit code": 0} | ({"skipped": 0} if setting.device == "cuda" else {})
    return Measured(counts | {"exit code": code}, limits)


def _has_gpu_tests(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return "pytest.mark.gpu" in text or "import DEVICES" in text


def _encode(setting: Setting) -> Measured:
    texts = setting.place / "texts.jsonl"
    rows = [{"_id": str(number), "text": text} for number, text in enumerate(TEXTS[:20])]
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    model = sentence_folder(setting.place, "bert")
    found: list[Float32] = []
    for device in ("cpu", setting.device):
        output = setting.place / f"vectors-{len(found)}.npy"
        _run("encode", texts, "--model", model, "--output", output, "--device", device, "--backend", "torch")
        found.append(np.load(output))
    return Measured({"error": relative_error(found[1], found[0])}, {"error": LIMITS["fp32"]})


def _search(setting: Setting) -> Measured:
    """Build, search and rerank with the shipped models on both devices; compare the order of the hits."""
    places: list[list[str]] = []
    for device in ("cpu", setting.device):
        index = setting.place / f"commands-{len(places)}.index"
        pages = sorted((REPOSITORY / "docs").glob("*.md"))[: setting.size(20, 2)]
        _run("index", "build", *pages, "--index", index, "--device", device)
        query = ("resume a run that was stopped", "--rerank", "embedkit-rerank-small", "--candidates", "10")
        lines = _run("search", index, *query, "--device", device, "--json").splitlines()
        places.append([json.loads(line)["id"] for line in lines])
    different = sum(one != other for one, other in zip(*places, strict=True))
    return Measured({"hits": len(places[0]), "in a different place": different}, {"in a different place": 0})


def _train(setting: Setting) -> Measured:
    from tests.training.corpora import TINY, make_tokenizer, write_texts

    texts = write_texts(setting.place / "command-texts.jsonl")
    tokenizer = setting.place / "command-tokenizer"
    tokenizer.mkdir()
    make_tokenizer(texts).save(tokenizer)
    output = setting.place / "command-run"
    settings = [part for text in TINY for part in ("--set", text)]
    shape = ("--tokenizer", tokenizer, "--steps", "4", "--device", setting.device)
    _run("train", "mlm", texts, "--output", output, *shape, *settings, "--json")
    return Measured(
        {"missing files": int(not (output / "model.safetensors").is_file())}, {"missing files": 0}
    )


def _run(*words: object) -> str:
    """Run a command in this process, in fp32, and return its standard output."""
    _need("typer", "rich")
    from typer.testing import CliRunner

    from cli.main import app

    os.environ["EMBEDKIT_PRECISION"] = "fp32"
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exit_code:
        raise RuntimeError(
            f"embedkit {' '.join(map(str, words))} ended with {done.exit_code}: {done.output}"
        ) from done.exception
    return done.stdout


def _need(*modules: str) -> None:
    if absent := missing({name: WANTED[name] for name in modules}):
        raise SkipError(f"missing packages: {', '.join(absent.values())}")

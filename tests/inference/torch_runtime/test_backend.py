"""Running with torch: half precisions, and devices that are not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from embedkit.checkpoint.folder import read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import DeviceError
from embedkit.inference.torch_runtime.backend import choose_device
from embedkit.inference.torch_runtime.models import TorchSentence, load_torch
from embedkit.types import Precision

TEXTS = ["the dog runs", "a small red horse eats a large green guitar by the beach", ""]
CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_nearly_the_same_vectors_in_float32(
    tiny_model: Path, precision: Precision
) -> None:
    exact = Encoder.load(tiny_model, device="cpu", backend="torch").encode(TEXTS)
    half = Encoder.load(
        tiny_model, device="cpu", backend="torch", precision=precision, force_precision=True
    ).encode(TEXTS)
    assert half.dtype == np.float32
    assert (half * exact).sum(axis=1).min() > 0.999
    assert np.abs(half - exact).max() > 1e-6  # it was another precision


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert choose_device("cpu") == CPU
    missing = [name for name, there in (("cuda", torch.cuda.is_available()), ("mps", False)) if not there]
    for name in missing:
        with pytest.raises(
            DeviceError, match=rf"device '{name}' is not to be had here; there is: cpu.*--device auto"
        ):
            choose_device(name)  # type: ignore[arg-type] # one of the names
    if "cuda" in missing and not torch.backends.mps.is_available():
        assert choose_device("auto") == CPU


def test_the_backend_says_what_it_is_and_stays_in_evaluation(tiny_model: Path) -> None:
    read = read_model_folder(tiny_model)
    backend = load_torch(read, output="pooled", device="cpu", precision="fp32")
    assert isinstance(backend, TorchSentence)
    assert repr(backend) == "torch on cpu, fp32"
    assert not backend.model.training

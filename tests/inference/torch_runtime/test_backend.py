"""Running with torch: half precisions, every family on a GPU, and devices that are not there."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from embedkit.checkpoint.folder import read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import DeviceError
from embedkit.inference.torch_runtime.backend import choose_device
from embedkit.inference.torch_runtime.models import TorchSentence, load_torch
from embedkit.model.config import SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from embedkit.types import Device, Precision
from tests.conftest import DEVICES
from tests.tiny import FAMILY_SHAPES, tiny_config, tiny_tokenizer

TEXTS = ["the dog runs", "a small red horse eats a large green guitar by the beach", ""]
CPU = torch.device("cpu")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_gives_nearly_the_same_vectors_in_float32(
    tiny_model: Path, precision: Precision, device: Device
) -> None:
    exact = Encoder.load(tiny_model, device="cpu", backend="torch").encode(TEXTS)
    half = Encoder.load(
        tiny_model, device=device, backend="torch", precision=precision, force_precision=True
    ).encode(TEXTS)
    assert half.dtype == np.float32
    assert (half * exact).sum(axis=1).min() > 0.999
    assert np.abs(half - exact).max() > 1e-6  # it was another precision


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", FAMILY_SHAPES)
def test_every_family_gives_the_vectors_of_the_cpu(family: str, device: str) -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(tiny_config(**FAMILY_SHAPES[family]))
    model = SentenceEncoder(encoder, SentenceConfig(normalize=True))
    batch = tiny_tokenizer().encode(TEXTS)
    here, there = (
        TorchSentence(copy.deepcopy(model), device=torch.device(name), precision="fp32")
        for name in ("cpu", device)
    )
    np.testing.assert_allclose(there.pooled(batch), here.pooled(batch), rtol=0, atol=1e-5)
    np.testing.assert_allclose(there.hidden_states(batch), here.hidden_states(batch), rtol=0, atol=1e-4)


def test_a_device_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert choose_device("cpu") == CPU
    missing = [name for name, there in (("cuda", torch.cuda.is_available()), ("mps", False)) if not there]
    for name in missing:
        with pytest.raises(
            DeviceError, match=rf"device '{name}' is not available here; available: cpu.*--device auto"
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

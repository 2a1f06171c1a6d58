"""What computes which model: every case, and the messages where nothing does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from embedkit.errors import DeviceError
from embedkit.inference import choice as choosing
from embedkit.inference.choice import (
    Choice,
    choose_device_type,
    choose_runtime,
    token_budget,
)
from embedkit.machine import gpu_may_be_there
from embedkit.native.dispatch import is_generic, why_not_here
from embedkit.types import Device, Precision
from tests.tiny import FAMILY_SHAPES, tiny_config

NUMPY = (
    "embedkit",
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "mpnet",
    "albert",
    "electra",
)
PLAIN = tiny_config(num_attention_heads=2)
LOW_RANK = tiny_config(num_attention_heads=2, attention="low_rank", attention_rank=8)


@pytest.fixture
def all_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that multiplies bf16 and has the kernels, whatever this one is."""
    monkeypatch.setattr("embedkit.native.encoder.why_not", _only_plain)
    monkeypatch.setattr(choosing, "cpu_flags", lambda: frozenset({"avx512_bf16"}))


@pytest.fixture
def no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "embedkit.native.encoder.why_not", lambda config, precision: "this processor has no avx512f"
    )
    monkeypatch.setattr(choosing, "cpu_flags", lambda: frozenset({"avx2"}))


def _only_plain(config: object, precision: str) -> str | None:
    return "low-rank attention is not written natively" if config is LOW_RANK else None


@pytest.mark.usefixtures("all_flags")
def test_kernels_come_first_on_a_processor_that_has_them() -> None:
    for precision in ("fp32", "bf16", "int8"):
        choice = choose_runtime(PLAIN, precision, "cpu")
        assert (choice.runtime, choice.precision, choice.reason) == ("native", precision, "")


@pytest.mark.parametrize("family", ["mpnet", "albert", "electra"])
def test_kernels_compute_families_with_more_than_bert_has(family: str) -> None:
    if reason := why_not_here("fp32"):
        pytest.skip(reason)
    config = tiny_config(**FAMILY_SHAPES[family] | {"num_attention_heads": 2})
    for precision in ("fp32", "int8"):
        assert choose_runtime(config, precision, "cpu", wanted="native").runtime == "native"
    few = choose_runtime(config, "fp32", "cpu", interactive=True)
    assert (few.runtime, choose_runtime(config, "fp32", "cpu").runtime == "native") == (
        "numpy",
        not is_generic(),
    )


@pytest.mark.parametrize("family", [family for family in FAMILY_SHAPES if family not in NUMPY])
def test_kernels_compute_families_that_numpy_does_not(family: str) -> None:
    if reason := why_not_here("fp32"):
        pytest.skip(reason)
    larger = {"num_attention_heads": 2, "hidden_size": 64, "head_dim": 32}
    config = tiny_config(**FAMILY_SHAPES[family] | larger)
    for precision in ("fp32", "int8"):
        assert choose_runtime(config, precision, "cpu", wanted="native").runtime == "native"
    few = choose_runtime(config, "fp32", "cpu", interactive=True)
    assert few.runtime == "native"
    assert few.reason.startswith("not numpy: it has ")


@pytest.mark.usefixtures("all_flags")
def test_torch_computes_what_the_kernels_do_not_and_says_why() -> None:
    for precision in ("fp32", "bf16"):
        choice = choose_runtime(LOW_RANK, precision, "cpu")
        assert choice.runtime == "torch"
        assert choice.reason == "not native: low-rank attention is not written natively"
    assert choose_runtime(PLAIN, "fp32", "cuda").runtime == "torch"
    assert (
        choose_runtime(PLAIN, "fp16", "mps").reason == "not native: it computes on the CPU only, not on mps"
    )


@pytest.mark.usefixtures("all_flags")
def test_numpy_computes_a_handful_of_texts_in_fp32() -> None:
    assert choose_runtime(PLAIN, "fp32", "cpu", interactive=True).runtime == "numpy"
    choice = choose_runtime(PLAIN, "bf16", "cpu", interactive=True)
    assert (choice.runtime, choice.reason) == ("native", "not numpy: it computes in fp32 only")
    assert choose_runtime(LOW_RANK, "fp32", "cpu", interactive=True).runtime == "torch"


@pytest.mark.usefixtures("no_flags")
def test_torch_computes_many_texts_where_there_are_no_kernels() -> None:
    assert choose_runtime(PLAIN, "fp32", "cpu").runtime == "torch"
    assert choose_runtime(PLAIN, "fp32", "cpu", interactive=True).runtime == "numpy"


def test_a_static_model_is_a_numpy_array() -> None:
    assert choose_runtime(None, "fp32", "cpu").runtime == "numpy"
    assert choose_runtime(None, "bf16", "cuda").runtime == "torch"
    with pytest.raises(
        DeviceError, match="'int8' is computed by the native backend alone, and not here: a static model"
    ):
        choose_runtime(None, "int8", "cpu")


@pytest.mark.usefixtures("no_flags")
@pytest.mark.parametrize(
    ("precision", "message"),
    [
        (
            "bf16",
            "precision 'bf16': this processor has none of avx512_bf16, amx_bf16, bf16 and would emulate it, slower than fp32. Use --precision fp32, or --force-precision to have it all the same",
        ),
        (
            "fp16",
            "precision 'fp16': this processor has none of amx_fp16, avx512_fp16, fphp and would emulate it",
        ),
        (
            "int8",
            "precision 'int8' is computed by the native backend alone, and not here: this processor has no avx512f. Use --precision auto, fp32 or bf16",
        ),
    ],
)
def test_what_nothing_computes_is_refused_with_the_reason(precision: Precision, message: str) -> None:
    with pytest.raises(DeviceError, match="^" + re.escape(message)):
        choose_runtime(PLAIN, precision, "cpu")
    if precision != "int8":
        assert choose_runtime(PLAIN, precision, "cpu", force=True).runtime == "torch"


@pytest.mark.usefixtures("no_flags")
def test_a_runtime_that_was_asked_for_is_taken_or_refused() -> None:
    assert choose_runtime(PLAIN, "fp32", "cpu", wanted="numpy").reason == "asked for"
    message = (
        "the native backend does not compute this model in fp32 here: this processor has no avx512f. Leave"
    )
    with pytest.raises(DeviceError, match=re.escape(message)):
        choose_runtime(PLAIN, "fp32", "cpu", wanted="native")


def test_devices_without_looking_for_a_gpu_where_there_can_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Device] = []

    def choose_device(device: Device) -> torch.device:
        asked.append(device)
        return torch.device("cuda")

    monkeypatch.setattr("embedkit.inference.torch_runtime.backend.choose_device", choose_device)
    monkeypatch.setattr(choosing, "gpu_may_be_there", lambda: False)
    assert [choose_device_type(name) for name in ("cpu", "auto")] == ["cpu", "cpu"]
    assert asked == []
    monkeypatch.setattr(choosing, "gpu_may_be_there", lambda: True)
    assert choose_device_type("auto") == "cuda"
    assert choose_device_type("auto", prefer_cpu=True) == "cpu"  # done before a GPU is awake
    assert choose_device_type("cuda", prefer_cpu=True) == "cuda"
    assert asked == ["auto", "cuda"]


def test_a_gpu_that_is_hidden_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/nvidiactl")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_may_be_there()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not gpu_may_be_there()


@pytest.mark.usefixtures("all_flags")
def test_torch_comes_before_kernels_in_plain_c_where_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedkit.native.dispatch.is_generic", lambda: True)
    choice = choose_runtime(PLAIN, "fp32", "cpu")
    assert choice.runtime == "torch"
    assert (
        choice.reason
        == "not native: for this processor there are only its kernels in plain C, which torch outruns"
    )
    assert choose_runtime(PLAIN, "fp32", "cpu", wanted="native").runtime == "native"
    assert choose_runtime(PLAIN, "fp32", "cpu", merge=True).runtime == "native"
    assert choose_runtime(PLAIN, "int8", "cpu").runtime == "native"  # which torch lacks


@pytest.mark.parametrize(("cores", "tokens"), [(1, 16_384), (8, 16_384), (64, 131_072)])
def test_many_cores_get_more_tokens_at_a_time(
    cores: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least ten chunks of 192 each."""
    monkeypatch.setattr(choosing, "num_cores", lambda: cores)
    assert token_budget(Choice("native", "cpu", "fp32", "")) == tokens

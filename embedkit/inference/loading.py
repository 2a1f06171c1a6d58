"""From a model folder to what computes it: the choice, and the backend that follows it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from embedkit.checkpoint.folder import ModelFolder, fingerprint
from embedkit.inference.backend import Backend
from embedkit.inference.choice import Choice, choose_device_type, choose_runtime
from embedkit.inference.precision import settle
from embedkit.inference.sample import SAMPLE_TEXTS, sample_batches
from embedkit.types import Device, Float32, Precision, WantedPrecision, WantedRuntime


def choose(
    folder: ModelFolder,
    *,
    device: Device = "auto",
    precision: WantedPrecision = "fp32",
    force: bool = False,
    backend: WantedRuntime = "auto",
    few: bool = False,
    merge: bool = False,
) -> Choice:
    """Choose what computes an encoder; see `embedkit.inference.choice` and `embedkit.inference.precision`.

    Raises:
        DeviceError: the device, or the precision with this model, is not to be had here.
    """
    kind = choose_device_type(device, few=few or merge)  # what merges tokens computes on the CPU

    def each(wanted: Precision) -> Choice:
        return choose_runtime(
            folder.config,
            wanted,
            kind,
            static=folder.static,
            few=few,
            wanted=backend,
            force=force,
            merge=merge,
        )

    if precision == "auto" and (few or folder.static):
        return each("fp32")
    load = partial(_load_sample, folder)
    return settle(
        precision, each, load, fingerprint(folder) if precision in ("auto", "int8") else {}, measure=not few
    )


def load_backend(folder: ModelFolder, choice: Choice, *, merge_tokens: float = 0.0) -> Backend:
    """Load a folder's weights into what was chosen; it must merge tokens where `merge_tokens` is not 0.

    Raises:
        CheckpointError: the weights do not fit the folder's config.
    """
    if choice.runtime == "torch":
        from embedkit.inference.torch_runtime.backend import TorchBackend

        return TorchBackend.load(folder, device=choice.device, precision=choice.precision)
    if choice.runtime == "onnx" or choice.runtime == "openvino":
        from embedkit.inference.graph_runtime.backend import GraphBackend
        from embedkit.inference.graph_runtime.export import cached_graph

        file = cached_graph(folder, choice.runtime, reference=partial(load_reference, folder))
        return GraphBackend.load(folder, file, runtime=choice.runtime, precision=choice.precision)
    from embedkit.inference.numpy_runtime.backend import PackedBackend

    return PackedBackend.load(
        folder, runtime=choice.runtime, precision=choice.precision, merge_tokens=merge_tokens
    )


def load_reference(folder: ModelFolder) -> Backend:
    """Load our own encoder in fp32 on the CPU, with which others are compared."""
    return load_backend(folder, choose(folder, device="cpu"))


def _load_sample(folder: ModelFolder, choice: Choice) -> Callable[[], Float32]:
    """Load a backend, and return what encodes the sample texts with it."""
    backend, batches = load_backend(folder, choice), sample_batches(folder.tokenizer.encode(SAMPLE_TEXTS))
    return lambda: np.concatenate([backend.forward(batch) for batch in batches])

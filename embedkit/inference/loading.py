"""From a model folder to what computes it: the choice, and the backend that follows it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from embedkit.checkpoint.classification import ClassifierFolder
from embedkit.checkpoint.folder import ModelFolder, fingerprint
from embedkit.inference.backend import AnyFolder, Backend, Output
from embedkit.inference.choice import Choice, choose_device_type, choose_runtime
from embedkit.inference.precision import settle
from embedkit.inference.precision_measuring import Sample
from embedkit.inference.sample import compared, sample_batches, sample_parts, sample_tokens
from embedkit.types import Device, Float32, Precision, WantedPrecision, WantedRuntime


def choose(
    folder: AnyFolder,
    *,
    output: Output | None = None,
    device: Device = "auto",
    precision: WantedPrecision = "fp32",
    force: bool = False,
    backend: WantedRuntime = "auto",
    interactive: bool = False,
    merge: bool = False,
    measure: bool = True,
) -> Choice:
    """Choose what computes a model; see `embedkit.inference.choice` and `embedkit.inference.precision`.

    `output` is what will be asked of the model; None: a cross-encoder's class logits, an encoder's pooled vectors.
    `interactive` says that somebody waits for the answer to one query. Nothing is measured then; an encoder, which has
    only a handful of short texts to read, is computed by what starts fastest, in fp32 where the precision is open. Without
    `measure` nothing is measured either.

    Raises:
        DeviceError: the device, or the precision with this model, is not available here.
    """
    pairs = isinstance(folder, ClassifierFolder)
    output = output or ("class_logits" if pairs else "pooled")
    config = None if isinstance(folder, ModelFolder) and folder.static else folder.config
    sentence = folder.modules.sentence if isinstance(folder, ModelFolder) else None
    handful = interactive and not pairs  # a cross-encoder reads many texts for one query
    kind = choose_device_type(device, prefer_cpu=handful or merge)  # what merges tokens computes on the CPU

    def each(wanted: Precision) -> Choice:
        return choose_runtime(
            config,
            wanted,
            kind,
            sentence=sentence,
            output=output,
            interactive=handful,
            wanted=backend,
            force=force,
            merge=merge,
        )

    if precision == "auto" and (handful or config is None):
        return each("fp32")
    model = _measured_model(folder, output) if precision in ("auto", "int8") else {}
    return settle(precision, each, partial(_load_sample, folder), model, measure=measure and not interactive)


def load_backend(folder: AnyFolder, choice: Choice, *, merge_tokens: float = 0.0) -> Backend:
    """Load a folder's weights into what was chosen; it must merge tokens where `merge_tokens` is not 0.

    Raises:
        CheckpointError: the weights do not fit the folder's config.
    """
    if choice.runtime == "torch":
        from embedkit.inference.torch_runtime.models import load_torch

        return load_torch(folder, output=choice.output, device=choice.device, precision=choice.precision)
    if choice.runtime == "onnx" or choice.runtime == "openvino":
        from embedkit.inference.graph_runtime.backend import GraphBackend
        from embedkit.inference.graph_runtime.export import cached_graph

        assert isinstance(folder, ModelFolder)  # a graph computes no class scores
        file = cached_graph(folder, choice.runtime, reference=partial(load_reference, folder))
        return GraphBackend.load(folder, file, runtime=choice.runtime, precision=choice.precision)
    from embedkit.inference.numpy_runtime.backend import load_packed

    return load_packed(
        folder,
        runtime=choice.runtime,
        precision=choice.precision,
        merge_tokens=merge_tokens,
        terms=choice.output == "term_weights",
    )


def load_reference(folder: ModelFolder) -> Backend:
    """Load our own encoder in fp32 on the CPU, with which others are compared."""
    return load_backend(folder, choose(folder, device="cpu"))


def _load_sample(folder: AnyFolder, choice: Choice) -> Sample:
    """Load a backend, and return what computes with it what precisions are compared by."""
    backend, tokens = load_backend(folder, choice), sample_tokens(folder)
    parts = sample_parts(tokens)

    def compute(start: int, stop: int) -> Float32:
        batches = sample_batches(tokens.take(np.concatenate(parts[start:stop])))
        return np.concatenate([compared(backend, batch, choice.output) for batch in batches])

    return Sample(len(parts), compute)


def _measured_model(folder: AnyFolder, output: Output) -> dict[str, Any]:  # Any: whatever JSON holds
    """Name the model under which what was measured is kept."""
    if isinstance(folder, ClassifierFolder):
        return {**folder.fingerprint, "kind": "cross-encoder"}
    kinds: dict[Output, str] = {
        "mlm_logits": "masked language model",
        "hidden_states": "token vectors",
        "term_weights": "learned sparse model",
    }
    return fingerprint(folder) | ({"kind": kinds[output]} if output in kinds else {})

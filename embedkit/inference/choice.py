"""Which runtime computes a model, on which device, and why: the one place where that is decided.

1. The device: the one that was asked for; `auto` takes CUDA, then MPS, then the CPU. A handful of texts stays on the CPU,
   which is done before a GPU is awake.
2. On a GPU torch computes, as it does whatever nothing else here can.
3. On a CPU a static model is a numpy array, and a transformer goes to our kernels where the processor and the model allow;
   where all that the processor can run is those in plain C, torch comes first.
4. A handful of texts goes to numpy where it computes the model: it reads the weights where they lie in the file, which
   our kernels pack first, and torch takes longer to start than such texts take.
5. ONNX Runtime and OpenVINO, which are optional, compute where they are asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from embedkit.errors import DeviceError
from embedkit.extras import need_extra
from embedkit.inference import token_merging as merging
from embedkit.inference.backend import OUTPUT_NAMES, Output
from embedkit.inference.numpy_runtime import encoder as numpy_encoder
from embedkit.machine import BF16_FLAGS, FP16_FLAGS, INT8_FLAGS, cpu_flags, gpu_may_be_there, num_cores
from embedkit.model.config import EncoderConfig, SentenceConfig
from embedkit.model.sentence_config import RareActivation
from embedkit.types import Device, DeviceType, Precision, Runtime, WantedRuntime


@dataclass(frozen=True)
class PrecisionFinding:
    """What one precision was found to be (see `embedkit.inference.precision`): its cosines to fp32, and its speed.

    On a CPU the seconds are those of the processor, of all its cores together.
    """

    precision: Precision
    mean_cosine: float
    worst_cosine: float
    texts_per_second: float


@dataclass(frozen=True)
class Choice:
    """What computes which output of a model, where, in which precision; why not what would be faster; and what was measured.

    `unmeasured` are the precisions that there was no time for; `fresh` says that the findings were made for this choice.
    """

    runtime: Runtime
    device: DeviceType
    precision: Precision
    reason: str
    findings: tuple[PrecisionFinding, ...] = ()
    output: Output = "pooled"
    unmeasured: tuple[Precision, ...] = ()
    fresh: bool = field(default=False, compare=False)

    @property
    def finding(self) -> PrecisionFinding | None:
        """What was measured of the precision that was chosen."""
        return next((each for each in self.findings if each.precision == self.precision), None)


# What each runtime computes, whatever the model. A graph ends in a sentence's vector; only torch gives a
# masked-language-model head's logits themselves.
_OUTPUTS: dict[Runtime, tuple[Output, ...]] = {
    "native": ("pooled", "hidden_states", "class_logits", "term_weights"),
    "numpy": ("pooled", "hidden_states", "class_logits", "term_weights"),
    "torch": get_args(Output),
    "onnx": ("pooled", "hidden_states"),
    "openvino": ("pooled", "hidden_states"),
}
# ONNX Runtime has an int8, too: with mean cosines of .93 to .96 to fp32 it is left out.
GRAPH_PRECISIONS: dict[Runtime, tuple[Precision, ...]] = {
    "onnx": ("fp32",),
    "openvino": ("fp32", "bf16", "int8"),
}
# Tokens in one forward pass of torch on a CPU: activations of about this many stay in the caches.
CPU_TOKEN_BUDGET = 2048
# Our kernels cut a call into chunks that fit the caches; of many chunks none is left alone with a core at the end.
NATIVE_TOKEN_BUDGET = 16_384
# More than eight cores get so many tokens each, which are ten chunks: of fewer many cores would have one more than others, or none.
NATIVE_TOKENS_PER_CORE = 2048
# A GPU wants far more work at a time than a CPU's caches hold.
GPU_TOKEN_BUDGET = 65_536


def token_budget(choice: Choice) -> int:
    """Return how many tokens to compute at a time."""
    if choice.device != "cpu":
        return GPU_TOKEN_BUDGET
    whole = choice.runtime in ("native", *GRAPH_PRECISIONS)  # these cut a call into pieces themselves
    return max(NATIVE_TOKEN_BUDGET, num_cores() * NATIVE_TOKENS_PER_CORE) if whole else CPU_TOKEN_BUDGET


def choose_device_type(device: Device, *, prefer_cpu: bool = False) -> DeviceType:
    """Turn a name into a kind of device; torch is imported only where there may be a GPU.

    With `prefer_cpu`, `auto` is the CPU.

    Raises:
        DeviceError: the device is not there.
    """
    if device == "cpu" or (device == "auto" and (prefer_cpu or not gpu_may_be_there())):
        return "cpu"
    from embedkit.inference.torch_runtime.backend import choose_device

    found: DeviceType = choose_device(device).type  # type: ignore[assignment] # torch types it as str
    return found


def choose_runtime(
    config: EncoderConfig | None,
    precision: Precision,
    device: DeviceType,
    *,
    sentence: SentenceConfig | None = None,
    output: Output = "pooled",
    interactive: bool = False,
    wanted: WantedRuntime = "auto",
    force: bool = False,
    merge: bool = False,
) -> Choice:
    """Choose what computes a model; `config` is None for a static one, which has no layers.

    `sentence` says what stands on a sentence encoder. `interactive` says that it will be a handful of short texts, `force` takes an
    emulated precision. With `merge` only what merges tokens (see `embedkit.inference.token_merging`) is taken.

    Raises:
        DeviceError: nothing here computes this model in this precision on this device, or not what was asked for.
    """
    if wanted != "auto":
        order: Sequence[Runtime] = (wanted,)
    elif interactive or config is None:
        order = ("numpy", "native", "torch")
    elif merge:
        order = ("native", "numpy", "torch")
    else:
        order = ("native", "torch")
    reasons: dict[Runtime, str] = {}
    for runtime in order:
        reason = merging.why_not(runtime, config) if merge else None
        reason = reason or why_not_parts(runtime, config, sentence)
        reason = reason or _why_not(runtime, config, precision, device, output=output, force=force)
        if reason is None and runtime == "native" and not merge and not interactive and wanted == "auto":
            reason = _why_torch_before_native(precision, device, force=force)
        if reason is None:
            before = "; ".join(f"not {name}: {why}" for name, why in reasons.items())
            why = "asked for" if wanted != "auto" else before
            return Choice(runtime, device, precision, why, output=output)
        reasons[runtime] = reason
    if wanted != "auto":
        raise DeviceError(
            f"the {wanted} backend does not compute this model in {precision} here: {reasons[wanted]}. "
            "Leave the choice to --backend auto"
        )
    if merge:
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise DeviceError(
            f"nothing here merges tokens of this model in {precision} on {device} ({why}). Leave out --merge-tokens"
            + ("" if device == "cpu" else ", or compute with --device cpu")
        )
    raise _nothing(precision, reasons)


def why_not_parts(
    runtime: Runtime, config: EncoderConfig | None, sentence: SentenceConfig | None
) -> str | None:
    """Say which part of a model that is none of the usual ones a runtime lacks, on any machine; None where it has all."""
    if runtime == "torch" or config is None:
        return None
    if sentence is not None and sentence.layer_start is not None:
        return "it gives the last layer alone, and this model takes a mean of several"
    if runtime not in GRAPH_PRECISIONS:
        return None
    if config.routed is not None:
        return f"a model with {config.routed} is not written as a graph"
    if config.attention_variant:
        return f"{config.attention_variant} is not written as a graph"
    if sentence is not None and sentence.attention is not None:
        return "pooling by attention is not written as a graph"
    if sentence is not None and any(getattr(layer, "residual", False) for layer in sentence.dense):
        return "a dense layer with a residual is not written as a graph"
    activations = (
        [getattr(layer, "activation", "") for layer in sentence.dense] if sentence is not None else []
    )
    if rare := [name for name in activations if name in get_args(RareActivation)]:
        return f"the activation {rare[0]!r} is not written as a graph"
    return None


def _why_not(
    runtime: Runtime,
    config: EncoderConfig | None,
    precision: Precision,
    device: DeviceType,
    *,
    output: Output,
    force: bool,
) -> str | None:
    """Say why a runtime does not compute this; None where it does."""
    if output not in _OUTPUTS[runtime]:
        return f"it computes no {OUTPUT_NAMES[output]}"
    if runtime == "torch":
        return why_not_torch(precision, device, force=force)
    if device != "cpu":
        return f"it computes on the CPU only, not on {device}"
    if runtime == "numpy":
        if precision != "fp32":
            return "it computes in fp32 only"
        return None if config is None else numpy_encoder.why_not(config)
    if config is None:
        return "a static model is a table"
    if runtime in GRAPH_PRECISIONS:
        return _why_not_graph(runtime, precision)
    if precision == "fp16":
        return "it computes in fp32, bf16 and int8"
    from embedkit.native.encoder import why_not

    return why_not(config, precision)


def _why_torch_before_native(precision: Precision, device: DeviceType, *, force: bool) -> str | None:
    """Say why torch, which can compute this, is the faster one; None where our kernels are."""
    from embedkit.native.dispatch import is_generic

    if why_not_torch(precision, device, force=force) is not None or not is_generic():
        return None
    return "for this processor there are only its kernels in plain C, which torch outruns"


def _why_not_graph(runtime: Runtime, precision: Precision) -> str | None:
    """Say why an exported graph is not computed in a precision; None where it is.

    Raises:
        MissingExtraError: the runtime is not installed.
    """
    need_extra({"onnx": "onnxruntime"}.get(runtime, runtime), purpose=f"the {runtime} backend")
    if precision not in GRAPH_PRECISIONS[runtime]:
        return f"it computes in {' and '.join(GRAPH_PRECISIONS[runtime])}"
    flags = {"bf16": BF16_FLAGS, "int8": INT8_FLAGS}.get(precision)
    if flags is None or cpu_flags() & set(flags):
        return None
    return f"this processor has none of {', '.join(flags)}"


def why_not_torch(precision: Precision, device: DeviceType, *, force: bool = False) -> str | None:
    """Say why torch is not to compute in a precision; None where it may.

    A half precision that the processor only emulates is slower than fp32: it is not taken unless it is forced.
    """
    if precision == "int8":
        return "it computes in fp32, bf16 and fp16"
    if device != "cpu" or precision == "fp32" or force:
        return None
    flags = BF16_FLAGS if precision == "bf16" else FP16_FLAGS
    if cpu_flags() & set(flags):
        return None
    return f"this processor has none of {', '.join(flags)} and would emulate it, slower than fp32"


def _nothing(precision: Precision, reasons: Mapping[Runtime, str]) -> DeviceError:
    if precision == "int8":
        return DeviceError(
            f"precision 'int8' is computed by the native backend alone, and not here: {reasons['native']}. "
            "Use --precision auto, fp32 or bf16"
        )
    return DeviceError(
        f"precision {precision!r}: {reasons['torch']}. Use --precision fp32",
        ", or --force-precision to have it all the same",
    )

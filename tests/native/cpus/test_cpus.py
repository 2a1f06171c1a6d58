"""The kernels of 64-bit ARM, cross-compiled and run on emulated processors: whole encoders against torch, and exact int8."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from embedkit.model.config import EncoderConfig
from embedkit.native.dispatch import CPU_FEATURES
from embedkit.native.library import PRECISION_CODES, NativePrecision
from embedkit.native.packing import ACTIVATION_CODES, order_of_heads
from tests.conftest import REPOSITORY
from tests.native.models import FAMILIES, Float32, cosines, random_model, random_tokens, reference

pytestmark = pytest.mark.cpus

KERNELS = REPOSITORY / "embedkit" / "native" / "kernels"
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
# As in setup.py, with warnings as errors.
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
INT8 = ("codes", "gemm_int8")
FP32 = tuple(
    name
    for name in sorted(file.stem for file in (KERNELS / "common").glob("*.c"))
    if name not in INT8 and not name.endswith("bf16")
)
SETS = (
    ("generic", "generic", "generic", FP32 + INT8, ()),
    ("neon", "neon", "neon", FP32 + INT8, ()),
    ("neondot", "neon", "neon", INT8, ("-march=armv8.2-a+dotprod",)),
)
BITS = {name: 1 << bit for bit, name in enumerate(CPU_FEATURES)}
# Processors and the best kernels of int8 that they have: the first ones without dot products, then with.
PROCESSORS = {"cortex-a72": "neon", "neoverse-n1": "neondot", "max": "neondot"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt install gcc-aarch64-linux-gnu qemu-user-static)")
    folder = tmp_path_factory.mktemp("arm")
    objects = []
    for name, where, base, sources, flags in SETS:
        macros = (f"-DSET={name}", f"-DBASE={base}", f'-DNAME="{name}"')
        folders = (f"-I{KERNELS / where}", f"-I{KERNELS / 'common'}")
        for source in sources:
            objects.append(folder / f"{name}-{source}.o")
            _compile(*flags, *macros, *folders, "-c", KERNELS / "common" / f"{source}.c", "-o", objects[-1])
    has = (f"-DHAS_{name}" for name, *_ in SETS)
    neutral = (*sorted(KERNELS.glob("*.c")), Path(__file__).parent / "run_model.c")
    _compile(
        *has, f"-I{KERNELS}", *neutral, *objects, "-static", "-pthread", "-lm", "-o", folder / "run_model"
    )
    return folder / "run_model"


def _compile(*arguments: str | Path) -> None:
    done = subprocess.run([COMPILER, *FLAGS, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _run(program: Path, processor: str, *arguments: object) -> str:
    command = [EMULATOR, "-cpu", processor, str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@cache
def _written(family: str, path: Path) -> Float32:
    """Write a model and some tokens for the program; returns what torch makes of them."""
    config = FAMILIES[family]
    encoder, weights = random_model(config)
    ids, lengths = random_tokens(config, [1, 7, 16, 33, 80])
    order = order_of_heads(config)
    with path.open("wb") as file:
        header = (*_shape(config), len(ids), len(lengths), len(order))
        file.write(np.array(header, np.int64).tobytes() + np.float64(config.layer_norm_eps).tobytes())
        for table in ("tokens.weight", "positions.weight", "token_types.weight", "norm.weight", "norm.bias"):
            file.write(weights[f"embeddings.{table}"].tobytes())
        for layer in range(config.num_hidden_layers):
            for part in ("attention.qkv", "attention.out", "mlp.up", "mlp.down"):
                for kind in ("weight", "bias"):
                    array = weights[f"layers.{layer}.{part}.{kind}"]
                    if part == "attention.qkv":
                        array = np.where((order >= 0).reshape(-1, *(1,) * (array.ndim - 1)), array[order], 0)
                    file.write(array.astype(np.float32).tobytes())
            for norm in ("attention_norm", "mlp_norm"):
                for kind in ("weight", "bias"):
                    file.write(weights[f"layers.{layer}.{norm}.{kind}"].tobytes())
        file.write(ids.tobytes() + lengths.tobytes())
    return reference(encoder, ids, lengths)


def _shape(config: EncoderConfig) -> tuple[int, ...]:
    return (
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        config.num_hidden_layers,
        ACTIVATION_CODES[config.hidden_act],
        config.position_offset,
        config.vocab_size,
        config.max_position_embeddings,
        config.type_vocab_size,
    )


@pytest.mark.parametrize(("processor", "best"), PROCESSORS.items())
def test_each_processor_gets_the_best_kernels_that_it_has(program: Path, processor: str, best: str) -> None:
    features = int(_run(program, processor, "features"))
    assert features == BITS["neon"] | (BITS["dotprod"] if best == "neondot" else 0)
    assert _run(program, processor, features, "products") == f"{best} 0"


@pytest.mark.parametrize("features", ["", "neon"])
def test_products_of_int8_are_exact_at_lower_levels(program: Path, features: str) -> None:
    name = features or "generic"
    assert _run(program, "cortex-a72", BITS.get(features, 0), "products") == f"{name} 0"


@pytest.mark.parametrize("family", ["bert", "relu", "hidden 96, heads of 48", "hidden 384, heads of 32"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_whole_encoder_computes_what_torch_does(
    program: Path, processor: str, precision: NativePrecision, family: str, tmp_path: Path
) -> None:
    model, output = program.parent / f"{family}.bin", tmp_path / "out"
    expected = _written(family, model)
    features = int(_run(program, processor, "features"))
    _run(program, processor, features, PRECISION_CODES[precision], model, output)
    found = np.fromfile(output, np.float32).reshape(expected.shape)
    if precision == "fp32":
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    else:
        assert cosines(found, expected).mean() > 0.999

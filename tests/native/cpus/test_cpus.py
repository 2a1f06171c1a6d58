"""The kernels of processors that are emulated: whole encoders against torch, attention, and exact int8.

Those of 64-bit ARM are cross-compiled and run by QEMU. Of AMX, which it does not know, the tile instructions are written in plain C.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedkit.model.config import EncoderConfig
from embedkit.native.dispatch import CPU_FEATURES, LEVELS
from embedkit.native.distances import alibi_table, distance_numbers, distance_table
from embedkit.native.library import PRECISION_CODES, NativePrecision
from embedkit.native.packing import (
    ACTIVATION_CODES,
    ROOM,
    added_by_distance,
    distance_heads,
    is_shifted,
    norms_behind,
    order_of_heads,
    reach_of,
)
from embedkit.native.rotary import rotary_rows
from tests.conftest import REPOSITORY
from tests.native.models import FAMILIES, Float32, cosines, random_model, random_tokens, reference

pytestmark = pytest.mark.cpus

KERNELS = REPOSITORY / "embedkit" / "native" / "kernels"
HERE = Path(__file__).parent
# As in setup.py, with warnings as errors.
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
BF16, INT8 = ("attention_bf16", "gemm_bf16"), ("codes", "gemm_int8")
FP32 = tuple(
    name for name in sorted(file.stem for file in (KERNELS / "common").glob("*.c")) if name not in INT8 + BF16
)
Sets = tuple[tuple[str, Path, str, tuple[str, ...], tuple[str, ...]], ...]
GENERIC = ("generic", KERNELS / "generic", "generic", FP32 + INT8, ())
ARM: Sets = (
    GENERIC,
    ("neon", KERNELS / "neon", "neon", FP32 + INT8, ()),
    ("neondot", KERNELS / "neon", "neon", INT8, ("-march=armv8.2-a+dotprod",)),
)
TILES: Sets = (GENERIC, ("amx", HERE / "emulated_amx", "generic", BF16 + INT8, ()))
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
# Of the embeddings, as they are read; a model has some of them.
TABLES = ("tokens.weight", "positions.weight", "token_types.weight")
# One for each kind of piece; ModernBERT's window is 24, so that the longest text reaches beyond it.
ENCODERS = [
    "bert",
    "relu",
    "hidden 96, heads of 48",
    "hidden 384, heads of 32",
    "mpnet",
    "albert",
    "modernbert",
    "nomic",
    "qwen3",
    "gemma3",
    "t5",
    "deberta",
]
BITS = {name: 1 << bit for bit, name in enumerate(CPU_FEATURES)}
AMX_BITS = sum(BITS[name] for name in LEVELS["amx"])
# Processors and the best kernels of int8 that they have: the first ones without dot products, then with.
PROCESSORS = {"cortex-a72": "neon", "neoverse-n1": "neondot", "max": "neondot"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt install gcc-aarch64-linux-gnu qemu-user-static)")
    return _build(COMPILER, ARM, tmp_path_factory.mktemp("arm"), "-static")


@pytest.fixture(scope="module")
def with_tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    return _build("gcc", TILES, tmp_path_factory.mktemp("amx"))


def _build(compiler: str, sets: Sets, folder: Path, *link: str) -> Path:
    def compile_with(*arguments: str | Path) -> None:
        done = subprocess.run([compiler, *FLAGS, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    objects = []
    for name, where, base, sources, flags in sets:
        macros = (f"-DSET={name}", f"-DBASE={base}", f'-DNAME="{name}"')
        folders = (f"-I{where}", f"-I{KERNELS / 'common'}")
        for source in sources:
            objects.append(folder / f"{name}-{source}.o")
            compile_with(
                *flags, *macros, *folders, "-c", KERNELS / "common" / f"{source}.c", "-o", objects[-1]
            )
    has = (f"-DHAS_{name}" for name, *_ in sets)
    neutral = (*sorted(KERNELS.glob("*.c")), HERE / "run_model.c")
    program = folder / "run_model"
    compile_with(*has, f"-I{KERNELS}", *neutral, *objects, *link, "-pthread", "-lm", "-o", program)
    return program


def _run(program: Path, processor: str | None, *arguments: object) -> str:
    emulated = [EMULATOR, "-cpu", processor] if processor else []
    command = [*emulated, str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@cache
def _written(family: str, path: Path) -> Float32:
    """Write a model and some tokens for the program; returns what torch makes of them."""
    config = FAMILIES[family]
    encoder, weights = random_model(config)
    ids, lengths = random_tokens(config, [1, 7, 16, 33, 80])
    with path.open("wb") as file:
        file.write(np.array(_header(config, ids, lengths), np.int64).tobytes())
        scale = config.hidden_size**0.5 if config.scale_embeddings else 1.0
        file.write(np.array([config.layer_norm_eps, config.attention_scale, scale]).tobytes())
        for array in _arrays(config, weights):
            file.write(array.astype(np.float32).tobytes())
        if config.disentangled is not None:
            file.write(distance_numbers(config.max_tokens, config.disentangled).tobytes())
        layers = range(config.num_hidden_layers)
        file.write(np.array([reach_of(config, layer) for layer in layers], np.int64).T.tobytes())
        file.write(np.array([config.layer_is_local(layer) for layer in layers], np.int64).tobytes())
        file.write(ids.tobytes() + lengths.tobytes())
    return reference(encoder, ids, lengths)


def _arrays(config: EncoderConfig, weights: dict[str, Float32]) -> Iterator[Float32]:
    """Yield tables and weights in the order in which they are read; a bias that a model has not is zeros, unless none is read."""

    def both(name: str, rows: NDArray[np.int64] | None = None) -> Iterator[Float32]:
        weight = weights[f"{name}.weight"]
        for array in (weight, weights.get(f"{name}.bias", np.zeros(len(weight), np.float32))):
            there = (
                np.ones(1, np.bool_) if rows is None else (rows >= 0).reshape(-1, *(1,) * (array.ndim - 1))
            )
            yield array if rows is None else np.where(there, array[rows], np.float32(0))

    def norm(name: str) -> Iterator[Float32]:
        if config.norm == "layer":
            yield from both(name)
        else:
            yield weights[f"{name}.weight"] + np.float32(config.norm == "rms_offset")

    for table in TABLES:
        if f"embeddings.{table}" in weights:
            yield weights[f"embeddings.{table}"]
    if config.embedding_norm:
        yield from norm("embeddings.norm")
    if config.norm_first and not config.embedding_norm:
        yield from norm("layers.0.attention_norm")
    if config.norm_first:
        yield from norm("final_norm")
    if config.embedding_size:
        yield from both("embeddings.projection")
    if config.relative_attention_num_buckets:
        yield added_by_distance(config, distance_table(weights["relative_bias.weight"], config.max_tokens))
    if config.position == "alibi":
        yield added_by_distance(config, alibi_table(config.num_attention_heads, config.max_tokens))
    if config.position == "rope":
        yield from (rotary_rows(config, local=local) for local in (False, True))
    halves = np.arange(2 * config.intermediate_size).reshape(2, -1)
    for module in range(config.num_distinct_layers):
        yield from both(f"layers.{module}.attention.qkv", order_of_heads(config))
        yield from both(f"layers.{module}.attention.out")
        for half in halves if config.gated_mlp else (None,):
            yield from both(f"layers.{module}.mlp.up", half)
        yield from both(f"layers.{module}.mlp.down")
        if config.post_norm:
            yield from norm(f"layers.{module}.attention_post_norm")
            yield from norm(f"layers.{module}.mlp_post_norm")
        if config.disentangled is not None:
            parts = (_under(weights, prefix) for prefix in ("distances.", f"layers.{module}.attention."))
            yield from distance_heads(config, *parts)
        if config.qk_norm:
            yield from norm(f"layers.{module}.attention.query_norm")
            yield from norm(f"layers.{module}.attention.key_norm")
    for layer in range(config.num_hidden_layers):
        for name in norms_behind(config, layer):
            yield from norm(name)


def _under(weights: dict[str, Float32], prefix: str) -> dict[str, Float32]:
    """Return the weights whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}


def _header(config: EncoderConfig, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[int, ...]:
    distances = 2 * config.max_tokens - 1 + ROOM if config.relative_attention_num_buckets else 0
    return (
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        config.num_hidden_layers,
        ACTIVATION_CODES[config.hidden_act],
        config.position_offset,
        config.vocab_size,
        config.max_position_embeddings if config.has_position_table else 0,
        config.type_vocab_size,
        len(ids),
        len(lengths),
        len(order_of_heads(config)),
        config.embedding_size or 0,
        config.num_distinct_layers,
        distances,
        config.gated_mlp,
        config.norm_first,
        config.max_tokens if config.position == "rope" else 0,
        is_shifted(config),
        config.key_value_heads,
        config.head_size,
        config.embedding_norm,
        config.norm != "layer",
        config.post_norm,
        config.qk_norm,
        0 if config.disentangled is None else 2 * config.disentangled.span,
        config.max_tokens,
    )


@pytest.mark.parametrize(("processor", "best"), PROCESSORS.items())
def test_each_processor_gets_the_best_kernels_that_it_has(program: Path, processor: str, best: str) -> None:
    features = int(_run(program, processor, "features"))
    assert features == BITS["neon"] | (BITS["dotprod"] if best == "neondot" else 0)
    assert _run(program, processor, features, PRECISION_CODES["int8"], "products") == f"{best} 0"


@pytest.mark.parametrize("features", ["", "neon"])
def test_products_of_int8_are_exact_at_lower_levels(program: Path, features: str) -> None:
    bits, name = BITS.get(features, 0), features or "generic"
    assert _run(program, "cortex-a72", bits, PRECISION_CODES["int8"], "products") == f"{name} 0"


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_whole_encoder_computes_what_torch_does(
    program: Path, processor: str, precision: NativePrecision, family: str, tmp_path: Path
) -> None:
    model = program.parent / f"{family}.bin"
    expected = _written(family, model)
    features = int(_run(program, processor, "features"))
    _run(program, processor, features, PRECISION_CODES[precision], model, tmp_path / "out")
    found = np.fromfile(tmp_path / "out", np.float32).reshape(expected.shape)
    if precision == "fp32":
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    else:
        assert cosines(found, expected).mean() > 0.999


def test_products_of_int8_in_tiles_are_exact(with_tiles: Path) -> None:
    assert _run(with_tiles, None, AMX_BITS, PRECISION_CODES["int8"], "products") == "amx 0"


def test_attention_is_that_of_double_precision(with_tiles: Path) -> None:
    cases: tuple[tuple[str, int, NativePrecision], ...] = (
        ("generic", 0, "fp32"),
        ("amx", AMX_BITS, "bf16"),
        ("amx", AMX_BITS, "int8"),
    )
    errors = {
        (name, precision): float(_run(with_tiles, None, bits, PRECISION_CODES[precision], "attention"))
        for name, bits, precision in cases
    }
    assert errors.pop(("generic", "fp32")) < 5e-4  # of scores of hundreds
    assert max(errors.values()) < 2**-7  # as powers and contexts are rounded


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("family", ENCODERS)
def test_a_whole_encoder_in_tiles_computes_what_torch_does_in_any_company(
    with_tiles: Path, family: str, precision: NativePrecision, tmp_path: Path
) -> None:
    model = with_tiles.parent / f"{family}.bin"
    expected = _written(family, model)
    arguments = (AMX_BITS, PRECISION_CODES[precision], model)
    assert _run(with_tiles, None, *arguments, tmp_path / "alone") == "amx"
    _run(with_tiles, None, *arguments, tmp_path / "together", "together")
    found = np.fromfile(tmp_path / "alone", np.float32).reshape(expected.shape)
    assert cosines(found, expected).mean() > {"bf16": 0.9999, "int8": 0.999}[precision]
    assert (tmp_path / "alone").read_bytes() == (tmp_path / "together").read_bytes()

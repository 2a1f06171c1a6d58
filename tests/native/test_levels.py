"""Every set of instructions that this processor has: that it is chosen and refused as asked, and that its kernels are right."""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from embedkit.errors import DeviceError
from embedkit.native import dispatch, library
from embedkit.native.encoder import NativeEncoder, why_not
from embedkit.native.library import Kernels, Linear, NativePrecision
from embedkit.native.packing import aligned_bytes, padded
from embedkit.native.search import StoredVectors
from tests.native.models import BERT, FAMILIES, cosines, random_model, random_tokens, reference

if reason := dispatch.why_not_here("fp32"):
    pytest.skip(reason, allow_module_level=True)

LEVELS = dispatch.levels_here()
LOWER = LEVELS[:-1]  # the highest is what all other tests run with
EVERYTHING = ("avx2", "avx512", "avx512_vnni", "avx512_bf16")  # of x86-64
# Features that single out each set of kernels, also one that a better one would hide.
FEATURES = (
    (),
    ("avx2",),
    ("avx2", "avx_vnni"),
    ("avx2", "avx512"),
    ("avx2", "avx512", "avx512_vnni"),
    EVERYTHING,
    (*EVERYTHING, "amx"),
    ("neon",),
    ("neon", "dotprod"),
)


def kernels_of(precision: NativePrecision) -> list[object]:
    """The kernels of a precision that can run here, each as a parameter: their address, under their name."""
    found = {}
    for features in FEATURES:
        if set(features) <= dispatch.cpu_features():
            address = dispatch._address_of(precision, frozenset(features))
            if address is not None:
                found[dispatch.describe_kernels(address).name.decode()] = address
    return [pytest.param(address, id=name) for name, address in found.items()]


class _Unit(ctypes.Structure):
    """`struct unit` of kernels/native.h."""

    _fields_ = (("scale", ctypes.c_float), ("outlier", ctypes.c_float), ("column", ctypes.c_int64))


class _Result(ctypes.Structure):
    """`struct result` of kernels/native.h."""

    _fields_ = (
        ("sink", ctypes.c_int),
        ("activation", ctypes.c_int),
        ("to", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("peaks", ctypes.c_void_p),
    )


ADD = 1  # `enum sink`: in fp32 whatever the precision

_POINTER = ctypes.c_void_p


_Call = ctypes.CFUNCTYPE(None)


class _Multiply(ctypes.Structure):
    """`struct kernels` of kernels/native.h."""

    _fields_ = (
        ("kernels", Kernels),
        ("set", _POINTER),
        ("input", _POINTER),
        ("pack", _POINTER),
        (
            "multiply",
            ctypes.CFUNCTYPE(
                None,
                ctypes.POINTER(Linear),
                _POINTER,
                _POINTER,
                ctypes.c_int64,
                ctypes.c_int64,
                ctypes.POINTER(_Result),
            ),
        ),
        ("attend", _POINTER),
        ("attention_bytes", _POINTER),
        ("rows_behind", ctypes.c_int64),
        ("begin", _Call),
        ("end", _Call),
    )


@dataclass(frozen=True)
class Row:
    """What the bytes of one row of an input are worth."""

    scale: float = 1.0
    outlier: float = 0.0
    column: int = 0


def multiply(
    address: int,
    weights: NDArray[np.float32],
    inputs: NDArray[np.generic],
    rows: list[Row],
    shift: float = 0.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Multiply by the kernels at an address; returns the product (R, N), the scales and the bias (N,) left of zeros."""
    columns, size = weights.shape
    code_bytes = dispatch.describe_kernels(address).code_bytes
    packed = aligned_bytes(padded(columns) * padded(size) * code_bytes)
    inverse, scale, bias = np.zeros((3, padded(columns)), np.float32)
    start = np.zeros(padded(columns), np.int32)
    linear = Linear(
        packed.ctypes.data,
        bias.ctypes.data,
        scale.ctypes.data,
        start.ctypes.data,
        rows_in=size,
        columns=columns,
    )
    arrays = (weights, packed, inverse, scale, start, bias)
    library.load_library().embedkit_pack(
        address, ctypes.byref(linear), *(array.ctypes.data for array in arrays), shift
    )
    kind = np.float32 if code_bytes == 4 else np.int16 if code_bytes == 2 else np.uint8
    table = _Multiply.from_address(address)
    there = len(inputs) + table.rows_behind
    filled = aligned_bytes(there * padded(size) * code_bytes).view(kind).reshape(-1, padded(size))
    filled[: len(inputs), :size] = inputs
    out = aligned_bytes(len(inputs) * padded(columns) * 4).view(np.float32).reshape(-1, padded(columns))
    units = (_Unit * len(rows))(*(_Unit(row.scale, row.outlier, row.column) for row in rows))
    result = _Result(sink=ADD, to=out.ctypes.data, stride=padded(columns))
    if table.begin:
        table.begin()
    table.multiply(
        ctypes.byref(linear),
        filled.ctypes.data,
        ctypes.addressof(units),
        padded(size),
        len(inputs),
        ctypes.byref(result),
    )
    if table.end:
        table.end()
    return out[:, :columns], scale[:columns], bias[:columns]


@pytest.mark.parametrize("address", kernels_of("int8"))
@pytest.mark.parametrize("size", [64, 100, 384])
def test_products_of_int8_are_exact(address: int, size: int) -> None:
    """The same sums from every set: those of whole numbers. Two products of 255 and 127 overflow 16 bits."""
    rng = np.random.default_rng(size)
    weights = rng.integers(-127, 128, (70, size)).astype(np.float32)
    weights[:3] = np.array([127, -127, 1])[:, None]
    weights[:, 0] = 127  # so that the scale of each column is 1
    inputs = rng.integers(0, 256, (70, size))
    inputs[:2] = np.array([255, 0])[:, None]
    found, scale, _ = multiply(address, weights, inputs, [Row()] * 70)
    assert (scale == 1).all()
    exact = (inputs.astype(np.int64) - 128) @ weights.T.astype(np.int64)
    assert np.abs(exact).max() < 2**24  # which a float holds
    np.testing.assert_array_equal(found, exact.astype(np.float32))


@pytest.mark.parametrize("address", kernels_of("int8"))
def test_an_outlier_and_a_shift_are_taken_into_account(address: int) -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (20, 64)).astype(np.float32)
    weights[:, 0] = 127
    inputs = rng.integers(1, 256, (3, 64))
    inputs[:, 37] = 128
    rows = [Row(scale=0.5), Row(scale=0.25, outlier=1000, column=37), Row(scale=2, outlier=-8, column=37)]
    found, _, _ = multiply(address, weights, inputs, rows)
    values = (inputs - 128) * np.array([[row.scale] for row in rows])
    values[:, 37] = [row.outlier for row in rows]
    np.testing.assert_array_equal(found, (values @ weights.T).astype(np.float32))
    _, _, bias = multiply(address, weights, inputs, rows, shift=0.5)
    np.testing.assert_array_equal(bias, -0.5 * weights.sum(axis=1))


@pytest.mark.parametrize("address", kernels_of("fp32"))
def test_products_of_fp32_are_right_for_every_number_of_rows(address: int) -> None:
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((80, 100), dtype=np.float32)
    inputs = rng.standard_normal((14, 100), dtype=np.float32)
    whole, _, _ = multiply(address, weights, inputs, [])
    np.testing.assert_allclose(whole, inputs.astype(float) @ weights.T.astype(float), rtol=0, atol=3e-5)
    for rows in range(1, 14):
        part, _, _ = multiply(address, weights, inputs[:rows], [])
        np.testing.assert_array_equal(part, whole[:rows])


@pytest.mark.parametrize("level", LOWER)
@pytest.mark.parametrize(
    "family",
    [
        *("bert", "sinusoidal, gelu_tanh", "relu", "hidden 96, heads of 48", "mpnet", "albert"),
        *("modernbert", "modernbert, heads of 64", "nomic", "gte", "norms first, silu, learned positions"),
        *("jina v2", "jina v2 for code", "gemma3", "qwen3", "t5", "deberta"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_lower_level_computes_the_same_vectors_in_any_company(
    level: str, family: str, precision: NativePrecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(dispatch.CPU, level)
    config = FAMILIES[family]
    encoder, weights = random_model(config)
    lengths = [1, 15, 16, 17, 100, 3]
    ids, sizes = random_tokens(config, lengths)
    native = NativeEncoder(config, weights, precision=precision, threads=2)
    hidden = native.hidden_states(ids, sizes)
    expected = reference(encoder, ids, sizes)
    if precision == "fp32":
        np.testing.assert_allclose(hidden, expected, rtol=0, atol=2e-5)
    else:
        assert cosines(hidden, expected).mean() > 0.999
    starts = np.cumsum(sizes) - sizes
    np.testing.assert_array_equal(native.first_states(ids, sizes), hidden[starts])
    alone = slice(starts[4], starts[4] + 100)
    np.testing.assert_array_equal(native.hidden_states(ids[alone], sizes[4:5]), hidden[alone])


@pytest.mark.parametrize("level", LOWER)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_lower_level_merges_tokens_as_the_highest_does(
    level: str, precision: NativePrecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, weights = random_model(BERT)
    ids, sizes = random_tokens(BERT, [80, 20, 131])
    expected = NativeEncoder(BERT, weights, precision=precision, merge_tokens=0.2).hidden_states(ids, sizes)
    monkeypatch.setenv(dispatch.CPU, level)
    found = NativeEncoder(BERT, weights, precision=precision, merge_tokens=0.2).hidden_states(ids, sizes)
    assert np.median(cosines(found, expected)) > 0.999  # where two pairs are as similar, either is merged


@pytest.mark.parametrize("level", LOWER)
@pytest.mark.parametrize(
    ("kind", "squared", "dimension", "count"),
    [*product((np.float32, np.float16, np.uint8), (False, True), (7, 48), (1, 5, 40))],
)
def test_a_lower_level_finds_the_same_vectors(
    level: str,
    kind: type[np.generic],
    squared: bool,
    dimension: int,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(dispatch.CPU, level)
    rng = np.random.default_rng(dimension)
    scales = None
    codes: NDArray[np.generic] = rng.standard_normal((300, dimension)).astype(np.float32).astype(kind)
    if kind is np.uint8:
        codes = rng.integers(1, 256, (300, dimension)).astype(np.uint8)
        scales = rng.random(dimension, dtype=np.float32) / np.float32(64)
    values = codes.astype(np.float64) if scales is None else (codes.astype(np.float64) - 128) * scales
    queries = rng.standard_normal((count, dimension)).astype(np.float32)
    exact = queries.astype(float) @ values.T
    if squared:
        exact = -((queries[:, None].astype(float) - values) ** 2).sum(axis=2)
    vectors = StoredVectors(codes, scales, squared=squared)
    positions = np.tile(np.arange(300), (count, 1))
    scores = np.zeros((count, 300), np.float32)
    vectors.score_pairs(queries, positions, scores)
    np.testing.assert_allclose(scores, exact, rtol=2e-7, atol=1e-6)
    _, found = vectors.scan(queries, 4, floor=np.full(count, -np.inf, np.float32))
    best = np.sort(exact, axis=1)[:, -4:]
    np.testing.assert_allclose(
        np.sort(np.take_along_axis(exact, found, axis=1), axis=1), best, rtol=1e-5, atol=1e-5
    )


def test_halves_of_every_value_are_read_in_plain_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.CPU, dispatch.GENERIC)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)[:, None]
    scores = np.zeros((1, len(halves)), np.float32)
    rows = np.arange(len(halves))[None]
    StoredVectors(halves, None, squared=False).score_pairs(np.ones((1, 1), np.float32), rows, scores)
    np.testing.assert_array_equal(scores[0], halves[:, 0].astype(np.float32))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names the sets of x86-64")
def test_the_compiler_has_left_out_no_set() -> None:
    """What another processor would get; gcc from 11 and clang from 12 on know all instructions."""
    names = {
        (precision, features): dispatch.describe_kernels(address).name.decode()
        for precision in ("fp32", "int8", "bf16")
        for features in FEATURES[: FEATURES.index(("neon",))]
        if (
            address := dispatch._address_of(precision, frozenset(features))
        )  # a table, of which nothing is called
    }
    assert [names["fp32", features] for features in FEATURES[:6]] == [
        "generic",
        *["avx2"] * 2,
        *["avx512"] * 3,
    ]
    assert [names["int8", features] for features in FEATURES[:6]] == [
        "generic",
        "avx2",
        "avx2vnni",
        "avx2",
        "avx512vnni",
        "avx512bf16",
    ]
    assert names["bf16", EVERYTHING] == "avx512bf16"
    tiles = (*EVERYTHING, "amx")
    assert {features for precision, features in names if precision == "bf16"} == {EVERYTHING, tiles}
    assert [names[precision, tiles] for precision in ("fp32", "bf16", "int8")] == ["avx512", "amx", "amx"]


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_names_what_computes(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.CPU, level)
    assert dispatch.cpu_level() == level
    assert dispatch.is_generic() == (level == "generic")
    said = dispatch.describe_level()
    assert said is not None
    assert said.startswith(f"{level} (fp32 by {'avx512' if level == 'amx' else level}, ")
    assert ", int8 by " in said or "int8 by " in said
    if level not in ("avx512", "amx") and why_not(BERT, "bf16") is not None:
        reason = why_not(BERT, "bf16")
        assert reason is not None
        assert "avx512_bf16" in reason


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names the sets of x86-64")
def test_where_the_system_refuses_tiles_the_level_is_lower_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "cpu_features", lambda: frozenset({*EVERYTHING, "amx_refused"}))
    assert dispatch.cpu_level() == "avx512"
    said = dispatch.describe_level()
    assert said is not None
    assert said.startswith("avx512 (fp32 by avx512, ")
    assert said.endswith(f"; {dispatch.TILES_REFUSED})")
    monkeypatch.setenv(dispatch.CPU, "amx")
    with pytest.raises(DeviceError, match="this processor has no amx"):
        dispatch.cpu_level()


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ("sse9", "there is no such level"),
        ("AVX2", "there is no such level"),
        *(
            (level, f"this processor has no {level}")
            for level in dispatch.LEVELS
            if level not in dispatch.levels_here()
        ),
    ],
)
def test_a_level_that_is_not_there_is_refused(asked: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.CPU, asked)
    with pytest.raises(DeviceError, match=rf"^EMBEDKIT_CPU is '{asked}', and {what}; here it can be generic"):
        why_not(BERT, "fp32")
    with pytest.raises(DeviceError, match="EMBEDKIT_CPU is"):
        NativeEncoder(BERT, {}, precision="fp32")

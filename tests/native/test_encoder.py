"""What holds beside the numbers: the same bits in any company, nothing hidden, clear refusals, no torch."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedkit.errors import DeviceError
from embedkit.model.attention_config import DisentangledConfig
from embedkit.model.config import EncoderConfig
from embedkit.model.rope_config import RopeScalingConfig
from embedkit.model.routing_config import ExpertsConfig, RecursionConfig
from embedkit.native import dispatch, library
from embedkit.native.encoder import CHUNK_TOKENS, NativeEncoder, cut, why_not
from embedkit.native.library import NativePrecision
from tests.native.models import BERT, FAMILIES, PRECISIONS, random_model, random_tokens, skip_unless_native

DYNAMIC = RopeScalingConfig(kind="dynamic", factor=2.0, original_max_position_embeddings=128)


def make(
    precision: NativePrecision,
    config: EncoderConfig = BERT,
    *,
    threads: int = 1,
    changed: dict[str, Any] | None = None,  # Any: also what is no float32 array, on purpose
) -> NativeEncoder:
    weights = random_model(config)[1] | (changed or {})
    return NativeEncoder(config, weights, precision=precision, threads=threads)


@pytest.mark.parametrize(  # rows are filled up: 48 to 64
    "family",
    [
        *("hidden 48, heads of 16", "mpnet, hidden 48, heads of 16", "albert", "modernbert", "nomic"),
        *("gemma3", "qwen3", "t5", "deberta", "jina v2 for code"),
    ],
)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_neither_threads_nor_batches_nor_their_order_change_a_bit(
    precision: NativePrecision, family: str
) -> None:
    skip_unless_native(precision)
    config = FAMILIES[family]
    lengths = np.random.default_rng(1).integers(1, 130, 60).tolist()
    ids, sizes = random_tokens(config, lengths)
    one = make(precision, config)
    hidden = one.hidden_states(ids, sizes)
    for threads in (2, 3):
        np.testing.assert_array_equal(
            make(precision, config, threads=threads).hidden_states(ids, sizes), hidden
        )
    starts = np.cumsum(sizes) - sizes
    for number in (0, 7, 59):  # a sequence alone
        part = slice(starts[number], starts[number] + sizes[number])
        np.testing.assert_array_equal(one.hidden_states(ids[part], sizes[[number]]), hidden[part])


@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads_that_share_a_text_change_no_bit_of_it(precision: NativePrecision, share: float) -> None:
    skip_unless_native(precision)
    config = FAMILIES["hidden 384, heads of 32"]  # six panels of heads
    weights = random_model(config)[1]
    one, four = (
        NativeEncoder(config, weights, precision=precision, threads=threads, merge_tokens=share)
        for threads in (1, 4)
    )
    for lengths in ([47], [64], [200], [256], [256, 250], [90, 3, 1]):
        ids, sizes = random_tokens(config, lengths)
        hidden, first = one.hidden_states(ids, sizes), one.first_states(ids, sizes)
        for _ in range(5):  # as the threads happen to meet
            np.testing.assert_array_equal(four.hidden_states(ids, sizes), hidden)
            np.testing.assert_array_equal(four.first_states(ids, sizes), first)


INTERRUPTED = """
import signal
import numpy as np
from embedkit.native.encoder import NativeEncoder
from tests.native.models import BERT, random_model, random_tokens

def handle(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handle)
for threads in (2, 1):
    encoder = NativeEncoder(BERT, random_model(BERT)[1], precision="fp32", threads=threads)
    few, many = random_tokens(BERT, [100] * 20), random_tokens(BERT, [100] * 5_000)
    expected, interrupted = encoder.hidden_states(*few), 0
    for milliseconds in range(2, 22, 2):
        signal.setitimer(signal.ITIMER_REAL, milliseconds / 1000)
        try:
            encoder.hidden_states(*many)
        except KeyboardInterrupt:
            interrupted += 1
        np.testing.assert_array_equal(encoder.hidden_states(*few), expected)
    assert interrupted == 10, interrupted
"""


def test_ctrl_c_while_threads_compute_harms_neither_memory_nor_what_is_encoded_next() -> None:
    skip_unless_native("fp32")
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_want_of_memory_leaves_an_encoder_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_unless_native("fp32")
    encoder = make("fp32", threads=2)
    few, many = random_tokens(BERT, [3]), random_tokens(BERT, [200] * 4)
    expected = encoder.hidden_states(*few)

    def refuse(size: int) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("embedkit.native.encoder.aligned_bytes", refuse)
        with pytest.raises(MemoryError):
            encoder.hidden_states(*many)
    np.testing.assert_array_equal(encoder.hidden_states(*few), expected)
    np.testing.assert_array_equal(encoder.hidden_states(*many), make("fp32").hidden_states(*many))


def test_chunks_are_whole_sequences_and_share_the_work() -> None:
    """60 + 60 + 60 fit into 192 tokens, a fourth 60 does not; 400 is a chunk of its own."""
    assert CHUNK_TOKENS == 192
    assert cut(np.array([400, 60, 60, 60, 60, 1]), 1).tolist() == [0, 1, 4, 6]
    assert cut(np.array([10, 10, 10, 10]), 2).tolist() == [0, 2, 4]
    assert cut(np.array([10]), 8).tolist() == [0, 1]


def test_an_empty_batch_gives_no_rows() -> None:
    skip_unless_native("fp32")
    nothing = np.empty(0, np.int64)
    assert make("fp32").hidden_states(nothing, nothing).shape == (0, BERT.hidden_size)


@pytest.mark.parametrize(
    "family",
    [
        *("bert", "hidden 48, heads of 16", "albert", "embeddings wider than the layers"),
        *("modernbert, heads of 64", "nomic", "gemma3", "t5", "deberta", "jina v2 for code"),
    ],
)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_token_that_is_not_finite_spoils_its_sequence_alone(
    precision: NativePrecision, value: float, family: str
) -> None:
    skip_unless_native(precision)
    config = FAMILIES[family]
    table = random_model(config)[1]["embeddings.tokens.weight"].copy()
    table[5, 3] = value
    native = make(precision, config, changed={"embeddings.tokens.weight": table})
    ids, lengths = random_tokens(config, [20, 30, 20])
    ids[ids == 5] = 6
    clean = native.hidden_states(ids, lengths)
    assert np.isfinite(clean).all()
    spoiled = ids.copy()
    spoiled[25] = 5
    hidden = native.hidden_states(spoiled, lengths)
    assert not np.isfinite(hidden[20:50]).any()
    np.testing.assert_array_equal(hidden[:20], clean[:20])
    np.testing.assert_array_equal(hidden[50:], clean[50:])
    # and nothing of it stays behind
    np.testing.assert_array_equal(native.hidden_states(ids, lengths), clean)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("part", ["attention.qkv", "attention.out", "mlp.up", "mlp.down"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_comes_out(precision: NativePrecision, part: str, value: float) -> None:
    skip_unless_native(precision)
    name = f"layers.0.{part}.weight"
    weight = random_model(BERT)[1][name].copy()
    weight[-1, 2] = value  # of a value, not of a query or a key
    ids, lengths = random_tokens(BERT, [20, 3])
    hidden = make(precision, changed={name: weight}).hidden_states(ids, lengths)
    assert not np.isfinite(hidden).any()


@pytest.mark.parametrize(
    ("ids", "lengths", "types", "layers", "message"),
    [
        (
            [1, 2, 101],
            [3],
            None,
            None,
            r"token id 101 is outside of the table of 101; it must be from 0 to 100",
        ),
        ([1, -2, 3], [3], None, None, r"token id -2 is outside of the table of 101"),
        (
            [1, 2, 3],
            [3],
            [0, 2, 0],
            None,
            r"token type id 2 is outside of the table of 2; it must be from 0 to 1",
        ),
        ([1, 2, 3], [2], None, None, r"lengths add up to 2; input_ids has 3 tokens"),
        ([1, 2, 3], [3, 0], None, None, r"sequence 1 has 0 tokens; each needs at least 1"),
        ([1, 2, 3], [4, -1], None, None, r"sequence 1 has -1 tokens"),
        ([1] * 257, [257], None, None, r"a sequence has 257 tokens; this encoder takes at most 256"),
        (
            [1, 2, 3],
            [3],
            [0, 0],
            None,
            r"shapes \[\(3,\), \(1,\), \(2,\)\]; packed ones are \(N,\), \(B,\) and",
        ),
        ([1, 2, 3], [3], None, 3, r"layers is 3; this encoder has 1 to 2"),
        ([1, 2, 3], [3], None, 0, r"layers is 0; this encoder has 1 to 2"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_read(
    ids: list[int], lengths: list[int], types: list[int] | None, layers: int | None, message: str
) -> None:
    skip_unless_native("fp32")
    type_ids = None if types is None else np.array(types)
    with pytest.raises(ValueError, match=message):
        make("fp32").hidden_states(np.array(ids), np.array(lengths), type_ids, layers=layers)


def test_position_offsets_shorten_what_a_sequence_may_be() -> None:
    skip_unless_native("fp32")
    config = FAMILIES["roberta"]  # 256 positions, the first two for padding
    ids, lengths = random_tokens(config, [255])
    with pytest.raises(ValueError, match=r"has 255 tokens; this encoder takes at most 254"):
        make("fp32", config).hidden_states(ids, lengths)


def test_weights_are_checked_against_the_config() -> None:
    skip_unless_native("fp32")
    weights = random_model(BERT)[1]
    name = "layers.1.mlp.up.weight"
    with pytest.raises(
        ValueError, match=r"weight 'layers.1.mlp.up.weight' is \(64, 128\) float32; .* \(128, 64\)"
    ):
        make("fp32", changed={name: weights[name].T})
    with pytest.raises(ValueError, match=r"'layers.1.mlp.up.weight' is \(128, 64\) float64; .* float32"):
        make("fp32", changed={name: weights[name].astype(np.float64)})
    del weights[name]
    with pytest.raises(ValueError, match=r"weight 'layers.1.mlp.up.weight' is missing"):
        NativeEncoder(BERT, weights, precision="fp32")
    for family, name, shape in (
        ("mpnet", "relative_bias.weight", r"\(32, 2\)"),
        ("albert", "embeddings.projection.weight", r"\(64, 16\)"),
    ):
        with pytest.raises(ValueError, match=rf"weight '{name}' is \(3, 4\) float32; .* {shape}"):
            make("fp32", FAMILIES[family], changed={name: np.zeros((3, 4), np.float32)})
    with pytest.raises(ValueError, match=r"threads is 0; it must be at least 1"):
        make("fp32", threads=0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"position": "rope", "rope_scaling": DYNAMIC},
            r"^rotary positions that are scaled by a text's length is not written natively$",
        ),
        ({"embedding_size": 24}, "the embedding size is 24; native norms take multiples of 16"),
        ({"recursion": RecursionConfig(num_recursions=1)}, "recursion by expert_choice"),
        (
            {"position": "relative", "experts": ExpertsConfig(num_experts=4)},
            r"^relative positions in attention, 4 experts are not written natively$",
        ),
        (
            {"position": "none", "disentangled": DisentangledConfig(conv_kernel_size=3)},
            r"^a convolution behind the first layer is not written natively$",
        ),
        ({"attention": "low_rank"}, r"^low-rank attention is not written natively$"),
        ({"hidden_size": 72, "head_dim": 16}, "the hidden size is 72; native norms take multiples of 16"),
        ({"norm_first": True, "num_hidden_groups": 1}, "norms before layers that share weights"),
        ({"num_attention_heads": 8}, "the head size is 8; native attention takes multiples of 16"),
        (
            {"num_attention_heads": 4, "position": "rope"},
            "the head size is 16; native rotary attention takes multiples of 32",
        ),
    ],
)
def test_what_is_not_written_natively_is_said(fields: dict[str, Any], reason: str) -> None:
    skip_unless_native("fp32")
    config = replace(BERT, **fields)
    found = why_not(config, "fp32")
    assert found is not None
    assert re.search(reason, found)
    with pytest.raises(DeviceError, match=r"native fp32 cannot run this model: .* Use the torch backend"):
        NativeEncoder(config, {}, precision="fp32")


def test_a_processor_without_the_instructions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_unless_native("fp32")
    for has, missing in (
        (("avx2",), "avx512, avx512_vnni, avx512_bf16"),
        (("avx2", "avx_vnni", "avx512", "avx512_vnni"), "avx512_bf16"),
    ):
        monkeypatch.setattr(dispatch, "cpu_features", partial(frozenset, has))  # what another processor has
        assert why_not(BERT, "bf16") == f"this processor has no {missing}"
        assert why_not(BERT, "int8") is None


def test_an_installation_without_the_kernels_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    skip_unless_native("fp32")
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    reason = why_not(BERT, "fp32")
    assert reason is not None
    assert reason.startswith("the kernels are not compiled: ")


def test_kernels_of_another_version_or_damaged_ones_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    skip_unless_native("fp32")
    with monkeypatch.context() as patch:
        patch.setattr(library, "KERNELS_VERSION", 999)
        reason = why_not(BERT, "fp32")
        assert reason is not None
        assert re.search(r"^the kernels in .*_kernels.* are of version \d+; .* is written for 999\.", reason)
    (tmp_path / "_kernels.so").write_bytes(b"\x7fELF and then nothing")
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    reason = why_not(BERT, "fp32")
    assert reason is not None
    assert reason.startswith("the kernels cannot be loaded (")


def test_no_torch_is_loaded() -> None:
    program = "import sys, embedkit.native; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_only_the_first_keys_are_attended_to() -> None:
    """Tokens beyond the keys change no other, and attend to the keys alone: each is as if it stood there by itself."""
    encoder, config = make("fp32"), BERT
    rng = np.random.default_rng(0)
    ids = rng.integers(0, config.vocab_size, 12)
    keys = 7
    whole = encoder.hidden_states(ids, np.array([12]), num_keys=np.array([keys]))
    alone = encoder.hidden_states(ids[:keys], np.array([keys]))
    np.testing.assert_allclose(whole[:keys], alone, atol=1e-5)
    shorter = encoder.hidden_states(ids[: keys + 2], np.array([keys + 2]), num_keys=np.array([keys]))
    np.testing.assert_allclose(whole[: keys + 2], shorter, atol=1e-5)
    both = encoder.hidden_states(np.tile(ids, 2), np.array([12, 12]), num_keys=np.array([keys, 12]))
    np.testing.assert_array_equal(both[:12], whole)
    np.testing.assert_array_equal(both[12:], encoder.hidden_states(ids, np.array([12])))
    with pytest.raises(ValueError, match="each must be from 1 to its sequence's length"):
        encoder.hidden_states(ids, np.array([12]), num_keys=np.array([13]))

"""Token merging: what becomes one, what is left alone, and who may not mix with whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.encoding.encoder import Encoder
from embedkit.errors import DeviceError
from embedkit.inference.choice import choose_runtime
from embedkit.inference.token_merging import count_merges, merge, merge_packed, merging_of
from embedkit.native.merging import FEWEST_TOKENS
from tests.tiny import FAMILY_SHAPES, tiny_config, write_tiny_model

LONG = "a small red horse eats a large green guitar by the beach and the dog sings " * 4
SHORT = "the dog runs"


def test_the_most_similar_pair_becomes_its_weighted_mean() -> None:
    """Of [CLS] a b c d [SEP], b and d are in the first set, a and c in the second.

    b points where c does, and c stands for two tokens already: (1 · (2, 0) + 2 · (8, 0)) / 3 = (6, 0). d is like neither.
    """
    hidden = np.array([[0, 9], [0, 1], [2, 0], [8, 0], [-1, -1], [0, 9]], np.float32)
    sizes = np.array([1, 1, 1, 2, 1, 1], np.float32)
    left, counts, places = merge(hidden, sizes, count=1)
    np.testing.assert_allclose(left, [[0, 9], [0, 1], [6, 0], [-1, -1], [0, 9]])
    assert counts.tolist() == [1, 1, 3, 1, 1]
    assert places.tolist() == [0, 1, 2, 2, 3, 4]


def test_a_share_of_a_text_is_merged_but_never_below_the_fewest_tokens() -> None:
    """A tenth of 200 is 20, of 39 it is 3; 33 may lose one; a half of 41 would be 20, and 9 are above 32."""
    assert FEWEST_TOKENS == 32
    counts = [count_merges(length, 0.1) for length in (200, 39, 33, 32, 15, 1)]
    assert counts == [20, 3, 1, 0, 0, 0]
    assert count_merges(41, 0.5) == 9
    assert count_merges(200, 0.5) == 99  # all of the first set
    assert count_merges(200, 0.0) == 0


@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    share=st.floats(0.0, 0.5),
    seed=st.integers(0, 99),
)
def test_nothing_is_lost_and_special_tokens_stay_alone(lengths: list[int], share: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    hidden = draw.standard_normal((sum(lengths), 8)).astype(np.float32)
    sizes = draw.integers(1, 4, len(hidden)).astype(np.float32)
    merged, counts, left, places = merge_packed(hidden, sizes, np.array(lengths), share=share)
    assert left.tolist() == [length - count_merges(length, share) for length in lengths]
    assert len(merged) == len(counts) == left.sum()
    ends, ends_left = np.cumsum(lengths), np.cumsum(left)
    for number, end in enumerate(ends):
        own = slice(end - lengths[number], end)
        kept = slice(ends_left[number] - left[number], ends_left[number])
        assert counts[kept].sum() == sizes[own].sum()
        whole, parts = (
            (values * weights[:, None]).sum(axis=0)
            for values, weights in ((hidden[own], sizes[own]), (merged[kept], counts[kept]))
        )
        np.testing.assert_allclose(parts, whole, atol=1e-4)
        for before, after in ((own.start, kept.start), (own.stop - 1, kept.stop - 1)):
            np.testing.assert_allclose(merged[after], hidden[before], rtol=1e-6)  # times its size, and back
            assert places[before] == after


def test_short_texts_keep_their_vectors_and_long_ones_do_not(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", max_length=64)
    plain, merging = (
        Encoder.load(folder, device="cpu", backend="numpy", merge_tokens=share) for share in (0.0, 0.2)
    )
    before, after = (each.encode([SHORT, LONG], on_truncate="ok") for each in (plain, merging))
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)
    assert 0.9 < float(after[1] @ before[1]) < 1 - 1e-6


def test_the_fingerprint_names_the_share_and_stays_what_it_was_without(tiny_model: Path) -> None:
    plain = Encoder.load(tiny_model, device="cpu", backend="numpy")
    merging = Encoder.load(tiny_model, device="cpu", backend="numpy", merge_tokens=0.1)
    assert "merge_tokens" not in plain.fingerprint
    assert merging.fingerprint == plain.fingerprint | {"merge_tokens": 0.1}
    assert [merging_of(each) for each in (None, plain.fingerprint, merging.fingerprint)] == [0.0, 0.0, 0.1]


def test_a_share_out_of_range_is_refused(tiny_model: Path) -> None:
    for share in (-0.1, 0.6, float("nan")):
        with pytest.raises(
            ValueError, match=rf"merge_tokens is {share}; .* each layer merges, from 0 to 0.5"
        ):
            Encoder.load(tiny_model, merge_tokens=share)


def test_what_merges_no_tokens_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "embedkit.native.encoder.why_not", lambda config, precision: "this processor has no avx512f"
    )
    plain = tiny_config()
    with pytest.raises(DeviceError, match=r"the torch backend does not compute .*: it merges no tokens"):
        choose_runtime(plain, "fp32", "cpu", wanted="torch", merge=True)
    assert choose_runtime(plain, "fp32", "cpu", merge=True).runtime == "numpy"  # slow, but it can
    with pytest.raises(
        DeviceError,
        match=r"nothing here merges tokens of this model in bf16 on cpu \(native: this processor has no avx512f; "
        r"numpy: it computes in fp32 only; torch: it merges no tokens\)\. Leave out --merge-tokens",
    ):
        choose_runtime(plain, "bf16", "cpu", merge=True)
    with pytest.raises(
        DeviceError, match=r"native: it computes on the CPU only, not on cuda.*with --device cpu"
    ):
        choose_runtime(plain, "fp32", "cuda", merge=True)
    with pytest.raises(DeviceError, match=r"numpy: merged tokens have no distance"):
        choose_runtime(tiny_config(**FAMILY_SHAPES["mpnet"]), "fp32", "cpu", merge=True)
    with pytest.raises(DeviceError, match=r"numpy: a static model has no layers"):
        choose_runtime(None, "fp32", "cpu", merge=True)

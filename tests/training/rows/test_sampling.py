from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedkit.errors import TrainingError
from embedkit.training.rows.examples import Examples
from embedkit.training.rows.reading import read_examples
from embedkit.training.rows.sampling import Mixture, RowSampler, distinct_batches
from tests.training.contrastive_runs import rows_of, write_rows


def examples_of(folder: Path, kind: str, count: int = 60) -> Examples:
    return read_examples(str(write_rows(folder / f"{kind}.jsonl", rows_of(kind, count))))


def test_a_clashing_row_waits_for_the_next_batch() -> None:
    """Rows 0 and 1 share text 0, and 4 has row 2's document: batches of two are (0, 2), (1, 3); row 4 is left over."""
    columns = np.array([[0, 10], [0, 11], [1, 12], [2, 13], [3, 12]])
    batches = list(distinct_batches(columns, np.arange(5), 2))
    np.testing.assert_array_equal(batches, [[0, 2], [1, 3]])


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(-1, 8)), min_size=1, max_size=40), st.integers(2, 6))
def test_no_batch_holds_a_text_twice_and_no_row_comes_twice(pairs: list[tuple[int, int]], size: int) -> None:
    columns = np.array(pairs)
    batches = list(distinct_batches(columns, np.arange(len(pairs)), size))
    for batch in batches:
        texts = [text for row in columns[batch] for text in {*row.tolist()} if text >= 0]
        assert len(texts) == len(set(texts))
        assert len(batch) == size
    rows = [row for batch in batches for row in batch.tolist()]
    assert len(rows) == len(set(rows))


def test_an_epoch_takes_nearly_every_row_and_another_seed_orders_them_otherwise(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, "pairs")
    rows = np.arange(len(examples))

    def sampler(seed: int) -> RowSampler:
        return RowSampler(examples, rows, batch_size=8, style="distinct", seed=[seed])

    epoch = np.concatenate([sampler(0).batch(i) for i in range(7)])
    assert len(set(epoch.tolist())) == 56
    np.testing.assert_array_equal(epoch[:8], sampler(0).batch(0))  # starting again is starting alike
    assert not np.array_equal(sampler(0).batch(0), sampler(0).batch(7))  # the next epoch
    assert not np.array_equal(sampler(0).batch(0), sampler(1).batch(0))


def test_an_epoch_without_a_batch_takes_those_of_the_first(tmp_path: Path) -> None:
    """The last row has a text of the first and one of the second: where it comes before both, no three rows go together."""
    texts = [("a", "x"), ("b", "y"), ("c", "z"), ("a", "y")]
    rows = [{"query": query, "positive": positive} for query, positive in texts]
    examples = read_examples(str(write_rows(tmp_path / "rows.jsonl", rows)))

    def sampler(seed: int) -> RowSampler | None:
        try:
            return RowSampler(examples, np.arange(4), batch_size=3, style="distinct", seed=[seed])
        except TrainingError:  # the first epoch itself has none
            return None

    made = next(each for seed in range(20) if (each := sampler(seed)) is not None)
    empty = next(epoch for epoch in range(1, 50) if not made.plan(epoch))
    np.testing.assert_array_equal(made.batch(empty), made.batch(0))


def test_labelled_batches_hold_several_texts_of_each_label(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, "labelled")
    sampler = RowSampler(
        examples, np.arange(60), batch_size=12, style="labelled", seed=[0], texts_per_label=4
    )
    assert examples.labels is not None
    for number in range(10):
        labels: NDArray[np.int64] = examples.labels[sampler.batch(number)]
        _, counts = np.unique(labels, return_counts=True)
        assert len(labels) == 12
        assert counts.min() >= 2
        assert len(counts) > 1


def test_simcse_batches_hold_no_text_twice(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [{"text": f"text {i % 12}"} for i in range(60)])
    examples = read_examples(str(path))
    sampler = RowSampler(examples, np.arange(60), batch_size=8, style="distinct", seed=[0])
    for number in range(5):
        assert len(set(examples.first[sampler.batch(number)].tolist())) == 8
    with pytest.raises(
        TrainingError, match=r"60 rows with 12 distinct texts make no batch of 16.*Lower data.batch_size to 6"
    ):
        RowSampler(examples, np.arange(60), batch_size=16, style="distinct", seed=[0])


@pytest.mark.parametrize(("mixing", "shares"), [(1.0, (0.9, 0.1)), (0.5, (0.75, 0.25)), (0.0, (0.5, 0.5))])
def test_data_sets_are_drawn_by_a_power_of_their_size(mixing: float, shares: tuple[float, float]) -> None:
    """900 and 100 rows: 900 ** 0.5 = 30 and 100 ** 0.5 = 10."""
    mixture = Mixture([900, 100], steps=4000, mixing=mixing, seed=0)
    np.testing.assert_allclose(mixture.shares, shares)
    drawn = np.array([mixture.at(step)[0] for step in range(4000)])
    np.testing.assert_allclose(np.bincount(drawn) / 4000, shares, atol=0.03)


def test_each_data_set_goes_on_where_it_stopped_and_more_steps_change_nothing_before() -> None:
    mixture = Mixture([1, 1], steps=50, mixing=1.0, seed=3)
    for number in (0, 1):
        places = [place for chosen, place in map(mixture.at, range(50)) if chosen == number]
        assert places == list(range(len(places)))
    longer = Mixture([1, 1], steps=90, mixing=1.0, seed=3)
    assert [mixture.at(step) for step in range(50)] == [longer.at(step) for step in range(50)]

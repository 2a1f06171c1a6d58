"""Windows of pairs: groups stay whole, lists of pairs are cut."""

from __future__ import annotations

from embedkit.reranking.pairs import WINDOW_PAIRS, PairCounts, windows_of_groups, windows_of_pairs


def test_groups_stay_whole_and_the_empty_ones_are_counted() -> None:
    """A window ends with the group that fills it: 1,000 and 30 pairs, then 0 and 2."""
    groups = [("a", ["x"] * (WINDOW_PAIRS - 24)), ("b", ["y"] * 30), ("c", []), ("d", ["z"] * 2)]
    first, second = windows_of_groups(groups)
    assert (list(first.sizes), list(second.sizes)) == ([WINDOW_PAIRS - 24, 30], [0, 2])
    assert first.queries == ["a"] * (WINDOW_PAIRS - 24) + ["b"] * 30
    assert second.texts == ["z", "z"]
    assert list(windows_of_groups([])) == []
    assert [list(window.sizes) for window in windows_of_groups([("a", [])])] == [[0]]


def test_a_list_of_pairs_is_cut_where_a_window_is_full() -> None:
    queries, texts = [f"q{i}" for i in range(WINDOW_PAIRS + 5)], [f"t{i}" for i in range(WINDOW_PAIRS + 5)]
    first, second = windows_of_pairs(queries, texts)
    assert [list(first.sizes), list(second.sizes)] == [[WINDOW_PAIRS], [5]]
    assert second.queries[0] == f"q{WINDOW_PAIRS}"
    assert [*first.texts, *second.texts] == texts


def test_counts_add_up() -> None:
    assert PairCounts(1, 2, 3, 4) + PairCounts(10, 20, 30, 40) == PairCounts(11, 22, 33, 44)

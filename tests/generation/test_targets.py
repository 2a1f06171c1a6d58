"""Teacher forcing: what is shown is what was said, a place later."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from embedkit.generation.targets import make_targets, make_windows
from tests.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
CLS, SEP = 2, 3


def test_the_shift_by_hand() -> None:
    """ "a dog runs" and "a cat", at most 3 tokens: the first is cut before its end, which it then does not say."""
    (a, dog, runs), (_, cat) = TOKENIZER.ids(["a dog runs", "a cat"])
    found = make_targets(TOKENIZER, ["a dog runs", "a cat"], max_tokens=3)
    assert found.shown.tolist() == [CLS, a, dog, CLS, a, cat]
    assert found.said.tolist() == [a, dog, runs, a, cat, SEP]
    assert found.lengths.tolist() == [3, 3]
    assert found.truncated.tolist() == [True, False]


def test_an_empty_text_says_its_end() -> None:
    found = make_targets(TOKENIZER, [""], max_tokens=3)
    assert (found.shown.tolist(), found.said.tolist()) == ([CLS], [SEP])


@given(st.lists(st.text("ab ", max_size=12), min_size=1, max_size=3), st.integers(1, 6))
def test_windows_say_every_token_once(texts: list[str], size: int) -> None:
    found = make_windows(TOKENIZER, texts, max_tokens=size)
    assert found.said.tolist() == [token for ids in TOKENIZER.ids(texts) for token in [*ids, SEP]]
    assert int(found.lengths.max()) <= size
    starts = [0, *found.lengths.cumsum().tolist()]
    for start, stop in pairwise(starts):
        # A window is shown what it said a place before, and first what the window before it said last.
        before = CLS if start == 0 or found.said[start - 1] == SEP else int(found.said[start - 1])
        assert found.shown[start:stop].tolist() == [before, *found.said[start : stop - 1].tolist()]

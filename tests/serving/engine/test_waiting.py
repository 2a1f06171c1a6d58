"""`Waiting`: which sequences are computed next. Time is a number here, and nothing is computed."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedkit.serving.engine.request import QueuedRequest, Window
from embedkit.serving.engine.spans import Span
from embedkit.serving.engine.tasks import Task, Tokens
from embedkit.serving.engine.waiting import LEAST_TOKENS, MixedBatch, Waiting
from embedkit.serving.engine.work import Priority
from embedkit.tokenization.batch import TokenBatch

AGE, LINGER = 2.0, 0.002


class Model:
    def __init__(self, budget: int = 64) -> None:
        self.token_budget = budget


class LengthsTask(Task[None]):
    """A task whose tokens are there from the beginning."""

    kind = "embed"

    def __init__(self, model: Model, lengths: list[int], priority: Priority, *, padded: bool = True) -> None:
        self.model, self.priority, self.padded = model, priority, padded
        self.estimates = np.array(lengths)

    def tokenize(self, span: Span) -> Tokens:
        lengths = self.estimates[span.start : span.stop]
        return Tokens(TokenBatch(np.zeros(int(lengths.sum()), np.int64), lengths), None)

    def compute(self, batch: TokenBatch) -> NDArray[Any]:
        raise NotImplementedError

    def add(self, span: Span, tokens: Tokens, outputs: NDArray[Any]) -> None:
        raise NotImplementedError

    def answer(self) -> None:
        raise NotImplementedError


class Desk:
    """Puts windows into a `Waiting` and reads batches as {name of the window: lengths}."""

    def __init__(self) -> None:
        self.waiting = Waiting(age_seconds=AGE, linger_seconds=LINGER)
        self.names: dict[Window, str] = {}

    def announce(
        self, name: str, model: Model, lengths: list[int], priority: Priority = "bulk", *, padded: bool = True
    ) -> Window:
        task = LengthsTask(model, lengths, priority, padded=padded)
        window = Window(QueuedRequest(task, Future(), [], 0.0), Span(0, len(lengths), sum(lengths)))
        self.waiting.announce(task)
        self.names[window] = name
        return window

    def arrive(self, window: Window, now: float) -> None:
        window.fill(window.task.tokenize(window.span))
        window.ready = now
        self.waiting.arrived(window, ready=True)

    def put(
        self, name: str, now: float, model: Model, lengths: list[int], priority: Priority = "bulk"
    ) -> None:
        self.arrive(self.announce(name, model, lengths, priority), now)

    def take(self, now: float, *, seconds: float = 0.01) -> dict[str, list[int]]:
        """Take the next batch, of which each model needs `seconds`."""
        batch = self.waiting.next(now)
        assert isinstance(batch, MixedBatch)
        self.waiting.charge(batch.task, sum(part.num_tokens for part in batch.parts), seconds)
        return {
            self.names[part.window]: part.tokens.batch.lengths[part.rows].tolist() for part in batch.parts
        }


def test_requests_of_one_model_share_a_batch_whose_sequences_are_sorted_by_length() -> None:
    desk, model = Desk(), Model(budget=64)
    desk.put("one", 0, model, [3, 12, 5])
    desk.put("two", 0, model, [4, 11])
    assert desk.take(0) == {"one": [12, 5, 3], "two": [11, 4]}  # 5 sequences of 12 at most: 60 tokens
    assert desk.waiting.next(0) is None


def test_a_batch_is_cut_where_the_longest_times_the_number_reaches_the_budget() -> None:
    """Of 30, 20, 10, 10, 9 (budget 64) two fit beside the 30; then 10, 10, 9."""
    desk, model = Desk(), Model(budget=64)
    desk.put("one", 0, model, [10, 30, 9])
    desk.put("two", 0, model, [20, 10])
    assert desk.take(0) == {"one": [30], "two": [20]}
    assert desk.take(0) == {"one": [10, 9], "two": [10]}


def test_models_never_share_a_batch() -> None:
    desk = Desk()
    desk.put("one", 0, Model(), [3])
    desk.put("two", 0, Model(), [3])
    assert [desk.take(0), desk.take(0)] == [{"one": [3]}, {"two": [3]}]


def test_interactive_work_goes_first_and_alone() -> None:
    desk, model = Desk(), Model(budget=64)
    desk.put("bulk", 0, model, [8] * 20)
    desk.put("query", 0.5, model, [8], "interactive")
    assert desk.take(0.5) == {"query": [8]}  # though 7 more would fit
    assert desk.take(0.5) == {"bulk": [8] * 8}


def test_interactive_work_goes_before_bulk_work_of_another_model_that_has_computed_less() -> None:
    desk, busy = Desk(), Model()
    desk.put("query", 0, busy, [8], "interactive")
    assert desk.take(0, seconds=9) == {"query": [8]}
    desk.put("bulk", 0, Model(), [8])
    desk.put("query", 0, busy, [8], "interactive")
    assert desk.take(0) == {"query": [8]}


def test_bulk_work_ages_and_never_starves() -> None:
    """Two queries come for each that is computed. In line with the 42 that came until AGE, the bulk text is next."""
    desk, model = Desk(), Model(budget=8)
    desk.put("bulk", 0, model, [8])
    names: list[str] = []
    for step in range(60):
        desk.put("query", step / 10, model, [8], "interactive")
        desk.put("query", step / 10, model, [8], "interactive")
        names += desk.take(step / 10)
    assert names.index("bulk") == 42
    assert names.count("bulk") == 1


def test_bulk_work_of_another_model_ages_too() -> None:
    desk, asked = Desk(), Model(budget=8)
    desk.put("bulk", 0, Model(), [8])
    for step in range(30):
        desk.put("query", step / 10, asked, [8], "interactive")
        if "bulk" in desk.take(step / 10):
            break
    assert step / 10 == AGE


def test_models_share_the_time_evenly_however_much_of_each_waits() -> None:
    """One has a hundred texts waiting and needs three times as long for each: it gets one batch to the other's three."""
    desk, slow, quick = Desk(), Model(budget=8), Model(budget=8)
    desk.put("slow", 0, slow, [8] * 100)
    desk.put("quick", 0, quick, [8] * 12)
    names = []
    for _ in range(12):
        batch = desk.waiting.next(0)
        assert isinstance(batch, MixedBatch)
        names.append(desk.names[batch.parts[0].window])
        desk.waiting.charge(batch.task, 8, 3.0 if names[-1] == "slow" else 1.0)
    assert names.count("quick") == 9


def test_a_model_that_had_nothing_to_do_saves_up_no_time() -> None:
    desk, busy, idle = Desk(), Model(budget=8), Model(budget=8)
    desk.put("idle", 0, idle, [8])
    desk.put("busy", 0, busy, [8] * 100)
    for _ in range(20):
        desk.take(0, seconds=1.0)
    desk.put("idle", 0, idle, [8] * 10)
    names = [next(iter(desk.take(0, seconds=1.0))) for _ in range(6)]
    assert names.count("busy") == 3


def test_nothing_waits_when_nobody_else_is_on_the_way() -> None:
    desk = Desk()
    desk.put("one", 0, Model(), [8], "interactive")
    assert desk.take(0) == {"one": [8]}


def test_a_batch_waits_for_what_is_being_tokenized_but_not_longer_than_it_may() -> None:
    desk, model = Desk(), Model(budget=64)
    late = desk.announce("late", model, [4], "interactive")
    desk.put("one", 1.0, model, [8], "interactive")
    left = desk.waiting.next(1.0 + LINGER / 4)
    assert isinstance(left, float)
    np.testing.assert_allclose(left, LINGER * 3 / 4)
    desk.arrive(late, 1.0 + LINGER / 2)
    assert desk.take(1.0 + LINGER / 2) == {"one": [8], "late": [4]}

    desk.announce("later", model, [4], "interactive")
    desk.put("two", 2.0, model, [8], "interactive")
    assert desk.take(2.0 + LINGER) == {"two": [8]}


def test_a_full_batch_waits_for_nothing() -> None:
    desk, model = Desk(), Model(budget=64)
    desk.announce("late", model, [4])
    desk.put("one", 0, model, [8] * 8)
    assert desk.take(0) == {"one": [8] * 8}


def test_bulk_work_is_not_begun_in_the_moment_that_interactive_work_waits_for_company() -> None:
    desk, model = Desk(), Model()
    desk.announce("late", model, [4], "interactive")
    desk.put("query", 0, model, [8], "interactive")
    desk.put("bulk", 0, Model(), [8] * 50)
    assert isinstance(desk.waiting.next(0), float)


def test_what_is_removed_is_not_computed() -> None:
    desk, model = Desk(), Model(budget=16)
    gone = desk.announce("gone", model, [8, 8, 8])
    desk.arrive(gone, 0)
    desk.put("stays", 0, model, [8])
    assert desk.take(0) == {"gone": [8, 8]}
    desk.waiting.remove(gone)
    assert desk.take(0) == {"stays": [8]}
    assert desk.waiting.next(0) is None


def test_a_slow_model_gets_small_batches() -> None:
    """At 100 tokens a second a batch of 16,384 would hold up everybody for minutes."""
    desk, model = Desk(), Model(budget=16_384)
    desk.put("one", 0, model, [64] * 500)
    for _ in range(3):
        batch = desk.take(0, seconds=LEAST_TOKENS / 100)
        assert sum(batch["one"]) == LEAST_TOKENS


def test_a_fast_model_gets_batches_of_its_own_budget() -> None:
    desk, model = Desk(), Model(budget=16_384)
    desk.put("one", 0, model, [64] * 2000)
    sizes = [sum(desk.take(0, seconds=0.001)["one"]) for _ in range(3)]
    assert sizes[-1] == 16_384


def test_sequences_without_tokens_are_computed_too() -> None:
    desk = Desk()
    desk.put("one", 0, Model(), [0, 0, 3])
    assert desk.take(0) == {"one": [3, 0, 0]}


@settings(max_examples=50)
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.integers(0, 40), min_size=1, max_size=12),
            st.sampled_from(("interactive", "bulk")),
            st.integers(0, 1),
        ),
        max_size=8,
    ),
    padded=st.booleans(),
)
def test_every_sequence_is_computed_once_within_the_budget(
    requests: list[tuple[list[int], Priority, int]], padded: bool
) -> None:
    desk, models = Desk(), (Model(32), Model(32))
    for number, (lengths, priority, model) in enumerate(requests):
        window = desk.announce(str(number), models[model], lengths, priority, padded=padded)
        desk.arrive(window, float(number))
    taken: dict[str, list[int]] = {}
    while True:
        batch = desk.waiting.next(float(len(requests)))
        if batch is None:
            break
        assert isinstance(batch, MixedBatch)
        assert len({id(part.window.task.model) for part in batch.parts}) == 1
        together = np.concatenate([part.tokens.batch.lengths[part.rows] for part in batch.parts])
        size = int(together.max()) * len(together) if padded else int(together.sum())
        assert size <= 32 or len(together) == 1 or (not padded and together.max() == 0)
        for part in batch.parts:
            taken.setdefault(desk.names[part.window], []).extend(part.rows.tolist())
        desk.waiting.charge(batch.task, int(together.sum()), 0.01)
    assert {name: sorted(rows) for name, rows in taken.items()} == {
        str(number): list(range(len(lengths))) for number, (lengths, _, _) in enumerate(requests)
    }

"""A bounded queue, clients who go, and errors that stay where they belong."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from embedkit.checkpoint.folder import ModelFolder, read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.windows import TextRefusedError
from embedkit.errors import CheckpointError
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.serving.engine.engine import Embedded, EmbedWork, Engine, Priority, QueueFullError, ScoreWork
from embedkit.serving.limits import Limits
from embedkit.types import Float32
from tests.serving.engine.fakes import PATIENCE_SECONDS, HeldBackend, expected, wait_for
from tests.tiny_cross_encoder import LONG, write_tiny_cross_encoder

FULL = Limits(queue_tokens=100)  # of which a window has 25


@pytest.fixture(scope="module")
def folder(tiny_model: Path) -> ModelFolder:
    return read_model_folder(tiny_model)


@pytest.fixture
def backend(folder: ModelFolder) -> HeldBackend:
    """Fails at the word dog."""
    return HeldBackend(failing=frozenset(folder.tokenizer.ids(["dog"])[0]))


@pytest.fixture
def encoder(folder: ModelFolder, backend: HeldBackend) -> Encoder:
    return Encoder(folder, backend)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(FULL) as engine:
        yield engine


def ask(engine: Engine, encoder: Encoder, *texts: str) -> Future[Embedded]:
    return engine.embed(EmbedWork(encoder=encoder, texts=texts))


def fill(engine: Engine, encoder: Encoder) -> list[Future[Embedded]]:
    """Have 88 tokens wait. Each text has 22, for 32 it is taken before it is tokenized."""
    futures = []
    for count in range(1, 5):
        futures.append(ask(engine, encoder, "girl " * 20))
        wait_for(partial(lambda wanted: engine.stats().waiting_tokens == wanted, 22 * count))
    return futures


def result(folder: ModelFolder, *texts: str) -> Float32:
    batch = folder.tokenizer.encode(texts)
    sums = np.add.reduceat(batch.input_ids, np.cumsum(batch.lengths) - batch.lengths)
    return expected(batch.lengths.tolist(), sums)


def test_a_full_queue_refuses_and_says_when_to_come_back(
    engine: Engine, encoder: Encoder, backend: HeldBackend, folder: ModelFolder
) -> None:
    with backend.held():
        futures = fill(engine, encoder)
        with pytest.raises(QueueFullError, match="88 tokens wait to be computed, of 100") as refused:
            ask(engine, encoder, "girl " * 20)
        assert refused.value.retry_seconds == 1.0  # nothing was measured yet
        last = ask(engine, encoder, "girl")  # there is room for this one
        assert engine.stats().refused == 1
    for future in [*futures, last]:
        future.result(PATIENCE_SECONDS)
    assert engine.stats().waiting_tokens == 0

    speed = engine.stats().tokens_per_second
    assert speed is not None
    with backend.held():
        futures = fill(engine, encoder)
        with pytest.raises(QueueFullError) as refused:
            ask(engine, encoder, "girl " * 20)
    np.testing.assert_allclose(refused.value.retry_seconds, (88 + 32 - 100) / speed)  # estimated: 32
    for future in futures:
        future.result(PATIENCE_SECONDS)


def test_a_request_larger_than_the_queue_is_served_beside_others(
    engine: Engine, encoder: Encoder, backend: HeldBackend, folder: ModelFolder
) -> None:
    texts = ["girl", "boy plays", LONG] * 50
    with backend.held():
        huge = ask(engine, encoder, *texts)
        small = ask(engine, encoder, "a song")
    np.testing.assert_array_equal(small.result(PATIENCE_SECONDS).vectors, result(folder, "a song"))
    np.testing.assert_array_equal(huge.result(PATIENCE_SECONDS).vectors, result(folder, *texts))


def test_no_request_has_a_second_window_in_the_queue_where_it_does_not_fit(
    engine: Engine, encoder: Encoder, backend: HeldBackend, folder: ModelFolder
) -> None:
    """A text of 22 tokens runs; two windows of 24 stand beside it, and a third, but not the fourth, of another request."""
    texts = [f"girl {number % 10}" for number in range(30)]  # 4 tokens each, 6 to a window
    with backend.held():
        running = ask(engine, encoder, "girl " * 20)
        wait_for(lambda: engine.stats().waiting_tokens == 22)
        futures = [ask(engine, encoder, *texts) for _ in range(2)]
        wait_for(lambda: engine.stats().waiting_tokens == 22 + 3 * 24)
    running.result(PATIENCE_SECONDS)
    for future in futures:
        np.testing.assert_array_equal(future.result(PATIENCE_SECONDS).vectors, result(folder, *texts))


def has_tokens(engine: Engine, priority: Priority) -> bool:
    """Say whether something of a priority waits as tokens: what is still on its way to be is not computed next."""
    with engine._state:
        return any(lane.windows[priority] for lane in engine._waiting._lanes.values())


def test_a_query_is_computed_in_the_midst_of_a_long_job(
    engine: Engine, encoder: Encoder, backend: HeldBackend, folder: ModelFolder
) -> None:
    with backend.held():
        job = ask(engine, encoder, *[f"girl {number}" for number in range(60)])
        backend.wait_until_computing()
        query = engine.embed(EmbedWork(encoder=encoder, texts=["boy"], priority="interactive"))
        wait_for(lambda: has_tokens(engine, "interactive"))
    np.testing.assert_array_equal(query.result(PATIENCE_SECONDS).vectors, result(folder, "boy"))
    job.result(PATIENCE_SECONDS)
    assert [len(batch) for batch in backend.batches].index(1) <= 2  # not after all of the job's


def test_one_text_larger_than_the_queue_is_served_when_it_is_empty(engine: Engine, encoder: Encoder) -> None:
    work = EmbedWork(encoder=encoder, texts=[LONG * 30], on_truncate="chunk")
    assert engine.embed(work).result(PATIENCE_SECONDS).tokens[0] > 100


def test_what_a_client_no_longer_wants_is_not_computed(
    engine: Engine, encoder: Encoder, backend: HeldBackend
) -> None:
    with backend.held():
        running = ask(engine, encoder, "girl")
        backend.wait_until_computing()
        gone = ask(engine, encoder, *["boy"] * 10)
        stays = ask(engine, encoder, "woman")
        wait_for(lambda: engine.stats().waiting_tokens == 3 + 2 * 3 + 3)  # in each window, equal texts once
        assert gone.cancel()
        assert engine.stats().waiting_tokens == 6  # there is room for others at once
    for future in (running, stays):
        future.result(PATIENCE_SECONDS)
    assert sum(map(len, backend.batches)) == 2
    with pytest.raises(CancelledError):
        gone.result(0)
    stats = engine.stats()
    assert (stats.cancelled, stats.errors, stats.totals["embed"].requests) == (1, 0, 2)


def test_a_request_may_be_cancelled_while_it_is_computed(
    engine: Engine, encoder: Encoder, backend: HeldBackend, folder: ModelFolder
) -> None:
    with backend.held():
        gone = ask(engine, encoder, *[f"girl {number}" for number in range(500)])
        backend.wait_until_computing()
        assert engine.stats().running_requests == 1
        assert gone.cancel()
        assert engine.stats().waiting_tokens == 0
    after = ask(engine, encoder, "boy").result(PATIENCE_SECONDS)
    np.testing.assert_array_equal(after.vectors, result(folder, "boy"))
    assert len(backend.batches) == 2  # the one that ran, and the boy's
    assert engine.stats().running_requests == 0


def test_a_model_that_fails_fails_for_the_request_that_makes_it(
    engine: Engine, encoder: Encoder, backend: HeldBackend, folder: ModelFolder
) -> None:
    with backend.held():
        first = ask(engine, encoder, "girl")
        backend.wait_until_computing()
        texts = ["a boy", "a dog", "a song", "the water"]
        futures = [ask(engine, encoder, text) for text in texts]
        wait_for(lambda: engine.stats().waiting_tokens == 3 + 4 * 4)
    first.result(PATIENCE_SECONDS)
    for text, future in zip(texts, futures, strict=True):
        if text == "a dog":
            with pytest.raises(RuntimeError, match="the model fell over"):
                future.result(PATIENCE_SECONDS)
        else:
            np.testing.assert_array_equal(future.result(PATIENCE_SECONDS).vectors, result(folder, text))
    assert engine.stats().errors == 1
    assert engine.stats().waiting_tokens == 0


def test_a_text_that_is_too_long_fails_alone_and_is_numbered_within_its_request(
    engine: Engine, encoder: Encoder, folder: ModelFolder
) -> None:
    """The request has several windows, and the text stands in a later one."""
    texts = [f"girl {number}" for number in range(60)] + [LONG * 3]
    wrong = engine.embed(EmbedWork(encoder=encoder, texts=texts, on_truncate="error"))
    right = ask(engine, encoder, "girl")
    with pytest.raises(TextRefusedError, match="the model reads 32") as refused:
        wrong.result(PATIENCE_SECONDS)
    assert refused.value.row == 60
    np.testing.assert_array_equal(right.result(PATIENCE_SECONDS).vectors, result(folder, "girl"))
    wait_for(lambda: engine.stats().waiting_tokens == 0)


def test_wrong_work_fails_through_its_future(engine: Engine, encoder: Encoder, tmp_path: Path) -> None:
    model = CrossEncoder.load(write_tiny_cross_encoder(tmp_path / "m"))
    wrong = (
        (ask(engine, encoder, "girl", None), TypeError, "text 1 is None"),  # type: ignore[arg-type] # on purpose
        (
            engine.embed(EmbedWork(encoder=encoder, texts=["girl"], prompt="dog " * 40)),
            CheckpointError,
            "prompt",
        ),
        (
            engine.score(ScoreWork(model=model, queries=["a"], texts=["b", "c"])),
            ValueError,
            "1 queries and 2 texts",
        ),
    )
    for future, error, message in wrong:
        with pytest.raises(error, match=message):
            future.result(PATIENCE_SECONDS)
    assert engine.stats().errors == 3


def test_nothing_of_a_request_is_kept_when_it_is_over(
    engine: Engine, encoder: Encoder, backend: HeldBackend
) -> None:
    """Not until Python's collector comes round, either: results are large and objects few."""
    gc.collect()
    gc.disable()
    try:
        future = ask(engine, encoder, *[f"girl {number}" for number in range(60)])
        answer = weakref.ref(future.result(PATIENCE_SECONDS).vectors)
        failed = weakref.ref(wrong := ask(engine, encoder, "dog"))
        assert wrong.exception(PATIENCE_SECONDS) is not None
        with backend.held():
            running = ask(engine, encoder, "girl")
            gone = ask(engine, encoder, "boy")
            gone.cancel()
        cancelled = weakref.ref(gone)
        running.result(PATIENCE_SECONDS)
        del future, wrong, gone, running
        ask(engine, encoder, "girl").result(PATIENCE_SECONDS)  # the compute thread has gone on
        wait_for(lambda: answer() is None and failed() is None and cancelled() is None)
    finally:
        gc.enable()


def test_many_threads_get_each_their_own_answer(encoder: Encoder, folder: ModelFolder) -> None:
    """32 threads, each with texts of its own, large and small requests, refusals, and some that nobody waits for."""
    wrong: list[str] = []

    def hammer(engine: Engine, seed: int) -> None:
        generator = np.random.default_rng(seed)
        words = ("girl", "boy", "song", "water", "plays", "the", "red", "horse")
        for _ in range(8):
            count = int(generator.choice([1, 2, 5, 40]))
            texts = [" ".join(generator.choice(words, generator.integers(1, 9))) for _ in range(count)]
            priority = "interactive" if count < 5 else "bulk"
            while True:
                try:
                    future = engine.embed(EmbedWork(encoder=encoder, texts=texts, priority=priority))  # type: ignore[arg-type] # one of two
                    break
                except QueueFullError:
                    pause.wait(0.001)
            if generator.random() < 0.2:
                future.cancel()
                continue
            if not np.array_equal(future.result(PATIENCE_SECONDS).vectors, result(folder, *texts)):
                wrong.append(f"thread {seed}: {texts}")

    pause = threading.Event()
    with Engine(Limits(queue_tokens=2000)) as engine:
        threads = [threading.Thread(target=hammer, args=(engine, seed)) for seed in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
        assert not any(thread.is_alive() for thread in threads)
        wait_for(lambda: engine.stats().waiting_tokens == 0)
        stats = engine.stats()
    assert wrong == []
    assert stats.totals["embed"].requests + stats.cancelled == 32 * 8
    assert (stats.errors, stats.waiting_requests, stats.running_requests) == (0, 0, 0)

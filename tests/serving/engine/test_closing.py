"""The end of an engine: what runs is finished within a limit, and nobody waits for ever."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from embedkit.checkpoint.folder import read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.serving.engine.engine import EmbedWork, Engine, EngineClosedError
from embedkit.serving.engine.tasks import EmbedTask
from embedkit.serving.limits import Limits
from tests.serving.engine.fakes import PATIENCE_SECONDS, HeldBackend, wait_for


@pytest.fixture
def backend() -> HeldBackend:
    return HeldBackend()


@pytest.fixture
def encoder(tiny_model: Path, backend: HeldBackend) -> Encoder:
    return Encoder(read_model_folder(tiny_model), backend)


def test_what_there_is_is_finished_and_nothing_new_is_taken(encoder: Encoder, backend: HeldBackend) -> None:
    engine = Engine(Limits(queue_tokens=100))
    with backend.held():
        futures = [
            engine.embed(EmbedWork(encoder=encoder, texts=[f"{row} girls" for row in range(count)]))
            for count in (1, 200)
        ]
        closing = threading.Thread(target=engine.close)
        closing.start()
        wait_for(lambda: _refuses(engine, encoder))
        assert not any(future.done() for future in futures)
    closing.join(PATIENCE_SECONDS)
    assert [len(future.result(0).vectors) for future in futures] == [1, 200]
    engine.close()  # once more does no harm


def _refuses(engine: Engine, encoder: Encoder) -> bool:
    try:
        engine.embed(EmbedWork(encoder=encoder, texts=[]))
    except EngineClosedError:
        return True
    return False


def test_what_is_not_finished_in_time_fails_and_says_why(encoder: Encoder, backend: HeldBackend) -> None:
    engine = Engine()
    closing = threading.Thread(target=engine.close, args=(0.01,))
    with backend.held():
        futures = [engine.embed(EmbedWork(encoder=encoder, texts=[text])) for text in ("girl", "boy")]
        backend.wait_until_computing()
        closing.start()
        for future in futures:
            with pytest.raises(EngineClosedError, match=r"not finished within 0.01 s\. Send it again"):
                future.result(PATIENCE_SECONDS)
    closing.join(PATIENCE_SECONDS)
    assert engine.stats().errors == 2
    assert engine.stats().waiting_tokens == 0
    assert not any(thread.name == "compute" and thread.is_alive() for thread in threading.enumerate())


def test_an_idle_engine_is_closed_at_once_and_its_threads_end() -> None:
    before = set(threading.enumerate())  # of which some may end meanwhile
    with Engine():
        (own,) = set(threading.enumerate()) - before
    assert not own.is_alive()


class BrokenTask(EmbedTask):
    """Stands for a fault of ours: what is not an `Exception`."""

    def compute(self, batch: object) -> None:  # type: ignore[override] # it never returns
        raise SystemExit(3)


def test_a_compute_thread_that_dies_leaves_nobody_waiting(
    encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine()
    future = engine._submit(lambda: BrokenTask(EmbedWork(encoder=encoder, texts=["girl"])))
    with pytest.raises(EngineClosedError, match="the server has failed"):
        future.result(PATIENCE_SECONDS)
    assert "the compute thread of the engine failed" in caplog.text
    with pytest.raises(EngineClosedError, match="takes no more work"):
        engine.embed(EmbedWork(encoder=encoder, texts=["girl"]))
    engine.close()

"""`Engine`: computes what requests ask for, in batches across requests.

1. A request is cut into windows of texts; at most two of them are in the queue, as tokens or on their way to be.
2. Windows are tokenized in small pools of threads, one for requests that somebody waits for and one for all others.
3. One thread computes: it takes batches from `Waiting`, and hands each output to its window, each full window to its task, and
   each whole answer to its future.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedkit.serving.engine.ledger import Ledger
from embedkit.serving.engine.request import QueuedRequest, Window
from embedkit.serving.engine.spans import cut_spans
from embedkit.serving.engine.stats import EngineStats
from embedkit.serving.engine.tasks import EmbedTask, ScoreTask, Task, TokenVectorsTask
from embedkit.serving.engine.text_tasks import EncodedTexts, TextsTask, TextsWork
from embedkit.serving.engine.waiting import PRIORITIES, MixedBatch, QueuedPart, Waiting
from embedkit.serving.engine.work import (
    Embedded,
    EmbedWork,
    EngineClosedError,
    Kind,
    Priority,
    QueueFullError,
    Scored,
    ScoreWork,
    TokensOfTexts,
    TokenVectorsWork,
)
from embedkit.serving.limits import Limits
from embedkit.tokenization.batch import TokenBatch

__all__ = [
    "EmbedWork",
    "Embedded",
    "Engine",
    "EngineClosedError",
    "EngineStats",
    "Kind",
    "Priority",
    "QueueFullError",
    "ScoreWork",
    "Scored",
    "TokenVectorsWork",
    "TokensOfTexts",
]

Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)

# A window has as many tokens at most: four of the largest batches on our kernels. A small queue has smaller windows.
WINDOW_TOKENS = 2**16
WINDOWS_IN_QUEUE = 4
WINDOWS_AHEAD = 2  # of one request in the queue: one that is computed, and the next
TOKENIZING_THREADS = 2
# Bulk work gives way to interactive work for so long; people find a second's wait long, and a bulk job does not notice it.
BULK_AGE_SECONDS = 2.0
# A batch that runs when the time is over is waited for so long: the process may end with it.
LAST_BATCH_SECONDS = 5.0


class Engine:
    """One thread that computes, for any number of callers in any threads.

    Errors in a request come from its future: those of the texts, the model's, and `EngineClosedError` if there was no time to finish
    it. A future may be cancelled; what was not computed yet is dropped. Use it as a context manager, or `close` it.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._waiting = Waiting(age_seconds=BULK_AGE_SECONDS, linger_seconds=self.limits.linger_seconds)
        self._ledger = Ledger(self.limits.queue_tokens, self._waiting)
        self._state = self._ledger.state  # guards these two, and the next two
        self._closing = self._stopped = False
        self._pools = {
            priority: ThreadPoolExecutor(TOKENIZING_THREADS, thread_name_prefix=f"tokenize-{priority}")
            for priority in PRIORITIES
        }
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def embed(self, work: EmbedWork) -> Future[Embedded]:
        """Embed texts.

        Raises:
            QueueFullError: there is no room for (the first window of) the texts.
            EngineClosedError: the engine was closed.
        """
        return self._submit(partial(EmbedTask, work))

    def score(self, work: ScoreWork) -> Future[Scored]:
        """Score pairs; raises as `embed` does."""
        return self._submit(partial(ScoreTask, work))

    def token_vectors(self, work: TokenVectorsWork) -> Future[TokensOfTexts]:
        """Compute the vectors of all tokens of texts; raises as `embed` does."""
        return self._submit(partial(TokenVectorsTask, work))

    def encode(self, work: TextsWork) -> Future[EncodedTexts]:
        """Encode texts with a multi-vector or a learned sparse model; raises as `embed` does."""
        return self._submit(partial(TextsTask, work))

    def stats(self) -> EngineStats:
        """Return what is going on, and what was done since the engine began."""
        with self._state:
            return self._ledger.stats()

    def close(self, drain_seconds: float | None = None) -> None:
        """Take no more work, finish what there is within `drain_seconds` (None: the limits'), and fail the rest.

        A second call, from wherever, waits in the same way.
        """
        limit = self.limits.drain_seconds if drain_seconds is None else drain_seconds
        with self._state:
            self._closing = True
            self._state.wait_for(lambda: not self._ledger.requests, limit)
        self._ledger.fail_all(
            f"the server stops, and this request was not finished within {limit:g} s. Send it again"
        )
        with self._state:
            self._stopped = True
            self._state.notify_all()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self._thread.join(LAST_BATCH_SECONDS)

    def _submit(self, make: Callable[[], Task[Answer]]) -> Future[Answer]:
        future: Future[Answer] = Future()
        self._refuse_if_closed()
        try:
            task = make()
        except Exception as exc:  # whatever is wrong with the work is the answer to it
            with self._state:
                self._ledger.counters.errors += 1
            future.set_exception(exc)
            return future
        window_tokens = min(WINDOW_TOKENS, -(-self.limits.queue_tokens // WINDOWS_IN_QUEUE))
        spans = cut_spans(task.estimates, window_tokens)
        if not spans:
            with self._state:
                self._ledger.counters.answered(task.kind, 0)
            future.set_result(task.answer())
            return future
        request = QueuedRequest(task, future, spans, time.monotonic())
        with self._state:
            self._refuse_if_closed()
            self._ledger.enter(request)
            self._feed(request)
        future.add_done_callback(partial(self._ledger.drop_if_cancelled, request))
        return future

    def _refuse_if_closed(self) -> None:
        if self._closing:
            raise EngineClosedError(
                "the server stops and takes no more work. Send it to another one, or later"
            )

    def _feed(self, request: QueuedRequest) -> None:
        """Have the next windows of a request tokenized: one in any case if it has none in the queue, else if it fits."""
        while request.next < len(request.spans) and len(request.windows) < WINDOWS_AHEAD:
            span = request.spans[request.next]
            if request.windows and not self._ledger.fits(span.tokens):
                break
            request.next += 1
            window = Window(request, span)
            request.windows.add(window)
            self._ledger.hold(window, span.tokens)
            self._waiting.announce(request.task)
            self._pools[request.task.priority].submit(self._tokenize, window)

    def _tokenize(self, window: Window) -> None:
        """Make tokens of a window, in a thread of a pool."""
        request = window.request
        try:
            if not request.ended:
                window.fill(request.task.tokenize(window.span))
        except Exception as exc:  # it is the answer to this request
            self._ledger.fail(request, exc)
        with self._state:
            ready = window.tokens is not None and not request.ended
            if ready:
                window.ready = time.monotonic()
                self._ledger.hold(window, window.num_tokens)
            self._waiting.arrived(window, ready=ready)
            self._state.notify_all()

    def _run(self) -> None:
        """Compute batch after batch until the engine is stopped."""
        try:
            while (batch := self._next_batch()) is not None:
                self._compute(batch.task, batch.parts)
                del batch  # nothing of it is kept while there is nothing to do
        except BaseException:  # a fault of ours; nobody is to wait for a thread that has gone
            logger.exception("the compute thread of the engine failed")
            with self._state:
                self._closing = True
            self._ledger.fail_all("the server has failed; its log says why. Restart it")

    def _next_batch(self) -> MixedBatch | None:
        """Wait for something to compute; None when the engine is stopped."""
        with self._state:
            while not self._stopped:
                now = time.monotonic()
                found = self._waiting.next(now)
                if isinstance(found, MixedBatch):
                    for part in found.parts:
                        self._ledger.begin(part.window.request, now)
                    return found
                self._state.wait(found)
        return None

    def _compute(self, task: Task[Any], parts: tuple[QueuedPart, ...]) -> None:
        """Compute sequences together; if that fails, those of each window alone, so that it fails for no other."""
        began = time.monotonic()
        try:
            batch = TokenBatch.joined([part.tokens.batch.take(part.rows) for part in parts])
            outputs = task.compute(batch)
        except Exception as exc:  # it is the answer to the request that causes it
            if len(parts) == 1:
                self._ledger.fail(parts[0].window.request, exc)
                return
            outputs = None
        if outputs is None:
            for part in parts:
                if not part.window.request.ended:
                    self._compute(part.window.task, (part,))
            return
        seconds, tokens = time.monotonic() - began, int(batch.lengths.sum())
        with self._state:
            self._ledger.counters.computed(task.kind, len(batch), tokens, seconds)
            self._waiting.charge(task, tokens, seconds)
        starts = np.cumsum([len(part.rows) for part in parts])[:-1]
        for part, own in zip(parts, np.split(outputs, starts), strict=True):
            self._deliver(part, own)

    def _deliver(self, part: QueuedPart, outputs: NDArray[Any]) -> None:
        """Hand outputs to their window, and answer the request if these were the last."""
        window, request = part.window, part.window.request
        try:
            window.store(part.rows, outputs)
            if not window.missing and not request.ended:
                assert window.outputs is not None
                request.task.add(window.span, part.tokens, window.outputs)
        except Exception as exc:  # as above
            self._ledger.fail(request, exc)
        with self._state:
            if request.ended:
                return
            self._ledger.hold(window, window.held - part.num_tokens)
            if window.missing:
                return
            request.windows.remove(window)
            self._feed(request)
            if request.windows:
                return
        self._ledger.answer(request)

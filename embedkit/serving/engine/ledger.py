"""Which requests are in the engine, and how many of their tokens: what may come in, and how each ends, once."""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future
from typing import Any

from embedkit.serving.engine.request import QueuedRequest, Window
from embedkit.serving.engine.stats import Counters, EngineStats
from embedkit.serving.engine.waiting import Waiting
from embedkit.serving.engine.work import EngineClosedError, QueueFullError

FIRST_RETRY_SECONDS = 1.0  # before any speed was measured


class Ledger:
    """The state of an engine. Whoever reads or changes it holds `state`; `answer`, `fail` and `fail_all` take it by themselves.

    A future is settled outside of the lock, since its callbacks may do anything.
    """

    def __init__(self, queue_tokens: int, waiting: Waiting) -> None:
        self.queue_tokens, self.waiting = queue_tokens, waiting
        self.state = threading.Condition()
        self.requests: set[QueuedRequest] = set()
        self.counters = Counters()
        self._held = 0  # tokens in the queue
        self._running = 0  # requests of which something was computed

    def stats(self) -> EngineStats:
        waiting = len(self.requests) - self._running
        return self.counters.stats(waiting_tokens=self._held, waiting=waiting, running=self._running)

    def enter(self, request: QueuedRequest) -> None:
        """Take a request in.

        Raises:
            QueueFullError: its first window does not fit.
        """
        tokens = request.spans[0].tokens
        if not self.fits(tokens):
            self.counters.refused += 1
            raise self._full(tokens)
        self.requests.add(request)

    def fits(self, tokens: int) -> bool:
        """Say whether so many tokens may join the queue. What is larger than all of it may when it is empty."""
        return not self._held or self._held + tokens <= self.queue_tokens

    def _full(self, tokens: int) -> QueueFullError:
        speed = self.counters.pace.per_second
        over = min(self._held + tokens - self.queue_tokens, self._held)
        seconds = FIRST_RETRY_SECONDS if speed is None else over / speed
        return QueueFullError(
            f"{self._held:,} tokens wait to be computed, of {self.queue_tokens:,} that may; this request begins with about "
            f"{tokens:,}. Send it again in {math.ceil(seconds)} s",
            seconds,
        )

    def hold(self, window: Window, tokens: int) -> None:
        """Say how many tokens of a window are in the queue from now on."""
        self._held += tokens - window.held
        window.held = tokens

    def begin(self, request: QueuedRequest, now: float) -> None:
        """Say that something of a request is computed."""
        if not request.begun:
            request.begun = True
            self._running += 1
            self.counters.queue_seconds += now - request.arrived

    def answer(self, request: QueuedRequest) -> None:
        """End a request whose last outputs are there."""
        task = request.task
        try:
            answer = task.answer()
        except Exception as exc:  # it is the answer to this request
            self.fail(request, exc)
            return
        future = self._leave(request)
        if future is not None:
            with self.state:  # before anybody can ask for the counts
                self.counters.answered(task.kind, len(task.estimates))
            future.set_result(answer)

    def fail(self, request: QueuedRequest, exc: Exception) -> None:
        """End a request with an error."""
        future = self._leave(request)
        if future is not None:
            with self.state:
                self.counters.errors += 1
            future.set_exception(exc)

    def fail_all(self, reason: str) -> None:
        """End all requests because the engine ends."""
        with self.state:
            left = list(self.requests)
        for request in left:
            self.fail(request, EngineClosedError(reason))

    def drop_if_cancelled(self, request: QueuedRequest, future: Future[Any]) -> None:
        """Forget a request whose client has gone: called when its future is done in whatever way."""
        if future.cancelled():
            with self.state:
                if self._drop(request) is not None:
                    self.counters.cancelled += 1

    def _leave(self, request: QueuedRequest) -> Future[Any] | None:
        """Let a request go, and return its future if it still wants to be settled: nobody else will do so."""
        with self.state:
            future = self._drop(request)
        if future is None or future.set_running_or_notify_cancel():
            return future
        with self.state:
            self.counters.cancelled += 1
        return None

    def _drop(self, request: QueuedRequest) -> Future[Any] | None:
        """Let a request go with all of it that was not computed; its future goes to the one caller who is the first to say so."""
        future, request.future = request.future, None
        if future is not None:
            self.requests.remove(request)
            self._running -= request.begun
            for window in request.windows:
                self.hold(window, 0)
                self.waiting.remove(window)
            request.windows.clear()
            self.state.notify_all()
        return future

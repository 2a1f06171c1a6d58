"""The first build of a folder's index in a thread of its own: a call waits for it a while, then answers from what is there."""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

from embedkit.serving.mcp.served import Call, CallCancelledError

if TYPE_CHECKING:
    from embedkit.pipelines.grep.folder import Folder
    from embedkit.pipelines.grep.refresh import RefreshReport

COMMIT_EVERY = 256  # passages: calls find what is committed
_STEP_SECONDS = 0.1  # between two looks at whether a call was cancelled
_TELL_SECONDS = 1.0  # between two reports of progress


class FirstBuild:
    """A build that goes on while calls come and go, and stops when the last call that waits for it is cancelled."""

    def __init__(self, folder: Folder) -> None:
        self.report: RefreshReport | None = None
        self.error: Exception | None = None
        self._folder = folder
        self._done, self._stop = threading.Event(), threading.Event()
        self._lock, self._waiting = threading.Lock(), 0
        self._thread = threading.Thread(target=self._run, name="first build", daemon=True)

    @property
    def is_over(self) -> bool:
        return self._done.is_set()

    @property
    def was_stopped(self) -> bool:
        return self._stop.is_set()

    @property
    def has_committed(self) -> bool:
        """Whether there is something to find."""
        return self.report is not None and self.report.done > 0

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            for report in self._folder.refresh(commit_every=COMMIT_EVERY):
                self.report = report
                if self._stop.is_set():
                    break  # what was committed stays
        except Exception as exc:  # the call that waits raises it
            self.error = exc
        finally:
            self._done.set()

    def wait(self, call: Call, seconds: float) -> None:
        """Wait until it is over, for so many seconds at most.

        Raises:
            CallCancelledError: nobody waits for the answer of the call any more.
        """
        until = monotonic() + seconds
        told = 0.0
        with self._lock:
            self._waiting += 1
        try:
            while not self._done.wait(_STEP_SECONDS) and monotonic() < until:
                if call.cancelled:
                    raise CallCancelledError("cancelled")
                if self.report is not None and monotonic() - told > _TELL_SECONDS:
                    told = monotonic()
                    call.progress(self.report.done, self.report.changed or None, self.described())
        finally:
            with self._lock:
                self._waiting -= 1
                if call.cancelled and not self._waiting:
                    self._stop.set()

    def described(self) -> str:
        """Say how far it is."""
        report = self.report
        if report is None or not report.changed:
            return "the files are being listed"
        text = f"{report.done:,} of {report.changed:,} files read, {report.passages:,} passages"
        if report.done and report.seconds:
            left = report.seconds / report.done * (report.changed - report.done)
            text += f"; about {left:,.0f} s left"
        return text

"""Reading documents in another process, which serves for many of them and is started again after it died."""

from __future__ import annotations

import atexit
import json
import signal
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import Any

import embedkit.data.documents.worker as worker
from embedkit.data.documents.kinds import DOCUMENTS
from embedkit.data.documents.page import Text
from embedkit.data.places import Mark
from embedkit.errors import RecordError
from embedkit.extras import need_extra
from embedkit.machine import ctrl_c_deferred

_PROGRAM = "from embedkit.data.documents.worker import main; main()"


def read_document(raw: bytes, source: str, suffix: str) -> Text:
    """Read a document; `source` is its name in messages, `suffix` tells its kind.

    Raises:
        RecordError: it is damaged or encrypted, or takes too long or too much memory.
        MissingExtraError: its kind needs an extra that is not installed.
    """
    if DOCUMENTS[suffix]:
        need_extra(DOCUMENTS[suffix], purpose=f"reading {source}")
    answer = _CHILD.ask(raw, suffix)
    problem = answer.get("problem")
    if problem is not None:
        raise RecordError(f"{source}: {problem}")
    marks = tuple(Mark(*mark) for mark in answer["marks"])
    return Text(answer["title"], answer["text"], marks, tuple(answer["parts"]), answer["fields"])


class _Child:
    """The process, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, raw: bytes, suffix: str) -> dict[str, Any]:  # Any: JSON
        """Return the answer of the process; where it dies, the reason as the problem."""
        with self._lock:
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                worker.send(process.stdin, {"suffix": suffix}, raw)
                head = process.stdout.readline()
                content = process.stdout.read(json.loads(head)["num_bytes"]) if head else b""
            except BrokenPipeError:
                content = b""
            except (
                BaseException
            ):  # Ctrl-C: what it says is not waited for, and must not answer the next request
                self.close()
                raise
            if content:
                return dict(json.loads(content))
            return {"problem": _reason(self.close())}

    def _start(self) -> subprocess.Popen[bytes]:
        with ctrl_c_deferred():
            self._process = subprocess.Popen(_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process

    def close(self) -> int:
        """End the process; returns how it ended."""
        process, self._process = self._process, None
        if process is None:
            return 0
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                continue
        try:
            return process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _command() -> list[str]:
    """Return what starts the process: it finds modules where this one does, but none in the folder that is searched (-P)."""
    path = [*filter(None, sys.path), str(Path(__file__).resolve().parents[3])]
    return [sys.executable, "-P", "-c", f"import sys; sys.path[:] = {path!r}; {_PROGRAM}"]


def _reason(returncode: int) -> str:
    if returncode == -signal.SIGALRM:
        return f"reading it takes more than {worker.MAX_SECONDS} seconds. Split it"
    how = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    return f"its reader died ({how}). It is damaged; make or fetch it again"


_CHILD = _Child()
atexit.register(_CHILD.close)

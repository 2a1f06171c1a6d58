"""A server in a process of its own: SIGTERM lets what runs finish, and tells those who ask that it is not ready."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("starlette")

PROGRAM = """
import asyncio, sys
from pathlib import Path
from embedkit.extras import serve
from embedkit.serving.http.access import Access
from embedkit.serving.http.app import App
from embedkit.serving.http.messages import HttpRequest, HttpResponse, RefusedError, Route
from embedkit.serving.limits import Limits

def error_body(status, message):
    return {"error": message}

async def slow(request):
    print("begun", flush=True)
    while not Path(request.query["until"]).exists():
        await asyncio.sleep(0.01)
    return HttpResponse(content={"done": True})

async def ready(request):
    if app.draining:
        raise RefusedError(503, "shutting down")
    return HttpResponse(content={"ready": True})

def route(path, handle, **more):
    return Route(method="GET", path=path, handle=handle, error_body=error_body, summary="", tag="", **more)

app = App([route("/slow", slow), route("/ready", ready, keyless=True)], Access(), Limits(drain_seconds=float(sys.argv[1])))
opened = serve.listen("127.0.0.1", 0)
serve.run(app, HttpRequest, opened, ready=lambda: print(opened.getsockname()[1], flush=True))
print("ended", flush=True)
"""


@contextmanager
def server(drain_seconds: float) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-c", PROGRAM, str(drain_seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_is_finished_while_nothing_new_is_begun(number: signal.Signals, tmp_path: Path) -> None:
    slow = f"/slow?until={tmp_path / 'file'}"
    with server(20) as (process, port):
        assert get(port, "/ready") == 200
        statuses: list[int] = []
        running = threading.Thread(target=lambda: statuses.append(get(port, slow)))
        running.start()
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        while get(port, "/ready") == 200:  # until the signal is seen
            pass
        assert get(port, slow) == 503
        (tmp_path / "file").touch()
        running.join(20)
        assert statuses == [200]
        assert process.wait(20) == 0
        assert process.stdout.read() == "ended\n"


def test_what_does_not_end_within_the_limit_is_cut_off(tmp_path: Path) -> None:
    with server(0.5) as (process, port):
        statuses: list[int] = []
        running = threading.Thread(
            target=lambda: statuses.append(get(port, f"/slow?until={tmp_path / 'never'}"))
        )
        running.start()
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        running.join(20)
        assert statuses == [503]

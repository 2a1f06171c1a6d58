"""Processes that start within milliseconds: copies of one that has loaded what they need.

`python -m tests.forking DESCRIPTOR MODULE …` waits at a socket for calls of functions, and makes each in a fork of itself.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent


class Fork:
    """A process that makes one call; what it prints is read here, and that ends with the process."""

    def __init__(self, pid: int, output: int) -> None:
        self.pid, self._output = pid, output
        self._read = b""
        self.ended = False

    def line(self) -> str:
        """Wait for the next line, without its end; "" where the process has ended."""
        while b"\n" not in self._read and not self.ended:
            self._take()
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def wait(self, seconds: float) -> bool:
        """Wait for the end so many seconds, and return whether it has come."""
        until = time.monotonic() + seconds
        while not self.ended and select.select([self._output], [], [], max(0.0, until - time.monotonic()))[0]:
            self._take()
        return self.ended

    def kill(self) -> list[str]:
        """End the process where it has not ended, and return the lines that were not read yet."""
        if not self.ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        while not self.ended:
            self._take()
        return self._read.decode().splitlines()

    def _take(self) -> None:
        part = os.read(self._output, 65536)
        self._read += part
        if not part:
            os.close(self._output)
            self.ended = True


class Forking:
    """The process that forks; it ends with this one."""

    def __init__(self, *modules: str) -> None:
        """Start it; it loads the modules, of which functions are then called."""
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.forking", str(theirs.fileno()), *modules]
        self._server = subprocess.Popen(command, cwd=REPOSITORY, pass_fds=[theirs.fileno()])
        theirs.close()

    def start(self, function: Callable[..., object], *arguments: object) -> Fork:
        """Call a function with arguments, all as strings, in a process of its own."""
        reading, writing = os.pipe()
        call = [function.__module__, function.__name__, *map(str, arguments)]
        socket.send_fds(self._socket, [json.dumps(call).encode()], [writing])
        os.close(writing)
        return Fork(int(self._socket.recv(32)), reading)

    def close(self) -> None:
        self._socket.close()
        self._server.wait()


def serve(descriptor: int, modules: list[str]) -> None:
    """Load the modules, and fork for each call until the other end of the socket is closed."""
    loaded = {name: importlib.import_module(name) for name in modules}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whose end nobody waits for
    with socket.socket(fileno=descriptor) as connection:
        while True:
            message, output = _received(connection)
            if not message:
                return
            child = os.fork()
            if child == 0:
                connection.close()
                _call(loaded, json.loads(message), output)
            os.close(output)
            connection.send(str(child).encode())


def _received(connection: socket.socket) -> tuple[bytes, int]:
    message, descriptors, *_ = socket.recv_fds(connection, 65536, 1)
    return message, descriptors[0] if descriptors else -1


def _call(loaded: dict[str, Any], call: list[str], output: int) -> None:  # Any: modules
    """Be the fork: print into `output`, and end without what its parent would do at its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(output, 1)
    os.close(output)
    module, name, *arguments = call
    code = 1
    try:
        getattr(loaded[module], name)(*arguments)
        sys.stdout.flush()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2:])

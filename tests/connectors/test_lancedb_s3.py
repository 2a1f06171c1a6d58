"""LanceDB in a bucket beyond what the suite asks of every store: what is wrong is told, and soon; kills, the lease."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from embedkit.connectors.opening import open_store
from embedkit.connectors.pulling import pull
from embedkit.connectors.urls import read_url
from embedkit.errors import StoreError
from indexes import Index
from tests.conftest import REPOSITORY
from tests.connectors.conftest import Target, use_endpoint
from tests.connectors.servers import free_port, s3
from tests.connectors.test_conformance import content, make, pull_all, push_all

pytestmark = pytest.mark.stores
SECONDS = 25.0  # in which whatever is wrong is told


@pytest.fixture(autouse=True)
def _lancedb() -> None:
    pytest.importorskip("lancedb", reason="needs: pip install 'embedkit[lancedb]'")


def target_of(place: str) -> Target:
    url = f"s3://{place}?table=docs"
    return Target("lancedb-s3", lambda: open_store(url), url)


def refused(url: str) -> str:
    """Return what `index pull` says, which must not take long."""
    begun = time.monotonic()
    result = CliRunner().invoke(app, ["index", "pull", url, "nowhere.index"])
    assert time.monotonic() - begun < SECONDS
    assert isinstance(result.exception, StoreError), result.output
    assert str(result.exception).startswith("s3://")
    return str(result.exception)


def test_a_bucket_that_is_not_there(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_endpoint(monkeypatch, s3_bucket)
    assert "s3://other/folder?table=docs: there is no such bucket. Create it first" in refused(
        "s3://other/folder?table=docs"
    )
    assert "nothing was pushed there" in refused("s3://bucket/nothing?table=docs")


def test_keys_that_are_refused_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3(tmp_path, refuse=True) as address:
        use_endpoint(monkeypatch, address)
        why = refused("s3://bucket/folder?table=docs")
        assert "the store refuses the credentials (InvalidAccessKeyId). Check AWS_ACCESS_KEY_ID" in why
        assert "its secret" not in why
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        assert "there are no credentials. Set AWS_ACCESS_KEY_ID" in refused("s3://bucket/folder?table=docs")


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_endpoint_that_is_not_there_says_nothing_or_is_not_encrypted(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in (f"http://127.0.0.1:{free_port()}", silent):
        use_endpoint(monkeypatch, address)
        assert f"the store at {address} cannot be reached" in refused("s3://bucket/folder?table=docs")
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    why = refused("s3://bucket/folder?table=docs")
    assert f"the endpoint {silent} is not encrypted. Set AWS_ALLOW_HTTP=true" in why


def test_a_store_that_goes_away_in_the_middle_is_told_and_the_push_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_bucket: str
) -> None:
    use_endpoint(monkeypatch, s3_bucket)
    target = target_of("bucket/away")
    with make(tmp_path / "a", 40) as index:
        push_all(index, target)
        with closing(target.open()) as store:
            assert store.read_info() is not None
        with s3(tmp_path) as address:
            use_endpoint(monkeypatch, address)
            store = target.open()
        begun = time.monotonic()
        with closing(store), pytest.raises(StoreError, match=r"cannot be reached\. Check AWS_ENDPOINT_URL"):
            store.read_info()
        assert time.monotonic() - begun < SECONDS


def batches(target: Target) -> bool:
    """Say whether the first batch is there."""
    with closing(target.open()) as store:
        return store.read_info() is not None and bool(store.count())


def test_a_killed_push_goes_on_and_its_lease_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_bucket: str
) -> None:
    use_endpoint(monkeypatch, s3_bucket)
    target = target_of("bucket/killed")
    make(tmp_path / "a", 8000).close()
    words = [sys.executable, "-m", "cli", "index", "push", str(tmp_path / "a"), target.url]
    process = subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.PIPE, env=os.environ)
    try:
        while not batches(target):
            assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with Index.open(tmp_path / "a") as index:
        with closing(target.open()) as store, pytest.raises(StoreError, match="has not ended"):
            pull(store, tmp_path / "no")
        report = push_all(index, target)
        assert report.unchanged < 8007
        assert report.unchanged + report.sent == 8007
        with pull_all(target, tmp_path / "b") as pulled:
            assert content(pulled) == content(index)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3:///folder?table=docs", "names no bucket"),
        (
            "s3://key:secret@bucket/folder?table=docs",
            "holds a user or a key; those come from the environment",
        ),
        ("s3://bucket/folder", "names no table"),
    ],
)
def test_urls_that_cannot_be(url: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason) as told:
        read_url(url)
    assert "secret" not in str(told.value)

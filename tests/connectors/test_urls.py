"""URLs of stores: what they name, and what is said of those that name nothing."""

from __future__ import annotations

import pytest

from embedkit.connectors.opening import open_store
from embedkit.connectors.urls import is_store_url, read_url
from embedkit.errors import MissingExtraError, StoreError
from embedkit.extras import EXTRAS


def test_a_url_without_a_query_of_ours_reaches_the_client_as_it_is() -> None:
    read = read_url(
        "postgresql://me:p%40ss@h:5/db?table=t&language=simple&sslmode=require&options=-c%20x%3D1"
    )
    assert read.address == "postgresql://me:p%40ss@h:5/db?sslmode=require&options=-c%20x%3D1"
    assert (read.table, read.options, read.place) == (
        "t",
        {"language": "simple"},
        "postgresql://me@h:5/db?table=t",
    )


def test_the_folder_of_a_url_without_a_host() -> None:
    assert read_url("lance:///data/my%20lance?table=docs").folder == "/data/my lance"
    assert read_url("lance://here/lance?table=docs").folder == "here/lance"
    assert read_url("lance://here?table=docs").place == "lance://here?table=docs"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "mysql://u:secret@h/db?table=t",
            r"mysql://u@h/db\?table=t: mysql:// is no store that is known here.*postgresql://",
        ),
        ("notes", "this is no store"),
        ("postgresql://u:secret@h/db", "u@h/db: the URL names no table"),
        ("postgresql://h/db?table=a-b", "the table's name is 'a-b'; wanted are letters"),
        ("postgresql://h/db?table=" + "x" * 41, "40 at most"),
        ("postgresql://h:port/db?table=t", "cannot be read"),
        ("postgresql://h/db?table", "cannot be read"),
        ("qdrant://:secret@h?table=t", r"qdrant://@h\?table=t: the URL names no collection"),
        ("lance://x?table=t&limit=3", "unknown parameter 'limit'; known here: table"),
        ("chroma://h?collection=t&tennant=a", "known here: collection, tenant, database"),
    ],
)
def test_what_is_wrong_with_a_url_is_said_without_its_password(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught:
        read_url(url)
    assert "secret" not in str(caught.value)


def test_what_is_a_url() -> None:
    assert is_store_url("postgresql://x")
    assert is_store_url("lance:///x")
    assert is_store_url("foo://x")
    assert not is_store_url("C:/x")
    assert not is_store_url("what does a://b mean")


@pytest.mark.parametrize(
    ("url", "extra"),
    [
        ("postgresql://h/d?table=t", "pgvector"),
        ("lance://x?table=t", "lancedb"),
        ("qdrant://x?collection=t", "qdrant"),
        ("chroma+https://x?collection=t", "chroma"),
        ("milvus:///x.db?collection=t", "milvus"),
    ],
)
def test_a_missing_client_is_named_with_what_installs_it(
    url: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRAS, extra, "no_such_package")
    with pytest.raises(MissingExtraError, match=rf"pip install 'embedkit\[{extra}\]'"):
        open_store(url)

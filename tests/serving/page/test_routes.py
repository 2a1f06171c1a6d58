from __future__ import annotations

import gzip
import http.client
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import pytest

pytest.importorskip("starlette")

from embedkit.serving.http.access import Access
from embedkit.serving.page import routes
from embedkit.serving.page.page import POLICY
from tests.serving.running import served

FILES = [route.path for route in routes()]
LOCKED = Access(keys=("secret",))


def ask(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    try:
        connection.request(
            method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def page(path: str = "/", **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
    with served(routes()) as address:
        return ask(address, path, **headers)


def test_the_page_is_at_the_root_and_needs_no_key() -> None:
    with served(routes(), LOCKED) as address:
        for path in FILES:
            assert ask(address, path)[0] == 200, path
    with served(routes()) as address:
        assert ask(address, "/page/no-such-file")[0] == 404
        assert ask(address, "/page/../page.py")[0] == 404


def test_every_file_comes_with_the_policy_and_its_kind() -> None:
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    with served(routes()) as address:
        for path in FILES:
            _, _, headers = ask(address, path)
            assert headers["content-security-policy"] == POLICY
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["x-frame-options"] == "DENY"
            kind = kinds[path.rpartition(".")[2] if "." in path else "html"]
            assert headers["content-type"] == f"{kind}; charset=utf-8"


def test_the_policy_lets_in_nothing_from_elsewhere() -> None:
    assert "default-src 'none'" in POLICY
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    assert "*" not in POLICY


def test_a_file_that_has_not_changed_is_not_sent_again() -> None:
    _, content, headers = page()
    assert headers["cache-control"] == "no-cache"
    for known in (headers["etag"], f'"other", W/{headers["etag"]}', "*"):
        status, body, again = page(if_none_match=known)
        assert (status, body, again["etag"]) == (304, b"", headers["etag"])
    assert page(if_none_match='"other"')[:2] == (200, content)


def test_a_client_that_can_unpack_gets_a_packed_file_with_a_tag_of_its_own() -> None:
    _, content, plain = page("/page/page.js")
    _, packed, headers = page("/page/page.js", accept_encoding="br, gzip;q=0.8")
    assert headers["content-encoding"] == "gzip"
    assert headers["vary"] == plain["vary"] == "Accept-Encoding"
    assert headers["etag"] != plain["etag"]
    assert gzip.decompress(packed) == content
    assert len(packed) < len(content) / 2


def test_head_says_the_same_without_the_body() -> None:
    with served(routes()) as address:
        _, content, of_get = ask(address, "/")
        status, body, of_head = ask(address, "/", "HEAD")
    assert (status, body) == (200, b"")
    assert of_head["content-length"] == str(len(content))
    assert of_head["etag"] == of_get["etag"]


def test_the_page_has_no_inline_script_or_style_and_names_only_files_that_there_are() -> None:
    text = page()[1].decode()
    assert re.findall(r"<script(?![^>]*\bsrc=)", text) == []
    assert not re.search(r"<style|\sstyle=|\son\w+=", text)
    named = re.findall(r'(?:src|href)="(page/[^"]+)"', text)
    assert {f"/{name}" for name in named} == set(FILES) - {"/"}
    outside = re.findall(r"(?:https?:)?//[\w.-]+", text)
    assert outside == ["http://HOST"]  # in the advice for those who have no JavaScript


def test_the_scripts_put_no_text_in_as_html_and_import_each_other_only() -> None:
    with served(routes()) as address:
        scripts = {path: ask(address, path)[1].decode() for path in FILES if path.endswith(".js")}
    for path, text in scripts.items():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), path
        imported = re.findall(r'from "\./([^"]+)"', text)
        assert {f"/page/{name}" for name in imported} <= set(FILES)

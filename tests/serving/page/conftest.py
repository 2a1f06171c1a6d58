"""Chromium on the page of a fake server."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("starlette")

from embedkit.serving.http.access import Access
from tests.serving.page.fake import Fake
from tests.serving.running import OPEN, served

WIDE = (1280, 860)
Page = Any  # Any: Playwright's, which only the extra `browser` installs


def until(page: Page, script: str, given: object = None) -> None:
    """Wait until a script is true. Playwright's own way wants `eval`, which the page's policy forbids."""
    end = time.monotonic() + 10
    while not page.evaluate(script, given):
        assert time.monotonic() < end, f"after 10 s this is still not so: {script}"
        page.wait_for_timeout(20)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:  # Any: Playwright's browser
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs the extra browser: pip install 'embedkit[browser]'"
    )
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def visit(chromium: Any, fake: Fake) -> Iterator[Callable[..., Page]]:  # Any: as above
    """Open a page of the fake server at an address; no visit may break the policy or leave an error behind."""
    closing: list[Callable[[], object]] = []
    faults: list[str] = []

    def visit(
        address: str = "/", *, size: tuple[int, int] = WIDE, access: Access = OPEN, **options: Any
    ) -> Page:
        serving = served(fake.routes(), access)
        base = serving.__enter__()
        closing.append(lambda: serving.__exit__(None, None, None))
        context = chromium.new_context(
            base_url=base,
            viewport={"width": size[0], "height": size[1]},
            **{"color_scheme": "light", **options},
        )
        closing.append(context.close)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.goto(address)
        return page

    yield visit
    for close in reversed(closing):
        close()
    # The browser itself logs answers that are refusals; those the page shows.
    assert [fault for fault in faults if not fault.startswith("Failed to load resource")] == []

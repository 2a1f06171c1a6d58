"""What the page shows where the server does not answer as it should."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from embedkit.serving.http.access import Access
from tests.serving.page.conftest import Page, until
from tests.serving.page.fake import Fake

pytestmark = pytest.mark.browser
QUERY = "/?q=speed+of+light+measured"
KEY = "a-secret-of-the-test"
LOCKED = Access(keys=(KEY,))
Visit = Callable[..., Page]


def test_a_fault_of_the_server_is_shown_and_can_be_tried_again(visit: Visit, fake: Fake) -> None:
    page = visit(QUERY)
    page.locator("li.hit").first.wait_for()
    fake.broken = True
    page.get_by_label("Words", exact=True).check()
    page.get_by_role("heading", name="Something went wrong on the server").wait_for()
    assert "its log has it under the request id" in page.locator(".reason").inner_text()
    assert page.locator("li.hit").count() == 0  # hits of another search do not stay
    fake.broken = False
    page.get_by_role("button", name="Try again").click()
    page.locator("li.hit").first.wait_for()


def test_a_server_that_fails_from_the_start_can_be_tried_again(visit: Visit, fake: Fake) -> None:
    fake.broken = True
    page = visit(QUERY)
    page.get_by_role("heading", name="Something went wrong on the server").wait_for()
    fake.broken = False
    page.get_by_role("button", name="Try again").click()
    page.locator("li.hit").first.wait_for()


def test_without_a_network_the_page_says_so_and_goes_on_by_itself(visit: Visit) -> None:
    page = visit(QUERY)
    page.locator("li.hit").first.wait_for()
    page.context.set_offline(True)
    page.locator("#query").fill("light")
    page.get_by_role("heading", name="No connection to the server").wait_for()
    page.context.set_offline(False)
    page.locator("li.hit").first.wait_for()


def test_a_busy_server_is_asked_again_when_it_says(visit: Visit, fake: Fake) -> None:
    page = visit("/?q=busy+light")
    page.get_by_text("The server is busy. Asking again in 1 second.").wait_for()
    page.locator("li.hit").first.wait_for()
    assert len(fake.asked) == 2
    assert page.locator(".note").count() == 0


def test_typing_on_ends_the_wait_for_a_busy_server(visit: Visit, fake: Fake) -> None:
    page = visit("/?q=busy+light")
    page.locator(".note", has_text="The server is busy.").wait_for()
    page.locator("#query").fill("speed of light")
    page.locator("li.hit").first.wait_for()
    page.wait_for_timeout(1300)  # longer than the wait would have been
    assert [each["query"] for each in fake.asked] == ["busy light", "speed of light"]


def test_the_key_is_asked_for_kept_in_the_tab_and_never_in_an_address(visit: Visit, fake: Fake) -> None:
    page = visit(QUERY, access=LOCKED)
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    box = page.get_by_label("API key", exact=True)
    box.wait_for()
    assert box.get_attribute("type") == "password"
    box.fill("wrong")
    box.press("Enter")
    page.get_by_text("The server refused this key.").wait_for()
    box.fill("no key ✗")
    box.press("Enter")
    page.get_by_text("A key has letters, digits and signs of ASCII").wait_for()
    box.fill(KEY)
    box.press("Enter")
    page.locator("li.hit").first.wait_for()
    assert fake.seen[-1] == ("/search", f"Bearer {KEY}")
    page.reload()
    page.locator("li.hit").first.wait_for()
    page.locator("a.hit-title").first.click()
    page.locator("#panel .passage").wait_for()
    assert not [address for address in [*addresses, page.url] if KEY in address]
    assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Forget the API key").click()
    box.wait_for()
    assert page.evaluate("sessionStorage.length") == 0


def test_the_key_can_be_put_off_and_given_later(visit: Visit) -> None:
    page = visit(QUERY, access=LOCKED)
    page.get_by_role("button", name="Not now").click()
    page.get_by_role("button", name="Enter the key").click()
    page.get_by_label("API key", exact=True).fill(KEY)
    page.get_by_role("button", name="Continue").click()
    page.locator("li.hit").first.wait_for()


def test_a_server_without_an_index_explains_how_to_serve_one(visit: Visit, fake: Fake) -> None:
    fake.has_index = False
    page = visit(QUERY)
    page.get_by_role("heading", name="There is no index here yet").wait_for()
    assert "embedkit serve notes.index" in page.locator(".command pre").inner_text()
    assert page.locator("#query").is_disabled()
    assert not page.locator("#side").is_visible()


def test_notes_of_the_server_stand_above_the_hits(visit: Visit) -> None:
    page = visit("/?q=cut+light")
    page.get_by_text("The query was cut to 512 tokens.").wait_for()


def test_the_page_works_where_storage_is_switched_off(visit: Visit) -> None:
    page = visit("about:blank")
    page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, name, {get() { throw new DOMException('off', 'SecurityError') }})"
    )
    page.goto(QUERY)
    page.locator("li.hit").first.wait_for()
    page.locator("#theme").click()
    until(page, "document.documentElement.dataset.theme === 'light'")

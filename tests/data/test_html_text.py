"""The text of HTML pages: where lines and words end."""

import pytest

from embedkit.data.html_text import extract_text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (
            "<table><tr><th>Country</th><th>Capital</th></tr><tr><td>France</td><td>Paris</td></tr></table>"
            "<dl><dt>term</dt><dd>meaning</dd></dl>",
            "Country Capital\nFrance Paris\nterm meaning",
        ),
        ("<dl><dt>a<dd>b<dd>c<dt>d<dd>e</dl>", "a b c\nd e"),
        ("<ul><li>one<li>two</ul>after", "one\ntwo\nafter"),
        ("<select><option>one<option>two</select>", "one\ntwo"),
        ("<button>Save</button><button>Quit</button>", "Save Quit"),
        ("<label>Name</label><input><label>Mail</label>", "Name Mail"),
        ("one<br>two<hr>three", "one\ntwo\nthree"),
        ("before<p>in</p>after<div>x</div>y", "before\nin\nafter\nx\ny"),
        ("<p>H<sub>2</sub>O is <b>wa</b>ter</p>", "H2O is water"),
        ("<p>a line\n   that goes on</p>\n<b>and</b>\n<i>on</i>", "a line that goes on\nand on"),
        ("<pre>def f():\n    return 1\n\n</pre>", "def f():\n    return 1"),
        ("<p>one<!-- no --><script>no</script> two", "one two"),
        ("<b>x</b>" + "<div>" * 5_000 + "deep", "x\ndeep"),
        ('<?xml version="1.0"?><!DOCTYPE html><p>XHTML</p>', "XHTML"),
        ("page.html", "page.html"),
        ("https://example.org/", "https://example.org/"),
        ("", ""),
    ],
)
def test_blocks_stand_on_lines_and_cells_beside_each_other(page: str, text: str) -> None:
    assert extract_text(page)[:2] == ("", text)


def test_the_title_is_not_part_of_the_text() -> None:
    assert extract_text("<title>The\n  title</title><p>text")[:2] == ("The title", "text")
    assert extract_text("<html><body><p>a</body></html><p>behind")[:2] == ("", "a\nbehind")


MAIN = "<main><h1>Herons</h1><header>By Ann</header><p>They wait at the water.<aside>A note.</aside></main>"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (
            f"<title>T</title><header>Shop now</header>{MAIN}<footer>© 2026</footer>",
            "Herons\nBy Ann\nThey wait at the water.\nA note.",
        ),
        (
            f"<div class=bar>Sign in</div>{MAIN}<div>Share this</div>",
            "Herons\nBy Ann\nThey wait at the water.\nA note.",
        ),
        ("<div>Sign in</div><div role=main><p>Herons wait.</div>", "Herons wait."),
        # What is marked as the main part holds less than the rest: all is read.
        (
            "<main>Loading</main><div>Herons wait at the water for hours.</div>",
            "Loading\nHerons wait at the water for hours.",
        ),
        (
            "<header>Shop now</header><p>News</p><article><header>Herons</header>wait<footer>Ann</footer></article><aside>Ads</aside>",
            "News\nHerons\nwait\nAnn",
        ),
        # Without either, headers and footers may be all there is.
        ("<header><h1>Herons</h1></header><p>wait</p><footer>Ann</footer>", "Herons\nwait\nAnn"),
        (
            '<div role="navigation">Home</div><ul role=menu><li>One</ul><div role=Dialog>We use cookies</div><p>text',
            "text",
        ),
        (
            "<div hidden>secret</div><div hidden=until-found>folded</div><main hidden>shown later</main>",
            "shown later",
        ),
        ("<p hidden>one<p>two", "one\ntwo"),
        ("<section role=search><input><button>Find</button></section>text</nav></main>", "text"),
    ],
)
def test_what_stands_around_the_text_of_a_page_is_left_out(page: str, text: str) -> None:
    assert extract_text(page).text == text


def test_lines_and_headings_are_those_of_the_page_where_parts_are_left_out() -> None:
    found = extract_text(
        "<h1>Shop</h1>\n<header>\nSign in</header>\n<main>\n<h2>Herons</h2>\n<p>wait</main>\nshop"
    )
    assert found.text == "Herons\nwait"
    assert found.headings == [(0, 2, "Herons")]
    assert found.lines == [(0, 5), (7, 6)]

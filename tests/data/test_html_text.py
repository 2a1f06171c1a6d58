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

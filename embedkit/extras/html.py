"""Taking the text out of HTML pages."""

from __future__ import annotations

import re

import bs4

# Parts of a page that a reader does not read in its text.
SILENT = ("script", "style", "noscript", "template", "nav", "svg", "title")
# Where lines end, and where words end. All other elements are parts of a line, and perhaps of a word: <b>H</b>2O.
_BLOCKS = frozenset(
    """address article aside blockquote body br caption center dialog details dir div dl fieldset figcaption figure footer
    form h1 h2 h3 h4 h5 h6 head header hr html legend li main menu ol optgroup option p pre search section select summary
    table tbody textarea tfoot thead tr ul""".split()  # noqa: SIM905  # forty-odd names to read, not to edit
)
_SEPARATE = frozenset(
    "audio button canvas datalist dd dt iframe img input label meter object output progress td th video".split()  # noqa: SIM905
)
_PREFORMATTED = ("pre", "textarea")
_XML = re.compile(r"\A\s*<\?xml\b[^>]*>")
_SPACE = re.compile(r"\s+")


def extract_text(page: str) -> tuple[str, str]:
    r"""Return (title, visible text); blocks and rows of a table stand on lines of their own, cells side by side.

    "<tr><td>France<td>Paris</tr><p>two\nwords" -> "France Paris\ntwo words"
    """
    # bs4 warns of a page that begins as XML, as XHTML does, and of one that is a single word, which may be a file's name.
    soup = bs4.BeautifulSoup(_XML.sub("", page) + "\n", "html.parser")
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    for element in soup(list(SILENT)):
        element.decompose()
    lines = (line.rstrip() for line in _flow(soup).splitlines())
    return " ".join(title.split()), "\n".join(line for line in lines if line)


def _flow(soup: bs4.BeautifulSoup) -> str:
    """Join the texts of a page with the line ends and spaces that its elements put between them."""
    found = ["\n"]
    # What is still to come, last first: elements, texts, and the signs that stand behind an element. No recursion: pages
    # nest as deeply as they like.
    waiting: list[tuple[bs4.PageElement | str, bool]] = [(soup, False)]
    while waiting:
        node, preformatted = waiting.pop()
        if isinstance(node, bs4.Tag):
            behind = "\n" if node.name in _BLOCKS else " " if node.name in _SEPARATE else ""
            before = "\n" if node.name == "dt" else behind  # what it means follows on its line
            preformatted = preformatted or node.name in _PREFORMATTED
            waiting.append((behind, True))
            waiting.extend((child, preformatted) for child in reversed(node.contents))
            waiting.append((before, True))
            continue
        if type(node) not in (str, bs4.NavigableString, bs4.CData):  # comments and the like
            continue
        piece = str(node)
        if not preformatted:
            piece = _SPACE.sub(" ", piece)
        if piece.startswith(" ") and found[-1][-1].isspace() and (not preformatted or piece == " "):
            piece = piece[1:]
        if piece:
            found.append(piece)
    return "".join(found)

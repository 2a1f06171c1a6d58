"""Taking the text out of HTML pages, with the line of the page that each part of it stands in.

It is taken as the page is parsed: a tree would take fifty times the room of the page.
"""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import NamedTuple

# Parts of a page that a reader does not read in its text; of ruby, how a word is pronounced.
_SILENT = frozenset("script style noscript template nav svg title rt rp".split())  # noqa: SIM905  # names to read, not to edit
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
# Elements that nothing stands in, so that they have no end tag.
_VOID = frozenset(
    """area base basefont bgsound br col command embed frame hr image img input isindex keygen link menuitem meta nextid
    param source spacer track wbr""".split()  # noqa: SIM905
)
# Elements that may stand around a part of a page and have to be ended, and what some of them are for: `role` says so.
_AROUND = frozenset(
    "article aside button dialog div fieldset footer form header main nav ol section span table ul".split()  # noqa: SIM905
)
_FURNITURE_ROLES = frozenset(
    ["alertdialog", "banner", "contentinfo", "dialog", "menu", "menubar", "navigation", "search", "toolbar"]
)
# What stands around the text of a page that marks its text, unless it stands within one of these.
_FURNITURE, _SECTIONS = ("aside", "footer", "header"), ("article", "main", "section")
_MAIN = re.compile(r"""<main\b|\brole\s*=\s*["']?main\b""", re.IGNORECASE)
_ARTICLE = re.compile(r"<article\b", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_HEADING = re.compile(r"h([1-6])")


class Page(NamedTuple):
    """What a reader reads of a page, and where it stands there."""

    title: str
    text: str
    lines: list[tuple[int, int]]  # character of the text, line of the page: from there on
    headings: list[tuple[int, int, str]]  # character, level, heading


def extract_text(page: str) -> Page:
    r"""Return title and visible text; blocks and rows of a table stand on lines of their own, cells side by side.

    "<tr><td>France<td>Paris</tr><p>two\nwords" -> "France Paris\ntwo words"

    Navigation, hidden parts and what else a `role` calls furniture are left out. Of a page with a `main` that holds most of
    its text, this alone is read, and of one with articles no header, footer or aside of the whole page.
    """
    marked = _MAIN.search(page) is not None
    flow = _read(page, main=marked, articles=marked or _ARTICLE.search(page) is not None)
    if marked and flow.passed_over > flow.length:  # it is not what it says
        flow = _read(page, main=False, articles=False)
    return Page(flow.title, flow.finished(), flow.lines, flow.headings)


def _read(page: str, *, main: bool, articles: bool) -> _Flow:
    flow = _Flow(main=main, articles=articles)
    flow.feed(page)
    flow.close()
    flow.finish()
    return flow


class _Flow(HTMLParser):
    """The texts of a page, with the line ends and spaces that its elements put between them."""

    def __init__(self, *, main: bool, articles: bool) -> None:
        """`main` reads only what a page says is its main part, `articles` leaves out what stands around its articles."""
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []  # elements, the outermost first
        self._only_main, self._articles = main, articles
        self._furniture: list[
            int
        ] = []  # the numbers of those of them that are furniture, and of those that are the main part
        self._main: list[int] = []
        self.passed_over = 0  # characters beside the main part that are no furniture
        self._counts = dict.fromkeys([*_SILENT, *_PREFORMATTED], 0)  # how many of them are open
        self._data: list[str] = []  # of the text that is being read
        self._lines = io.StringIO()
        self._line = io.StringIO()
        self._last = "\n"  # what stands before the next text
        self._title: list[str] = []
        self._title_at = -1  # the number of the first title among the open elements
        self._titled = False  # it has come to its end
        self._data_line = 1  # of the page, where the text that is being read begins
        self._heading: tuple[int, list[str]] | None = None  # where it begins, and what it says up to here
        self.lines: list[tuple[int, int]] = []
        self.headings: list[tuple[int, int, str]] = []

    @property
    def title(self) -> str:
        return " ".join(" ".join(self._title).split())

    @property
    def length(self) -> int:
        return self._lines.tell()

    def finish(self) -> None:
        """Put down what is left; to be called when all is read."""
        self._end_text()
        self._close(0)
        self._end_line()

    def finished(self) -> str:
        return self._lines.getvalue()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._end_text()
        if tag == "title" and self._title_at < 0:
            self._title_at = len(self._open)
        before = "\n" if tag == "dt" else _behind(tag)  # what a dt means follows on its line
        self._put(before)
        if tag in _VOID:
            self._put(_behind(tag))
            return
        if tag in _AROUND:
            self._classify(tag, dict(attrs))
        self._open.append(tag)
        if tag in self._counts:
            self._counts[tag] += 1
        if _HEADING.fullmatch(tag) and not self._is_silent():
            self._heading = self._place(), []

    def _classify(self, tag: str, attributes: dict[str, str | None]) -> None:
        """Note whether an element that begins is furniture of the page, or its main part."""
        role = (attributes.get("role") or "").strip().lower()
        if tag == "main" or role == "main":
            self._main.append(len(self._open))
        around = self._articles and tag in _FURNITURE and not any(each in _SECTIONS for each in self._open)
        hidden = "hidden" in attributes and attributes["hidden"] != "until-found" and tag not in _SECTIONS
        if around or hidden or role in _FURNITURE_ROLES:
            self._furniture.append(len(self._open))

    def handle_endtag(self, tag: str) -> None:
        self._end_text()
        for number in range(len(self._open) - 1, -1, -1):  # an end of what is not open ends nothing
            if self._open[number] == tag:
                self._close(number)
                return

    def handle_data(self, data: str) -> None:
        if not self._data:
            self._data_line = self.getpos()[0]
        self._data.append(data)

    def handle_comment(self, data: str) -> None:
        self._end_text()

    def handle_decl(self, decl: str) -> None:
        self._end_text()

    def handle_pi(self, data: str) -> None:
        self._end_text()

    def unknown_decl(self, data: str) -> None:
        self._end_text()
        if data[:6].upper() == "CDATA[":
            self.handle_data(data[6:])
            self._end_text()

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:  # of a kind that it does not know: for browsers a comment
            return int(self.parse_bogus_comment(i))

    def _close(self, number: int) -> None:
        """Close the open elements from one on."""
        while len(self._open) > number:
            tag = self._open[-1]
            self._put(_behind(tag))
            self._open.pop()
            for numbers in (self._furniture, self._main):
                if numbers and numbers[-1] == len(self._open):
                    numbers.pop()
            if tag in self._counts:
                self._counts[tag] -= 1
            if (level := _HEADING.fullmatch(tag)) and self._heading is not None:
                (place, said), self._heading = self._heading, None
                if words := " ".join(" ".join(said).split()):
                    self.headings.append((place, int(level[1]), words))
            self._titled = self._titled or len(self._open) == self._title_at

    def _end_text(self) -> None:
        """Put down the text up to here."""
        piece = "".join(self._data)
        self._data.clear()
        if self._title_at >= 0 and not self._titled and not self._counts["script"]:
            self._title.append(piece)
        preformatted = any(self._counts[tag] for tag in _PREFORMATTED)
        if self._heading is not None and not self._is_silent():
            self._heading[1].append(piece)
        for number, part in enumerate(piece.splitlines(keepends=True), self._data_line):
            self._put(part, preformatted=preformatted, line=number)

    def _is_silent(self) -> bool:
        return self._is_unread() or (self._only_main and not self._main)

    def _is_unread(self) -> bool:
        return bool(self._furniture) or any(self._counts[tag] for tag in _SILENT)

    def _place(self) -> int:
        """Return the character of the text that comes next."""
        before = self._lines.tell()
        return before + bool(before) + self._line.tell()

    def _put(self, piece: str, *, preformatted: bool = True, line: int = 0) -> None:
        if not piece or self._is_silent():
            self.passed_over += 0 if self._is_unread() else len(piece.strip())
            return
        if not preformatted:
            piece = _SPACE.sub(" ", piece)
        if piece.startswith(" ") and self._last.isspace() and (not preformatted or piece == " "):
            piece = piece[1:]
        if piece:
            if line and not piece.isspace():
                self._mark(line)
            self._line.write(piece)
            self._last = piece[-1]
        if piece.endswith("\n"):
            self._end_line()

    def _mark(self, line: int) -> None:
        """Note that what comes next stands in a line of the page."""
        if not self.lines or self.lines[-1][1] != line:
            place = self._place()
            if self.lines and self.lines[-1][0] >= place:  # of a line of the page of which nothing was left
                self.lines.pop()
            self.lines.append((place, line))

    def _end_line(self) -> None:
        for line in self._line.getvalue().splitlines():
            if shown := line.rstrip():
                self._lines.write("\n" if self._lines.tell() else "")
                self._lines.write(shown)
        self._line = io.StringIO()


def _behind(tag: str) -> str:
    """Return what stands behind an element, and most often before it."""
    return "\n" if tag in _BLOCKS else " " if tag in _SEPARATE else ""

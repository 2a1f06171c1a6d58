"""Hits as `embedkit grep` prints them: under headings on a terminal, a line each in a pipe, JSON lines, paths alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from embedkit.pipelines.grep.lines import Excerpt, Line, excerpts

from ..shared import console
from ..shared.plain import plain
from .asked import ShowingHits, shown_path

if TYPE_CHECKING:
    from embedkit.data.records import Hit

PATH, NUMBER, MATCH, DIM = "1;35", "32", "1;33", "2"
LONGEST = 200  # characters shown of a line on a terminal
# Terminals that open links (https://gist.github.com/egmontkob/eb114294efbcd5adb1944c9f3cb5feda lists them).
_LINKING_PROGRAMS = ("iTerm.app", "WezTerm", "vscode", "ghostty", "Hyper")


def show(query: str, hits: Sequence[Hit], showing: ShowingHits, *, regex: str | None, as_json: bool) -> None:
    """Print the hits, best first, in the form that is asked for; or open one of them."""
    cwd = Path.cwd()
    hits = [replace(hit, doc_id=shown_path(Path(hit.source), cwd)) for hit in hits]
    if showing.files_only:
        for path in dict.fromkeys(hit.doc_id for hit in hits):
            console.print_json({"path": path}) if as_json else console.say(path)
    elif as_json:
        from ..search.hits import hit_row

        for rank, hit in enumerate(hits, 1):
            console.print_json({"path": hit.doc_id, **hit_row(hit, rank)})
    else:
        found = excerpts(query, hits, context=showing.context, regex=regex)
        if showing.open_hit is not None:
            from .editor import open_in_editor

            open_in_editor(found, showing.open_hit)
        else:
            _print(found, showing)


def show_fitting(hits: Sequence[Hit], tokens: int, *, as_json: bool) -> int:
    """Print whole passages, best first, as many as fit into so many tokens, each under its place; return how many."""
    from embedkit.pipelines.grep.budget import fitting

    cwd = Path.cwd()
    hits = [replace(hit, doc_id=shown_path(Path(hit.source), cwd)) for hit in hits]
    number = 0
    for number, piece in enumerate(fitting(hits, tokens), 1):
        if as_json:
            row = {"rank": number, "where": piece.where, "score": piece.hit.score, "text": piece.text}
            console.print_json({**row, "tokens": piece.num_tokens})
        else:
            console.say(f"{piece.where}\n{piece.text}\n")
    return number


def _print(found: Sequence[Excerpt], showing: ShowingHits) -> None:
    style = _Style.for_output(showing)
    heading = sys.stdout.isatty() if showing.heading is None else showing.heading
    for number, excerpt in enumerate(found, 1):
        if showing.vimgrep:
            console.write_styled(_vimgrep(excerpt))
        elif heading:
            if number > 1:
                console.write_styled("")
            console.write_styled(_heading(excerpt, number, style))
            for text in _numbered(excerpt, showing, style):
                console.write_styled(text)
        else:
            if number > 1 and showing.context:
                console.write_styled("--")
            for text in _prefixed(excerpt, showing, style):
                console.write_styled(text)
    sys.stdout.flush()


def _heading(excerpt: Excerpt, number: int, style: _Style) -> str:
    hit = excerpt.hit
    where = style.link(style.of(PATH, plain(hit.where)), excerpt.file)
    above = " › ".join(map(plain, hit.place.headings)) if hit.place else ""
    line = f"{style.of(DIM, f'{number:>2}')}  {where}  {style.of(DIM, f'{hit.score:.2f}')}"
    return f"{line}  {style.of(DIM, above)}" if above else line


def _numbered(excerpt: Excerpt, showing: ShowingHits, style: _Style) -> list[str]:
    width = max((len(str(line.number)) for line in excerpt.lines if line.number), default=0)
    shown = []
    for line in excerpt.lines:
        number = f"{line.number:>{width}}" if line.number and showing.line_number else ""
        gap = "  " if number else ""
        shown.append(f"    {style.of(NUMBER, number)}{gap}{style.marked(line)}")
    return shown


def _prefixed(excerpt: Excerpt, showing: ShowingHits, style: _Style) -> list[str]:
    """Return grep's lines: path:line:text, and path-line-text of the lines around where these are asked for."""
    shown = []
    place = excerpt.hit.place
    has_lines = place is not None and place.lines is not None
    # Of a document that has no lines the page, slide or row is named: paper.pdf p. 7:text
    path = style.of(PATH, plain(excerpt.hit.doc_id if has_lines else excerpt.hit.where))
    for at, line in enumerate(excerpt.lines):
        if at != excerpt.best and not showing.context:
            continue
        sign = ":" if at == excerpt.best else "-"
        number = line.number or (excerpt.first if at == excerpt.best and has_lines else None)
        parts = [path, *([style.of(NUMBER, str(number))] if showing.line_number and number else [])]
        shown.append(sign.join([*parts, style.marked(line)]))
    return shown


def _vimgrep(excerpt: Excerpt) -> str:
    line = excerpt.lines[excerpt.best] if excerpt.lines else Line(None, "")
    column = 1 + len(line.text[: line.spans[0][0]].encode()) if line.spans and line.number else 1
    return f"{plain(excerpt.hit.doc_id)}:{excerpt.first}:{column}:{_one_line(plain(line.text))}"


def _one_line(text: str) -> str:
    return text.replace("\n", " ")


@dataclass(frozen=True)
class _Style:
    """How text is coloured and linked; nothing of it where neither is wanted."""

    colors: bool
    links: bool
    longest: int | None

    @classmethod
    def for_output(cls, showing: ShowingHits) -> _Style:
        terminal = sys.stdout.isatty()
        wanted = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        colors = showing.color == "always" or (showing.color == "auto" and wanted)
        return cls(colors, colors and terminal and opens_links(os.environ), LONGEST if terminal else None)

    def of(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colors and text else text

    def link(self, text: str, file: Path) -> str:
        if not self.links:
            return text
        return f"\x1b]8;;file://{os.uname().nodename}{quote(file.as_posix())}\x1b\\{text}\x1b]8;;\x1b\\"

    def marked(self, line: Line) -> str:
        """Return a line with its matches marked, cut to its best part where it is too long."""
        text, spans = plain(line.text), list(line.spans)
        before, after = "", ""
        if self.longest is not None and len(text) > self.longest:
            start = max(0, min(spans[0][0] - self.longest // 4 if spans else 0, len(text) - self.longest))
            before, after = "…" * (start > 0), "…" * (start + self.longest < len(text))
            text = text[start : start + self.longest]
            spans = [
                (max(0, a - start), min(b - start, len(text)))
                for a, b in spans
                if start < b and a < start + len(text)
            ]
        parts, at = [before], 0
        for first, last in spans:
            parts += [text[at:first], self.of(MATCH, text[first:last])]
            at = last
        return "".join([*parts, text[at:], after])


def opens_links(environment: os._Environ[str] | dict[str, str]) -> bool:
    """Say whether a terminal opens OSC 8 links, by what it says of itself; FORCE_HYPERLINK decides where it is set."""
    forced = environment.get("FORCE_HYPERLINK")
    if forced is not None:
        return forced not in ("", "0")
    if environment.get("TERM_PROGRAM") in _LINKING_PROGRAMS:
        return True
    version = environment.get("VTE_VERSION", "")
    known = ("KITTY_WINDOW_ID", "WT_SESSION", "KONSOLE_VERSION", "ALACRITTY_WINDOW_ID", "DOMTERM")
    return (version.isdigit() and int(version) >= 5000) or any(environment.get(name) for name in known)

"""The tools and their answers: texts that fit a budget of tokens, each piece under its path, lines and score."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from embedkit.data.records import titled_text
from embedkit.errors import RecordError
from embedkit.pipelines.grep.budget import count_tokens, fitting
from embedkit.pipelines.grep.filtering import Narrowing
from embedkit.pipelines.judging import strong_hits
from embedkit.retrieval.options import Mode, SearchOptions
from embedkit.serving.mcp.schemas import DESCRIPTIONS, schema_of
from embedkit.serving.mcp.served import Call, Served, ServedText

if TYPE_CHECKING:
    from embedkit.data.records import Hit
    from embedkit.pipelines.grep.budget import Piece
    from embedkit.pipelines.searching import Search
    from embedkit.retrieval.vectors import Vectors

Arguments = Mapping[str, Any]  # Any: JSON that fits the tool's schema
_LINES = re.compile(r"(.+?):(\d+)(?:-(\d*))?")


@dataclass(frozen=True)
class ReadingTool:
    """A tool that changes nothing."""

    name: str
    title: str
    description: str
    schema: Mapping[str, Any]  # Any: a JSON schema
    run: Callable[[Arguments, Call], str]


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds where a call says nothing."""

    k: int = 10
    mode: Mode = "hybrid"
    tokens: int = 4000


def tools_for(served: Served, defaults: Defaults) -> list[ReadingTool]:
    """Return the tools for a folder or an index."""
    answers = _Answers(served, defaults)
    runs = {
        "search": ("Search by meaning", answers.search),
        "get": ("Read lines", answers.get),
        "similar": ("Find similar passages", answers.similar),
        "status": ("State of the index", answers.status),
    }
    values = {"k": defaults.k, "mode": defaults.mode, "tokens": defaults.tokens, "place": served.shown}
    return [
        ReadingTool(name, title, DESCRIPTIONS[name].format_map(values), schema_of(name, values), run)
        for name, (title, run) in runs.items()
    ]


class _Answers:
    """The answers of the tools."""

    def __init__(self, served: Served, defaults: Defaults) -> None:
        self.served, self.defaults = served, defaults

    def search(self, arguments: Arguments, call: Call) -> str:
        query = str(arguments["query"])
        options = SearchOptions(
            k=int(arguments.get("k", self.defaults.k)),
            mode=arguments.get("mode", self.defaults.mode),
            text_weight=self.served.text_weight,
        )
        notes = self.served.bring_up_to_date(call)
        if not self.served.is_there:
            return "\n".join(notes)
        with self.served.opened(options, call) as opened:
            found = self.served.search(opened, query, options, _narrowing(arguments))
            hits = strong_hits(opened, query, found, options)
        if len(hits) < len(found):
            notes.append(f"{len(found) - len(hits)} hits that are no nearer than chance are left out")
        return self._shown(hits, notes, arguments)

    def similar(self, arguments: Arguments, call: Call) -> str:
        given = [name for name in ("place", "text") if arguments.get(name)]
        if len(given) != 1:
            raise RecordError("similar: name either a place, such as src/a.py:42, or a text")
        options = SearchOptions(k=int(arguments.get("k", self.defaults.k)), mode="dense")
        notes = self.served.bring_up_to_date(call)
        if not self.served.is_there:
            return "\n".join(notes)
        with self.served.opened(options, call) as opened:
            if given == ["place"]:
                itself, vectors = self._passage(opened, str(arguments["place"]))
            else:
                itself, vectors = None, _embedded(opened, str(arguments["text"]))
            wider = replace(options, k=options.k + 1)
            found = self.served.search_vectors(opened, vectors, wider, _narrowing(arguments))
        hits = [hit for hit in found if (hit.doc_id, hit.passage) != itself]
        return self._shown(hits[: options.k], notes, arguments)

    def _passage(self, opened: Search, place: str) -> tuple[tuple[str, int], Vectors]:
        """Return the passage that stands at a place: its document and number, and its vector (1, E), or what its text is encoded as."""
        path, first, _ = split_place(place)
        hits, vectors = opened.index.passages(self.served.doc_id(path))
        if not hits:
            raise RecordError(f"{path}: is not in the index. Take a path from the answer of a search")
        number = 0 if first is None else _nearest(hits, first)
        if number is None:
            raise RecordError(f"{place}: no passage stands at this line. There is {_extent(hits)}")
        hit = hits[number]
        of_text = opened.index.settings.kind != "dense"  # of which no vectors are handed out
        text = titled_text(hit.title, hit.text)
        return (hit.doc_id, hit.passage), (
            _embedded(opened, text) if of_text else vectors[number : number + 1]
        )

    def get(self, arguments: Arguments, call: Call) -> str:
        path, lines = str(arguments["path"]), arguments.get("lines")
        first, last = None, None
        try:
            text = self.served.text(path)
        except RecordError:
            inner, first, last = split_place(path)
            if inner == path:
                raise
            text = self.served.text(inner)
        if lines is not None:
            first, last = _line_range(str(lines))
        return _excerpt(text, first, last, int(arguments.get("tokens", self.defaults.tokens)))

    def status(self, arguments: Arguments, call: Call) -> str:
        return "\n".join(self.served.status())

    def _shown(self, hits: Sequence[Hit], notes: Sequence[str], arguments: Arguments) -> str:
        tokens = int(arguments.get("tokens", self.defaults.tokens))
        named = self.served.named(hits)
        pieces = list(fitting(named, tokens))
        while pieces and count_tokens(_answer(pieces, notes)) > tokens:  # the headings say more than places
            pieces.pop()
        shown = {(piece.hit.doc_id, piece.hit.passage) for piece in pieces}
        others = [hit.where for hit in named if (hit.doc_id, hit.passage) not in shown]
        if not named:
            return _answer([], ["Nothing was found.", *notes])
        for count in range(min(len(others), _OTHERS), 0, -1):
            more = " …" if count < len(others) else ""
            said = f"{_FOUND_TOO}{', '.join(others[:count])}{more}"
            answer = _answer(pieces, [said, *notes])
            if count_tokens(answer) <= tokens:
                return answer
        return _answer(pieces, notes)


_OTHERS = 10
_FOUND_TOO = "Found too, but shown already or longer than what is left of the tokens: "


def _answer(pieces: Sequence[Piece], notes: Sequence[str]) -> str:
    parts = [f"{_heading(piece)}\n{piece.text}\n" for piece in pieces]
    return "\n".join([*parts, *(f"({each})" for each in notes)])


def _heading(piece: Piece) -> str:
    """Return "src/a.py:3-9  score 0.71  class A › run"."""
    headings = piece.hit.place.headings if piece.hit.place is not None else ()
    title = " › ".join(headings)
    return "  ".join([piece.where, f"score {piece.hit.score:.2f}", *([title] if title else [])])


def _narrowing(arguments: Arguments) -> Narrowing:
    return Narrowing(types=_listed(arguments.get("type")), globs=_listed(arguments.get("glob")))


def _listed(text: str | None) -> list[str]:
    return [each.strip() for each in (text or "").split(",") if each.strip()]


def _embedded(opened: Search, text: str) -> Vectors:
    from embedkit.pipelines.embedders import embedder_of

    assert opened.embedder is not None  # of a dense search
    return embedder_of(opened.embedder.encoder, "document")([text])


def split_place(place: str) -> tuple[str, int | None, int | None]:
    """Split PATH:FIRST-LAST; a line that is not named is None.

    >>> split_place("a/b.py:3-9"), split_place("a/b.py:3"), split_place("a/b.py")
    (('a/b.py', 3, 9), ('a/b.py', 3, 3), ('a/b.py', None, None))
    """
    found = _LINES.fullmatch(place)
    if found is None:
        return place, None, None
    path, first, last = found.groups()
    return path, int(first), int(first) if last is None else int(last) if last else None


def _line_range(lines: str) -> tuple[int, int | None]:
    found = re.fullmatch(r"\s*(\d+)\s*(-\s*(\d*)\s*)?", lines)
    if found is None:
        raise RecordError(f"lines is {lines!r}; it must be a line or a range, such as 42, 10-80 or 100-")
    first = int(found[1])
    return first, first if found[2] is None else int(found[3]) if found[3] else None


def _nearest(hits: Sequence[Hit], line: int) -> int | None:
    """Return which passage covers a line, the one whose middle is nearest where several do."""
    covering = [
        (abs(sum(hit.place.lines) - 2 * line), number)
        for number, hit in enumerate(hits)
        if hit.place is not None
        and hit.place.lines is not None
        and hit.place.lines[0] <= line <= hit.place.lines[1]
    ]
    return min(covering)[1] if covering else None


def _extent(hits: Sequence[Hit]) -> str:
    ends = [hit.place.lines for hit in hits if hit.place is not None and hit.place.lines is not None]
    if not ends:
        return "nothing known of its lines; name the path alone"
    return f"text in lines {ends[0][0]} to {max(last for _, last in ends)}"


def _excerpt(text: ServedText, first: int | None, last: int | None, tokens: int) -> str:
    """Return lines under their place, as many as fit."""
    lines = text.text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    begin, end = text.first_line, text.first_line + len(lines) - 1
    if not lines:
        return f"{text.name}: is empty"
    first, last = max(first or begin, begin), min(last or end, end)
    if first > end or last < first:
        raise RecordError(f"{text.name}: has lines {begin} to {end}; wanted {first} to {last}")
    kept = lines[first - begin : last - begin + 1]
    room = 3 * tokens - len(f"{text.name}:{first}-{last} of {end} lines\n") - 80
    shown: list[str] = []
    for line in kept:
        room -= len(line.encode()) + 1
        if room < 0:
            break
        shown.append(line)
    if not shown:  # one line that is longer than all that may be said
        shown = [kept[0].encode()[: max(0, room + len(kept[0].encode()))].decode("utf-8", "ignore") + " …"]
    stop = first + len(shown) - 1
    place = f"{text.name}:{first}" + (f"-{stop}" if stop > first else "")
    body = "\n".join([f"{place} of {end} lines", *shown])
    more = f"\n({last - stop:,} more lines; go on with lines {stop + 1}-{last})" if stop < last else ""
    return body + more

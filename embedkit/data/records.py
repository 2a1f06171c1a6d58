"""What goes in and comes out: documents, queries and hits; how files are read into them, and the texts they stand for.

Every record knows the file and line it came from, so that whatever is wrong with it later can be said with its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

from embedkit.data.formats import Format
from embedkit.data.places import Mark, Place

# Looked for in this order where the user names no field.
ID_FIELDS = ("_id", "id", "doc_id")
TEXT_FIELDS = ("text", "body", "content", "contents", "sentence")
TITLE_FIELDS = ("title",)
# An id is a column of runs and tables, and at NUL text ends for SQLite's JSON functions.
ID_RULE = "an id must not be empty nor hold tabs, line ends or NUL"


def is_id(value: str) -> bool:
    """Say whether a document may be called so: `ID_RULE`."""
    return bool(value) and not any(sign in value for sign in "\t\n\r\0")


@dataclass(frozen=True, slots=True)
class Document:
    """A text with its id.

    `source` and `line` say where it was read: the resolved path of a file, or "stdin" (line 0: the whole file). `shown` is the
    source as the user spelled it, for messages. `marks` say where the parts of the text stand in the file. `parts` are the
    characters where a part begins that no passage goes beyond, such as a function or a slide; () where any passage may do.
    """

    doc_id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)  # Any: whatever JSON holds
    source: str = ""
    line: int = 0
    shown: str = ""
    marks: Sequence[Mark] = ()
    encoding: str = "utf-8"  # of the file
    parts: Sequence[int] = ()

    @property
    def where(self) -> str:
        source = self.shown or self.source
        return f"{source}:{self.line}" if self.line else source


@dataclass(frozen=True, slots=True)
class Query:
    query_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result; a higher `score` is better, always.

    `text` is the passage, characters `start` to `stop` of the document that `source` names the file of; `passage` is its
    number there (0 where the document was not cut). `scores` names the parts that `score` was made of, such as `dense`,
    `text` or `rerank`. `place` is where the passage stands in its file; None where the index does not know it.
    """

    doc_id: str
    score: float
    text: str = ""
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)  # Any: whatever JSON holds
    passage: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    start: int = 0
    stop: int = 0
    place: Place | None = None

    def scored(self, score: float, scores: Mapping[str, float]) -> Self:
        """Return the hit with other scores; in little more than half the time of `dataclasses.replace`, as a search does it a hundred times."""
        made = object.__new__(type(self))
        for name in self.__dataclass_fields__:
            object.__setattr__(made, name, getattr(self, name))
        object.__setattr__(made, "score", score)
        object.__setattr__(made, "scores", scores)
        return made

    @property
    def where(self) -> str:
        """Name file and place: "docs/a.md:3-9", "paper.pdf p. 7"; the id alone where the place is not known.

        A file is called as in the ids that come of its name; where documents have ids of their own, by its resolved path.
        """
        if self.place is None or not self.source:
            return self.doc_id
        file = self.source.rpartition("/")[2]
        name = self.doc_id
        if self.place.lines is not None:
            file_name, _, rest = name.rpartition(f":{self.place.lines[0]}")
            if not rest or rest.startswith("."):  # of several rows on a line: "a.json:1.2"
                name = file_name or name
        return self.place.named(name if name.rpartition("/")[2] == file else self.source)

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """Return all of it as JSON has it: what the command line prints and a server answers."""
        return {
            "id": self.doc_id,
            "score": self.score,
            "title": self.title,
            "text": self.text,
            "passage": self.passage,
            "start": self.start,
            "stop": self.stop,
            "source": self.source,
            "where": self.where,
            "place": None if self.place is None else self.place.as_dict(),
            "metadata": dict(self.metadata),
            "scores": dict(self.scores),
        }


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read files of records.

    `format` None goes by the file's name. `text_unit` says what one text is in a `.txt` file: a line, or the file.
    Longer lines than `max_line_bytes` are an error: a text of that size is nearly always a file without line ends.
    `delimiter` separates the columns of CSV and TSV (None: by the file), and `header` says whether their first line names the columns.
    """

    TEXT_FIELDS: ClassVar[tuple[str, ...]] = (
        TEXT_FIELDS  # the first that is there is the text, where none is named
    )

    format: Format | None = None
    text_field: str | None = None
    id_field: str | None = None
    title_field: str | None = None
    text_unit: Literal["line", "file"] = "line"
    max_line_bytes: int = 16 * 2**20
    delimiter: str | None = None
    header: bool = True

    def __post_init__(self) -> None:
        if self.max_line_bytes < 1:
            raise ValueError(f"max_line_bytes is {self.max_line_bytes}; it must be at least 1")
        if self.delimiter not in (None, "tab", "\\t") and (
            len(self.delimiter or "") != 1 or self.delimiter in ('"', "\n", "\r")
        ):
            raise ValueError(f"delimiter is {self.delimiter!r}; it must be one sign, or tab")


@dataclass(frozen=True, kw_only=True)
class QueryReadOptions(ReadOptions):
    """How to read files of queries, which go by names of their own, too."""

    TEXT_FIELDS: ClassVar[tuple[str, ...]] = (*TEXT_FIELDS, "query", "question")


def titled_text(title: str, text: str) -> str:
    """Join title and text with a space, without space around them, as BEIR does: what an encoder and a reranker read."""
    return f"{title} {text}".strip()


def headed_text(title: str, text: str) -> str:
    """Put a title on a line above its text, which is then a sentence of its own: what a tokenizer and an MLM learn from."""
    return f"{title}\n{text}" if title else text

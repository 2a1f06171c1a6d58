"""What a walk leaves out, counted by kind and told in a line."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field

# Endings named of the files of other kinds; the rest are "…".
NAMED_ENDINGS = 8


@dataclass
class LeftOut:
    """What a walk did not read, by kind."""

    endings: Counter[str] = field(default_factory=Counter)  # of files of other kinds
    documents: Counter[str] = field(default_factory=Counter)  # by ending, whose readers are not installed
    counts: Counter[str] = field(default_factory=Counter)  # "hidden folders", "links to folders" …
    unreadable: list[str] = field(default_factory=list)  # PATH: reason

    def described(self) -> str:
        """Say what was left out, in one line; '' where that is nothing."""
        parts = []
        if self.endings:
            names = [ending or "no ending" for ending, _ in self.endings.most_common(NAMED_ENDINGS)]
            more = " …" if len(self.endings) > NAMED_ENDINGS else ""
            parts.append(
                f"{_counted(self.endings.total(), 'files of other kinds')} ({' '.join(sorted(names))}{more})"
            )
        if self.documents:
            kinds = " ".join(sorted(self.documents))
            what = _counted(self.documents.total(), "files that are documents")
            parts.append(f"{what} ({kinds}; install what reads them with: pip install 'embedkit[documents]')")
        parts += [_counted(count, what) for what, count in sorted(self.counts.items())]
        return ", ".join(parts)

    def __bool__(self) -> bool:
        return bool(self.endings or self.documents or self.counts or self.unreadable)

    def as_dict(self) -> dict[str, int]:
        """Return the counts by kind, files of other kinds by their ending."""
        by_ending = sorted((self.endings + self.documents).items())
        return {**{f"*{ending}": count for ending, count in by_ending}, **self.counts}

    def to_json(self) -> str:
        return json.dumps([self.endings, self.counts, self.unreadable, self.documents])

    @classmethod
    def from_json(cls, text: str) -> LeftOut:
        endings, counts, unreadable, *rest = json.loads(text)  # documents: of newer ones
        return cls(Counter(endings), Counter(*rest), Counter(counts), unreadable)

    def add(self, other: LeftOut) -> None:
        self.endings.update(other.endings)
        self.documents.update(other.documents)
        self.counts.update(other.counts)
        self.unreadable += other.unreadable


_SINGULAR = {
    "links to folders": "link to a folder",
    "files of other kinds": "file of another kind",
    "folders that are an index": "folder that is an index",
    "files that are documents": "file that is a document",
    "files that ignore files name": "file that ignore files name",
    "links to files of the same folder": "link to a file of the same folder",
    "files that are links to nothing, or no files": "file that is a link to nothing, or no file",
    "virtual environments": "virtual environment",
}


def _counted(count: int, what: str) -> str:
    if count == 1:
        what = _SINGULAR.get(what, what.replace("files", "file").replace("folders", "folder"))
    return f"{count:,} {what}"

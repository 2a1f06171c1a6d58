"""What of a folder is ignored: `.gitignore`, `.ignore` and `.embedkitignore`, read as git reads its own.

Of two rules the nearer folder's counts, within a folder the later file's, within a file the later line's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".ignore", ".embedkitignore")


@dataclass(frozen=True)
class Rules:
    """The rules that hold in a folder: its own, and those of the folders above it. Paths are those of the file system."""

    folder: str  # with / at its end
    spec: GitIgnoreSpec | None = None
    above: Rules | None = None

    def ignores(self, name: str, *, is_folder: bool) -> bool:
        """Say whether an entry of this folder is ignored."""
        path = self.folder + name + ("/" if is_folder else "")
        rules: Rules | None = self
        while rules is not None:
            if rules.spec is not None:
                decided = rules.spec.check_file(path[len(rules.folder) :]).include
                if decided is not None:
                    return decided
            rules = rules.above
        return False

    def below(self, folder: Path) -> Rules:
        """Return the rules that hold in a folder within this one."""
        spec = read_rules(folder)
        place = _with_slash(folder)
        return Rules(place, spec, self) if spec is not None else Rules(place, None, self.nearest)

    @property
    def nearest(self) -> Rules | None:
        return self if self.spec is not None else self.above


def rules_of(folder: Path) -> Rules:
    """Return the rules that hold in a folder: those of the repository that it lies in count, unless they ignore the folder itself.

    What the user names is read, whatever an ignore file above it says.
    """
    chain = _chain(folder)
    top = chain[-1]
    rules = Rules(_with_slash(top), _parsed([top / ".git" / "info" / "exclude"]))
    rules = rules.below(top)
    for inner in reversed(chain[:-1]):
        if rules.ignores(inner.name, is_folder=True):
            return Rules(_with_slash(folder), read_rules(folder))
        rules = rules.below(inner)
    return rules


def files_above(folder: Path) -> list[Path]:
    """Return the files above a folder whose rules may hold in it, there or not."""
    *_, top = chain = _chain(folder)
    return [
        top / ".git" / "info" / "exclude",
        *(above / name for above in chain[1:] for name in IGNORE_FILES),
    ]


def _chain(folder: Path) -> list[Path]:
    """Return a folder and those above it up to the repository that it lies in; itself alone where it lies in none."""
    chain = [folder]
    while not (chain[-1] / ".git").exists():
        if chain[-1].parent == chain[-1]:
            return [folder]
        chain.append(chain[-1].parent)
    return chain


def read_rules(folder: Path) -> GitIgnoreSpec | None:
    """Read the ignore files of one folder; None where there is none."""
    return _parsed([folder / name for name in IGNORE_FILES])


def _parsed(files: list[Path]) -> GitIgnoreSpec | None:
    lines: list[str] = []
    for file in files:
        try:
            lines += file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except OSError:  # there is none, or it may not be read, as git takes it
            continue
    if not any(line.strip() for line in lines):
        return None
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(line for line in lines if _is_pattern(line))


def _is_pattern(line: str) -> bool:
    """Leave out lines that pathspec refuses, which git takes for patterns that match nothing."""
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


def _with_slash(folder: Path) -> str:
    return folder.as_posix().rstrip("/") + "/"

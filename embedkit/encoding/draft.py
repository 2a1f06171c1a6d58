"""The unfinished output of a job over texts: the folder `OUTPUT.partial`, its journal, and the step to the final files.

The files `vectors` (or whatever the job makes), `ids`, `hashes` (of the texts) and `counts` (of vectors or terms, where each text has its own)
only grow. A commit flushes them to disk and then replaces `journal.json`, which says how many bytes of each are good; whatever stands beyond
is cut off when the job goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from embedkit.data.vectors import ids_path
from embedkit.encoding.output_forms import OutputForm, forms_of
from embedkit.errors import OutputError
from embedkit.storage.files import put_in_place

VECTORS = "vectors"
_PACKED = "packed"  # what the content is called once it lies in the final file as well

Json = dict[str, Any]  # Any: whatever JSON holds


def partial_path(output: Path) -> Path:
    """Return the folder in which an unfinished job lies."""
    return output.with_name(output.name + ".partial")


def check_output(
    output: Path, *, content: str = VECTORS, forms: Mapping[str, OutputForm] | None = None
) -> OutputForm:
    """Make sure that a job can begin, or go on, towards `output`, and return how that is laid out.

    `forms` are what is written, by ending; None: those of dense vectors.

    Raises:
        OutputError: it exists, has an ending that we do not write, or lies in a file.
    """
    parent = next((folder for folder in output.absolute().parents if folder.exists()), Path("/"))
    if not parent.is_dir():
        raise OutputError(f"{output}: {parent} is a file; it must be a folder. Choose another --output")
    forms = forms_of(None) if forms is None else forms
    if output.suffix not in forms:
        raise OutputError(
            f"{output}: the ending is {output.suffix!r}; {content} are written as {' or '.join(forms)}. Choose one of these"
        )
    form = forms[output.suffix]
    folder = partial_path(output)
    if os.path.lexists(output):
        if folder.is_dir() and not (folder / content).exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a stop after the last rename left
        raise OutputError(f"{output}: already exists. Choose another --output, or remove it first")
    if form.ids_beside and ids_path(output).exists() and not folder.exists():
        raise OutputError(f"{ids_path(output)}: already exists. Choose another --output, or remove it first")
    return form


class Draft:
    """The folder of an unfinished job: opened at its last commit, appended to, and finished.

    `content` is what the job makes, vectors of a `dimension` where it makes any; `forms` are what is written, by ending, as in `check_output`.
    `settings` decide the bits of the result: a job goes on only with those it was begun with. `report` is the caller's,
    committed with the rows it is about.
    """

    def __init__(
        self,
        output: Path,
        *,
        settings: Json,
        dimension: int = 0,
        content: str = VECTORS,
        forms: Mapping[str, OutputForm] | None = None,
    ) -> None:
        self.form = check_output(output, content=content, forms=forms)
        self.output = output
        self.content = content
        self.folder = partial_path(output)
        self._names = (content, "ids", "hashes", *(["counts"] if self.form.pack else []))
        self.dimension = dimension
        self.settings = settings
        self._files: dict[str, BinaryIO] = {}
        self._restore()

    def _restore(self) -> None:
        """Read how far the job was at its last commit."""
        self._sizes = dict.fromkeys(self._names, 0)
        self.report: Json = {}
        self._texts_hash = hashlib.blake2b(digest_size=16)
        self._expected_hash = self._texts_hash.hexdigest()
        path = self.folder / "journal.json"
        if not path.exists():
            return
        try:
            journal = json.loads(path.read_text(encoding="utf-8"))
            before = journal["settings"]
            self._sizes = {name: int(journal["sizes"][name]) for name in self._names}
            self._expected_hash, self.report = str(journal["texts_hash"]), dict(journal["report"])
        except (ValueError, KeyError, TypeError) as exc:
            raise OutputError(
                f"{path}: cannot be read as a journal ({exc!r}). Remove {self.folder} to start over"
            ) from exc
        self._check_settings(_flat(before), _flat(json.loads(json.dumps(self.settings))))

    def _check_settings(self, before: Json, now: Json) -> None:
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                raise OutputError(
                    f"{self.folder}: begun with {name} = {before.get(name)!r}; now it is {now.get(name)!r}. "
                    f"Use the settings it was begun with, or remove {self.folder} to start over"
                )

    def __enter__(self) -> Draft:
        try:
            self._open()
        except BaseException:
            self.__exit__()  # lets go of the lock
            raise
        return self

    def _open(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock()
        self._restore()  # what another process may have committed before it let go of the lock
        packed = self.folder / _PACKED
        if packed.exists():
            packed.replace(self.folder / self.content)  # a stop before the last rename
        beside = ids_path(self.output)
        if self.form.ids_beside and beside.exists():
            if not self.rows or (self.folder / "ids").exists():
                raise OutputError(f"{beside}: already exists. Choose another --output, or remove it first")
            beside.replace(self.folder / "ids")  # a stop between the last two renames
        if self.form.header is not None and not self._sizes[self.content]:
            header = self.form.header(0, self.dimension)
            (self.folder / self.content).write_bytes(header)
            self._sizes[self.content] = len(header)
        for name in self._names:
            path = self.folder / name
            path.touch()
            if path.stat().st_size < self._sizes[name]:
                raise OutputError(
                    f"{path}: has {path.stat().st_size} bytes; the journal says {self._sizes[name]}. "
                    f"It was changed from outside; remove {self.folder} to start over"
                )
            os.truncate(path, self._sizes[name])
            self._files[name] = path.open("ab")

    def _lock(self) -> None:
        lock = (self.folder / "lock").open("wb")
        self._files["lock"] = lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise OutputError(
                f"{self.folder}: another process is writing there. Wait for it, or choose another --output"
            ) from exc

    def __exit__(self, *exc_info: object) -> None:
        for file in self._files.values():
            # Closing flushes, which fails again on a full disk; the journal alone says what counts.
            with contextlib.suppress(OSError):
                file.close()

    def skip(self, keys: Iterable[tuple[str, str]]) -> None:
        """Read past the (id, text) pairs that are done, making sure that they are still the same.

        Raises:
            OutputError: they are others, or fewer.
        """
        for doc_id, text in keys:
            self._hash(doc_id, text)
        if self._texts_hash.hexdigest() != self._expected_hash:
            raise OutputError(
                f"{self.folder}: the first {self._sizes['hashes'] // 8} texts are not those it was begun with. "
                f"Give the same inputs in the same order, or remove {self.folder} to start over"
            )

    def _hash(self, doc_id: str, text: str) -> bytes:
        content = text.encode("utf-8")
        self._texts_hash.update(doc_id.encode("utf-8") + b"\0" + content + b"\0")
        return hashlib.blake2b(content, digest_size=8).digest()

    def append(
        self, keys: Iterable[tuple[str, str]], content: bytes, report: Json, *, counts: bytes = b""
    ) -> None:
        """Write what was made of some (id, text) pairs and commit it; `counts` are the int64 of what is packed."""
        keys = list(keys)
        self._files["hashes"].write(b"".join(self._hash(*key) for key in keys))
        self._files[self.content].write(content)
        if self.form.pack is not None:
            self._files["counts"].write(counts)
        if self.form.ids_beside or self.form.pack is not None:
            self._files["ids"].write("".join(f"{doc_id}\n" for doc_id, _ in keys).encode("utf-8"))
        for name in self._names:
            file = self._files[name]
            file.flush()
            os.fsync(file.fileno())
            self._sizes[name] = file.tell()
        journal = {
            "settings": self.settings,
            "sizes": self._sizes,
            "texts_hash": self._texts_hash.hexdigest(),
            "report": report,
        }
        new = self.folder / "journal.json.new"
        new.write_text(json.dumps(journal, indent=1), encoding="utf-8")
        put_in_place(new, self.folder / "journal.json")

    def count_duplicates(self) -> int:
        """Count the texts that stood earlier already, by their 64-bit hashes, a sixteenth of them in memory at a time."""
        if not self._sizes["hashes"]:
            return 0
        hashes = np.memmap(self.folder / "hashes", dtype="<u8", mode="r")
        distinct = 0
        for part in range(16):
            pieces = [
                piece[piece >> np.uint64(60) == part]
                for piece in np.array_split(hashes, max(1, len(hashes) // 2**20))
            ]
            distinct += len(np.unique(np.concatenate(pieces)))
        return len(hashes) - distinct

    def finish(self) -> None:
        """Give the files their final names; that of the output itself says that all is there."""
        made = content = self.folder / self.content
        if self.form.header is not None:
            with content.open("r+b") as stream:
                stream.write(self.form.header(self.rows, self.dimension))
        if self.form.pack is not None:
            made = self.folder / "archive"
            self.form.pack(self.folder, content, self.dimension, made)
        if self.form.ids_beside:
            put_in_place(self.folder / "ids", ids_path(self.output))
        if made != content:
            content.replace(self.folder / _PACKED)  # as if it had moved: a folder without it is done
        put_in_place(made, self.output)
        shutil.rmtree(self.folder, ignore_errors=True)  # what stays behind is removed by the next call

    @property
    def rows(self) -> int:
        return self._sizes["hashes"] // 8


def _flat(settings: Json, prefix: str = "") -> Json:
    """Name nested fields by their path: {"a": {"b": 1}} -> {"a.b": 1}."""
    flat: Json = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat

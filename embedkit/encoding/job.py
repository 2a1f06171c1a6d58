"""Encoding files to files: bounded memory, and a stop at any moment that the same call resumes.

The work goes on in a folder `OUTPUT.partial`:

1. vectors, ids and text hashes are appended to three files, window by window;
2. a commit flushes them to disk and then replaces `journal.json`, which says how many bytes of each are good;
3. a later call cuts the files back to those sizes, reads past the texts that are done (their hash must still be the
   same) and goes on; windows begin at the same texts as in an uninterrupted run, so the bits come out equal;
4. at the end the header gets its row count and the files their final names, the vectors last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from embedkit.checkpoint.folder import sync
from embedkit.encoding.encoder import EncodedWindow, Encoder, OnTruncate
from embedkit.errors import OutputError, RecordError
from embedkit.records import Document

# The header of a .npy file of float32 rows in a fixed size, so that the row count can be filled in at the end.
_NPY_HEADER_BYTES = 128
_FILES = ("vectors", "ids", "hashes")


@dataclass(frozen=True, kw_only=True)
class EncodeProgress:
    """How far an encoding job is. Counts run from the job's first start; `seconds` and `tokens` from this one's.

    `nonfinite` counts vectors with a value that is not finite; `duplicates`, known at the end only, counts texts
    that stood earlier already; the `first_…` name the place of the first such text.
    """

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    empty: int = 0
    nonfinite: int = 0
    duplicates: int | None = None
    resumed_at: int = 0
    seconds: float = 0.0
    session_tokens: int = 0
    first_truncated: str = ""
    first_empty: str = ""
    done: bool = False

    @property
    def tokens_per_second(self) -> float:
        return self.session_tokens / self.seconds if self.seconds else 0.0

    @property
    def texts_per_second(self) -> float:
        return (self.texts - self.resumed_at) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """What an encoding job does with its texts. `prompt` None takes the model's default."""

    prompt: str | None = None
    on_truncate: OnTruncate = "warn"
    fail_on_empty: bool = False
    join_title: bool = True


def document_text(document: Document, *, join_title: bool = True) -> str:
    """Return what is encoded of a document: its title and text, joined by a space as in BEIR."""
    if join_title and document.title:
        return f"{document.title} {document.text}".strip()
    return document.text


def encode_stream(
    encoder: Encoder, documents: Iterable[Document], options: EncodeOptions
) -> Iterator[tuple[list[Document], EncodedWindow]]:
    """Encode documents window by window, each window with the documents it is of."""
    waiting: list[Document] = []

    def texts() -> Iterator[str]:
        for document in documents:
            text = document_text(document, join_title=options.join_title)
            if options.fail_on_empty and (not text or text.isspace()):
                raise RecordError(
                    f"{document.where}: the text is empty. Remove the row, or pass --on-empty warn"
                )
            waiting.append(document)
            yield text

    # A text that is too long is refused here rather than by the encoder: only we know the place it came from.
    on_truncate = "ok" if options.on_truncate == "error" else options.on_truncate
    for window in encoder.encode_windows(texts(), prompt=options.prompt, on_truncate=on_truncate):
        size = len(window.embeddings)
        chunk, waiting[:] = waiting[:size], waiting[size:]
        if options.on_truncate == "error" and window.truncated.any():
            place = chunk[int(window.truncated.argmax())].where
            raise RecordError(
                f"{place}: the text is longer than the {encoder.tokenizer.max_length} tokens that the model reads. "
                "Cut it, or pass --on-truncate chunk|warn|ok"
            )
        yield chunk, window


def encode_to_file(
    encoder: Encoder, documents: Iterable[Document], output: str | Path, options: EncodeOptions | None = None
) -> Iterator[EncodeProgress]:
    """Encode documents into `output` (.npy or .jsonl), with the ids beside it; yield a report after each window.

    `vectors.npy` gets `vectors.ids.txt`, an id a line in the order of the rows; JSON lines hold their ids.
    Stopped at any moment, the same call resumes.

    Raises:
        OutputError: the output exists, has another ending, cannot be written, or was begun with other settings or texts.
        RecordError: an input cannot be read, or holds what the options forbid.
    """
    output = Path(output)
    if output.parent.exists() and not output.parent.is_dir():
        raise OutputError(f"{output}: {output.parent} is not a folder")
    if output.suffix not in (".npy", ".jsonl"):
        raise OutputError(f"{output}: the ending is {output.suffix!r}; vectors are written as .npy or .jsonl")
    if output.exists():
        raise OutputError(f"{output}: already exists. Choose another name, or remove it first")
    options = options or EncodeOptions()
    draft = _Draft(output, encoder, options)
    return _run(encoder, documents, draft, options)


def ids_path(output: Path) -> Path:
    """Return where the ids of a .npy file lie."""
    return output.with_suffix(".ids.txt")


def partial_path(output: Path) -> Path:
    """Return the folder in which an unfinished job lies."""
    return output.with_name(output.name + ".partial")


def _run(
    encoder: Encoder, documents: Iterable[Document], draft: _Draft, options: EncodeOptions
) -> Iterator[EncodeProgress]:
    start = time.monotonic()
    try:
        with draft:
            progress = draft.progress
            rest = draft.skip_done(iter(documents), options)
            yield progress
            for window_documents, window in encode_stream(encoder, rest, options):
                progress = count_window(progress, window_documents, window, time.monotonic() - start)
                draft.append(window_documents, window, progress, options)
                yield progress
            progress = replace(progress, duplicates=draft.count_duplicates(), done=True)
            draft.finish()
        yield progress
    except OSError as exc:
        raise OutputError(
            f"{draft.output}: cannot be written ({exc.strerror or exc}). What is done lies in {draft.folder}; "
            "make room, and the same command goes on"
        ) from exc


def count_window(
    progress: EncodeProgress, documents: list[Document], window: EncodedWindow, seconds: float = 0.0
) -> EncodeProgress:
    """Add one window's texts to the counts."""

    def first(flags: Any, known: str) -> str:  # Any: a bool array
        return known or (documents[int(np.argmax(flags))].where if flags.any() else "")

    return replace(
        progress,
        texts=progress.texts + len(documents),
        tokens=progress.tokens + window.num_tokens,
        session_tokens=progress.session_tokens + window.num_tokens,
        truncated=progress.truncated + int(window.truncated.sum()),
        empty=progress.empty + int(window.empty.sum()),
        nonfinite=progress.nonfinite + int((~np.isfinite(window.embeddings).all(axis=1)).sum()),
        first_truncated=first(window.truncated, progress.first_truncated),
        first_empty=first(window.empty, progress.first_empty),
        seconds=seconds,
    )


class _Draft:
    """The folder of an unfinished job: opened at its last commit, appended to, and finished."""

    def __init__(self, output: Path, encoder: Encoder, options: EncodeOptions) -> None:
        self.output = output
        self.folder = partial_path(output)
        self.as_npy = output.suffix == ".npy"
        self.dimension = encoder.dimension
        self.settings = {
            "format": output.suffix,
            "encoder": encoder.fingerprint,
            "backend": repr(encoder.backend),
            "options": asdict(options),
        }
        self.progress = EncodeProgress()
        self._sizes = dict.fromkeys(_FILES, 0)
        self._texts_hash = hashlib.blake2b(digest_size=16)
        self._expected_hash = self._texts_hash.hexdigest()
        self._files: dict[str, BinaryIO] = {}
        journal = self._read_journal()
        if journal is not None:
            self._check_settings(journal["settings"])
            self._sizes = journal["sizes"]
            self._expected_hash = journal["texts_hash"]
            texts = journal["progress"]["texts"]
            self.progress = EncodeProgress(**journal["progress"] | {"resumed_at": texts, "session_tokens": 0})

    def _read_journal(self) -> dict[str, Any] | None:
        path = self.folder / "journal.json"
        if not path.exists():
            return None
        try:
            journal: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise OutputError(f"{path}: not JSON ({exc}). Remove {self.folder} to start anew") from exc
        return journal

    def _check_settings(self, before: dict[str, Any]) -> None:
        now = json.loads(json.dumps(self.settings))
        for part in now:
            if before.get(part) == now[part]:
                continue
            detail = part
            if isinstance(now[part], dict) and isinstance(before.get(part), dict):
                detail = next(f"{part}.{key}" for key in now[part] if before[part].get(key) != now[part][key])
                key = detail.partition(".")[2]
                was, is_now = before[part].get(key), now[part][key]
            else:
                was, is_now = before.get(part), now[part]
            raise OutputError(
                f"{self.folder}: begun with {detail} = {was!r}; now it is {is_now!r}. "
                f"Use the settings it was begun with, or remove {self.folder} to start anew"
            )

    def __enter__(self) -> _Draft:
        self.folder.mkdir(parents=True, exist_ok=True)
        beside = ids_path(self.output)
        if self.as_npy and beside.exists():
            if not self.rows or (self.folder / "ids").exists():
                raise OutputError(f"{beside}: already exists. Choose another --output, or remove it first")
            beside.replace(self.folder / "ids")  # a stop between the last two renames
        for name in _FILES:
            path = self.folder / name
            path.touch()
            if path.stat().st_size < self._sizes[name]:
                raise OutputError(
                    f"{path}: has {path.stat().st_size} bytes; the journal says {self._sizes[name]}. "
                    f"It was changed from outside; remove {self.folder} to start anew"
                )
            os.truncate(path, self._sizes[name])
            self._files[name] = path.open("ab")
        if self.as_npy and not self._sizes["vectors"]:
            self._files["vectors"].write(npy_header(0, self.dimension))
        return self

    def __exit__(self, *exc_info: object) -> None:
        for file in self._files.values():
            # Closing flushes, which fails again on a full disk; the journal alone says what counts.
            with contextlib.suppress(OSError):
                file.close()

    def skip_done(self, documents: Iterator[Document], options: EncodeOptions) -> Iterator[Document]:
        """Read past the documents that are encoded already, making sure that they are still the same."""
        done = self.progress.texts
        for document in islice(documents, done):
            self._hash(document, options)
        if self._texts_hash.hexdigest() != self._expected_hash:
            raise OutputError(
                f"{self.folder}: the first {done} texts are not those it was begun with. "
                f"Give the same inputs in the same order, or remove {self.folder} to start anew"
            )
        return documents

    def _hash(self, document: Document, options: EncodeOptions) -> bytes:
        text = document_text(document, join_title=options.join_title).encode("utf-8")
        self._texts_hash.update(document.doc_id.encode("utf-8") + b"\0" + text + b"\0")
        return hashlib.blake2b(text, digest_size=8).digest()

    def append(
        self,
        documents: list[Document],
        window: EncodedWindow,
        progress: EncodeProgress,
        options: EncodeOptions,
    ) -> None:
        """Write one window and commit it."""
        self._files["hashes"].write(b"".join(self._hash(document, options) for document in documents))
        if self.as_npy:
            self._files["vectors"].write(window.embeddings.astype("<f4").tobytes())
            self._files["ids"].write(
                "".join(f"{document.doc_id}\n" for document in documents).encode("utf-8")
            )
        else:
            rows = zip(documents, window.embeddings, strict=True)
            self._files["vectors"].write(
                "".join(json_row(document.doc_id, row) for document, row in rows).encode("utf-8")
            )
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            self._sizes[name] = file.tell()
        journal = {
            "settings": self.settings,
            "sizes": self._sizes,
            "texts_hash": self._texts_hash.hexdigest(),
            "progress": asdict(progress),
        }
        draft = self.folder / "journal.json.new"
        draft.write_text(json.dumps(journal, indent=1), encoding="utf-8")
        sync(draft)
        draft.replace(self.folder / "journal.json")

    def count_duplicates(self) -> int:
        """Count the texts that stood earlier already, by their 64-bit hashes, a sixteenth of them in memory at a time."""
        hashes = (
            np.memmap(self.folder / "hashes", dtype="<u8", mode="r")
            if self._sizes["hashes"]
            else np.empty(0, "<u8")
        )
        distinct = 0
        for part in range(16):
            pieces = [
                piece[piece >> np.uint64(60) == part]
                for piece in np.array_split(hashes, max(1, len(hashes) // 2**20))
            ]
            distinct += len(np.unique(np.concatenate(pieces)))
        return len(hashes) - distinct

    def finish(self) -> None:
        """Give the files their final names; the vectors' name is what says that all is there."""
        if self.as_npy:
            file = self.folder / "vectors"
            with file.open("r+b") as stream:
                stream.write(npy_header(self.rows, self.dimension))
                stream.flush()
                os.fsync(stream.fileno())
            (self.folder / "ids").replace(ids_path(self.output))
        (self.folder / "vectors").replace(self.output)
        sync(self.output.absolute().parent)
        shutil.rmtree(self.folder)

    @property
    def rows(self) -> int:
        data = max(self._sizes["vectors"], _NPY_HEADER_BYTES) - _NPY_HEADER_BYTES
        return data // (4 * self.dimension)


def npy_header(rows: int, dimension: int) -> bytes:
    """Return the header of a .npy file of (rows, dimension) little-endian float32, padded to a fixed size."""
    fields = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}"
    text = fields.ljust(_NPY_HEADER_BYTES - 11) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("ascii")


def json_row(doc_id: str, embedding: Any) -> str:  # Any: a float32 row
    """Write one vector as a JSON line; floats in the fewest digits that give the same float32 again."""
    values = ",".join(map(str, embedding)) if np.isfinite(embedding).all() else _with_nulls(embedding)
    return f'{{"id": {json.dumps(doc_id, ensure_ascii=False)}, "embedding": [{values}]}}\n'


def _with_nulls(embedding: Any) -> str:  # Any: a float32 row
    # JSON has no NaN; such vectors are counted and reported.
    return ",".join(str(value) if np.isfinite(value) else "null" for value in embedding)

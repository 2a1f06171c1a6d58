"""A text corpus as token ids on disk, memory-mapped; made once for each content and tokenizer.

A cache folder holds little-endian arrays and `corpus.json`:
    tokens.bin      ids of all documents, one after another, without special tokens (uint16 or uint32)
    sentences.bin   int64, where each sentence starts in `tokens`, and the end
    documents.bin   int64, which sentence each document starts with, and the end
    hashes.bin      uint64, of each document's text: it decides which are held out
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from embedkit.data.paths import STDIN
from embedkit.data.reading import DocumentReader
from embedkit.data.records import ReadOptions, headed_text
from embedkit.errors import TrainingError
from embedkit.storage.cache import cache_folder
from embedkit.storage.files import new_folder
from embedkit.storage.hashing import canonical_json
from embedkit.tokenization.tokenizer import Tokenizer

FORMAT = 1
Ints = NDArray[np.int64]

# A sentence ends at . ! ? … with quotes or brackets after it and white space before what follows, or at a line's end.
# The space stays with the sentence it precedes: byte-level tokenizers then give the ids of the uncut text.
_SENTENCE_END = re.compile(r"(?<=[.!?…])(?=\s)|(?<=[.!?…][\"'”’)\]])(?=\s)|(?=\n)")


def sentences_of(text: str) -> list[str]:
    """Cut a text into sentences; joined they are the text again, but for blank ones."""
    return [part for part in _SENTENCE_END.split(text) if part and not part.isspace()]


@dataclass(frozen=True)
class CorpusProgress:
    """How far the making of a cache is; `fraction` is of the input's bytes."""

    documents: int
    tokens: int
    fraction: float


@dataclass(frozen=True)
class Corpus:
    """Tokenized documents; arrays are memory-mapped and read-only."""

    tokens: NDArray[np.uint16] | NDArray[np.uint32]  # (N,)
    sentences: Ints  # (S + 1,) token offsets
    documents: Ints  # (number of documents + 1,) sentence numbers
    hashes: NDArray[np.uint64]
    fingerprint: str

    @property
    def document_starts(self) -> Ints:
        """Token offsets of the documents, and the end."""
        return self.sentences[self.documents]

    def split(self, held_out: float, *, key: str = "text.held_out") -> tuple[Ints, Ints]:
        """Return the numbers of the documents to train on and of those held out, by the hash of their text.

        Equal texts fall on the same side. `key` is what a recipe calls the share. A document without tokens falls on neither.

        Raises:
            TrainingError: one of the two is empty.
        """
        filled = np.diff(self.document_starts) > 0
        out = self.hashes < np.uint64(held_out * 2**64)
        train, kept = np.flatnonzero(filled & ~out), np.flatnonzero(filled & out)
        if not len(train) or not len(kept):
            other = 0.1 if len(kept) else min(10 * held_out, 0.5)
            raise TrainingError(
                f"the corpus has {len(train) + len(kept):,} documents with text, of which {len(kept):,} are held out; training needs "
                f"at least one of each. Give more documents, or another share with --set {key}={other:g}"
            )
        return train, kept


def corpus_fingerprint(inputs: Sequence[str], options: ReadOptions, tokenizer: Tokenizer) -> str:
    """Hash the bytes of all input files, how they are read, and the tokenizer.

    Raises:
        RecordError: an input is not there.
        TrainingError: an input is a pipe, which cannot be read twice.
    """
    digest = hashlib.sha256()
    for path in DocumentReader(inputs, options).paths:
        if str(path) == STDIN:
            raise TrainingError(
                "the texts come from a pipe ('-'); a run that can be resumed reads files. Write them to a file first"
            )
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    fields = (options.format, options.text_field, options.title_field, options.text_unit)
    digest.update(canonical_json([FORMAT, tokenizer.fingerprint, *fields]).encode())
    return digest.hexdigest()


def build_corpus(
    inputs: Sequence[str], options: ReadOptions, tokenizer: Tokenizer, target: Path, fingerprint: str
) -> Iterator[CorpusProgress]:
    """Tokenize all documents into the cache folder `target`; nothing is there before all is.

    Raises (while iterating):
        RecordError: a file or line that cannot be read.
        OutputError: the folder cannot be written.
    """
    dtype = "<u2" if tokenizer.vocab_size <= 2**16 else "<u4"
    with new_folder(target) as folder:
        with (folder / "tokens.bin").open("wb") as tokens:
            writer = _Writer(tokens, dtype, tokenizer)
            reader = DocumentReader(inputs, options)
            for document in reader:
                writer.add(headed_text(document.title, document.text))
                if len(writer.hashes) % 100 == 0:
                    yield CorpusProgress(len(writer.hashes), writer.num_tokens, reader.fraction() or 0.0)
            writer.flush()
        np.array(writer.sentences, "<i8").tofile(folder / "sentences.bin")
        np.array(writer.documents, "<i8").tofile(folder / "documents.bin")
        np.array(writer.hashes, "<u8").tofile(folder / "hashes.bin")
        content = {"format": FORMAT, "fingerprint": fingerprint, "dtype": dtype, "tokens": writer.num_tokens}
        content |= {"sentences": len(writer.sentences), "documents": len(writer.documents)}
        (folder / "corpus.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    yield CorpusProgress(len(writer.hashes), writer.num_tokens, 1.0)


class _Writer:
    """Tokenizes sentences in groups and keeps where they and their documents start."""

    def __init__(self, tokens: BinaryIO, dtype: str, tokenizer: Tokenizer) -> None:
        self._tokens, self._dtype, self._tokenizer = tokens, dtype, tokenizer
        self._waiting: list[str] = []
        self.sentences = [0]
        self.documents = [0]
        self.hashes: list[int] = []

    @property
    def num_tokens(self) -> int:
        return self.sentences[-1]

    def add(self, text: str) -> None:
        self.hashes.append(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))
        parts = sentences_of(text)
        self._waiting += parts
        self.documents.append(self.documents[-1] + len(parts))
        if len(self._waiting) >= 10_000:
            self.flush()

    def flush(self) -> None:
        flat: list[int] = []
        for ids in self._tokenizer.ids(self._waiting):
            flat += ids
            self.sentences.append(self.sentences[-1] + len(ids))
        np.array(flat, self._dtype).tofile(self._tokens)
        self._waiting.clear()


def open_corpus(folder: Path) -> Corpus:
    """Map a cache folder into memory.

    Raises:
        TrainingError: a file is missing or not of the length that `corpus.json` says.
    """
    try:
        content = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        arrays = {
            name: np.memmap(folder / f"{name}.bin", dtype, "r")
            if (folder / f"{name}.bin").stat().st_size
            else np.empty(0, dtype)
            for name, dtype in (
                ("tokens", content["dtype"]),
                ("sentences", "<i8"),
                ("documents", "<i8"),
                ("hashes", "<u8"),
            )
        }
    except (OSError, ValueError, KeyError) as exc:
        raise TrainingError(
            f"{folder}: the token cache cannot be read ({exc}). Remove the folder; it is made again"
        ) from exc
    for name in ("tokens", "sentences", "documents"):
        if len(arrays[name]) != content[name]:
            raise TrainingError(
                f"{folder / name}.bin: holds {len(arrays[name]):,} values; corpus.json says {content[name]:,}. "
                "Remove the folder; it is made again"
            )
    return Corpus(
        arrays["tokens"], arrays["sentences"], arrays["documents"], arrays["hashes"], content["fingerprint"]
    )


def corpus_folder(cache: Path | None, fingerprint: str) -> Path:
    """Return where the tokens of a fingerprint lie in the cache."""
    return cache_folder(cache) / f"corpus-{fingerprint[:16]}"

"""`LiveIndex`: an index that many threads search at once, and that follows what is done to it on disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from embedkit.errors import EmbedkitError, IndexFileError
from embedkit.serving.indexes.handles import FileIdentity, Handles, ReplacedError, identity_of
from embedkit.serving.indexes.models import IndexModels
from indexes import FieldValues, GatherOptions, Searchable

if TYPE_CHECKING:
    from embedkit.pipelines.embedders import AnyEmbedder, AnyEncoder

logger = logging.getLogger(__name__)
MOST_HANDLES = 8  # of one index: searches beyond that wait for one another
RETRY_SECONDS = 1.0  # after which an index that could not be opened is tried again
PATIENCE_SECONDS = 2.0  # with an index that is being replaced
_LOOK_SECONDS = 0.01
_ATTEMPTS = 20  # of an index that is replaced while it is opened


@dataclass(frozen=True)
class OpenedIndex:
    """An index within one request: one commit of it, with its encoder. `note` is what is to be said with the answer."""

    name: str
    index: Searchable
    embedder: AnyEmbedder | None
    note: str = ""

    @property
    def encoder(self) -> AnyEncoder | None:
        return None if self.embedder is None else self.embedder.encoder


@dataclass(frozen=True)
class _Version:
    """One index file with the encoder that it is of."""

    handles: Handles
    embedder: AnyEmbedder | None


class LiveIndex:
    """An index by name. Each request gets one commit, the newest; who adds, deletes, compacts or builds anew is followed.

    Where what takes its place cannot be opened, or its model not be loaded, the one before goes on answering, with a note.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        models: IndexModels,
        *,
        most_handles: int = MOST_HANDLES,
        gathering: GatherOptions | None = None,
        allow_regex: bool = False,
    ) -> None:
        """Open it; `gathering` says how shards are searched, `allow_regex` whether filters may use regular expressions.

        Raises:
            IndexFileError: there is none, or it is damaged.
            CheckpointError, DeviceError, IndexMismatchError: its model cannot be loaded.
        """
        self.name, self.path = name, path
        self._models, self._most = models, most_handles
        self._gathering, self._allow_regex = gathering, allow_regex
        self.writing = (
            Lock()
        )  # who writes here waits for whoever does; another process is refused by the index's own lock
        self._replacing = Lock()
        self._failed: tuple[FileIdentity | None, float, str] | None = None
        self._fields: WeakKeyDictionary[Searchable, tuple[object, Sequence[FieldValues]]] = (
            WeakKeyDictionary()
        )
        self._version = self._load()

    def close(self) -> None:
        self._version.handles.retire()

    @property
    def embedder(self) -> AnyEmbedder | None:
        """What its queries are embedded by now; None where its vectors were made elsewhere."""
        return self._version.embedder

    @property
    def encoder(self) -> AnyEncoder | None:
        """The model of `embedder`."""
        return None if self.embedder is None else self.embedder.encoder

    @contextmanager
    def opened(self) -> Iterator[OpenedIndex]:
        """Open it for one request.

        Raises:
            IndexFileError: it is damaged, or replaced by what cannot be opened while nothing of the one before is left.
        """
        version, index, note = self._taken()
        try:
            yield OpenedIndex(self.name, index, version.embedder, note)
        finally:
            version.handles.give(index)

    def fields(self, opened: OpenedIndex) -> Sequence[FieldValues]:
        """Return what the metadata hold; a handle looks it up once for each commit that it is asked for."""
        state = opened.index.state  # of this handle alone
        known = self._fields.get(opened.index)
        if known is None or known[0] != state:
            known = self._fields[opened.index] = state, opened.index.field_values()
        return known[1]

    def _taken(self) -> tuple[_Version, Searchable, str]:
        """Take a handle; while the index is being replaced, and nothing of the one before is left, wait for what comes."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while True:
            version, note = self._newest()
            try:
                return version, version.handles.take(may_open=not note), note
            except (ReplacedError, IndexFileError) as exc:
                if time.monotonic() > ends:
                    reason = note or str(exc) or f"{self.path}: is replaced again and again"
                    raise IndexFileError(reason) from exc
            time.sleep(_LOOK_SECONDS)

    def _newest(self) -> tuple[_Version, str]:
        """Return what is on disk, and nothing to say; or the one before and the reason."""
        found = identity_of(self.path)
        version = self._version
        if version.handles.identity == found:
            return version, ""
        failed = self._failed
        if failed is not None and failed[0] == found and time.monotonic() < failed[1]:
            return version, failed[2]
        if not self._replacing.acquire(blocking=False):
            return version, f"{self.name}: another index has taken its place, which is being opened"
        try:
            if self._version.handles.identity != identity_of(self.path):
                self._replace(found)
            failed = self._failed
            return self._version, "" if failed is None else failed[2]
        finally:
            self._replacing.release()

    def _replace(self, found: FileIdentity | None) -> None:
        old = self._version
        try:
            self._version = self._load()
        except (EmbedkitError, OSError, ValueError) as exc:
            reason = f"{self.name}: these are the answers of what was here before; what is here now cannot be opened: {exc}"
            if self._failed is None or self._failed[2] != reason:
                logger.warning("%s", reason)
            self._failed = (found, time.monotonic() + RETRY_SECONDS, reason)
            return
        self._failed = None
        old.handles.retire()
        logger.info("%s: another index has taken its place: %s", self.name, self.path)

    def _load(self) -> _Version:
        for _ in range(_ATTEMPTS):
            try:
                handles = Handles(
                    self.path, most=self._most, gathering=self._gathering, allow_regex=self._allow_regex
                )
            except ReplacedError:
                continue
            try:
                return _Version(handles, self._embedder(handles))
            except ReplacedError:
                handles.retire()
            except BaseException:
                handles.retire()
                raise
        raise IndexFileError(f"{self.path}: is replaced again and again. Ask again later")

    def _embedder(self, handles: Handles) -> AnyEmbedder | None:
        from embedkit.encoding.encoder import Encoder
        from embedkit.encoding.noise import cosine_noise
        from embedkit.pipelines.embedders import embedder_of

        index = handles.take()
        try:
            encoder = self._models.of(index)
        finally:
            handles.give(index)
        if encoder is None:
            return None
        if isinstance(encoder, Encoder):
            cosine_noise(encoder)  # measured now, not while somebody waits for an answer
        return embedder_of(encoder, "query")


def open_indexes(
    paths: dict[str, Path],
    models: IndexModels,
    gathering: GatherOptions | None = None,
    *,
    allow_regex: bool = False,
) -> dict[str, LiveIndex]:
    """Open indexes by their names (`index_names`).

    Raises:
        As `LiveIndex`.
    """
    opened: dict[str, LiveIndex] = {}
    try:
        for name, path in paths.items():
            opened[name] = LiveIndex(name, path, models, gathering=gathering, allow_regex=allow_regex)
    except BaseException:
        for index in opened.values():
            index.close()
        raise
    return opened

"""Encoding by a server as an `Encoder` does it here."""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedkit.data.fields import FieldTexts
from embedkit.encoding.windows import EncodedWindow, TextRefusedError
from embedkit.errors import CheckpointError, ServerError
from embedkit.inference.choice import Choice
from embedkit.serving.client.connection import Client, Json, ServerRefusalError
from embedkit.types import OnTruncate, TextRole

# Texts and characters of one request, and how many requests are under way: enough to keep a server busy, little in memory.
WINDOW_TEXTS, WINDOW_CHARS, AT_ONCE = 512, 2**20, 4


@dataclass(frozen=True)
class ServedModel:
    """What stands for the folder of a model that a server has."""

    name: str
    path: str
    recursions: int | None = None


class ServedEncoder:
    """The first embedding model of a server, or the one that is named."""

    fields: tuple[str, ...] = ()  # of documents with fields: a server takes none

    def __init__(self, client: Client, model: str | None = None, *, role: TextRole | None = None) -> None:
        """Ask what the model is.

        Raises:
            ServerError: the server cannot be reached, or has no such model.
        """
        self._client, self._model = client, model
        try:
            about = client.ask("POST", "/encode", {"model": model, "role": role})["model"]
            self.name, self.max_length = str(about["name"]), int(about["max_length"])
            self._dimension = int(about["dimension"])
            self.fingerprint: dict[str, Any] = dict(about["fingerprint"])
            self._prompts = dict(about["prompts"])
            self.merge_tokens = float(about["merge_tokens"])
            self.backend = str(about["computed_by"])
            choice = about["choice"]
            self.choice = None if choice is None else Choice(**choice)
        except (KeyError, TypeError, ValueError) as exc:
            raise ServerError(
                f"{client.address}: its answer is not that of /encode ({exc!r}). Is it an embedkit server of this version?"
            ) from exc
        self.folder = ServedModel(self.name, f"{client.address}/{self.name}")

    def prompt(self, name: str) -> str:
        """Return the model's prompt of that name.

        Raises:
            CheckpointError: it has no such prompt.
        """
        if name not in self._prompts:
            known = ", ".join(sorted(self._prompts)) or "none"
            raise CheckpointError(
                f"{self.folder.path}: no prompt named {name!r}; it has: {known}. Give the text itself"
            )
        return str(self._prompts[name])

    def width(self, role: TextRole | None) -> int:
        return self._dimension

    def encode_role_windows(
        self, texts: Iterable[str], *, role: TextRole | None, prompt: str | None, on_truncate: OnTruncate
    ) -> Iterator[EncodedWindow]:
        """Encode a stream of texts in order, some requests ahead of what is taken.

        Raises:
            TextRefusedError: a text is too long, and `on_truncate` is "error".
            ServerError: the server cannot be reached, or refuses.
        """
        asked = {"model": self._model, "role": role, "prompt": prompt, "on_truncate": on_truncate}
        waiting: deque[Future[EncodedWindow]] = deque()
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ask")
        try:
            for window in _windows(texts):
                waiting.append(pool.submit(self._window, window, asked))
                if len(waiting) > AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def encode_field_windows(
        self, documents: Iterable[FieldTexts], *, on_truncate: OnTruncate
    ) -> Iterator[EncodedWindow]:
        raise NotImplementedError("a server encodes no documents with fields; its model has none here")

    def _window(self, texts: list[str], asked: Json) -> EncodedWindow:
        number: dict[str, int] = {}  # equal texts are sent once
        rows = np.array([number.setdefault(text, len(number)) for text in texts], np.int64)
        try:
            answer = self._client.ask("POST", "/encode", asked | {"texts": list(number)})
        except ServerRefusalError as exc:
            row = exc.content["error"].get("row")
            if not isinstance(row, int):
                raise
            raise TextRefusedError(str(exc.content["error"]["message"]), int(np.argmax(rows == row))) from exc
        if answer["model"]["fingerprint"] != self.fingerprint:
            raise ServerError(
                f"{self._client.address}: the server has got another model meanwhile. Start over"
            )
        vectors = np.frombuffer(base64.b64decode(answer["vectors"]), "<f4").reshape(len(number), -1)
        flags = {}
        for kind in ("truncated", "empty", "unknown"):
            flag = np.zeros(len(number), np.bool_)
            flag[answer[kind]] = True
            flags[kind] = flag[rows]
        return EncodedWindow(vectors.astype(np.float32)[rows], num_tokens=sum(answer["tokens"]), **flags)


def _windows(texts: Iterable[str]) -> Iterator[list[str]]:
    window: list[str] = []
    chars = 0
    for text in texts:
        window.append(text)
        chars += len(text)
        if len(window) == WINDOW_TEXTS or chars >= WINDOW_CHARS:
            yield window
            window, chars = [], 0
    if window:
        yield window

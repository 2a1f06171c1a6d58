"""What the routes answer with: models by name, indexes by name, and the engine that computes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from embedkit.pipelines.embedders import describe_kind
from embedkit.serving.engine.engine import Engine
from embedkit.serving.engine.scoring import AnyReranker
from embedkit.serving.http.messages import RefusedError
from embedkit.serving.limits import Limits
from embedkit.serving.model_names import served_name

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.serving.indexes.live import LiveIndex

Model = TypeVar("Model")


@dataclass(frozen=True, kw_only=True)
class Services:
    """What is served. The first model of each kind answers requests that name none.

    `encoders` are those that give a text one vector; models of other kinds search their indexes alone.
    `indexes` are those of `embedkit.serving.indexes`, by name; `aliases` are names under which clients may ask for a model that
    is called otherwise here, such as "text-embedding-3-small".
    """

    engine: Engine
    limits: Limits
    encoders: Mapping[str, Encoder]
    rerankers: Mapping[str, AnyReranker] = field(default_factory=dict)
    indexes: Mapping[str, LiveIndex] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    writable: bool = False
    started: float = field(default_factory=time.time)

    def close(self) -> None:
        """End the engine, in which what still waits is refused, and close the indexes."""
        self.engine.close()
        for index in self.indexes.values():
            index.close()

    def encoder(self, name: str | None) -> tuple[str, Encoder]:
        """Return an encoder with its name here.

        Raises:
            RefusedError: 404, there is none of this name; 400, it is of another kind.
        """
        if name not in self.encoders:
            self._refuse_other_kind(name)
        return _named(self.encoders, name, self.aliases, "embedding model")

    def _refuse_other_kind(self, name: str | None) -> None:
        """Refuse a model that searches an index here, but gives a text more than one vector; without a name where there are no others."""
        for index in self.indexes.values():
            encoder = index.encoder
            kind = None if encoder is None else describe_kind(encoder)
            if encoder is None or kind is None:
                continue
            served = served_name(encoder.folder.name)
            if name == served or (name is None and not self.encoders):
                raise RefusedError(
                    400,
                    f"{served!r} is {kind}: it searches the index {index.name!r}, and gives a text no single vector. "
                    "Name a dense model, or start the server with one: --model",
                )

    def reranker(self, name: str | None) -> tuple[str, AnyReranker]:
        """Return a cross-encoder, or a multi-vector model that reranks, with its name here.

        Raises:
            RefusedError: 404, there is none of this name.
        """
        return _named(self.rerankers, name, self.aliases, "reranker")


def _named(
    known: Mapping[str, Model], name: str | None, aliases: Mapping[str, str], what: str
) -> tuple[str, Model]:
    if not known:
        raise RefusedError(404, f"no {what} is served here. Start the server with one")
    if name is None:
        return next(iter(known.items()))
    found = aliases.get(name, name)
    if found not in known:
        there = ", ".join(known)
        raise RefusedError(
            404, f"no {what} {name!r} is served here; there is {there}. Name one of these, or none"
        )
    return found, known[found]

"""What a server serves, as plain values: the command line fills them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedkit.serving.limits import Limits
from embedkit.types import Computing
from indexes import GatherOptions


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What a server serves.

    `models` and `rerankers` are folders or names of shipped models; the first of each answers requests that name none. Without
    models those of the indexes are served, and without indexes the default one. `aliases` are further names of models;
    `gathering` says how indexes in shards are searched, `allow_regex` whether filters of clients may use regular expressions.
    """

    indexes: Sequence[Path] = ()
    models: Sequence[str] = ()
    rerankers: Sequence[str] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    writable: bool = False
    allow_regex: bool = False
    gathering: GatherOptions = field(default_factory=GatherOptions)
    computing: Computing = field(default_factory=Computing)
    limits: Limits = field(default_factory=Limits)

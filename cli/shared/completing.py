"""What a shell offers for unfinished words: models, indexes, fields, recipes, metrics. Whatever fails, nothing is offered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

WORDS = "embedkit.words"  # under this name a command notes its words in the context
Offer = Callable[..., list[str]]


def _silent(offer: Offer) -> Offer:
    @wraps(offer)
    def offered(ctx: Any, incomplete: str) -> list[str]:  # Any: typer keeps its own copy of click
        try:
            return offer(ctx, incomplete)
        except Exception:  # in the middle of a line, a message would be in the way
            return []

    return offered


def _starting(incomplete: str, offered: Iterable[str]) -> list[str]:
    return [each for each in offered if each.startswith(incomplete)]


def _beside(incomplete: str, fits: Callable[[Path], bool]) -> list[str]:
    """Return the folders that fit, beside what was typed so far and spelled as it is."""
    head, _, start = incomplete.rpartition("/")
    place = head + "/" if "/" in incomplete else ""
    names = sorted(os.listdir(place or "."))  # noqa: PTH208 (names, not paths)
    found = [name for name in names if name.startswith(start) and (start or not name.startswith("."))]
    return [place + name for name in found if fits(Path(place + name))]


def _is_model(path: Path) -> bool:
    return any(
        (path / name).is_file()
        for name in ("config.json", "modules.json", "config_sentence_transformers.json")
    )


@_silent
def complete_index(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    """Offer indexes; once a command has one, its other words are something else."""
    from indexes import is_searchable

    named = ctx.info_name not in ("merge",) and any(is_searchable(Path(word)) for word in _words(ctx))
    return [] if named else _beside(incomplete, is_searchable)


@_silent
def complete_model(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    """Offer shipped models and model folders."""
    from embedkit.models import SHIPPED

    return _starting(incomplete, SHIPPED) + _beside(incomplete, _is_model)


@_silent
def complete_reranker(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    from embedkit.models import RERANKER
    from embedkit.pipelines.models import MAXSIM

    return _starting(incomplete, (RERANKER, MAXSIM)) + _beside(incomplete, _is_model)


@_silent
def complete_system(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    """Offer what can be compared and is no file."""
    from embedkit.models import ENCODER

    systems = ("bm25", ENCODER, f"{ENCODER}:hybrid")
    return _starting(incomplete, systems) + _beside(incomplete, _is_model)


@_silent
def complete_filter(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    """Offer the fields of the index that the command names, else of the default one."""
    from embedkit.pipelines.default_index import find_default_index
    from indexes import ShardsFile, is_searchable, is_sharded
    from indexes.search.completions import complete_filter as completed

    named = next((Path(word) for word in _words(ctx) if is_searchable(Path(word))), None)
    index = named or find_default_index()
    if index is not None and is_sharded(index):  # its first shard that is here knows most of them
        here = (each for each in ShardsFile.read(index).shards if not each.is_served)
        index = next((index / each.location for each in here), None)
    return [] if index is None else completed(index, incomplete)


@_silent
def complete_field(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    """Offer the keys or columns of the first file that the command reads."""
    return _starting(incomplete, _columns(ctx))


@_silent
def complete_fields(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    """Offer the same for the last name of a list with commas."""
    head, comma, _ = incomplete.rpartition(",")
    return _starting(incomplete, (f"{head}{comma}{name}" for name in _columns(ctx)))


@_silent
def complete_role(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    """Offer ROLE=NAME for each role of training rows and each column of the first file."""
    from typing import get_args

    from embedkit.training.rows.columns import Role

    return _for_each(get_args(Role), ctx, incomplete)


@_silent
def complete_side(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    """Offer SIDE=NAME for the source and the target of pairs and each column of the first file."""
    from typing import get_args

    from embedkit.training.generation.pairs import Side

    return _for_each(get_args(Side), ctx, incomplete)


@_silent
def complete_recipe(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    """Offer the shipped recipes: of the task that is trained, or all of them."""
    from embedkit.recipe import about_preset, preset_names

    names = preset_names()
    own = [name for name in names if about_preset(name).task == ctx.info_name]
    return _starting(incomplete, own if ctx.parent.info_name == "train" else names)


@_silent
def complete_metric(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    """Offer ranking metrics; with a cutoff that is typed, with this one."""
    from typing import get_args

    from embedkit.evaluation.metrics import NEEDS_CUTOFF, MetricName
    from embedkit.evaluation.retrieval import STANDARD_METRICS

    _, at, cutoff = incomplete.partition("@")
    named = [f"{name}@{cutoff}" for name in get_args(MetricName)] if at and cutoff else []
    whole = [name for name in get_args(MetricName) if name not in NEEDS_CUTOFF]
    usual = [*map(str, STANDARD_METRICS), *whole, *(f"{name}@10" for name in get_args(MetricName)), *named]
    return _starting(incomplete, dict.fromkeys(usual))


@_silent
def complete_measure(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    """Offer what the logs of the runs that are named have measured."""
    from embedkit.training.reports.plot import measures_of

    runs = [word for word in _words(ctx) if Path(word).is_dir()]
    return _starting(incomplete, dict.fromkeys(name for run in runs for name in measures_of(run)))


@_silent
def complete_loss(ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    from embedkit.training.loss_table import names

    return _starting(incomplete, names(ctx.info_name))


def _words(ctx: Any) -> Sequence[str]:  # Any: as above
    """Return the words that stand before the unfinished one; --index=FOLDER is two."""
    return [part for word in ctx.meta.get(WORDS, ()) for part in (word, word.partition("=")[2]) if part]


def _for_each(roles: Sequence[str], ctx: Any, incomplete: str) -> list[str]:  # Any: as above
    names = _columns(ctx)
    return _starting(incomplete, (f"{role}={name}" for role in roles for name in names))


def _columns(ctx: Any) -> list[str]:  # Any: as above
    """Return the names of the columns of the first file among a command's words that has some."""
    from embedkit.data.formats import format_of
    from embedkit.data.one_file import open_rows

    for word in _words(ctx):
        if Path(word).is_file() and format_of(word) in ("jsonl", "json", "csv", "tsv", "parquet"):
            _, row = next(open_rows(word))
            return list(row)
    return []

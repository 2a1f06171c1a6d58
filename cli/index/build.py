"""`embedkit index build` and `add`: from files to an index, the same command again for what has changed."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..shared import console, models, options
from ..shared.groups import grouped
from ..shared.locating import existing
from ..shared.plain import plain
from ..shared.sharding import Sharding
from .shards import build_shards, make_request, refuse_sharded
from .source import Adding, Building, KindOption, SomeInputs, TargetRecall, VectorSource, make_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from embedkit.pipelines.building import Source
    from embedkit.pipelines.options import BuildOptions
    from indexes import BuildReport, Index
    from indexes.types import Kind


SHOWN_FAILURES = 10  # files that could not be read


@grouped
def build(
    inputs: SomeInputs = None,
    *,
    index: options.IndexPath = None,
    given: VectorSource,
    building: Building,
    kind: KindOption = None,
    target_recall: TargetRecall = None,
    computing: options.ComputingOptions,
    merge_tokens: options.MergeTokens = None,
    sharding: Sharding,
    reading: options.ReadingFiles,
    walking: options.Walking,
    printing: options.Printing,
) -> None:
    """Make an index of documents, or bring one up to date.

    The same command again resumes after a stop, and later embeds only what is new or has changed. Every commit is whole:
    a kill at any moment loses at most the documents since the last one. With --shards a plan cuts the input into shards, which
    any number of workers build; the same command again goes on with what is missing.
    """
    from embedkit.pipelines.default_index import default_index
    from indexes import check_structure, check_tunable

    if sharding.shards is not None:
        if target_recall is not None:
            raise typer.BadParameter(
                "--target-recall is of one index; leave it out with --shards, and tune shards by: embedkit index tune "
                "INDEX/shards/00000.index"
            )
        if index is None:
            raise typer.BadParameter("--shards needs a folder of its own: --index FOLDER")
        request = make_request(
            inputs,
            given,
            building,
            sharding,
            reading=reading,
            walking=walking,
            computing=computing,
            merge_tokens=merge_tokens,
            kind=kind or "flat",
        )
        build_shards(index, request, sharding, printing)
        return
    sharding.refuse_alone()
    if index is not None:
        refuse_sharded(index)
    source = make_source(
        inputs,
        given,
        reading=reading,
        walking=walking,
        computing=computing,
        merge_tokens=merge_tokens,
        strict=building.strict,
        sync=building.sync,
    )
    with _open(index or default_index(), source, building) as opened:
        if kind is not None:
            check_structure(opened, kind)  # before the documents are embedded, which takes long
        if target_recall is not None:
            check_tunable(opened, kind)
        _fill(opened, source, building, printing, yes=building.yes)
        if kind is not None:
            _build_structure(opened, kind)
        if target_recall is not None:
            tune_index(opened, target_recall, printing=printing)


@grouped
def add(
    inputs: SomeInputs = None,
    *,
    index: options.IndexPath = None,
    given: VectorSource,
    adding: Adding,
    computing: options.ComputingOptions,
    reading: options.ReadingFiles,
    walking: options.Walking,
    printing: options.Printing,
) -> None:
    """Add documents to an index that is there; those with an id that it has take the place of the old ones."""
    from indexes import Index

    source = make_source(
        inputs,
        given,
        reading=reading,
        walking=walking,
        computing=computing,
        strict=adding.strict,
        sync=adding.sync,
    )
    with Index.open(existing(index), writable=True) as opened:
        source.check(opened, adding.options())
        _fill(opened, source, adding.options(), printing, yes=adding.yes)


@contextmanager
def _open(path: Path, source: Source, wanted: BuildOptions) -> Iterator[Index]:
    from embedkit.pipelines.building import building

    try:
        source.prepare(path, wanted)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    with building(path, source, wanted) as index:
        yield index


def _fill(
    index: Index, source: Source, wanted: BuildOptions, printing: options.Printing, *, yes: bool
) -> None:
    if source.embedder is not None:
        models.say_choice(source.embedder.encoder.choice)
    from embedkit.pipelines.building import count_gone

    report = _watch(source.fill(index, wanted), index)
    deleted, gone = (_sync(index, source, yes=yes), 0) if wanted.sync else (0, count_gone(index, source))
    if report is not None:
        report = replace(report, deleted=deleted)
        if printing.as_json:
            _print_summary(report, index, source, gone=gone)
        else:
            _say_summary(report, index, source, gone=gone)
    if source.failed:
        raise typer.Exit(1)


def _sync(index: Index, source: Source, *, yes: bool) -> int:
    """Delete what is no longer in the inputs; ask where that is much."""
    from embedkit.pipelines.building import find_gone
    from indexes import delete_keys

    gone = find_gone(index, source)
    ask_to_delete(len(gone), index.count_documents(), some=index.ids_of(gone[:5]), yes=yes)
    delete_keys(index, gone)
    return len(gone)


def ask_to_delete(count: int, total: int, *, some: list[str], yes: bool) -> None:
    """Ask before much is deleted; without a terminal that takes --yes.

    Raises:
        RecordError: the answer is no, or nobody is there to give one.
    """
    from embedkit.errors import RecordError
    from embedkit.pipelines.building import needs_consent

    if yes or not needs_consent(count, total):
        return
    what = f"{count:,} of {total:,} documents would be deleted: {', '.join(map(repr, some))}{' …' if count > len(some) else ''}"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise RecordError(f"{what}. Nothing was deleted: pass --yes if that is meant")
    if not typer.confirm(f"{plain(what)}. Delete them?", err=True):
        raise RecordError("nothing was deleted")


def _watch(reports: Iterator[BuildReport], index: Index) -> BuildReport | None:
    report = None
    try:
        with console.progress_bar("index") as bar:
            for report in reports:
                rate = report.embedded / report.seconds if report.seconds else 0.0
                bar.update(
                    report.fraction,
                    f"{report.read:,} documents  {report.embedded:,} passages  {rate:,.0f} passages/s",
                )
    except KeyboardInterrupt:
        console.tell(
            f"interrupted; what was committed is in {index.path}. Go on with the same command:\n  {console.command_line()}"
        )
        raise typer.Exit(console.INTERRUPTED) from None
    return report


_CHANGES = ("added", "updated", "unchanged", "deleted")


def _print_summary(report: BuildReport, index: Index, source: Source, *, gone: int) -> None:
    embedder = source.embedder
    console.print_json(
        {
            "index": str(index.path),
            "model": embedder.encoder.folder.name if embedder is not None else None,
            **(models.choice_as_json(embedder.encoder.choice) if embedder is not None else {}),
            "read": report.read,
            **{name: getattr(report, name) for name in _CHANGES},
            "gone": gone,
            "empty": report.empty,
            "unknown": embedder.unknown if embedder is not None else 0,
            "passages": report.passages,
            "truncated": embedder.truncated if embedder is not None else 0,
            "left_out": source.left_out.as_dict(),
            "encodings": dict(source.encodings),
            "failed": source.failed,
            "vectors": len(index),
            "seconds": round(report.seconds, 3),
        }
    )


def _say_summary(report: BuildReport, index: Index, source: Source, *, gone: int) -> None:
    embedder = source.embedder
    parts = [
        ", ".join(f"{count:,} {name}" for name in _CHANGES if (count := getattr(report, name))) or "0 added"
    ]
    if embedder is not None and report.passages:
        rate = f" ({report.passages / report.seconds:,.0f} passages/s)" if report.seconds else ""
        parts.append(
            f"{console.counted(report.passages, 'passage')} embedded in {report.seconds:,.1f} s{rate}"
        )
    model = f", model {embedder.encoder.folder.name}" if embedder is not None else ""
    parts.append(console.counted(len(index), "vector") + model)
    console.note(f"{index.path}: {'; '.join(parts)}")
    if left_out := source.left_out.described():
        console.tell(f"left out: {left_out}")
    if source.encodings:
        console.note(f"not UTF-8: {', '.join(described_encodings(source.encodings))}")
    for reason in source.failed[:SHOWN_FAILURES]:
        console.tell(f"not read: {reason}")
    if len(source.failed) > SHOWN_FAILURES:
        console.tell(f"not read: {len(source.failed) - SHOWN_FAILURES:,} more")
    if gone:
        console.note(
            f"gone from these inputs, but still in the index: {console.counted(gone, 'document')}; delete with --sync"
        )
    if report.empty:
        empty = console.counted(report.empty, "document")
        console.warn(f"{empty} without text, which no search can find; the first is {report.first_empty}")
    if embedder is not None and embedder.truncated:
        cut = console.counted(embedder.truncated, "passage")
        console.warn(f"{cut} cut to what the model reads. Cut documents with --chunk-tokens")
    models.say_unknown(embedder.unknown if embedder is not None else 0, "passage")


def described_encodings(encodings: Mapping[str, int]) -> list[str]:
    """Say how many files were read in which encoding, the most first."""
    ordered = sorted(encodings.items(), key=lambda pair: (-pair[1], pair[0]))
    return [f"{console.counted(count, 'file')} read as {name}" for name, count in ordered]


def _build_structure(index: Index, kind: Kind) -> None:
    from indexes import build_ann

    report = None
    with console.progress_bar(f"build {kind}") as bar:
        for report in build_ann(index, kind):
            bar.update(report.rows_done / max(report.rows_total, 1), f"{report.rows_done:,} vectors")
    if report is not None:
        console.note(
            f"{index.path}: {kind} over {report.rows_total:,} vectors in {report.seconds:,.1f} s, {report.num_bytes / 1e6:,.1f} MB"
        )


def tune_index(
    index: Index, target_recall: float, *, num_queries: int = 200, printing: options.Printing
) -> None:
    """Measure and choose; print the curve."""
    from indexes import tune

    report = None
    with console.progress_bar("measure recall") as bar:
        for report in tune(index, target_recall=target_recall, num_queries=num_queries):
            bar.update(None, f"{len(report.curve)} settings measured")
    assert report is not None
    assert report.chosen is not None
    chosen = report.chosen
    if printing.as_json:
        curve = [
            {"knobs": dict(p.knobs), "recall": p.recall, "queries_per_second": p.queries_per_second}
            for p in report.curve
        ]
        console.print_json(
            {
                "target_recall": target_recall,
                "reached": report.reached,
                "chosen": dict(chosen.knobs),
                "recall": chosen.recall,
                "curve": curve,
            }
        )
        return
    knobs = ", ".join(f"{name} {value}" for name, value in chosen.knobs.items())
    verdict = "" if report.reached else f"; warning: no setting reaches {target_recall}"
    console.note(
        f"{index.path}: {knobs}: recall@10 {chosen.recall:.4f}, {chosen.queries_per_second:,.0f} queries/s{verdict}"
    )

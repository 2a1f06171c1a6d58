"""`embedkit index build` and `add`: from files to an index, the same command again for what has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..shared import computing, console, options
from ..shared.options import BackendName, DeviceName, PrecisionName
from .source import (
    ChunkOverlap,
    ChunkTokens,
    CommitEvery,
    Ids,
    KindOption,
    MetricName,
    SomeInputs,
    Source,
    StorageName,
    Sync,
    TargetRecall,
    TextUnit,
    Unit,
    Vectors,
    cutting_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedkit.encoding.embedder import Embedder
    from indexes import BuildReport, Index


def build(
    index: options.IndexPath,
    inputs: SomeInputs = None,
    model: options.IndexModel = None,
    vectors: Vectors = None,
    ids: Ids = None,
    chunk_tokens: ChunkTokens = None,
    chunk_overlap: ChunkOverlap = 32,
    text_unit: Unit = TextUnit.file,
    sync: Sync = False,
    commit_every: CommitEvery = 4096,
    kind: KindOption = None,
    target_recall: TargetRecall = None,
    storage: Annotated[
        StorageName, typer.Option("--storage", help="How vectors are kept on disk.")
    ] = StorageName.float32,
    metric: Annotated[
        MetricName, typer.Option("--metric", help="How vectors are compared.")
    ] = MetricName.cosine,
    device: options.Device = DeviceName.auto,
    precision: options.Precision = PrecisionName.auto,
    backend: options.Backend = BackendName.auto,
    merge_tokens: options.MergeTokens = None,
    format: options.Format = None,
    text_field: options.TextField = None,
    id_field: options.IdField = None,
    title_field: options.TitleField = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Make an index of documents, or bring one up to date.

    The same command again resumes after a stop, and later embeds only what is new or has changed. Every commit is whole:
    a kill at any moment loses at most the documents since the last one.
    """
    from indexes import Index, Settings

    source = Source(
        inputs,
        model,
        vectors,
        ids,
        device,
        precision,
        text_unit,
        format,
        text_field,
        id_field,
        title_field,
        merge_tokens,
        backend=backend,
    )
    exists = (index / "index.sqlite").is_file()
    if exists:
        opened = Index.open(index, writable=True)
    else:
        if vectors is not None:
            settings = Settings(
                dimension=source.read_vectors().shape[1], metric=metric.value, storage=storage.value
            )
        else:
            encoder = source.load_encoder(None)
            settings = Settings(
                dimension=encoder.dimension,
                metric=metric.value,
                storage=storage.value,
                fingerprint=encoder.fingerprint,
                cutting=cutting_of(encoder, chunk_tokens, chunk_overlap),
            )
        opened = Index.create(index, settings)
    with opened:
        if exists:
            _check_settings(opened, storage, metric)
        _fill(
            opened,
            source,
            chunk_tokens,
            chunk_overlap,
            sync=sync,
            commit_every=commit_every,
            as_json=as_json,
            quiet=quiet,
        )
        if kind is not None:
            _build_structure(opened, kind.value, quiet=quiet)
        if target_recall is not None:
            tune_index(opened, target_recall, as_json=as_json, quiet=quiet)


def add(
    index: options.IndexPath,
    inputs: SomeInputs = None,
    model: options.IndexModel = None,
    vectors: Vectors = None,
    ids: Ids = None,
    text_unit: Unit = TextUnit.file,
    sync: Sync = False,
    commit_every: CommitEvery = 4096,
    device: options.Device = DeviceName.auto,
    precision: options.Precision = PrecisionName.auto,
    backend: options.Backend = BackendName.auto,
    format: options.Format = None,
    text_field: options.TextField = None,
    id_field: options.IdField = None,
    title_field: options.TitleField = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Add documents to an index that is there; those with an id that it has take the place of the old ones."""
    from indexes import Index

    source = Source(
        inputs,
        model,
        vectors,
        ids,
        device,
        precision,
        text_unit,
        format,
        text_field,
        id_field,
        title_field,
        backend=backend,
    )
    with Index.open(index, writable=True) as opened:
        _fill(opened, source, None, None, sync=sync, commit_every=commit_every, as_json=as_json, quiet=quiet)


def _check_settings(index: Index, storage: StorageName, metric: MetricName) -> None:
    """Refuse options that an index which is there cannot take any more."""
    from embedkit.errors import IndexMismatchError

    for name, wanted, here in (
        ("storage", storage, index.settings.storage),
        ("metric", metric, index.settings.metric),
    ):
        default = StorageName.float32 if name == "storage" else MetricName.cosine
        if wanted != default and wanted.value != here:
            raise IndexMismatchError(
                f"{index.path}: its {name} is {here}, and --{name} {wanted.value} was asked for. Build a new index"
            )


def _fill(
    index: Index,
    source: Source,
    chunk_tokens: int | None,
    chunk_overlap: int | None,
    *,
    sync: bool,
    commit_every: int,
    as_json: bool,
    quiet: bool,
) -> None:
    from embedkit.data.vectors import read_ids
    from embedkit.models import lasting_name
    from indexes import build as build_index
    from indexes import build_vectors

    embedder: Embedder | None = None
    reports: Iterator[BuildReport]
    if source.vectors is not None:
        index.check_encoder(None)
        assert source.ids is not None
        reports = build_vectors(index, read_ids(source.ids), source.read_vectors())
    else:
        from embedkit.encoding.embedder import Embedder
        from embedkit.tokenization.passages import PassageSplitter

        encoder = source.load_encoder(index)
        index.check_encoder(encoder.fingerprint)
        computing.say(encoder.choice, quiet=quiet)
        cutting = index.settings.cutting
        if chunk_overlap is not None and chunk_tokens is not None:
            index.settings.check_cutting(cutting_of(encoder, chunk_tokens, chunk_overlap), str(index.path))
        index.note_model_path(lasting_name(encoder.folder.path))
        embedder = Embedder(encoder, "document")
        assert source.reader is not None
        reports = build_index(
            index,
            source.reader,
            embed=embedder,
            split=PassageSplitter(offsets=encoder.tokenizer.offsets, **cutting) if cutting else None,
            sync_sources=source.inputs if sync else None,
            commit_every=commit_every,
            fraction=source.reader.fraction,
        )
    report = _watch(reports, index, quiet=quiet)
    if report is not None:
        _summarize(report, index, embedder, as_json=as_json)


def _watch(reports: Iterator[BuildReport], index: Index, *, quiet: bool) -> BuildReport | None:
    report = None
    try:
        with console.progress_bar("index", quiet=quiet) as bar:
            for report in reports:
                rate = report.embedded / report.seconds if report.seconds else 0.0
                bar.update(
                    report.fraction,
                    f"{report.read:,} documents  {report.embedded:,} passages  {rate:,.0f} passages/s",
                )
    except KeyboardInterrupt:
        console.note(
            f"interrupted; what was committed is in {index.path}. Go on with the same command:\n  {console.command_line()}"
        )
        raise typer.Exit(130) from None
    return report


def _summarize(report: BuildReport, index: Index, embedder: Embedder | None, *, as_json: bool) -> None:
    counts = {
        name: getattr(report, name)
        for name in ("read", "added", "updated", "unchanged", "deleted", "empty", "passages")
    }
    truncated = embedder.truncated if embedder is not None else 0
    if as_json:
        model = embedder.encoder.folder.name if embedder is not None else None
        seconds = round(report.seconds, 3)
        console.print_json(
            {
                "index": str(index.path),
                "model": model,
                **(computing.as_json(embedder.encoder.choice) if embedder is not None else {}),
                **counts,
                "truncated": truncated,
                "vectors": len(index),
                "seconds": seconds,
            }
        )
        return
    changes = ", ".join(
        f"{counts[name]:,} {name}"
        for name in ("added", "updated", "unchanged", "deleted")
        if counts[name] or name == "added"
    )
    model = f", model {embedder.encoder.folder.name}" if embedder is not None else ""
    rate = (
        f" ({report.passages / report.seconds:,.0f} passages/s)" if report.seconds and report.passages else ""
    )
    console.note(
        f"{index.path}: {changes}; {report.passages:,} passages embedded in {report.seconds:,.1f} s{rate}; {len(index):,} vectors{model}"
    )
    if counts["empty"]:
        console.note(f"warning: {counts['empty']:,} documents are empty: no search can find them")
    if truncated:
        console.note(
            f"warning: {truncated:,} passages were cut to what the model reads. Cut documents with --chunk-tokens"
        )


def _build_structure(index: Index, kind: str, *, quiet: bool) -> None:
    from indexes import build_ann

    report = None
    with console.progress_bar(f"build {kind}", quiet=quiet) as bar:
        for report in build_ann(index, kind):  # type: ignore[arg-type] # the enum's values are the kinds
            bar.update(report.rows_done / max(report.rows_total, 1), f"{report.rows_done:,} vectors")
    if report is not None:
        console.note(
            f"{index.path}: {kind} over {report.rows_total:,} vectors in {report.seconds:,.1f} s, {report.num_bytes / 1e6:,.1f} MB"
        )


def tune_index(
    index: Index, target_recall: float, *, num_queries: int = 200, as_json: bool, quiet: bool
) -> None:
    """Measure and choose; print the curve."""
    from indexes import tune

    report = None
    with console.progress_bar("measure recall", quiet=quiet) as bar:
        for report in tune(index, target_recall=target_recall, num_queries=num_queries):
            bar.update(None, f"{len(report.curve)} settings measured")
    assert report is not None
    assert report.chosen is not None
    chosen = report.chosen
    if as_json:
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

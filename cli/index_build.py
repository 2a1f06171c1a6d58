"""`embedkit index build` and `add`: from files to an index, the same command again for what has changed."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console, options
from .options import DeviceName, PrecisionName

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedkit.encoding.embedder import Embedder
    from embedkit.encoding.encoder import Encoder
    from indexes import BuildReport, Index


class Kind(StrEnum):
    flat = "flat"
    hnsw = "hnsw"
    ivf_flat = "ivf-flat"
    ivf_pq = "ivf-pq"


class StorageName(StrEnum):
    float32 = "float32"
    float16 = "float16"
    int8 = "int8"
    binary = "binary"


class MetricName(StrEnum):
    cosine = "cosine"
    dot = "dot"
    l2 = "l2"


class TextUnit(StrEnum):
    line = "line"
    file = "file"


SomeInputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="Files, folders, globs, or - for standard input; .txt files are documents as a whole.",
        show_default=False,
    ),
]
Vectors = Annotated[
    Path | None,
    typer.Option(
        "--vectors",
        metavar="FILE",
        help="Ready vectors (.npy) in place of INPUT and --model.",
        show_default=False,
    ),
]
Ids = Annotated[
    Path | None,
    typer.Option("--ids", metavar="FILE", help="The ids of --vectors, one a line.", show_default=False),
]
ChunkTokens = Annotated[
    int | None,
    typer.Option(
        "--chunk-tokens",
        metavar="N",
        min=0,
        help="Cut longer documents into passages of at most N tokens; 0: never. Default: 256, or what the model reads.",
        show_default=False,
    ),
]
ChunkOverlap = Annotated[
    int,
    typer.Option(
        "--chunk-overlap", metavar="N", min=0, help="Tokens that a passage shares with the one before."
    ),
]
Unit = Annotated[TextUnit, typer.Option("--text-unit", help="What one document is in a .txt file.")]
Sync = Annotated[
    bool, typer.Option("--sync", help="Delete documents of these inputs that are no longer in them.")
]
CommitEvery = Annotated[
    int, typer.Option("--commit-every", metavar="N", min=1, help="Passages in one commit.")
]
KindOption = Annotated[
    Kind | None,
    typer.Option(
        "--kind", help="How to search: all vectors (flat), or an approximate structure.", show_default=False
    ),
]
TargetRecall = Annotated[
    float | None,
    typer.Option(
        "--target-recall",
        metavar="R",
        min=0.01,
        max=1.0,
        help="Measure recall@10 and choose the structure's settings to reach R.",
        show_default=False,
    ),
]


def build(
    index: options.IndexPath,
    inputs: SomeInputs = None,
    model: options.SomeModel = None,
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
    precision: options.Precision = PrecisionName.fp32,
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

    source = _Source(
        inputs, model, vectors, ids, device, precision, text_unit, format, text_field, id_field, title_field
    )
    exists = (index / "index.sqlite").is_file()
    if exists:
        opened = Index.open(index, writable=True)
    else:
        source.check()
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
                cutting=_cutting(encoder, chunk_tokens, chunk_overlap),
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
    model: options.SomeModel = None,
    vectors: Vectors = None,
    ids: Ids = None,
    text_unit: Unit = TextUnit.file,
    sync: Sync = False,
    commit_every: CommitEvery = 4096,
    device: options.Device = DeviceName.auto,
    precision: options.Precision = PrecisionName.fp32,
    format: options.Format = None,
    text_field: options.TextField = None,
    id_field: options.IdField = None,
    title_field: options.TitleField = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Add documents to an index that is there; those with an id that it has take the place of the old ones."""
    from indexes import Index

    source = _Source(
        inputs, model, vectors, ids, device, precision, text_unit, format, text_field, id_field, title_field
    )
    with Index.open(index, writable=True) as opened:
        _fill(opened, source, None, None, sync=sync, commit_every=commit_every, as_json=as_json, quiet=quiet)


class _Source:
    """Where the vectors come from: documents and an encoder, or ready vectors."""

    def __init__(
        self,
        inputs: list[str] | None,
        model: Path | None,
        vectors: Path | None,
        ids: Path | None,
        device: DeviceName,
        precision: PrecisionName,
        text_unit: TextUnit,
        format: options.InputFormat | None,
        text_field: str | None,
        id_field: str | None,
        title_field: str | None,
    ) -> None:
        from embedkit.records import DocumentReader, ReadOptions

        if (vectors is None) != (ids is None):
            raise typer.BadParameter("--vectors and --ids go together")
        if vectors is None and not inputs:
            raise typer.BadParameter("name an INPUT, or --vectors and --ids")
        if vectors is not None and inputs:
            raise typer.BadParameter("INPUT and --vectors exclude each other")
        self.inputs = inputs or []
        self.model, self.vectors, self.ids = model, vectors, ids
        self.device, self.precision = device, precision
        read = ReadOptions(
            format=format.value if format else None,
            text_field=text_field,
            id_field=id_field,
            title_field=title_field,
            text_unit=text_unit.value,
        )
        self.reader = DocumentReader(self.inputs, read) if inputs else None
        self._encoder: Encoder | None = None

    def check(self) -> None:
        if self.vectors is None and self.model is None:
            raise typer.BadParameter("name the model folder with --model, or set EMBEDKIT_MODEL")

    def load_encoder(self, noted: str | None) -> Encoder:
        """Load the model that was named, else the one that the index remembers."""
        from embedkit.encoding.encoder import Encoder

        if self._encoder is None:
            folder = self.model if self.model is not None else noted
            if folder is None:
                raise typer.BadParameter("name the model folder with --model, or set EMBEDKIT_MODEL")
            self._encoder = Encoder.load(folder, device=self.device.value, precision=self.precision.value)
        return self._encoder

    def read_vectors(self) -> Any:  # Any: a memory-mapped (N, E) float array
        from embedkit.encoding.vectors import open_vectors

        assert self.vectors is not None
        return open_vectors(self.vectors)


def _cutting(encoder: Encoder, chunk_tokens: int | None, chunk_overlap: int) -> dict[str, int]:
    """Say how texts are cut; {} where they are not."""
    room = encoder.tokenizer.max_length - encoder.tokenizer.single.num_special
    if chunk_tokens == 0:
        return {}
    if chunk_tokens is not None and chunk_tokens > room:
        raise typer.BadParameter(
            f"--chunk-tokens is {chunk_tokens}; the model reads {room} and its special tokens"
        )
    size = min(256, room) if chunk_tokens is None else chunk_tokens
    return {"chunk_tokens": size, "chunk_overlap": min(chunk_overlap, size // 2)}


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
    source: _Source,
    chunk_tokens: int | None,
    chunk_overlap: int | None,
    *,
    sync: bool,
    commit_every: int,
    as_json: bool,
    quiet: bool,
) -> None:
    from embedkit.encoding.vectors import read_ids
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

        encoder = source.load_encoder(index.model_path)
        index.check_encoder(encoder.fingerprint)
        cutting = index.settings.cutting
        if chunk_overlap is not None and chunk_tokens is not None:
            index.settings.check_cutting(_cutting(encoder, chunk_tokens, chunk_overlap), str(index.path))
        index.note_model_path(str(encoder.folder.path.absolute()))
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
        model = str(embedder.encoder.folder.path) if embedder is not None else None
        seconds = round(report.seconds, 3)
        console.print_json(
            {
                "index": str(index.path),
                "model": model,
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
    model = f", model {embedder.encoder.folder.path}" if embedder is not None else ""
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

"""`embedkit index push` and `embedkit index pull`: an index into a store that a team runs, and out of one."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..shared import console, options
from ..shared.commands import examples
from ..shared.completing import complete_index
from ..shared.locating import existing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedkit.connectors.pushing import PushReport

PUSH_EXAMPLES = examples(
    "embedkit index push my.index 'postgresql://me@db.example/search?table=docs'",
    "embedkit index push my.index 'lance:///data/lance?table=docs' --dry-run",
)
PULL_EXAMPLES = examples("embedkit index pull 'postgresql://me@db.example/search?table=docs' copy.index")


def push(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[INDEX] URL",
            autocompletion=complete_index,
            help="Index folder (default: this folder's), and the store: postgresql://USER@HOST/DATABASE?table=NAME, "
            "lance://FOLDER?table=NAME, qdrant://HOST:PORT?collection=NAME; chroma:// and milvus:// likewise.",
            show_default=False,
        ),
    ],
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave documents in the store that the index does not have.")
    ] = False,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Delete more than a tenth of the store's rows without an error."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent and deleted, and change nothing.")
    ] = False,
    vector_type: Annotated[
        Literal["float32", "float16"] | None,
        typer.Option(
            "--vector-type",
            help="How the store keeps vectors. Default: float16 where the index does, else float32.",
            show_default=False,
        ),
    ] = None,
    hnsw_m: Annotated[
        int,
        typer.Option(
            "--hnsw-m",
            rich_help_panel=options.TUNING,
            metavar="M",
            min=0,
            help="Neighbours of a node in the graph for approximate search; 0: no graph, exact search.",
        ),
    ] = 16,
    hnsw_ef_construction: Annotated[
        int,
        typer.Option(
            "--hnsw-ef-construction",
            rich_help_panel=options.TUNING,
            metavar="N",
            min=4,
            help="Candidates looked at while the graph is built: more is better and slower.",
        ),
    ] = 64,
    as_json: options.AsJson = False,
) -> None:
    """Bring a table of a store up to date with an index: what is new or changed is sent, what has gone is deleted.

    The same command goes on where it was stopped. A table of another model is refused.
    """
    from embedkit.connectors.info import StoreInfo
    from embedkit.connectors.opening import open_store
    from embedkit.connectors.pushing import PushOptions, check_pushable
    from embedkit.connectors.pushing import push as push_index
    from embedkit.connectors.store import Hnsw
    from indexes import Index

    if not 1 <= len(words) <= 2:
        raise typer.BadParameter("name an index and a store's URL: INDEX URL")
    try:
        hnsw = Hnsw(m=hnsw_m, ef_construction=max(hnsw_ef_construction, 2 * hnsw_m))
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    chosen = PushOptions(keep=keep, consent=yes, dry_run=dry_run)
    path = existing(Path(words[0]) if len(words) == 2 else None)
    with ExitStack() as stack:
        index = stack.enter_context(Index.open(path))
        check_pushable(index)
        store = stack.enter_context(closing(open_store(words[-1])))
        own: Literal["float32", "float16"] = "float16" if index.settings.storage == "float16" else "float32"
        info = StoreInfo.of(index, vector_type or own, hnsw)
        report = _watch(push_index(index, store, info, chosen), store.place)
        without = index.count_documents() - report.documents if not keep and not dry_run else 0
        say_pushed(report, store.place, as_json=as_json, dry_run=dry_run)
    if without > 0:
        console.note(
            f"{console.counted(without, 'document')} without a vector, such as empty ones, stay out of the store"
        )


def _watch(reports: Iterator[PushReport], place: str) -> PushReport:
    report = None
    try:
        with console.progress_bar("push") as bar:
            for report in reports:
                bar.update(report.fraction, _STEPS[report.step].format(report=report))
    except KeyboardInterrupt:
        console.tell(f"interrupted; what was sent is in {place}. The same command goes on there")
        raise typer.Exit(console.INTERRUPTED) from None
    assert report is not None
    return report


_STEPS = {
    "compare": "comparing, {report.done:,} of {report.total:,} vectors",
    "push": "{report.sent:,} vectors sent",
    "delete": "{report.deleted:,} vectors deleted",
    "build": "building the graph",
    "verify": "verifying",
    "done": "done",
}


def say_pushed(report: PushReport, place: str, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        names = (
            "total",
            "new",
            "changed",
            "unchanged",
            "gone",
            "kept",
            "sent",
            "deleted",
            "verified",
            "seconds",
        )
        console.print_json(
            {"store": place, **{name: getattr(report, name) for name in names}, "notes": report.notes}
        )
        return
    for text in report.notes:
        console.warn(text)
    if dry_run:
        console.tell(
            f"{place}: would send {report.new:,} new and {report.changed:,} changed vectors, delete {report.gone:,}, "
            f"and leave {report.unchanged + report.kept:,}; nothing was changed"
        )
        return
    kept = f", {report.kept:,} kept that the index does not have" if report.kept else ""
    console.note(
        f"{place}: {report.new:,} new, {report.changed:,} changed, {report.unchanged:,} unchanged, {report.deleted:,} deleted{kept}; "
        f"{report.verified:,} read back and verified"
    )


def pull(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="The store: postgresql://USER@HOST/DATABASE?table=NAME, lance://FOLDER?table=NAME, "
            "qdrant://HOST:PORT?collection=NAME; chroma:// and milvus:// likewise.",
            show_default=False,
        ),
    ],
    index: Annotated[
        Path, typer.Argument(metavar="INDEX", help="A new folder for the index.", show_default=False)
    ],
    *,
    as_json: options.AsJson = False,
) -> None:
    """Make an index of what was pushed into a store, with the same vectors, ids, texts and metadata, bit by bit."""
    from embedkit.connectors.opening import open_store
    from embedkit.connectors.pulling import pull as pull_index

    report = None
    with closing(open_store(url)) as store, console.progress_bar("pull") as bar:
        for report in pull_index(store, index):
            bar.update(report.fraction, f"{report.rows:,} of {report.total:,} vectors")
    assert report is not None
    if as_json:
        console.print_json({"documents": report.documents, "vectors": report.rows, "seconds": report.seconds})
        return
    documents = console.counted(report.documents, "document")
    console.note(f"{index}: {documents}, {console.counted(report.rows, 'vector')}, each as it was pushed")

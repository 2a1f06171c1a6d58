"""`embedkit index`: build, change, check and measure an index."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..shared import console, options
from ..shared.commands import examples, subcommand
from ..shared.completing import complete_index
from ..shared.groups import grouped
from ..shared.locating import HIDDEN_INDEX, Located, split_words
from ..shared.usage import Group
from . import build as index_build
from . import stores as index_stores
from .source import Yes

if TYPE_CHECKING:
    from indexes import BuildReport, Index

# What names a command, or a file or folder beside us: no path, no pattern, no file with an ending.
_A_WORD = re.compile(r"[\w-]+")
BUILD_EXAMPLES = """\b
Examples:
  embedkit index build docs/ --index docs.index --model FOLDER
  embedkit index build 'corpus/*.jsonl.zst' --index my.index -m FOLDER --kind hnsw --target-recall 0.95
  embedkit index build --vectors x.npy --ids ids.txt --index my.index
  embedkit index build corpus.jsonl --index big.index --shards 64 --workers 8
"""
ADD_EXAMPLES = examples(
    "embedkit index add notes/2024 --index my.index",
    "embedkit index add corpus.jsonl --index my.index --sync",
    "tail -n 100 log.jsonl | embedkit index add - --index my.index",
)


class IndexCommands(Group):
    """The commands, and `embedkit index INPUT…` for `embedkit index build INPUT…`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: typer keeps its own copy of click
        names = [*self.list_commands(ctx), "help"]
        if args and not args[0].startswith("-") and args[0] not in names:
            mistyped = not Path(args[0]).exists() and _A_WORD.fullmatch(args[0])
            args = args if mistyped else ["build", *args]
        return super().parse_args(ctx, args)

    def unknown(self, ctx: Any, word: str) -> str:  # Any: as above
        names = self.list_commands(ctx)
        if get_close_matches(word, names):
            return super().unknown(ctx, word)
        return f"{word!r} is no file or folder that is there, nor a command. The commands are: {', '.join(names)}"


app = typer.Typer(
    name="index",
    cls=IndexCommands,
    help="Build, change, check and measure an index. `embedkit index INPUT…` is short for `embedkit index build INPUT…`: "
    "`embedkit index .` makes the files of this folder searchable.",
    epilog=examples("embedkit index docs", "embedkit index stats", "embedkit index verify my.index"),
    no_args_is_help=True,
)
subcommand(app, "build", epilog=BUILD_EXAMPLES)(index_build.build)
subcommand(app, "add", epilog=ADD_EXAMPLES)(index_build.add)
subcommand(app, "push", epilog=index_stores.PUSH_EXAMPLES)(index_stores.push)
subcommand(app, "pull", epilog=index_stores.PULL_EXAMPLES)(index_stores.pull)


ExportFormat = Literal["faiss", "npy", "parquet"]


def _open(path: Path, *, writable: bool = False) -> Index:
    from indexes import Index

    return Index.open(path, writable=writable)


@subcommand(
    app,
    "delete",
    epilog=examples(
        "embedkit index delete my.index doc-17 doc-18",
        'embedkit index delete my.index --where "year < 2015"',
        "cat ids.txt | embedkit index delete my.index -",
    ),
)
def delete(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INDEX] [ID]...",
            autocompletion=complete_index,
            help="Index folder (default: this folder's), then ids of documents, or - to read them from standard input, one per line.",
            show_default=False,
        ),
    ] = None,
    *,
    named: HIDDEN_INDEX = None,
    where: options.Where = None,
    yes: Yes = False,
    as_json: options.AsJson = False,
) -> None:
    """Delete documents by id or by their metadata. Their space is freed by `index compact`."""
    from embedkit.data.one_file import open_lines

    index, ids = split_words(words or [], named, of_ids=True)
    if not ids and where is None:
        raise typer.BadParameter("name ids, - for standard input, or --where FILTER")
    wanted = [line for _, line in open_lines("-")] if ids == ["-"] else ids
    with _open(index, writable=True) as opened:
        if where is not None:
            count, some = opened.count_matching(where)
            if not as_json:
                listed = ", ".join(map(repr, some)) + (" …" if count > len(some) else "")
                console.tell(
                    f"the filter finds {console.counted(count, 'document')}" + (f": {listed}" if some else "")
                )
            index_build.ask_to_delete(count, opened.count_documents(), some=some, yes=yes)
        deleted = opened.delete(wanted, where=where)
    if as_json:
        console.print_json({"deleted": deleted.documents, "missing": list(deleted.missing)})
        return
    console.note(f"{console.counted(deleted.documents, 'document')} deleted from {index}")
    if deleted.missing:
        named_few = ", ".join(repr(doc_id) for doc_id in deleted.missing[:5])
        more = " …" if len(deleted.missing) > 5 else ""
        console.warn(f"{console.counted(len(deleted.missing), 'id')} not there: {named_few}{more}")


@subcommand(app, "compact", epilog=examples("embedkit index compact my.index"))
@grouped
def compact(located: Located, printing: options.Printing) -> None:
    """Write the living vectors again and free the space of deleted ones. Readers go on meanwhile."""
    index = located.path
    from indexes import compact as compact_index

    with _open(index, writable=True) as opened, console.progress_bar("compact") as bar:
        report = None
        for report in compact_index(opened):
            bar.update(report.rows_done / max(report.rows_total, 1), f"{report.rows_done:,} vectors")
    if report is None:
        console.note(f"{index}: nothing to compact")
    elif printing.as_json:
        console.print_json(
            {
                "dropped": report.dropped,
                "bytes_before": report.bytes_before,
                "bytes_after": report.bytes_after,
            }
        )
    else:
        console.note(
            f"{index}: {report.dropped:,} deleted vectors dropped, "
            f"{report.bytes_before / 1e6:,.1f} MB -> {report.bytes_after / 1e6:,.1f} MB"
        )


@subcommand(
    app, "verify", epilog=examples("embedkit index verify my.index", "embedkit index verify my.index --json")
)
@grouped
def verify(located: Located, *, as_json: options.AsJson = False) -> None:
    """Check everything: checksums, counts, the database, ids against rows. Exit code 1 where something is damaged."""
    index = located.path
    from indexes import verify as verify_index

    findings = list(verify_index(index))
    for finding in findings:
        if as_json:
            console.print_json({"place": finding.place, "problem": finding.problem, "advice": finding.advice})
        else:
            console.say(f"{finding.place}: {finding.problem}. {finding.advice}")
    if findings:
        raise typer.Exit(1)
    console.note(f"{index}: no damage found")


@subcommand(app, "repair", epilog=examples("embedkit index repair my.index"))
@grouped
def repair(located: Located, *, as_json: options.AsJson = False) -> None:
    """Rebuild what can be derived, drop what cannot be read, and name the documents that were lost."""
    index = located.path
    from indexes import repair as repair_index

    count = 0
    for step in repair_index(index):
        count += 1
        if as_json:
            console.print_json({"place": step.place, "done": step.done, "lost": list(step.lost)})
            continue
        console.say(f"{step.place}: {step.done}")
        for doc_id in step.lost:
            console.say(f"  lost: {doc_id}")
    if not count:
        console.note(f"{index}: nothing to repair")


@subcommand(
    app,
    "stats",
    epilog=examples("embedkit index stats my.index", "embedkit index stats my.index --plot recall.png"),
)
@grouped
def stats(
    located: Located,
    *,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE",
            help="Draw the measured recall against speed as a PNG.",
            show_default=False,
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what an index holds: documents, vectors, bytes, kind, recall, encoder."""
    index = located.path
    from indexes import stats as index_stats

    with _open(index) as opened:
        found, model = index_stats(opened), opened.model_path
    if plot is not None:
        from embedkit.errors import IndexFileError
        from embedkit.extras import load_extra
        from embedkit.storage.files import atomic_file

        if not found.curve:
            raise IndexFileError(
                f"{index}: no recall has been measured. Measure it with: embedkit index tune {index}"
            )
        recalls = [point["recall"] for point in found.curve]
        speeds = [point["queries_per_second"] for point in found.curve]
        draw = load_extra("plot", purpose="drawing a curve").save_lines
        with atomic_file(plot) as stream:
            draw(
                [(found.kind, recalls, speeds)],
                stream,
                name=plot.name,
                x_label="recall@10",
                y_label="queries per second, in one batch",
            )
        console.note(f"{plot}: drawn")
    if console.wants_json(as_json):
        console.print_json({"model": model, **dataclasses.asdict(found)})
        return
    fields = {"model": model} | dataclasses.asdict(found.settings)
    fields |= {
        field.name: getattr(found, field.name)
        for field in dataclasses.fields(found)
        if field.name not in ("settings", "curve")
    }
    cells = [(name, _cell(value)) for name, value in fields.items()]
    console.print_table(("field", "value"), cells, title=str(index))
    if found.curve:
        rows = [
            (
                _cell(point["knobs"]),
                f"{point['recall']:.4f}",
                f"{point['queries_per_second']:,.0f}",
                "chosen" if point["knobs"] == found.knobs else "",
            )
            for point in found.curve
        ]
        console.print_table(("setting", "recall@10", "queries/s", ""), rows)


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short_hash(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)


def _short_hash(value: object) -> object:
    """Return what is enough of a SHA-256 to tell two apart by eye; --json has all of it. Other values stay as they are."""
    is_hash = isinstance(value, str) and len(value) == 64 and value.isalnum()
    return f"{value[:12]}…" if is_hash and isinstance(value, str) else value


@subcommand(app, "tune", epilog=examples("embedkit index tune my.index --target-recall 0.99"))
@grouped
def tune(
    located: Located,
    *,
    target_recall: Annotated[
        float, typer.Option("--target-recall", metavar="R", min=0.01, max=1.0, help="Recall@10 to reach.")
    ] = 0.95,
    num_queries: Annotated[
        int, typer.Option("--num-queries", metavar="N", min=10, help="Stored vectors drawn as queries.")
    ] = 200,
    printing: options.Printing,
) -> None:
    """Measure recall@10 against exact search over the settings of an approximate index, and keep the fastest that reaches the target."""
    index = located.path
    with _open(index, writable=True) as opened:
        index_build.tune_index(opened, target_recall, num_queries=num_queries, printing=printing)


@subcommand(
    app,
    "export",
    epilog=examples(
        "embedkit index export my.index --output vectors.npy",
        "embedkit index export my.index -o everything.parquet",
    ),
)
@grouped
def export(
    located: Located,
    *,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Where to write; ids go beside vectors.",
            show_default=False,
        ),
    ],
    format: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="Default: by the ending of the file.", show_default=False),
    ] = None,
) -> None:
    """Write the vectors as a plain .faiss index or .npy with ids beside, or everything as .parquet."""
    index = located.path
    from indexes import export_faiss, export_npy, export_parquet

    kind = format if format is not None else output.suffix.lstrip(".")
    with _open(index) as opened:
        if kind == "faiss":
            export_faiss(opened, output)
        elif kind == "npy":
            export_npy(opened, output)
        elif kind == "parquet":
            export_parquet(opened, output)
        else:
            raise typer.BadParameter(f"the ending of {output} is none of .faiss .npy .parquet; give --format")
        console.note(f"{output}: {console.counted(len(opened), 'vector')} written")


@subcommand(
    app,
    "merge",
    epilog=examples(
        "embedkit index merge my.index other.index",
        "embedkit index merge one.index big.index    # big.index lies in shards; one.index is made",
    ),
)
def merge(
    words: Annotated[
        list[Path],
        typer.Argument(
            metavar="INDEX SOURCE",
            autocompletion=complete_index,
            help="The index that takes documents over, and the one whose documents it takes.",
            show_default=False,
        ),
    ],
    *,
    named: HIDDEN_INDEX = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Where both have a document differently, take that of SOURCE.")
    ] = False,
) -> None:
    """Take over all documents of another index that the same encoder made, or of all shards of one.

    Nothing is embedded again. Of an index in shards INDEX is made where it is not there: then it is what a build in one piece makes.
    """
    both = [*([] if named is None else [named]), *words]
    if len(both) != 2:
        raise typer.BadParameter("name two indexes: INDEX, which takes documents over, and SOURCE")
    index, source = both
    report = None
    with _merging(index, source, replace) as reports, console.progress_bar("merge") as bar:
        for report in reports:
            bar.update(report.fraction, f"{report.read:,} documents")
    if report is not None:
        console.note(
            f"{index}: {console.counted(report.added, 'document')} added, {report.updated:,} replaced, {report.unchanged:,} unchanged"
        )


@subcommand(
    app,
    "join",
    epilog=examples(
        "embedkit index join big.index http://a:8080/x http://b:8080/y",
        "embedkit index join all.index 2023.index 2024.index http://archive:8080/old",
    ),
)
def join(
    index: Annotated[
        Path,
        typer.Argument(metavar="INDEX", help="The folder to make: an index in shards.", show_default=False),
    ],
    shards: Annotated[
        list[str],
        typer.Argument(
            metavar="SHARD...",
            help="Indexes that stay where they are: folders, and addresses of indexes that servers hold.",
            show_default=False,
        ),
    ],
    *,
    api_key: options.ApiKey = None,
    as_json: options.AsJson = False,
) -> None:
    """Make one index of shards that stay where they are. Nothing is copied or embedded again.

    `search`, `evaluate retrieval`, `serve` and `mcp` take it as one index; each of them must reach all shards.
    """
    from indexes import join_shards

    file = join_shards(index, shards, options.shard_servers(api_key))
    documents = sum(each.documents for each in file.shards)
    if as_json:
        console.print_json({"index": str(index), "shards": len(file.shards), "documents": documents})
        return
    console.note(
        f"{index}: {console.counted(len(file.shards), 'shard')}, {console.counted(documents, 'document')}"
    )
    silent = [each.location for each in file.shards if each.is_served and not each.passages]
    if silent:
        console.warn(f"{', '.join(silent)}: empty, or no answer now; a search asks again")


@contextmanager
def _merging(index: Path, source: Path, replace: bool) -> Iterator[Iterator[BuildReport]]:
    """Open both indexes; yields the reports of the merge."""
    from indexes import Index, ShardsFile, is_index, is_sharded, merge_indexes, merge_shards

    if not is_sharded(source):
        with _open(index, writable=True) as target, _open(source) as taken:
            yield merge_indexes(target, taken, replace=replace)
        return
    shards = ShardsFile.read(source)
    made = not is_index(index)
    with Index.create(index, shards.settings) if made else _open(index, writable=True) as target:
        if made and shards.model_path:
            target.note_model_path(shards.model_path)
        yield merge_shards(target, source, replace=replace)

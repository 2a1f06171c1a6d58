"""`embedkit mine --shards`: what is asked for, the one file at the end, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .shared import console, options, sharded_view
from .shared.sharding import Sharding, plain

if TYPE_CHECKING:
    from embedkit.data.records import ReadOptions
    from embedkit.distributed.requests import MiningWanted, Resolved, ShardRequest
    from embedkit.training.rows.examples import Examples
    from indexes import Searchable


def mine_in_shards(
    data: str,
    rows: Examples,
    output: Path,
    sharding: Sharding,
    wanted: MiningWanted,
    *,
    make_index: Callable[[], None],
    model: str | None,
    computing: options.ComputingOptions,
    read: ReadOptions,
    as_json: bool,
) -> dict[str, Any]:  # Any: JSON
    """Plan, mine what is missing, and join it; what there is to search is made with the plan. Return what is said of the shards."""
    from embedkit.distributed.mined_shards import join_rows, open_whole
    from embedkit.distributed.planning import planned
    from embedkit.distributed.requests import ShardRequest
    from embedkit.encoding.draft import partial_path
    from embedkit.pipelines.options import BuildOptions
    from embedkit.training.mining.mining import check_mining
    from embedkit.types import Computing

    check_mining(rows, wanted.recipe, output, measured=wanted.by != "text" or wanted.rerank is not None)
    sharding.check()
    assert sharding.shards is not None
    request = ShardRequest(
        inputs=[data],
        reading=read,
        walking=None,
        building=BuildOptions(),
        computing=plain(computing, Computing),
        shards=sharding.shards,
        threads=sharding.num_threads(),
        model=model,
        strict=True,  # every row stays
        allow_other=sharding.allow_other,
        mining=wanted,
    )
    workers = sharding.start()

    def resolve(request: ShardRequest) -> Resolved:
        if wanted.own:
            make_index()
        else:
            with open_whole(wanted.index) as index:
                say_cut(index)
        return workers.resolve(request)

    folder = partial_path(output)
    with planned(folder, request, resolve, rows) as plan:
        build = workers.build(folder, plan)
        sharded_view.say_plan(folder, plan)
        summary = sharded_view.watch(build, folder)
        if summary.complete:
            with console.progress_bar("join") as bar:
                for fraction in join_rows(folder, plan, summary.receipts, output):
                    bar.update(fraction, str(output))
    shown = {"output": str(output), **sharded_view.as_json(plan, build, summary)}
    if not as_json:
        sharded_view.say_troubles(build, summary)
        sharded_view.say_failed(summary)
    if summary.failed:
        if as_json:
            console.print_json(shown)
        raise typer.Exit(1)
    return shown


def say_cut(index: Searchable) -> None:
    passages, documents = len(index), index.count_documents()
    if passages > documents:
        console.warn(
            f"{index.path}: {documents:,} documents are cut into {passages:,} passages. A row's positive is known by its whole text, "
            "so a passage of it is left out by the margin alone"
        )

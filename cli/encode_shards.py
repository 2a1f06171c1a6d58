"""`embedkit encode --shards`: what is asked for, the one file at the end, and what is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .encode_output import counts_as_json, on_truncated, shape
from .shared import console, models, options, sharded_view
from .shared.sharding import Sharding, plain

if TYPE_CHECKING:
    from embedkit.distributed.building import Summary
    from embedkit.distributed.plan import ShardPlan
    from embedkit.encoding.job import EncodeOptions
    from embedkit.encoding.output_forms import OutputForm
    from indexes.types import VectorKind

_COUNTS = ("tokens", "truncated", "empty", "unknown", "nonfinite")


def encode_in_shards(
    inputs: list[str],
    output: Path | None,
    wanted: Sharding,
    settings: EncodeOptions,
    *,
    model: str | None,
    prompt_name: str | None,
    kind: VectorKind,
    loading: dict[str, float | None],
    merge_tokens: float,
    computing: options.ComputingOptions,
    reading: options.Reading,
    printing: options.Printing,
) -> None:
    """Plan, encode what is missing, join it, and say what came of it."""
    from embedkit.data.records import ReadOptions
    from embedkit.distributed.planning import planned
    from embedkit.distributed.requests import ShardRequest, VectorsWanted
    from embedkit.distributed.vector_files import count_duplicates, join_vectors
    from embedkit.encoding.job import EncodeProgress
    from embedkit.encoding.output_forms import forms_of
    from embedkit.pipelines.options import BuildOptions
    from embedkit.types import Computing

    forms = forms_of(kind)
    folder = _folder(output, forms)
    assert output is not None
    assert wanted.shards is not None
    wanted.check()
    request = ShardRequest(
        inputs=inputs,
        reading=plain(reading, ReadOptions),
        walking=None,  # files as `encode` in one piece takes them
        building=BuildOptions(),
        computing=plain(computing, Computing),
        shards=wanted.shards,
        threads=wanted.num_threads(),
        model=model,
        merge_tokens=merge_tokens,
        strict=True,  # every text has its row
        allow_other=wanted.allow_other,
        vectors=VectorsWanted(
            options=settings,
            ending=output.suffix or next(iter(forms)),
            prompt_name=prompt_name,
            loading=loading,
        ),
    )
    workers = wanted.start()
    with planned(folder, request, workers.resolve) as plan:
        build = workers.build(folder, plan)
        sharded_view.say_plan(folder, plan)
        summary = sharded_view.watch(build, folder)
        duplicates = count_duplicates(folder, summary.receipts) if summary.complete else None
        if summary.complete and output != folder:
            with console.progress_bar("join") as bar:
                for fraction in join_vectors(folder, plan, summary.receipts, output):
                    bar.update(fraction, str(output))
    report = EncodeProgress(
        texts=summary.total("documents"), vectors=summary.total("vectors"), terms=summary.total("terms")
    )
    if printing.as_json:
        shown: dict[str, Any] = {
            "output": str(output),
            **sharded_view.as_json(plan, build, summary),
            "dimension": plan.index_settings.dimension,
            "texts": report.texts,
            **counts_as_json(kind, report),
            **{name: summary.total(name) for name in _COUNTS},
            "duplicates": duplicates,
        }
        console.print_json(shown)
    else:
        sharded_view.say_troubles(build, summary)
        made = shape(kind, report, plan.index_settings.dimension)
        advice = on_truncated(kind, settings.role)
        _say(output, plan, summary, build.status.seconds, duplicates, made, advice)
    if summary.failed:
        raise typer.Exit(1)


def _folder(output: Path | None, forms: Mapping[str, OutputForm]) -> Path:
    """Return where the shards lie: in the output itself, or beside it until they are joined."""
    from embedkit.encoding.draft import check_output, partial_path

    if output is None:
        raise typer.BadParameter(
            f"--shards goes with --output: a file ({' '.join(forms)}), or a folder of shards"
        )
    if not output.suffix:
        return output
    check_output(output, forms=forms)
    return partial_path(output)


def _say(
    output: Path,
    plan: ShardPlan,
    summary: Summary,
    seconds: float,
    duplicates: int | None,
    made: str,
    advice: str,
) -> None:
    texts, tokens = summary.total("documents"), summary.total("tokens")
    speed = f" in {seconds:,.1f} s" if seconds else ""
    console.note(
        f"{console.counted(texts, 'text')}, {console.counted(tokens, 'token')}{speed} -> {output} "
        f"({made}), model {Path(plan.model_path).name}"
    )
    if truncated := summary.total("truncated"):
        console.warn(f"{console.counted(truncated, 'text')} cut to the tokens that the model reads{advice}")
    if empty := summary.total("empty"):
        console.warn(f"{console.counted(empty, 'text')} empty or without tokens for this model")
    models.say_unknown(summary.total("unknown"), "text", "")
    if duplicates:
        console.note(f"note: {console.counted(duplicates, 'text')} stood earlier already")
    if nonfinite := summary.total("nonfinite"):
        console.warn(
            f"{console.counted(nonfinite, 'vector')} with values that are not finite. Check the model: embedkit model check"
        )
    sharded_view.say_failed(summary)

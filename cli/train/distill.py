"""`embedkit train distill`: a small, fast student of a sentence encoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..shared import console, options
from ..shared.options import DeviceName, PrecisionName
from . import view as train_view

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.training.distillation.recipe import DistillRecipe
    from embedkit.training.distillation.student import Student
    from embedkit.training.distillation.teacher import Embed, TeacherCache
    from embedkit.training.distillation.training import Distillation, TaughtTexts
    from embedkit.training.engine.ranks import Ranks
    from embedkit.types import Float32

EXAMPLES = """\b
Examples:
  embedkit train distill texts.jsonl --teacher all-MiniLM-L6-v2 --layers 0,2,5 --output student --steps 1000
  embedkit train distill texts.jsonl --teacher big --layers 0,3,6,9,11 --dimension 256 --prune-below 2 -o small --steps 5000
  embedkit train distill texts.jsonl --teacher all-MiniLM-L6-v2 --static --output static --steps 2000
  embedkit train distill texts.jsonl --teacher big --layers 0,5 -o small --steps 5000 --evaluate sts/test.tsv --evaluate scifact
"""


def train_distill(
    inputs: options.Inputs,
    output: train_view.Output,
    teacher: Annotated[
        Path,
        typer.Option("--teacher", "-t", metavar="FOLDER", help="Model to learn from.", show_default=False),
    ],
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            metavar="I,J,…",
            help="Layers of the teacher that the student starts from, numbered from 0. Default: fresh ones.",
            show_default=False,
        ),
    ] = None,
    student: Annotated[
        Path | None,
        typer.Option(
            "--student",
            metavar="FOLDER",
            help="Student of before to go on with, on new texts or for longer. Default: make one.",
            show_default=False,
        ),
    ] = None,
    static: Annotated[
        bool, typer.Option("--static", help="A student without layers: the mean of token vectors.")
    ] = False,
    prune_below: Annotated[
        int | None,
        typer.Option(
            "--prune-below",
            metavar="N",
            min=0,
            help="Leave out tokens that the texts use fewer than N times. Default: keep all.",
            show_default=False,
        ),
    ] = None,
    dimension: Annotated[
        int | None,
        typer.Option(
            "--dimension",
            metavar="N",
            min=1,
            help="Cut the vectors to N dimensions by PCA. Default: the teacher's.",
            show_default=False,
        ),
    ] = None,
    evaluate: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluate",
            metavar="SET",
            help="Scored pairs or a retrieval set FOLDER[:SPLIT] to measure with while training; repeatable.",
            show_default=False,
        ),
    ] = None,
    recipe: train_view.RecipeFile = None,
    steps: train_view.Steps = None,
    settings: train_view.Settings = None,
    resume: train_view.Resume = False,
    dry_run: train_view.DryRun = False,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            envvar="EMBEDKIT_CACHE",
            help="Where the teacher's vectors lie. Default: ~/.cache/embedkit.",
            show_default=False,
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard", metavar="DIR", help="Write the curves for TensorBoard too.", show_default=False
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column", metavar="ROLE=NAME", help="Which column is what; repeatable.", show_default=False
        ),
    ] = None,
    device: options.Device = DeviceName.auto,
    precision: Annotated[
        PrecisionName, typer.Option("--precision", help="Number format that the teacher computes in.")
    ] = PrecisionName.fp32,
    threads: train_view.Threads = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Distil a sentence encoder into a smaller one, on texts of any kind: every text of the inputs' rows counts.

    The teacher's vectors are computed once and kept. In the end the student is held against the teacher: cosine, evaluation sets,
    size, speed; the model card says it all.
    """
    from embedkit.encoding.encoder import Encoder
    from embedkit.training.distillation.recipe import DistillRecipe
    from embedkit.training.engine.ranks import launched
    from embedkit.training.engine.run_folder import RunFolder

    flags = {
        "run.steps": steps,
        "student.folder": student and json.dumps(str(student)),
        "student.layers": None if layers is None else f"[{layers}]",
        "student.kind": "static" if static else None,
        "student.prune_below": prune_below,
        "student.dimension": dimension,
    }
    wanted = train_view.resolve(DistillRecipe, preset="distill", path=recipe, flags=flags, settings=settings)
    if not dry_run:
        RunFolder(output).check_place(resume=resume)
    train_view.set_threads(threads)
    with launched(device.value) as ranks:
        quiet = quiet or not ranks.first
        encoder = Encoder.load(
            teacher, device=device.value, precision=precision.value, max_seq_length=_limit(teacher, wanted)
        )
        journey = _journey(inputs, column or [], wanted, encoder, evaluate or [], cache, ranks, quiet)
        train_view.run(
            journey,
            wanted.run,
            wanted.optim,
            RunFolder(output),
            label="distil",
            ranks=ranks,
            resume=resume,
            dry_run=dry_run,
            tensorboard=tensorboard,
            as_json=as_json,
            quiet=quiet,
        )
        if ranks.first and not dry_run:
            _compare(journey, encoder, output, teacher, wanted, device, as_json=as_json)


def _limit(teacher: Path, recipe: DistillRecipe) -> int:
    """Cut the teacher's texts where the student's are cut: both must see the same."""
    from embedkit.checkpoint.folder import read_model_folder

    return min(recipe.data.max_length, read_model_folder(teacher).tokenizer.max_length)


def _journey(
    inputs: Sequence[str],
    column: Sequence[str],
    recipe: DistillRecipe,
    encoder: Encoder,
    evaluate: Sequence[str],
    cache: Path | None,
    ranks: Ranks,
    quiet: bool,
) -> Distillation:
    from embedkit.storage.cache import cache_folder
    from embedkit.training.distillation.teacher import TeacherCache
    from embedkit.training.distillation.training import Distillation
    from embedkit.training.engine.evaluation_sets import find_overlaps, load_evaluation_sets
    from embedkit.training.rows.columns import parse_columns
    from embedkit.training.rows.examples import read_examples

    sets = load_evaluation_sets(evaluate)
    roles = parse_columns(column)
    texts = list(
        dict.fromkeys(text for source in inputs for text in read_examples(source, columns=roles).texts)
    )
    if not quiet:
        console.note(f"{len(texts):,} texts from {len(inputs)} inputs")
        for overlap in find_overlaps(sets, texts):
            console.note(f"warning: {overlap.warning()}")
    fingerprint = encoder.fingerprint | {"precision": str(encoder.backend)}
    store = TeacherCache(cache_folder(cache), fingerprint, encoder.dimension)

    def embed(some: Sequence[str]) -> Float32:
        return encoder.encode(some, on_truncate="ok")

    if ranks.first:
        with console.progress_bar("teacher", quiet=quiet) as bar:
            for filled in store.fill(texts, embed):
                bar.update(filled.done / filled.total, f"{filled.done:,} of {filled.total:,} texts")
    ranks.wait()
    student, taught = _student(recipe, encoder, store, texts, embed)
    if not quiet:
        console.note(
            f"student: {student.described}, {student.num_parameters:,} parameters, {student.tokenizer.vocab_size:,} tokens"
        )
    return Distillation(student, taught, recipe, teacher=fingerprint, evaluation=sets)


def _student(
    recipe: DistillRecipe, encoder: Encoder, store: TeacherCache, texts: Sequence[str], embed: Embed
) -> tuple[Student, TaughtTexts]:
    """Make the student or load it, and turn the teacher's vectors to what it is to give."""
    from embedkit.encoding.encoder import Encoder
    from embedkit.training.distillation.student import make_student
    from embedkit.training.distillation.student_folder import load_student
    from embedkit.training.distillation.training import taught_texts

    wanted, max_length = recipe.student, encoder.tokenizer.max_length
    if wanted.folder is not None:
        loaded = load_student(wanted.folder, max_length=max_length, dropout=wanted.dropout)
        before = Encoder.load(wanted.folder, device="cpu", max_seq_length=max_length)
        aligned = taught_texts(store, texts, None, student=lambda some: before.encode(some, on_truncate="ok"))
        return loaded, aligned
    taught = taught_texts(store, texts, wanted.dimension)
    made = make_student(
        wanted,
        encoder.folder,
        texts,
        axes=taught.axes,
        max_length=max_length,
        seed=recipe.run.seed,
        embed=embed,
    )
    return made, taught


def _compare(
    journey: Distillation,
    teacher: Encoder,
    output: Path,
    teacher_name: Path,
    recipe: DistillRecipe,
    device: DeviceName,
    *,
    as_json: bool,
) -> None:
    """Hold the finished student against its teacher, print it, and write the model card."""
    from embedkit.encoding.encoder import Encoder
    from embedkit.storage.files import write_atomically
    from embedkit.training.distillation.comparison import compare_models
    from embedkit.training.reports.card import distillation_card

    student = Encoder.load(output, device=device.value)
    rows = compare_models(
        {"teacher": teacher, "student": student},
        {"teacher": teacher_name, "student": output},
        journey.held_out_texts,
        journey.evaluation,
        axes=journey.axes,
    )
    write_atomically(output / "README.md", distillation_card(journey.manifest(), rows, journey.described))
    if console.wants_json(as_json):
        for row in rows:
            console.print_json({"measure": row.measure, "teacher": row.teacher, "student": row.student})
        return
    console.print_table(
        ("measure", "teacher", "student", "share"),
        [row.cells() for row in rows],
        title="Student against teacher",
    )

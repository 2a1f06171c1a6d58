"""`embedkit train distill`: a small, fast student of a sentence encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from embedkit.types import WantedPrecision

from ..shared import console, options
from ..shared.completing import complete_model
from ..shared.groups import grouped
from ..shared.rows import RowReading
from . import view as train_view

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.training.distillation.recipe import DistillRecipe
    from embedkit.training.distillation.student import Student
    from embedkit.training.distillation.teacher import TeacherCache
    from embedkit.training.distillation.training import Distillation, TaughtTexts
    from embedkit.training.engine.ranks import Ranks
    from embedkit.types import Float32

EXAMPLES = """\b
Examples:
  embedkit train distill texts.jsonl --teacher all-MiniLM-L6-v2 --layers 0,2,5 --output student --steps 1000
  embedkit train distill texts.jsonl -t big --layers 0,5,11 --dimension 256 --prune-below 2 -o new --steps 999
  embedkit train distill texts.jsonl --teacher all-MiniLM-L6-v2 --static --output static --steps 2000
  embedkit train distill texts.jsonl -t big --layers 0,5 -o small --steps 5000 --evaluate sts/dev.tsv
"""


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """Who teaches, with what, and where its vectors are kept."""

    teacher: Annotated[
        Path,
        typer.Option(
            "--teacher",
            "-t",
            metavar="FOLDER",
            help="Model to learn from.",
            show_default=False,
            autocompletion=complete_model,
        ),
    ]
    evaluate: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluate",
            metavar="SET",
            help="Scored pairs or a retrieval set FOLDER[:SPLIT] to measure with while training; repeatable.",
            show_default=False,
        ),
    ] = None
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            envvar="EMBEDKIT_CACHE",
            help="Where the teacher's vectors lie. Default: ~/.cache/embedkit.",
            show_default=False,
        ),
    ] = None
    precision: Annotated[
        WantedPrecision, typer.Option("--precision", help="Number format that the teacher computes in.")
    ] = "fp32"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the student is."""

    PANEL: ClassVar[str] = "The student"

    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            metavar="I,J,…",
            help="Layers of the teacher that the student starts from, numbered from 0. Default: fresh ones.",
            show_default=False,
        ),
    ] = None
    student: Annotated[
        Path | None,
        typer.Option(
            "--student",
            metavar="FOLDER",
            autocompletion=complete_model,
            help="An earlier student to train further, on new texts or for longer. Default: make one.",
            show_default=False,
        ),
    ] = None
    static: Annotated[
        bool, typer.Option("--static", help="A student without layers: the mean of token vectors.")
    ] = False
    prune_below: Annotated[
        int | None,
        typer.Option(
            "--prune-below",
            metavar="N",
            min=0,
            help="Leave out tokens that the texts use fewer than N times. Default: keep all.",
            show_default=False,
        ),
    ] = None
    dimension: Annotated[
        int | None,
        typer.Option(
            "--dimension",
            metavar="N",
            min=1,
            help="Cut the vectors to N dimensions by PCA. Default: the teacher's.",
            show_default=False,
        ),
    ] = None

    def flags(self) -> dict[str, object]:
        """Return the settings of the recipe that these options change."""
        return {
            "student.folder": self.student and str(self.student),
            "student.layers": train_view.numbers(self.layers),
            "student.kind": "static" if self.static else None,
            "student.prune_below": self.prune_below,
            "student.dimension": self.dimension,
        }


@grouped
def train_distill(
    inputs: options.Files,
    *,
    teaching: Teaching,
    shape: Shape,
    running: train_view.Running,
    reading: RowReading,
) -> None:
    """Distil a sentence encoder into a smaller one, on texts of any kind: every text of the inputs' rows counts.

    The teacher's vectors are computed once and kept. In the end the student is held against the teacher: cosine, evaluation sets,
    size, speed; the model card says it all.
    """
    from embedkit.checkpoint.folder import read_model_folder
    from embedkit.encoding.encoder import Encoder
    from embedkit.training.distillation.recipe import DistillRecipe

    wanted = train_view.resolve(DistillRecipe, running, task="distill", preset="distill", flags=shape.flags())
    with running.ranks() as ranks:
        folder = read_model_folder(teaching.teacher)
        encoder = Encoder.load(
            teaching.teacher,
            device=running.device,
            precision=teaching.precision,
            # Texts are cut where the student's are: both must see the same. Its vectors are learnt whole.
            max_seq_length=min(wanted.data.max_length, folder.tokenizer.max_length),
            truncate_dim=folder.embedding_size,
        )
        pupil = _Pupil(wanted, encoder, teaching, quiet=running.silent(ranks))
        journey = pupil.journey(inputs, reading, ranks)
        train_view.run(journey, wanted, running, label="distil", ranks=ranks)
        if ranks.first and not running.dry_run:
            _compare(journey, encoder, teaching.teacher, running=running)


def _all_dimensions(model: str | Path) -> int:
    """Return how long a model's vectors are before its folder cuts them: a student learns them whole."""
    from embedkit.checkpoint.folder import read_model_folder

    return read_model_folder(model).embedding_size


def _texts(inputs: Sequence[str], reading: RowReading) -> dict[str, str]:
    """Read the distinct texts, each with its label where all have one, else with none."""
    from embedkit.training.rows.reading import read_examples

    found: dict[str, str] = {}
    for source in inputs:
        examples = read_examples(source, columns=reading.roles(), read=reading.read())
        if examples.labels is not None and examples.second is None:
            for number, label in zip(examples.first, examples.labels, strict=True):
                found.setdefault(examples.texts[number], examples.classes[label])
        for text in examples.texts:
            found.setdefault(text, "")
    return found


@dataclass(frozen=True)
class _Pupil:
    """A student to be, and what teaches it."""

    recipe: DistillRecipe
    encoder: Encoder
    teaching: Teaching
    quiet: bool

    def journey(self, inputs: Sequence[str], reading: RowReading, ranks: Ranks) -> Distillation:
        from embedkit.storage.cache import cache_folder
        from embedkit.training.distillation.teacher import TeacherCache
        from embedkit.training.distillation.training import Distillation
        from embedkit.training.engine.evaluation_sets import find_overlaps, load_evaluation_sets

        sets = load_evaluation_sets(self.teaching.evaluate or [])
        labels = _texts(inputs, reading)
        texts = list(labels)
        kinds = list(labels.values()) if all(labels.values()) else []
        if not self.quiet:
            console.note(
                f"{console.counted(len(texts), 'text')} from {console.counted(len(inputs), 'input')}"
            )
            for overlap in find_overlaps(sets, texts):
                console.warn(f"{overlap.warning()}")
        fingerprint = self.encoder.fingerprint | {"precision": str(self.encoder.backend)}
        store = TeacherCache(cache_folder(self.teaching.cache), fingerprint, self.encoder.dimension)
        if ranks.first:
            with console.progress_bar("teacher", quiet=self.quiet) as bar:
                for filled in store.fill(texts, self._embed):
                    bar.update(filled.done / filled.total, f"{filled.done:,} of {filled.total:,} texts")
        ranks.wait()
        student, taught = self._student(store, texts, kinds)
        if not self.quiet:
            console.note(
                f"student: {student.described}, {student.num_parameters:,} parameters, {student.tokenizer.vocab_size:,} tokens"
            )
        return Distillation(student, taught, self.recipe, teacher=fingerprint, evaluation=sets)

    def _embed(self, texts: Sequence[str]) -> Float32:
        return self.encoder.encode(texts, on_truncate="ok")

    def _student(
        self, store: TeacherCache, texts: Sequence[str], kinds: Sequence[str]
    ) -> tuple[Student, TaughtTexts]:
        """Make the student or load it, and turn the teacher's vectors to what it is to give."""
        from embedkit.encoding.encoder import Encoder
        from embedkit.training.distillation.student import make_student
        from embedkit.training.distillation.student_folder import load_student, turned
        from embedkit.training.distillation.training import taught_texts

        wanted, max_length = self.recipe.student, self.encoder.tokenizer.max_length
        if wanted.folder is not None:
            loaded = load_student(wanted.folder, max_length=max_length, dropout=wanted.dropout)
            whole = _all_dimensions(wanted.folder)
            before = Encoder.load(wanted.folder, device="cpu", max_seq_length=max_length, truncate_dim=whole)

            def embed(some: Sequence[str]) -> Float32:
                return before.encode(some, on_truncate="ok")

            if wanted.dimension is None:
                return loaded, taught_texts(store, texts, None, student=embed, kinds=kinds)
            taught = taught_texts(store, texts, wanted.dimension, kinds=kinds)
            return turned(loaded, taught.turn_of(embed)), taught
        taught = taught_texts(store, texts, wanted.dimension, kinds=kinds)
        made = make_student(
            wanted,
            self.encoder.folder,
            texts,
            axes=taught.axes,
            max_length=max_length,
            seed=self.recipe.run.seed,
            embed=self._embed,
        )
        return made, taught


def _compare(
    journey: Distillation, teacher: Encoder, teacher_name: Path, *, running: train_view.Running
) -> None:
    """Hold the finished student against its teacher, print it, and write the model card."""
    from embedkit.encoding.encoder import Encoder
    from embedkit.models import find_model
    from embedkit.storage.files import write_text
    from embedkit.training.distillation.comparison import compare_models
    from embedkit.training.reports.card import distillation_card

    student = Encoder.load(
        running.output, device=running.device, truncate_dim=_all_dimensions(running.output)
    )
    rows = compare_models(
        {"teacher": teacher, "student": student},
        {"teacher": find_model(teacher_name), "student": running.output},
        journey.held_out_texts,
        evaluation=journey.evaluation,
        axes=journey.axes,
    )
    write_text(running.output / "README.md", distillation_card(journey.manifest(), rows, journey.described))
    if console.wants_json(running.as_json):
        for row in rows:
            console.print_json({"measure": row.measure, "teacher": row.teacher, "student": row.student})
        return
    console.print_table(
        ("measure", "teacher", "student", "share"),
        [row.cells() for row in rows],
        title="Student against teacher",
    )

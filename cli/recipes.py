"""`embedkit recipes`: the training recipes that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .shared import console, options
from .shared.commands import examples, subcommand
from .shared.completing import complete_recipe
from .shared.usage import Group

LIST_EXAMPLES = """\b
Examples:
  embedkit recipes list
  embedkit recipes show distill
  embedkit recipes copy distill mine.toml
  embedkit train distill texts.jsonl --teacher FOLDER --recipe mine.toml --output student --steps 1000
"""
app = typer.Typer(
    name="recipes",
    cls=Group,
    help="List, show and copy the training recipes that come with the package.",
    epilog=LIST_EXAMPLES,
    no_args_is_help=True,
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A recipe's name, as `recipes list` has it.", autocompletion=complete_recipe
    ),
]


@subcommand(app, "list", epilog=LIST_EXAMPLES)
def list_(as_json: options.AsJson = False) -> None:
    """List the recipes: what each is for, costs and reaches.

    A recipe is used by name or as a file: embedkit train TASK --recipe NAME, or --preset NAME for a fresh model of `train mlm`.
    """
    from dataclasses import asdict

    from embedkit.recipe import about_preset, preset_names

    found = {name: about_preset(name) for name in preset_names()}
    if console.wants_json(as_json):
        for name, about in found.items():
            console.print_json({"name": name, **asdict(about)})
        return
    rows = [
        (name, about.task, f"{about.purpose}\ncosts    {about.cost}\nreaches  {about.reaches}")
        for name, about in sorted(found.items(), key=lambda item: item[1].task)
    ]
    console.print_table(("recipe", "train", "what it is for, costs and reaches"), rows)


@subcommand(app, "show", epilog=examples("embedkit recipes show distill"))
def show(name: Name, as_json: options.AsJson = False) -> None:
    """Print a recipe as it is written; with --json as one object."""
    from embedkit.recipe import preset_text, read_preset

    if as_json:
        console.print_json({"name": name, **read_preset(name)})
    else:
        console.say(preset_text(name).rstrip("\n"))


@subcommand(app, "copy", epilog=examples("embedkit recipes copy distill mine.toml"))
def copy(
    name: Name,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="Where to write; - for standard output. Default: NAME.toml, here.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Copy a recipe, to change it and train with --recipe FILE."""
    from embedkit.errors import OutputError
    from embedkit.recipe import about_preset, preset_text
    from embedkit.storage.files import is_stream, write_text

    text = preset_text(name)
    target = file if file is not None else Path(f"{name}.toml")
    if target == Path("-"):
        console.write_exactly(text)
        return
    if is_stream(target):
        write_text(target, text)
        return
    if target.exists():
        raise OutputError(f"{target}: already exists. Choose another name, or remove it first")
    write_text(target, text)
    console.note(f"{target}: written; train with: embedkit train {about_preset(name).task} --recipe {target}")

"""`embedkit model`: look at a model folder, check it, convert it, export it, fetch one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..shared import console, options
from ..shared.commands import examples, subcommand
from ..shared.completing import complete_model
from ..shared.usage import Group
from . import export as model_export
from . import info as model_info
from . import listing
from .export import AnyModel, NewFolder

app = typer.Typer(
    name="model",
    cls=Group,
    help="List models, look at their folders, check, convert, export and fetch them.",
    epilog=examples("embedkit model list", "embedkit model info", "embedkit model check FOLDER"),
    no_args_is_help=True,
)
subcommand(app, "export", epilog=model_export.EXAMPLES)(model_export.export)
subcommand(app, "list", epilog=listing.EXAMPLES)(listing.list_models)
subcommand(app, "info", epilog=model_info.EXAMPLES)(model_info.info)


class StoredName(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"


Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Model folder.", autocompletion=complete_model)
]


@subcommand(app, "check", epilog=examples("embedkit model check FOLDER"))
def check(model: AnyModel = None, as_json: options.AsJson = False) -> None:
    """Load a model, encode a few odd texts, and compare with sentence-transformers where that is installed.

    Exit code 1 where the vectors are not finite, or differ by more than 1e-4.
    """
    import numpy as np

    from embedkit.checkpoint.compare import CHECK_TEXTS, compare_vectors
    from embedkit.encoding.encoder import Encoder
    from embedkit.errors import CheckpointError
    from embedkit.extras import has_extra, load_extra
    from embedkit.models import find_model
    from embedkit.pipelines.models import or_default

    folder = find_model(or_default(model))
    encoder = Encoder.load(folder, device="cpu")
    ours = encoder.encode(CHECK_TEXTS, on_truncate="ok")
    if not np.isfinite(ours).all():
        raise CheckpointError(
            f"{folder}: {int((~np.isfinite(ours)).sum())} of {ours.size} values are not finite"
        )
    nothing = None
    if encoder.folder.family == "embedkit":
        nothing = "no other library computes this model: nothing to compare with"
    elif not has_extra("sentence_transformers"):
        nothing = "sentence-transformers is not installed: nothing to compare with"
    if nothing is not None:
        console.note(nothing)
        content: dict[str, object] = {
            "folder": str(folder),
            "texts": len(CHECK_TEXTS),
            "dimension": ours.shape[1],
            "finite": True,
        }
    else:
        theirs = load_extra("sentence_transformers", purpose="comparing vectors").encode(folder, CHECK_TEXTS)
        agreement = compare_vectors(ours, theirs)
        content = {
            "folder": str(folder),
            "texts": agreement.texts,
            "dimension": ours.shape[1],
            "finite": True,
            "largest_difference": agreement.largest_difference,
            "lowest_cosine": agreement.lowest_cosine,
        }
    if console.wants_json(as_json):
        console.print_json(content)
    else:
        console.print_table(("check", "value"), [(key, str(value)) for key, value in content.items()])
    difference = content.get("largest_difference", 0.0)
    if isinstance(difference, float) and difference > 1e-4:
        raise CheckpointError(
            f"{folder}: vectors differ from sentence-transformers' by {difference:.2g}; wanted 1e-4 at most"
        )


@subcommand(app, "convert", epilog=examples("embedkit model convert FOLDER --output converted --dtype fp16"))
def convert(
    folder: Folder,
    output: NewFolder,
    dtype: Annotated[
        StoredName | None,
        typer.Option(
            "--dtype",
            help="Store all weights so: fp16 takes half the room of fp32, int8 a quarter. Default: as they are.",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="NAME",
            help="Merge the adapter of this task, of a model that has several (Jina v3: retrieval.query …, or retrieval for those of queries and passages in one folder).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Copy a folder with its weights in safetensors: pickled ones turned without running any code in them.

    What a training run left beside the model is not copied.
    """
    import torch

    from embedkit.checkpoint.converting import convert_folder
    from embedkit.models import find_model

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
    converted = convert_folder(
        find_model(folder), output, dtype=None if dtype is None else dtypes[dtype.value], task=task
    )
    console.note(f"{output}: {len(converted)} file(s) converted ({', '.join(converted)})")


@subcommand(
    app,
    "download",
    epilog=examples("embedkit model download sentence-transformers/all-MiniLM-L6-v2 --output minilm"),
)
def download(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name on the Hugging Face hub, such as owner/model.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where to put it. Default: the name's last part.",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option("--revision", metavar="NAME", help="Branch, tag or commit.", show_default=False),
    ] = None,
) -> None:
    """Fetch a model from the Hugging Face hub: the only command that goes to the network. Code is never fetched."""
    from embedkit.extras import load_extra
    from embedkit.storage.files import new_folder

    hub = load_extra("hub", purpose="fetching a model")
    target = output if output is not None else Path(name.rpartition("/")[2])
    with new_folder(target) as draft:
        hub.download(name, draft, revision=revision)
    console.note(f"{target}: fetched; look at it with: embedkit model info {target}")

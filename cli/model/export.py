"""`embedkit model export`: a model as a graph that other programs run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from embedkit.models import ENCODER

from ..shared import console, options
from ..shared.completing import complete_model

EXAMPLES = """\b
Examples:
  embedkit model export FOLDER --format onnx --output exported
  embedkit encode notes.txt --backend openvino -o notes.npy      # exports by itself, into the cache
"""

AnyModel = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        autocompletion=complete_model,
        help=f"Model folder, or a shipped model's name. Default: $EMBEDKIT_MODEL, else {ENCODER}.",
        show_default=False,
    ),
]
NewFolder = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="NEW_FOLDER", help="Where to write; must not exist yet.", show_default=False
    ),
]


def export(
    output: NewFolder,
    form: Annotated[
        Literal["onnx", "openvino"],
        typer.Option("--format", help="Which runtime is to read it.", show_default=False),
    ],
    model: AnyModel = None,
    as_json: options.AsJson = False,
) -> None:
    """Write an encoder as one graph from token ids to sentence vectors, for ONNX Runtime or OpenVINO in any language.

    Its vectors are compared with our own in fp32 on a few odd texts: where they differ by more than 1e-4 nothing is written.
    """
    from dataclasses import asdict
    from functools import partial

    from embedkit.checkpoint.folder import read_model_folder
    from embedkit.inference.graph_runtime.export import export_model
    from embedkit.inference.loading import load_reference
    from embedkit.pipelines.models import or_default

    folder = read_model_folder(or_default(model))
    exported = export_model(folder, form, output, reference=partial(load_reference, folder))
    content = {"file": str(exported.file), "bytes": exported.num_bytes, **asdict(exported.agreement)}
    if console.wants_json(as_json):
        console.print_json(content)
    else:
        console.print_table(("exported", "value"), [(key, _shown(value)) for key, value in content.items()])


def _shown(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}" if value < 0.1 else f"{value:.7g}"
    return str(value)

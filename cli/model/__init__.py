"""`embedkit model`: look at a model folder, check it, convert it, export it, fetch one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..shared import console, options
from ..shared.commands import examples, subcommand
from ..shared.completing import complete_model
from ..shared.usage import Group
from . import export as model_export
from .export import AnyModel, NewFolder

if TYPE_CHECKING:
    from embedkit.model.config import EncoderConfig, HeadLayer

app = typer.Typer(
    name="model",
    cls=Group,
    help="Look at model folders, check, convert, export and fetch them.",
    epilog=examples("embedkit model info", "embedkit model check FOLDER"),
    no_args_is_help=True,
)
subcommand(app, "export", epilog=model_export.EXAMPLES)(model_export.export)


class StoredName(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"


Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="Model folder.", autocompletion=complete_model)
]


@subcommand(app, "info", epilog=examples("embedkit model info", "embedkit model info FOLDER --json"))
def info(model: AnyModel = None, as_json: options.AsJson = False) -> None:
    """Say what a folder holds: family, sizes, pooling, labels or decoder, prompts, limits, fingerprint."""
    from embedkit.checkpoint.classification import is_classifier
    from embedkit.checkpoint.generation import is_generator
    from embedkit.models import find_model
    from embedkit.pipelines.models import or_default

    folder = find_model(or_default(model))
    if is_generator(folder):
        content = _generator(folder)
    else:
        content = _classifier(folder) if is_classifier(folder) else _encoder(folder)
    if console.wants_json(as_json):
        console.print_json(content)
    else:
        console.print_table(("field", "value"), [(key, _cell(value)) for key, value in content.items()])


def _encoder(folder: Path) -> dict[str, object]:
    from embedkit.checkpoint.folder import all_weight_files, fingerprint, read_model_folder

    read = read_model_folder(folder)
    modules = read.modules
    learned = modules.sentence.similarity
    content = _shape(read.name, folder, read.family, read.config) | {
        "max_seq_length": read.tokenizer.max_length,
        "pooling": modules.sentence.described_pooling,
        "truncation_side": read.tokenizer.truncation_side,
        "dense": [_layer(layer) for layer in modules.sentence.dense],
        "normalize": modules.sentence.normalize,
        "dimension": read.dimension,
        "truncate_dim": modules.truncate_dim,
        "similarity": modules.similarity if learned is None else learned.kind,
        **({} if learned is None or not learned.fields else {"fields": list(learned.fields)}),
        "prompts": dict(modules.prompts),
        "weights_bytes": sum(file.stat().st_size for file in all_weight_files(read)),
        "weights": fingerprint(read)["weights"],
    }
    if read.static:  # a table of token vectors has none of these
        none = (
            *("position", "attention", "layers", "attention_heads", "intermediate_size", "positions"),
            *("max_seq_length", "parameters", "active_parameters", "flops_per_token", "flops_text_tokens"),
        )
        content = {key: value for key, value in content.items() if key not in none} | {"family": "static"}
    return content


def _layer(layer: HeadLayer) -> str:
    activation = getattr(layer, "activation", "layer norm")
    return f"{layer.in_features} -> {layer.out_features} {activation}"


def _classifier(folder: Path) -> dict[str, object]:
    from embedkit.checkpoint.classification import read_classifier_folder
    from embedkit.checkpoint.folder import weight_files

    read = read_classifier_folder(folder)
    return _shape(read.name, folder, f"{read.family} cross-encoder", read.config) | {
        "max_seq_length": read.tokenizer.max_length,
        "truncation_side": read.tokenizer.truncation_side,
        "labels": list(read.labels),
        "activation": read.activation,
        "token_types": read.token_types,
        "weights_bytes": sum(file.stat().st_size for file in weight_files(folder)),
        "weights": read.fingerprint["weights"],
    }


FLOPS_TOKENS = 128  # the length of the text that the work of a token is told for


def _generator(folder: Path) -> dict[str, object]:
    from embedkit.checkpoint.folder import weight_files
    from embedkit.checkpoint.generation import read_generator_folder

    read = read_generator_folder(folder)
    if read.encoder is None:
        content = _shape(read.name, folder, "language model", read.decoder.pieces())
    else:
        content = _shape(read.name, folder, f"{read.family} encoder–decoder", read.encoder) | {
            "max_source_tokens": read.tokenizer.max_length,
            "decoder_layers": read.decoder.num_hidden_layers,
            "decoder_hidden_size": read.decoder.hidden_size,
            "decoder_attention_heads": read.decoder.num_attention_heads,
            "decoder_intermediate_size": read.decoder.intermediate_size,
            "decoder_positions": read.decoder.max_position_embeddings,
            "shared_embeddings": read.decoder.share_embeddings,
        }
    return content | {
        "generation": dict(read.generation),
        "weights_bytes": sum(file.stat().st_size for file in weight_files(folder)),
        "weights": read.fingerprint["weights"],
    }


def _shape(name: str, folder: Path, family: str, config: EncoderConfig) -> dict[str, object]:
    from embedkit.model.costs import encoder_flops, num_active_parameters, num_parameters

    tokens = min(FLOPS_TOKENS, config.max_tokens)
    return {
        "model": name,
        "folder": str(folder),
        "family": family,
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "vocabulary": config.vocab_size,
        "positions": config.max_tokens,
        "position": config.position,
        "attention": _attention(config),
        **_routing(config),
        "parameters": num_parameters(config),
        "active_parameters": num_active_parameters(config),
        "flops_per_token": round(encoder_flops(config, [tokens]) / tokens),
        "flops_text_tokens": tokens,
    }


def _routing(config: EncoderConfig) -> dict[str, object]:
    """Describe experts and recursion, where the model has them."""
    found: dict[str, object] = {}
    if config.experts is not None:
        experts = config.experts
        found["experts"] = experts.num_experts
        found["experts_per_token"] = experts.num_experts_per_tok
        found["expert_layers"] = [
            module for module in range(config.num_distinct_layers) if config.has_experts(module)
        ]
        found["shared_expert"] = experts.shared_intermediate_size
    if config.recursion is not None:
        recursion = config.recursion
        found["distinct_layers"] = config.num_distinct_layers
        found["recursions"] = recursion.num_recursions
        found["recursion_layers"] = [
            recursion.num_first_layers + number for number in range(recursion.num_block_layers)
        ]
        found["recursion_routing"] = recursion.routing
    return found


def _attention(config: EncoderConfig) -> str:
    """Say how tokens attend to others: the form, and within which window."""
    form: str = config.attention
    if config.local_attention:
        every = config.global_attn_every_n_layers
        form += f", within {config.local_attention} tokens"
        ordinal = {1: "", 2: "2nd ", 3: "3rd "}.get(every, f"{every}th ")
        form += f" but in every {ordinal}layer"
    return form


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value) if value not in ({}, None) else "-"


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
) -> None:
    """Copy a folder with its weights in safetensors: pickled ones turned without running any code in them.

    What a training run left beside the model is not copied.
    """
    import torch

    from embedkit.checkpoint.converting import convert_folder
    from embedkit.models import find_model

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}
    converted = convert_folder(
        find_model(folder), output, dtype=None if dtype is None else dtypes[dtype.value]
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

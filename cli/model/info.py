"""`embedkit model info`: what a model's folder holds, and what computes it here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..shared import console, options
from ..shared.commands import examples
from .export import AnyModel

if TYPE_CHECKING:
    from embedkit.checkpoint.adapters import Adapter
    from embedkit.checkpoint.classification import ClassifierFolder
    from embedkit.checkpoint.folder import ModelFolder
    from embedkit.inference.backend import Output
    from embedkit.model.config import EncoderConfig, HeadLayer

EXAMPLES = examples("embedkit model info", "embedkit model info FOLDER --json")


def info(model: AnyModel = None, as_json: options.AsJson = False) -> None:
    """Say what a folder holds, and what computes it here: kind, family, sizes, pooling, labels or decoder, prompts, similarity."""
    from embedkit.checkpoint.classification import is_classifier
    from embedkit.checkpoint.generation import is_generator
    from embedkit.checkpoint.multi_vector import is_multi_vector
    from embedkit.checkpoint.sparse_modules import is_sparse
    from embedkit.models import find_model
    from embedkit.pipelines.models import or_default

    folder = find_model(or_default(model))
    if is_generator(folder):
        content = _generator(folder)
    elif is_multi_vector(folder):
        content = _multi_vector(folder)
    elif is_sparse(folder):
        content = _sparse(folder)
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
    content = _shape(read.name, folder, read.family, read.config, kind="dense") | {
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
        **({} if read.tasks is None else {"tasks": list(read.tasks.names), "task": read.tasks.chosen}),
        **_beside(read.adapter, read.weights_path),
        **({"routes": {role: route.family for role, route in read.routes.items()}} if read.routes else {}),
        **_computed(read),
    }
    if read.static:  # a table of token vectors has none of these
        none = (
            *("position", "attention", "layers", "attention_heads", "intermediate_size", "positions"),
            *("max_seq_length", "parameters", "active_parameters", "flops_per_token", "flops_text_tokens"),
        )
        content = {key: value for key, value in content.items() if key not in none} | {"family": "static"}
    return content


def _multi_vector(folder: Path) -> dict[str, object]:
    from embedkit.checkpoint.folder import all_weight_files
    from embedkit.checkpoint.multi_vector import read_multi_vector_folder

    read = read_multi_vector_folder(folder)
    modules, encoder = read.modules, read.encoder
    expansion, pooling = modules.expansion, modules.pooling
    filled = "-"
    if expansion is not None:
        filled = f"to {'' if expansion.fixed else 'at least '}{expansion.length} tokens, "
        filled += "attended to" if expansion.attend else "which no others attend to"
    return _shape(read.name, folder, encoder.family, encoder.config, kind="multi-vector") | {
        "format": modules.style,
        "query_length": read.tokenizer("query").max_length,
        "document_length": read.tokenizer("document").max_length,
        "truncation_side": encoder.tokenizer.truncation_side,
        "projection": [_layer(layer) for layer in modules.layers],
        "dimension": read.dimension,
        "similarity": modules.similarity,
        "prompts": {role: modules.prompt(role) for role in ("query", "document")},
        "queries_filled_up": filled,
        "skiplist": f"{len(read.skipped_ids)} tokens in {' and '.join(modules.skiplist_roles)} texts",
        "token_pooling": 1 if pooling is None else pooling.factor,
        "weights_bytes": sum(file.stat().st_size for file in all_weight_files(encoder)),
        "weights": read.fingerprint["weights"],
        **_beside(encoder.adapter, encoder.weights_path),
        **_computed(encoder),
    }


def _sparse(folder: Path) -> dict[str, object]:
    from embedkit.checkpoint.sparse import fingerprint, read_sparse_folder

    read = read_sparse_folder(folder)
    query, document = read.sides["query"], read.sides["document"]
    content: dict[str, object] = {
        "model": read.name,
        "folder": str(folder),
        "kind": "sparse",
        "family": "token weights",
    }
    if document.model is not None:
        content = _shape(read.name, folder, document.model.family, document.model.config, kind="sparse")
    sides = {"query": query, "document": document}
    return content | {
        "max_seq_length": document.tokenizer.max_length,
        "dimension": read.dimension,
        "term_weights": {
            role: "of tokens"
            if side.pooling is None
            else f"{side.pooling.strategy} of {side.pooling.activation}"
            for role, side in sides.items()
        },
        "max_active_dims": read.max_active_dims,
        "similarity": read.modules.similarity,
        "prompts": dict(read.modules.prompts),
        "weights": {role: side["weights"] for role, side in fingerprint(read)["sides"].items()},
        **({} if document.model is None else _computed(document.model, output="term_weights")),
    }


def _layer(layer: HeadLayer) -> str:
    activation = getattr(layer, "activation", "layer norm")
    return f"{layer.in_features} -> {layer.out_features} {activation}"


def _classifier(folder: Path) -> dict[str, object]:
    from embedkit.checkpoint.classification import read_classifier_folder

    read = read_classifier_folder(folder)
    return _shape(read.name, folder, f"{read.family} cross-encoder", read.config, kind="cross-encoder") | {
        "max_seq_length": read.tokenizer.max_length,
        "truncation_side": read.tokenizer.truncation_side,
        "labels": list(read.labels),
        "activation": read.activation,
        **({} if read.answers is None else {"instruction": read.answers.instruction}),
        "token_types": read.token_types,
        "weights_bytes": sum(file.stat().st_size for file in read.all_weight_files),
        "weights": read.fingerprint["weights"],
        **_beside(read.adapter, read.weights_path),
        **_computed(read),
    }


def _beside(adapter: Adapter | None, folder: Path) -> dict[str, object]:
    """Say what else is in a folder: an adapter that is merged, and code that is not run."""
    from embedkit.checkpoint.hf_config import own_code
    from embedkit.checkpoint.json_files import read_json

    code = own_code(read_json(folder / "config.json", {}))
    return {
        **({} if adapter is None else {"adapter_of": str(adapter.base)}),
        **({} if code is None else {"code": f"{code}: not run, embedkit's own layers compute the model"}),
    }


def _computed(read: ModelFolder | ClassifierFolder, *, output: Output | None = None) -> dict[str, object]:
    """Say what computes the model here, in which precision, and why not what is faster."""
    from embedkit.errors import DeviceError
    from embedkit.inference.loading import choose

    try:
        choice = choose(read, output=output, device="auto", precision="fp32")
    except DeviceError as exc:
        return {"computed_by": f"nothing here: {exc}"}
    return {
        "computed_by": f"{choice.runtime} on {choice.device}, {choice.precision}",
        **({"reason": choice.reason} if choice.reason else {}),
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


def _shape(
    name: str, folder: Path, family: str, config: EncoderConfig, *, kind: str = "generator"
) -> dict[str, object]:
    from embedkit.model.costs import encoder_flops, num_active_parameters, num_parameters

    tokens = min(FLOPS_TOKENS, config.max_tokens)
    return {
        "model": name,
        "folder": str(folder),
        "kind": kind,
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

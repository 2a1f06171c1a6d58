"""The folders of modules with weights besides dense layers: means of layers, pooling by attention, learned similarities.

The first is sentence-transformers' own; it does not compute the other two, and stops at their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.errors import CheckpointError
from embedkit.model.config import EncoderConfig, SentenceConfig
from embedkit.model.learned_parts import AttentionPoolingConfig, SimilarityConfig


def read_learned(kind: str, path: Path) -> dict[str, Any]:  # Any: fields of a `SentenceConfig`
    """Read the config of one of these modules: the fields of `SentenceConfig` that it sets.

    Raises:
        CheckpointError: the file is missing or unreadable, or a value is out of range.
    """
    content, where = read_json(path, None), str(path)
    try:
        match kind:
            case "WeightedLayerPooling":
                return {"layer_start": json_field(content, "layer_start", 4, where)}  # their default
            case "AttentionPooling":
                usual = AttentionPoolingConfig()
                pooling = AttentionPoolingConfig(
                    aspects=json_field(content, "aspects", usual.aspects, where),
                    size=json_field(content, "size", usual.size, where),
                    combine=json_field(content, "combine", str(usual.combine), where),  # type: ignore[arg-type] # checked
                )
                prompt = json_field(content, "include_prompt", True, where)
                return {"attention": pooling, "pooling": (), "pool_prompt": prompt}
            case _:
                usual_size = SimilarityConfig(kind="additive").size
                fields = json_field(content, "fields", list[Any](), where)
                if not all(isinstance(name, str) for name in fields):
                    raise ValueError(f"fields is {fields}; it must name fields")
                similarity = SimilarityConfig(
                    kind=json_field(content, "similarity", "", where),  # type: ignore[arg-type] # checked
                    size=json_field(content, "size", usual_size, where),
                    fields=tuple(fields),
                )
                return {"similarity": similarity}
    except ValueError as exc:
        raise CheckpointError(f"{path}: {exc}. Copy the file again") from exc


def learned_content(
    part: str, sentence: SentenceConfig, config: EncoderConfig
) -> dict[str, Any]:  # Any: JSON
    """Return the content of the config of a part, by its name in `sentence_shapes`."""
    if part == "layer_mean":
        return {
            "word_embedding_dimension": config.hidden_size,
            "layer_start": sentence.layer_start,
            "num_hidden_layers": config.num_hidden_layers,
        }
    if part == "attention_pooling":
        assert sentence.attention is not None
        pooling = sentence.attention
        return {
            "word_embedding_dimension": config.hidden_size,
            "aspects": pooling.aspects,
            "size": pooling.size,
            "combine": pooling.combine,
            "include_prompt": sentence.pool_prompt,
        }
    assert sentence.similarity is not None
    similarity = sentence.similarity
    if similarity.kind == "fields":
        return {"similarity": similarity.kind, "fields": list(similarity.fields)}
    return {"similarity": similarity.kind, "size": similarity.size}

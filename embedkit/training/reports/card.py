"""Model cards: the README.md of a trained model, with its recipe, data and results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from embedkit.training.distillation.comparison import Row
from embedkit.training.reports.log import shown

Json = Mapping[str, Any]  # Any: whatever JSON holds
ENCODE = "embedkit encode texts.txt --model FOLDER --output vectors.npy"


def distillation_card(manifest: Json, rows: Sequence[Row], described: str) -> str:
    """Write the card of a student."""
    table = ["| measure | teacher | student | share |", "|---|---:|---:|---:|"]
    table += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    intro = f"A sentence encoder distilled with `embedkit train distill`. Student: {described}."
    return _card("Distilled sentence encoder", intro, "\n".join(table), manifest)


def contrastive_card(manifest: Json, sets: Sequence[str], results: Mapping[str, float]) -> str:
    """Write the card of a model that was fine-tuned on pairs and the like."""
    table = ["| measure | value |", "|---|---:|"]
    table += [f"| {name} | {value:.4f} |" for name, value in shown(results).items()]
    sparse = manifest["recipe"].get("sparse") is not None
    what = "learned sparse model" if sparse else "sentence encoder"
    intro = f"A {what} fine-tuned with `embedkit train contrastive` on:\n\n" + "\n".join(
        f"- {line}" for line in sets
    )
    use = "embedkit index build docs.jsonl --index sparse.index --model FOLDER" if sparse else ENCODE
    task = "feature-extraction" if sparse else "sentence-similarity"
    return _card(what.capitalize(), intro, "\n".join(table), manifest, use=use, task=task)


def _card(
    title: str,
    intro: str,
    results: str,
    manifest: Json,
    *,
    use: str = ENCODE,
    task: str = "sentence-similarity",
) -> str:
    recipe = json.dumps(manifest["recipe"], indent=2, ensure_ascii=False)
    data = json.dumps(manifest["data"], indent=2, ensure_ascii=False)
    return (
        f"---\npipeline_tag: {task}\ntags:\n- sentence-transformers\n- embedkit\n---\n\n"
        f"# {title}\n\n{intro}\n\n## Results\n\n{results}\n\n"
        f"## Use\n\n```sh\n{use}\n```\n\n"
        f"## Recipe\n\n```json\n{recipe}\n```\n\n## Data\n\nHashes of what it was trained on and started from:\n\n```json\n{data}\n```\n"
    )

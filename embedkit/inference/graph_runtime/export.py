"""Models as graphs that ONNX Runtime and OpenVINO run, with or without embedkit: written, and held against our own vectors.

A graph takes padded `input_ids` and `attention_mask` of any size to sentence vectors (see `embedkit.inference.graph_runtime.onnx_writer`). Beside it
stand the tokenizer's files and `export.json`, which says what goes in, what comes out, and how near its vectors came to ours.
What a backend runs lies in the cache, made when it is first asked for; what `embedkit model export` writes is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.checkpoint.compare import CHECK_TEXTS, Agreement, compare_vectors
from embedkit.checkpoint.folder import ModelFolder, fingerprint
from embedkit.errors import CheckpointError, OutputError
from embedkit.extras import EXTRAS, load_extra
from embedkit.inference.backend import Backend
from embedkit.inference.choice import why_not_parts
from embedkit.inference.graph_runtime.graph import RUNNERS, Graph, GraphRuntime, load_graph, run_padded
from embedkit.inference.graph_runtime.onnx_writer import write_graph
from embedkit.inference.sample import sample_batches
from embedkit.storage.cache import cache_folder
from embedkit.storage.files import new_folder
from embedkit.storage.hashing import json_digest

FORM = 1  # counted up where the same model is written otherwise: what the cache holds is then made again
TOLERANCE = (
    1e-4  # as `embedkit model check` allows: a wrong activation or a lost mask is a hundred times as far off
)


# Makes our own encoder in fp32, with whose vectors those of a graph are compared.
Reference = Callable[[], Backend]


@dataclass(frozen=True)
class ExportedGraph:
    """What was written, and how its vectors compare with ours in fp32."""

    file: Path
    agreement: Agreement
    num_bytes: int


def export_model(
    folder: ModelFolder, runtime: GraphRuntime, target: Path, *, reference: Reference
) -> ExportedGraph:
    """Write a model into a new folder as a graph for a runtime, unless its vectors are not those of `reference`.

    Raises:
        CheckpointError: the vectors differ by more than the tolerance, or the weights do not fit the folder's config.
        MissingExtraError: the runtime, or the package that writes ONNX, is not installed.
        OutputError: the folder is there already, or cannot be written.
    """
    if folder.static:
        raise CheckpointError(
            f"{folder.path}: a static model is a table of vectors; there is no graph to export"
        )
    reason = why_not_parts(runtime, folder.config, folder.modules.sentence)
    if reason is not None:
        raise CheckpointError(
            f"{folder.path}: cannot be exported for {runtime}: {reason}. Encode it with torch"
        )
    name, file = RUNNERS[runtime]
    extra = load_extra(name, purpose=f"exporting for {runtime}")
    with new_folder(target) as draft:
        plain = draft / RUNNERS["onnx"][1]
        write_graph(folder, plain)
        if runtime != "onnx":
            extra.convert(plain, draft / file)
            for path in draft.glob(f"{plain.name}*"):
                path.unlink()
        graph = load_graph(draft / file, runtime, precision="fp32", threads=1)
        agreement = compare_with_ours(folder, graph, reference)
        if not agreement.largest_difference <= TOLERANCE:  # NaN is not either
            raise CheckpointError(
                f"{folder.path}: vectors of the {runtime} graph differ from ours by {agreement.largest_difference:.2g}; "
                f"wanted {TOLERANCE:g} at most. Nothing was written: encode with another --backend"
            )
        num_bytes = sum(path.stat().st_size for path in draft.iterdir())
        folder.tokenizer.save(draft, token_types=False)
        about = json.dumps(describe(folder, runtime, agreement), indent=2, ensure_ascii=False)
        (draft / "export.json").write_text(about + "\n", encoding="utf-8")
    return ExportedGraph(Path(target) / file, agreement, num_bytes)


def compare_with_ours(folder: ModelFolder, graph: Graph, reference: Reference) -> Agreement:
    """Compare a graph's vectors with the reference's, of texts from nothing to beyond what the model reads."""
    ours = reference()
    # Few tokens at a time put texts of different lengths together, and some alone.
    batches = sample_batches(folder.tokenizer.encode(CHECK_TEXTS), token_budget=64)
    found = [run_padded(graph, "sentence_embedding", batch) for batch in batches]
    return compare_vectors(np.concatenate([ours.pooled(batch) for batch in batches]), np.concatenate(found))


def describe(folder: ModelFolder, runtime: GraphRuntime, agreement: Agreement) -> dict[str, Any]:  # Any: JSON
    """Say what a program that runs the graph has to know."""
    return {
        "model": folder.path.name,
        "file": RUNNERS[runtime][1],
        "inputs": {
            "input_ids": "int64 (batch, length)",
            "attention_mask": "int64 (batch, length), 1 for tokens, 0 for padding, which is on the right",
        },
        "outputs": {
            "sentence_embedding": f"float32 (batch, {folder.embedding_size})",
            "token_embeddings": f"float32 (batch, length, {folder.config.hidden_size})",
        },
        "lowercase_first": False,  # since its tokenizer.json does that itself
        **fingerprint(folder),
        "compared": {**asdict(agreement), "tolerance": TOLERANCE},
        "versions": _versions(runtime),
    }


def cached_graph(folder: ModelFolder, runtime: GraphRuntime, *, reference: Reference) -> Path:
    """Return the file of a model's graph in the cache, which is exported into it the first time.

    Raises:
        As `export_model`.
    """
    about = {
        "weights": fingerprint(folder)["weights"],
        "config": asdict(folder.config),
        "sentence": asdict(folder.modules.sentence),
        "runtime": [runtime, _versions(runtime), FORM],
    }
    digest = json_digest(about)[:16]
    target = cache_folder() / "exported" / f"{folder.path.name}-{runtime}-{digest}"
    file = target / RUNNERS[runtime][1]
    if not file.is_file():
        try:
            export_model(folder, runtime, target, reference=reference)
        except OutputError:
            if not file.is_file():  # else another process was faster
                raise
    return file


def _versions(runtime: GraphRuntime) -> dict[str, str]:
    return {name: version(name) for name in ("embedkit", EXTRAS[RUNNERS[runtime][0]])}

"""The weights of a model folder as numpy arrays over the mapped files. No torch here.

`embedkit.checkpoint.weights` reads the same files into modules; both check them with `embedkit.checkpoint.weight_checks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.adapters import merged_arrays
from embedkit.checkpoint.folder import ModelFolder, weight_files
from embedkit.checkpoint.names import dense_names, encoder_names, head_names, own_names, stripped_names
from embedkit.checkpoint.static import MODEL2VEC_TABLE, TABLE, WORD_TABLE
from embedkit.checkpoint.stored_arrays import StoredArray, read_arrays
from embedkit.checkpoint.task_adapters import merged_tasks
from embedkit.checkpoint.weight_checks import check_dense_empty, check_nothing_left, strip_base_prefix, take
from embedkit.model.shapes import dense_shapes, encoder_shapes, encoder_splits, head_shapes, sentence_shapes

if TYPE_CHECKING:
    from embedkit.checkpoint.classification import ClassifierFolder

Float32 = NDArray[np.float32]


class Weights(Mapping[str, Float32]):
    """The parameters of one module under our own names, turned into fp32 when they are asked for."""

    def __init__(self, parts: Mapping[str, Sequence[StoredArray]]) -> None:
        self._parts = parts

    def __getitem__(self, name: str) -> Float32:
        parts = self._parts[name]
        return parts[0].fp32() if len(parts) == 1 else np.concatenate([part.fp32() for part in parts])

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def rows(self, name: str, rows: NDArray[np.int64]) -> Float32:
        """Return some rows of a table, reading no others from the file: (N,) -> (N, D)."""
        return self.stored(name).fp32(rows)

    def stored(self, name: str) -> StoredArray:
        """Return a table as the file has it."""
        (table,) = self._parts[name]
        return table


@dataclass(frozen=True)
class SentenceWeights:
    """The weights of a sentence encoder: of its transformer, or the table of a static one, and of what stands on it.

    `parts` are those that `sentence_shapes` names.
    """

    encoder: Weights
    dense: tuple[Weights, ...] = ()
    parts: Mapping[str, Weights] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassifierWeights:
    """The weights of a cross-encoder: of its transformer and of its head."""

    encoder: Weights
    head: Weights


def load_sentence_weights(folder: ModelFolder) -> SentenceWeights:
    """Map the weights of a folder into memory; a static model's table is named `tokens.weight`.

    Raises:
        CheckpointError: weights are missing, unexpected, mis-shaped, or a file is damaged.
    """
    where = folder.encoder_path
    stored = read_arrays(weight_files(folder.weights_path, model=folder.path))
    if folder.static:
        shape = (folder.config.vocab_size, folder.config.hidden_size)
        table = {TABLE: _static_table(stored)}
        return SentenceWeights(
            Weights(take({"tokens.weight": (TABLE,)}, {"tokens.weight": shape}, table, where))
        )
    stored = merged_tasks(merged_arrays(stored, folder.adapter), folder.tasks, where)
    stored = strip_base_prefix(stored, folder.family)
    names, shapes = encoder_names(folder.family, folder.config), encoder_shapes(folder.config)
    encoder = Weights(take(names, shapes, stored, where, splits=encoder_splits(folder.config)))
    stored = {name: array for name, array in stored.items() if name not in folder.beside}
    check_nothing_left(stored, folder.family, where)
    dense = []
    for name, config in zip(folder.modules.dense_folders, folder.modules.sentence.dense, strict=True):
        part = read_arrays(weight_files(folder.path / name, model=folder.path))
        dense.append(Weights(take(dense_names(config), dense_shapes(config), part, folder.path / name)))
        check_dense_empty(part, folder.path / name)
    return SentenceWeights(encoder, tuple(dense), load_parts(folder))


def load_parts(folder: ModelFolder) -> dict[str, Weights]:
    """Map the weights of what stands on an encoder besides dense layers, by the names in `sentence_shapes`.

    Raises:
        CheckpointError: weights are missing, unexpected, mis-shaped, or a file is damaged.
    """
    parts = {}
    for part, shapes in sentence_shapes(folder.config, folder.modules.sentence).items():
        where = folder.path / folder.modules.parts[part]
        stored = read_arrays(weight_files(where, model=folder.path))
        parts[part] = Weights(take(own_names(shapes), shapes, stored, where))
        check_dense_empty(stored, where)
    return parts


def _static_table(stored: Mapping[str, StoredArray]) -> StoredArray:
    """Return a static model's table with a row for each token, which model2vec may store by rows, weights, and small integers."""
    table = next(stored[name] for name in (TABLE, MODEL2VEC_TABLE, WORD_TABLE) if name in stored)
    mapping, weights = stored.get("mapping"), stored.get("weights")
    if mapping is None and weights is None and table.dtype != "int8":
        return table
    rows = table.fp32(None if mapping is None else mapping.raw)
    return StoredArray(rows if weights is None else rows * weights.fp32()[:, None], "float32")


def load_classifier_weights(folder: ClassifierFolder) -> ClassifierWeights:
    """Map the weights of a cross-encoder's folder into memory.

    Raises:
        CheckpointError: weights are missing, unexpected, mis-shaped, or a file is damaged.
    """
    family, config, where = folder.family, folder.config, folder.path
    stored = merged_arrays(read_arrays(weight_files(folder.weights_path, model=where)), folder.adapter)
    stored = strip_base_prefix(stored, family)
    names, shapes = encoder_names(family, config), encoder_shapes(config)
    encoder = take(names, shapes, stored, where, splits=encoder_splits(config))
    if folder.modular is not None:
        parts = folder.modular.weights(lambda part: read_arrays(weight_files(where / part, model=where)))
        shapes = head_shapes(config, folder.head)
        own = Weights(take(own_names(shapes), shapes, parts, where))
        check_dense_empty(parts, where)
        check_nothing_left(stored, family, where, what="cross-encoder")
        return ClassifierWeights(Weights(encoder), own)
    names = stripped_names(head_names(family, config, folder.head), family)
    head = take(names, head_shapes(config, folder.head), stored, where)
    check_nothing_left(stored, family, where, what="cross-encoder")
    return ClassifierWeights(Weights(encoder), Weights(head))

"""The weights of a model folder as numpy arrays over the mapped files. No torch here.

`embedkit.checkpoint.weights` reads the same files into modules; both check them with `embedkit.checkpoint.weight_checks`.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from embedkit.checkpoint.folder import ModelFolder, weight_files
from embedkit.checkpoint.names import dense_names, encoder_names, head_names, own_names, stripped_names
from embedkit.checkpoint.quantized import Scales, take_scales
from embedkit.checkpoint.static import MODEL2VEC_TABLE, TABLE
from embedkit.checkpoint.weight_checks import (
    FLOATS,
    check_dense_empty,
    check_nothing_left,
    damaged,
    strip_base_prefix,
    take,
)
from embedkit.model.shapes import dense_shapes, encoder_shapes, head_shapes, sentence_shapes

if TYPE_CHECKING:
    from embedkit.checkpoint.classification import ClassifierFolder

Float32 = NDArray[np.float32]
_DTYPES = {  # as safetensors names them -> as torch and numpy do
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8"},
}
_INTEGERS = ("int64", "int32", "int8")


@dataclass(frozen=True)
class StoredArray:
    """One weight in a mapped safetensors file; bfloat16 stands in `raw` as the uint16 of its bits.

    A matrix of integers with `scales` counts as fp32, which it stands for (`embedkit.checkpoint.quantized`).
    """

    raw: NDArray[Any]  # Any: whatever number format it is stored in
    dtype: str
    scales: Scales | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.raw.shape

    def fp32(self, rows: NDArray[np.int64] | None = None) -> Float32:
        """Return the weight, or some of its rows, as fp32: the whole is a view of the file where it is stored so."""
        if self.scales is not None:
            return self.scales.apply(self.raw, rows)
        raw = self.raw if rows is None else self.raw[rows]
        if self.dtype == "bfloat16":  # the upper half of a float32
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return np.require(raw, np.float32, "A")


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
        (table,) = self._parts[name]
        return table.fp32(rows)


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
    stored = read_arrays(weight_files(where, model=folder.path))
    if folder.static:
        shape = (folder.config.vocab_size, folder.config.hidden_size)
        table = {TABLE: _static_table(stored)}
        return SentenceWeights(
            Weights(take({"tokens.weight": (TABLE,)}, {"tokens.weight": shape}, table, where))
        )
    stored = strip_base_prefix(stored, folder.family)
    names, shapes = encoder_names(folder.family, folder.config), encoder_shapes(folder.config)
    encoder = Weights(take(names, shapes, stored, where))
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
    table = stored[TABLE] if TABLE in stored else stored[MODEL2VEC_TABLE]
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
    stored = strip_base_prefix(read_arrays(weight_files(where)), family)
    encoder = take(encoder_names(family, config), encoder_shapes(config), stored, where)
    names = stripped_names(head_names(family, config, folder.head), family)
    head = take(names, head_shapes(config, folder.head), stored, where)
    check_nothing_left(stored, family, where, what="cross-encoder")
    return ClassifierWeights(Weights(encoder), Weights(head))


def read_arrays(files: Sequence[Path]) -> dict[str, StoredArray]:
    """Map all tensors of some safetensors files into memory.

    Raises:
        CheckpointError: a file is cut short or is not safetensors, or integers lack their scales.
    """
    arrays: dict[str, StoredArray] = {}
    for path in files:
        try:
            with safe_open(path, framework="np"):  # holds the header against the file's size
                pass
            with path.open("rb") as stream:
                # Copy on write: writable for who asks for that, and the file stays as it is.
                content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        except (SafetensorError, OSError) as exc:
            raise damaged(path, exc) from exc
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            arrays[name] = _view(content, 8 + size, entry)
    for name, (row, column) in take_scales(arrays, files[0].parent if files else Path()).items():
        arrays[name] = StoredArray(arrays[name].raw, "float32", Scales(row.fp32(), column.fp32()))
    return arrays


def _view(content: mmap.mmap, data: int, entry: Mapping[str, Any]) -> StoredArray:  # Any: JSON of the header
    dtype, shape = _DTYPES.get(entry["dtype"], entry["dtype"]), tuple(entry["shape"])
    if dtype not in (*FLOATS, *_INTEGERS):  # what `take` refuses: nobody reads the values
        return StoredArray(np.broadcast_to(np.uint8(0), shape), dtype)
    form = np.dtype("<u2" if dtype == "bfloat16" else dtype).newbyteorder("<")
    start, stop = entry["data_offsets"]
    flat = (
        np.frombuffer(content, form, (stop - start) // form.itemsize, data + start)
        if stop > start
        else np.empty(0, form)
    )
    return StoredArray(flat.reshape(shape), dtype)

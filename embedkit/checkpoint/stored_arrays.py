"""The tensors of safetensors files as numpy arrays over the mapped files. No torch here."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from embedkit.checkpoint.quantized import Scales, take_scales
from embedkit.checkpoint.weight_checks import FLOATS, damaged

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

    @property
    def T(self) -> StoredArray:  # noqa: N802 (as numpy names it)
        """The same matrix with rows and columns exchanged."""
        scales = None if self.scales is None else Scales(self.scales.column, self.scales.row)
        return StoredArray(self.raw.T, self.dtype, scales)

    def __getitem__(self, rows: slice) -> StoredArray:
        """Return some of its rows, as the file has them."""
        scales = None if self.scales is None else Scales(self.scales.row[rows], self.scales.column)
        return StoredArray(self.raw[rows], self.dtype, scales)

    def fp32(self, rows: NDArray[np.int64] | None = None) -> Float32:
        """Return the weight, or some of its rows, as fp32: the whole is a view of the file where it is stored so."""
        if self.scales is not None:
            return self.scales.apply(self.raw, rows)
        raw = self.raw if rows is None else self.raw[rows]
        if self.dtype == "bfloat16":  # the upper half of a float32
            return (raw.astype(np.uint32) << 16).view(np.float32)
        return np.require(raw, np.float32, "A")


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

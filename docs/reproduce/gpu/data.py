"""The prepared texts on the training device, and how some of them become one flat sequence of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from embedkit.checkpoint.folder import ModelFolder

CUDA = torch.cuda.is_available()
torch.set_float32_matmul_precision("high")  # TF32 for the losses' products, where the device has it
DEVICE = torch.device("cuda" if CUDA else "cpu")
FILLER = 256  # tokens of a filling sequence, at most
QUERY_TOKENS = 64  # of a query that is read together with a text
Numbers = NDArray[np.integer]


def on_device(numbers: Numbers) -> Tensor:
    return torch.from_numpy(numbers.astype(np.int64)).to(DEVICE, non_blocking=True)


def mixed_precision() -> torch.autocast:
    """Compute matrix products in bf16 on a GPU; on a CPU this does nothing."""
    return torch.autocast(DEVICE.type, dtype=torch.bfloat16, enabled=CUDA)


@dataclass(frozen=True)
class Special:
    """The ids of the special tokens of a BERT."""

    cls: int
    sep: int
    pad: int

    @classmethod
    def of(cls, folder: ModelFolder) -> Special:
        template = folder.tokenizer.single
        return cls(template.prefix[0], template.suffix[0], folder.config.pad_token_id)


class Texts:
    """N texts to train on and M of the dev sets behind them, so that one number serves for both.

    flat: all ids on the device; lens (N + M,) with where each starts; pairs and singles: numbers by source; dev: arrays by set,
    whose texts count from 0.
    """

    def __init__(self, path: Path, special: Special) -> None:
        with np.load(path, allow_pickle=False) as stored:
            read = {name: stored[name] for name in stored.files}
        self.special = special
        self.num_train = len(read["lens"])
        self.lens = np.concatenate([read["lens"], read["dev_lens"]]).astype(np.int64)
        self.flat = torch.from_numpy(np.concatenate([read["flat"], read["dev_flat"]]).astype(np.int32)).to(
            DEVICE
        )
        self.starts = on_device(np.cumsum(self.lens) - self.lens)
        self.counts: NDArray[np.int64] = read["counts"]
        self.pairs = {name.split("|")[1]: array for name, array in read.items() if name.startswith("pairs|")}
        self.singles = {
            name.split("|")[1]: array for name, array in read.items() if name.startswith("singles|")
        }
        self.dev: dict[str, dict[str, NDArray]] = {}
        for name, array in read.items():
            if name.startswith("dev|"):
                _, each, field = name.split("|")
                self.dev.setdefault(each, {})[field] = array

    @property
    def dev_rows(self) -> Numbers:
        return np.arange(self.num_train, len(self.lens))


@dataclass(frozen=True)
class Packed:
    """B sequences of T tokens in all, without padding; further sequences may fill it to a fixed size.

    ids, positions, types, sequence (T,): `sequence` says which one a token is of, B for what only fills; ends (S + 1,) int32: 0 and
    where each ends; lens (B,); longest: tokens of the longest.
    """

    ids: Tensor
    positions: Tensor
    types: Tensor | None
    sequence: Tensor
    ends: Tensor
    lens: Tensor
    longest: int

    def filled(self, size: int, pad: int) -> Packed:
        """Append sequences of padding, so that there are `size` tokens: a compiled step wants one shape."""
        missing = size - len(self.ids)
        if missing <= 0:
            return self
        parts = [FILLER] * (missing // FILLER) + [missing % FILLER] * (missing % FILLER > 0)
        more = torch.cat([torch.arange(part, device=DEVICE) for part in parts])
        ends = self.ends[-1] + torch.tensor(parts, device=DEVICE).cumsum(0)
        return Packed(
            torch.cat([self.ids, torch.full_like(more, pad)]),
            torch.cat([self.positions, more]),
            None if self.types is None else torch.cat([self.types, torch.zeros_like(more)]),
            torch.cat([self.sequence, torch.full_like(more, len(self.lens))]),
            torch.cat([self.ends, ends]).int(),
            self.lens,
            max(self.longest, *parts),
        )


def pack_texts(texts: Texts, rows: Numbers, *, cap: int) -> Packed:
    """Put [CLS] text [SEP] of each row one after another, the texts cut to `cap` tokens."""
    lens = np.minimum(texts.lens[rows], cap) + 2
    on, ends, sequence, positions = _frame(lens)
    at = texts.starts[on_device(rows)][sequence] + (positions - 1).clamp_min(0)
    ids = texts.flat[at.clamp_max(len(texts.flat) - 1)].long()
    ids = torch.where(positions == on[sequence] - 1, texts.special.sep, ids)
    ids = torch.where(positions == 0, texts.special.cls, ids)
    return Packed(ids, positions, None, sequence, ends, on, int(lens.max()))


def pack_pairs(texts: Texts, queries: Numbers, documents: Numbers, *, cap: int) -> Packed:
    """Put [CLS] query [SEP] document [SEP] of each pair one after another, as `pair_tokens` counts them."""
    query_lens = np.minimum(texts.lens[queries], QUERY_TOKENS)
    lens = pair_tokens(texts, queries, documents, cap=cap)
    on, ends, sequence, positions = _frame(lens)
    first = on_device(query_lens)[sequence]
    of_query = texts.starts[on_device(queries)][sequence] + positions - 1
    of_document = texts.starts[on_device(documents)][sequence] + positions - first - 2
    at = torch.where(positions <= first, of_query, of_document).clamp(0, len(texts.flat) - 1)
    ids = texts.flat[at].long()
    is_end = (positions == on[sequence] - 1) | (positions == first + 1)
    ids = torch.where(is_end, texts.special.sep, ids)
    ids = torch.where(positions == 0, texts.special.cls, ids)
    return Packed(ids, positions, (positions > first + 1).long(), sequence, ends, on, int(lens.max()))


def pair_tokens(texts: Texts, queries: Numbers, documents: Numbers, *, cap: int) -> NDArray[np.int64]:
    """Count the tokens of each pair: the query cut to QUERY_TOKENS, the document so that there are `cap` with special ones."""
    query_lens = np.minimum(texts.lens[queries], QUERY_TOKENS)
    return query_lens + np.minimum(texts.lens[documents], cap - 3 - query_lens) + 3


def _frame(lens: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the lengths (B,), the ends (B + 1,), and for each token its sequence and its position: (T,), (T,)."""
    on = on_device(lens)
    ends = F.pad(on.cumsum(0), (1, 0))
    numbers = torch.arange(len(lens), device=DEVICE)
    sequence = torch.repeat_interleave(numbers, on, output_size=int(lens.sum()))
    return on, ends.int(), sequence, torch.arange(len(sequence), device=DEVICE) - ends[sequence]

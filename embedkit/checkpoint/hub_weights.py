"""Weights that code of the hub's folders names and packs otherwise than the families here: named and cut as these are. No torch here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol, TypeVar, cast


class Stored(Protocol):
    """A stored weight, whoever reads it: a torch tensor, or a `StoredArray`."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def T(self) -> Stored:  # noqa: N802 (as torch and numpy name it)
        """The same matrix with rows and columns exchanged."""
        ...

    def __getitem__(self, rows: slice, /) -> Stored:
        """Return some of its rows."""
        ...

    @property
    def dtype(self) -> object:
        """What prints as the name of the number format, such as `bfloat16`, perhaps after `torch.`."""
        ...


StoredT = TypeVar("StoredT", bound=Stored)

_FLASH = {  # within names of Jina's code for XLM-RoBERTa -> of the family's
    "emb_ln.": "embeddings.LayerNorm.",
    "encoder.layers.": "encoder.layer.",
    ".mixer.out_proj.": ".attention.output.dense.",
    ".norm1.": ".attention.output.LayerNorm.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
    ".norm2.": ".output.LayerNorm.",
}
_FLASH_QKV = ".mixer.Wqkv."


def unflashed(stored: Mapping[str, StoredT]) -> Mapping[str, StoredT]:
    """Name the weights of an XLM-RoBERTa as the family does where they are named, and packed, as in Jina's code for it."""
    if not any(_FLASH_QKV in name for name in stored):
        return stored
    renamed: dict[str, StoredT] = {}
    for name, weight in stored.items():
        new = _replaced(name, _FLASH)
        before, packed, kind = new.partition(_FLASH_QKV)
        if not packed:
            renamed[new] = weight
            continue
        rows = weight.shape[0] // 3
        for number, part in enumerate(("query", "key", "value")):
            taken = weight[number * rows : (number + 1) * rows]
            renamed[f"{before}.attention.self.{part}.{kind}"] = cast("StoredT", taken)
    return renamed


# NomicBERT's names of what is no expert -> ours; its layers come after `encoder.layers.N.`
_NOMIC = {
    "embeddings.word_embeddings.": "embeddings.tokens.",
    "embeddings.token_type_embeddings.": "embeddings.token_types.",
    "emb_ln.": "embeddings.norm.",
    "encoder.layers.": "layers.",
    ".attn.Wqkv.": ".attention.qkv.",
    ".attn.out_proj.": ".attention.out.",
    ".norm1.": ".attention_norm.",
    ".mlp.fc1.": ".mlp.up.",
    ".mlp.fc2.": ".mlp.down.",
    ".norm2.": ".mlp_norm.",
    ".mlp.router.layer.": ".mlp.router.",
    ".mlp.experts.bias": ".mlp.bias",
}
_NOMIC_EXPERTS = re.compile(r"(layers\.\d+\.mlp\.experts)\.mlp\.w([12])")
_NOMIC_ROUTER = ".mlp.router.layer.weight"  # (experts, D)


def unpacked_experts(stored: Mapping[str, StoredT]) -> Mapping[str, StoredT]:
    """Name the weights of a NomicBERT with experts as ours, whose experts each have matrices of their own; others stay as they are.

    There both matrices of all experts lie one below the other, (E·I, D), the second of them turned.
    """
    count = next((weight.shape[0] for name, weight in stored.items() if name.endswith(_NOMIC_ROUTER)), 0)
    if not count:
        return stored
    renamed: dict[str, StoredT] = {}
    for name, weight in stored.items():
        new = _replaced(name, _NOMIC)
        found = _NOMIC_EXPERTS.fullmatch(new)
        if found is None:
            renamed[new] = weight
            continue
        size = weight.shape[0] // count
        for number in range(count):
            part = cast("StoredT", weight[number * size : (number + 1) * size])
            own = f"{found[1]}.{number}."
            if found[2] == "1":
                renamed[f"{own}up.weight"] = part
            else:
                renamed[f"{own}down.weight"] = cast("StoredT", part.T)
    return renamed


def _replaced(name: str, pieces: Mapping[str, str]) -> str:
    for theirs, ours in pieces.items():
        name = name.replace(theirs, ours)
    return name

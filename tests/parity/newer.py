"""Random tiny models of the newer families, as transformers makes and saves them, and the vectors of their tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from tests.tiny import tiny_tokenizer

TOLERANCE = 1e-5  # fp32, sums in another order
VOCABULARY = tiny_tokenizer().vocab_size
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 300,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}


@dataclass(frozen=True)
class Case:
    """A model of transformers': its model_type, what its config is told, and the class where it is not AutoModel's."""

    family: str
    fields: dict[str, Any] = field(default_factory=dict)
    class_name: str = ""
    common: dict[str, Any] = field(default_factory=lambda: COMMON)


def write_theirs(case: Case, folder: Path) -> Any:  # Any: an untyped library
    """Save a random model of theirs with a tokenizer, and return it; fresh biases are zero and norms one, so all are drawn."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(case.family, **case.common | case.fields)
    kind = getattr(transformers, case.class_name) if case.class_name else transformers.AutoModel
    make = kind._from_config if case.class_name else kind.from_config
    model = make(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    tiny_tokenizer(max_length=280).save(folder, token_types=getattr(config, "type_vocab_size", 0) > 1)
    return model


def batch(lengths: list[int], *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Return random ids and their mask, (B, T) each."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return (ids.flip(1), mask.flip(1)) if left else (ids, mask)


def their_tokens(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """Return their vectors of the real tokens, (N, D)."""
    with torch.inference_mode():
        out = model(input_ids=ids.masked_fill(~mask, 0), attention_mask=mask.long())
    tokens: Tensor = out.last_hidden_state[mask]
    return tokens

"""The table of the newer families: a row for each."""

from __future__ import annotations

from typing import Literal, get_args

from embedkit.checkpoint.families.deberta import DEBERTA
from embedkit.checkpoint.families.decoders import GEMMA3, GPT2, LLAMA, MISTRAL, QWEN2, QWEN3
from embedkit.checkpoint.families.jina import JINA
from embedkit.checkpoint.families.jina_bert import JINA_BERT
from embedkit.checkpoint.families.llama import EUROBERT
from embedkit.checkpoint.families.rotary import GTE, NOMIC
from embedkit.checkpoint.families.row import FamilyRow
from embedkit.checkpoint.families.t5 import MT5, T5

NewerFamily = Literal[
    "deberta-v2",
    "nomic_bert",
    "gte",
    "eurobert",
    "t5",
    "mt5",
    "qwen3",
    "gemma3_text",
    "gpt2",
    "qwen2",
    "llama",
    "mistral",
    "jina_embeddings_v3",
    "jina_bert",
]
ROWS: dict[NewerFamily, FamilyRow] = {
    "deberta-v2": DEBERTA,
    "nomic_bert": NOMIC,
    "gte": GTE,
    "eurobert": EUROBERT,
    "t5": T5,
    "mt5": MT5,
    "qwen3": QWEN3,
    "gemma3_text": GEMMA3,
    "gpt2": GPT2,
    "qwen2": QWEN2,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "jina_embeddings_v3": JINA,
    "jina_bert": JINA_BERT,
}
assert tuple(ROWS) == get_args(NewerFamily)
ALSO: dict[str, NewerFamily] = {other: family for family, row in ROWS.items() for other in row.also}

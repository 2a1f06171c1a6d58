"""Rerankers that are language models: asked whether a text fits a query, their score is how much likelier "yes" is than "no".

The two words' rows of the output layer are all that is needed of it: a head of one label whose weight is their difference. The
question is that of Qwen3-Reranker (Zhang et al. 2025, https://arxiv.org/abs/2506.05176, section 2), which its folder holds as a program
in a template language. That is not run: a folder with another question is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.errors import CheckpointError
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.tokenizer import Tokenizer

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
_BEFORE = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_MARKS = ("<Instruct>", "<Query>", "<Document>", SYSTEM[:40])


@dataclass(frozen=True)
class YesNo:
    """The ids of the two answers, `false_token` None where the logit of the first alone is the score; and the instruction."""

    true_token: int
    false_token: int | None
    instruction: str = INSTRUCTION

    def encode_pairs(self, tokenizer: Tokenizer, queries: Sequence[str], texts: Sequence[str]) -> TokenBatch:
        """Make tokens of the questions; one that is too long loses the end of its text."""
        before, after = tokenizer.ids([_BEFORE, _AFTER])
        room = tokenizer.max_length - len(before) - len(after)
        if room < 1:
            raise CheckpointError(
                f"max_seq_length is {tokenizer.max_length}; the question alone has {len(before) + len(after)} tokens. Raise it"
            )
        asked = [
            f"<Instruct>: {self.instruction}\n<Query>: {query}\n<Document>: {text}"
            for query, text in zip(queries, texts, strict=True)
        ]
        ids = tokenizer.ids(asked)
        lengths = np.array([min(len(each), room) for each in ids], np.int64)
        full = np.array([len(each) for each in ids], np.int64)
        flat = [number for each in ids for number in (*before, *each[:room], *after)]
        extra = len(before) + len(after)
        return TokenBatch(np.array(flat, np.int64), lengths + extra, None, full + extra)


def answers_by_words(path: Path, content: Mapping[str, Any]) -> bool:
    """Say whether a folder that is to rerank holds a language model, of a family whose question we know."""
    names = content.get("architectures") or []
    return (
        content.get("model_type") == "qwen3"
        and str(names[:1]) == "['Qwen3ForCausalLM']"
        and _kinds(path)
        in (
            [],
            ["Transformer", "LogitScore"],
        )
    )


def is_yes_no(path: Path) -> bool:
    """Say whether a folder is such a reranker by its modules."""
    return _kinds(path) == ["Transformer", "LogitScore"]


def _kinds(path: Path) -> list[str]:
    modules = read_json(path / "modules.json", [])
    return [str(module.get("type", "")).rpartition(".")[2] for module in modules if isinstance(module, dict)]


def read_yes_no(path: Path, tokenizer: Tokenizer, texts: Mapping[str, Any]) -> YesNo:
    """Read which tokens are the answers, and the instruction: the folder's default prompt, else the usual one.

    Raises:
        CheckpointError: the folder asks another question, or the vocabulary lacks the answers.
    """
    _check_question(path)
    where = str(path / "config_sentence_transformers.json")
    prompts = json_field(texts, "prompts", dict[str, Any](), where)
    named = texts.get("default_prompt_name")
    instruction = prompts.get(named) if named is not None else None
    if named is not None and not isinstance(instruction, str):
        raise CheckpointError(
            f"{where}: default_prompt_name is {named!r}; prompts has: {', '.join(prompts) or 'none'}"
        )
    instruction = instruction or INSTRUCTION
    if is_yes_no(path):
        modules = read_json(path / "modules.json", [])
        config = path / str(modules[1].get("path", "")) / "config.json"
        content = read_json(config, None)
        true = json_field(content, "true_token_id", -1, str(config))
        false = content.get("false_token_id")
        vocabulary = tokenizer.vocab_size
        if not 0 <= true < vocabulary or not (
            false is None or (type(false) is int and 0 <= false < vocabulary)
        ):
            raise CheckpointError(
                f"{config}: true_token_id is {true} and false_token_id {false}; the vocabulary has {vocabulary} tokens"
            )
        return YesNo(true, false, instruction)
    found = [tokenizer.backend.token_to_id(word) for word in ("yes", "no")]
    if found[0] is None or found[1] is None:
        raise CheckpointError(
            f"{path}: the tokenizer has no token 'yes' or no token 'no', between which a language model would choose. "
            "Rerank with a cross-encoder"
        )
    return YesNo(found[0], found[1], instruction)


def _check_question(path: Path) -> None:
    """Refuse a template of a question other than ours; one that knows no pairs, as of a model for chats, means the usual one."""
    template = ""
    for file in (path / "chat_template.jinja", path / "tokenizer_config.json"):
        if file.suffix == ".json":
            found = read_json(file, {}).get("chat_template")
            template += found if isinstance(found, str) else ""
        elif file.is_file():
            template += file.read_text(encoding="utf-8")
    asks = "document" in template and "query" in template
    missing = [mark for mark in _MARKS if mark not in template]
    if asks and missing:
        raise CheckpointError(
            f"{path}: its chat template asks another question than Qwen3-Reranker's (it has no {missing[0]!r}); templates are "
            "never run, and this one alone is computed"
        )

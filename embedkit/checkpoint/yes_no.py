"""Rerankers that are language models: asked whether a text fits a query, their score is how much likelier "yes" is than "no".

The two words' rows of the output layer are all that is needed of it: a head of one label whose weight is their difference. The
question is Qwen3-Reranker's (Zhang et al. 2025, https://arxiv.org/abs/2506.05176, section 2), or that of mxbai-rerank v2, whose answers
are "1" and "0". The folder holds it as a program in a template language. That is not run: it tells the two apart, and a folder with
another question is refused.
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
JUDGEMENT = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each query-document pair, "
    "carefully analyze the semantic relationship between them, then provide your binary relevance judgment "
    "(0 for not relevant, 1 for relevant).\nRelevance:"
)
ASSISTANT = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@dataclass(frozen=True)
class Question:
    """A question that is known: what stands before the pair, the pair itself, what is asked of it, and what stands before the answer.

    `instructed` is put before the pair where there is an instruction; `marks` are what templates of this question have in them.
    """

    name: str
    before: str
    pair: str
    asked: str
    after: str
    instructed: str
    instruction: str
    marks: tuple[str, ...]

    def encode_pairs(
        self, tokenizer: Tokenizer, queries: Sequence[str], texts: Sequence[str], instruction: str
    ) -> TokenBatch:
        """Make tokens of the questions; one that is too long loses the end of its text.

        Raises:
            CheckpointError: the model reads fewer tokens than the question alone has.
        """
        before, asked, after = tokenizer.ids([self.before, self.asked, self.after])
        room = tokenizer.max_length - len(before) - len(after)
        if room <= len(asked):
            raise CheckpointError(
                f"max_seq_length is {tokenizer.max_length}; the question alone has {len(before) + len(asked) + len(after)} tokens. Raise it"
            )
        start = self.instructed.format(instruction=instruction) if instruction else ""
        pairs = [
            start + self.pair.format(query=query, document=text)
            for query, text in zip(queries, texts, strict=True)
        ]
        ids = tokenizer.ids([pair + self.asked for pair in pairs])
        full = np.array([len(each) for each in ids], np.int64)
        for number in np.flatnonzero(full > room).tolist():
            ids[number] = [*tokenizer.ids([pairs[number]])[0][: room - len(asked)], *asked]
        lengths = np.array([len(each) for each in ids], np.int64)
        flat = [number for each in ids for number in (*before, *each, *after)]
        extra = len(before) + len(after)
        return TokenBatch(np.array(flat, np.int64), lengths + extra, None, full + extra)


QWEN3 = Question(
    name="Qwen3-Reranker",
    before=f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n",
    pair="<Query>: {query}\n<Document>: {document}",
    asked="",
    after="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    instructed="<Instruct>: {instruction}\n",
    instruction=INSTRUCTION,
    marks=("<Instruct>", "<Query>", "<Document>", SYSTEM[:40]),
)
MXBAI = Question(
    name="mxbai-rerank v2",
    before=f"<|im_start|>system\n{ASSISTANT}<|im_end|>\n<|im_start|>user\n",
    pair="query: {query}\ndocument: {document}",
    asked=f"\n{JUDGEMENT}",
    after="<|im_end|>\n<|im_start|>assistant\n",
    instructed="instruction: {instruction}\n",
    instruction="",
    marks=(ASSISTANT, "query: ", "document: ", JUDGEMENT[:80]),
)
# Of each family whose language models are known to be asked: the question, and whether a folder without modules may be one.
_ASKED = {"qwen3": (QWEN3, True), "qwen2": (MXBAI, False)}


@dataclass(frozen=True)
class YesNo:
    """The ids of the two answers, `false_token` None where the logit of the first alone is the score; the question, and the instruction."""

    true_token: int
    false_token: int | None
    question: Question = QWEN3
    instruction: str = INSTRUCTION

    def encode_pairs(self, tokenizer: Tokenizer, queries: Sequence[str], texts: Sequence[str]) -> TokenBatch:
        """Make tokens of the questions; see `Question.encode_pairs`."""
        return self.question.encode_pairs(tokenizer, queries, texts, self.instruction)


def answers_by_words(path: Path, content: Mapping[str, Any]) -> bool:
    """Say whether a folder that is to rerank holds a language model, of a family whose question we know."""
    names = content.get("architectures") or []
    family = str(content.get("model_type"))
    if family not in _ASKED or str(names[:1]) != f"['{family.capitalize()}ForCausalLM']":
        return False
    return is_yes_no(path) or (_ASKED[family][1] and not _kinds(path))


def is_yes_no(path: Path) -> bool:
    """Say whether a folder is such a reranker by its modules."""
    return _kinds(path) == ["Transformer", "LogitScore"]


def _kinds(path: Path) -> list[str]:
    modules = read_json(path / "modules.json", [])
    return [str(module.get("type", "")).rpartition(".")[2] for module in modules if isinstance(module, dict)]


def read_yes_no(path: Path, family: str, tokenizer: Tokenizer, texts: Mapping[str, Any]) -> YesNo:
    """Read which tokens are the answers, and the instruction: the folder's default prompt, else the question's own.

    Raises:
        CheckpointError: the folder asks another question, or the vocabulary lacks the answers.
    """
    question = _ASKED[family][0]
    _check_question(path, question)
    where = str(path / "config_sentence_transformers.json")
    prompts = json_field(texts, "prompts", dict[str, Any](), where)
    named = texts.get("default_prompt_name")
    instruction = prompts.get(named) if named is not None else None
    if named is not None and not isinstance(instruction, str):
        raise CheckpointError(
            f"{where}: default_prompt_name is {named!r}; prompts has: {', '.join(prompts) or 'none'}"
        )
    instruction = instruction or question.instruction
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
        return YesNo(true, false, question, instruction)
    found = [tokenizer.backend.token_to_id(word) for word in ("yes", "no")]
    if found[0] is None or found[1] is None:
        raise CheckpointError(
            f"{path}: the tokenizer has no token 'yes' or no token 'no', between which a language model would choose. "
            "Rerank with a cross-encoder"
        )
    return YesNo(found[0], found[1], question, instruction)


def _check_question(path: Path, question: Question) -> None:
    """Refuse a template of another question; one that knows no pairs, as of a model for chats, means Qwen3-Reranker's."""
    template = ""
    for file in (path / "chat_template.jinja", path / "tokenizer_config.json"):
        if file.suffix == ".json":
            found = read_json(file, {}).get("chat_template")
            template += found if isinstance(found, str) else ""
        elif file.is_file():
            template += file.read_text(encoding="utf-8")
    asks = ("document" in template and "query" in template) or question is not QWEN3
    missing = [mark for mark in question.marks if mark not in template]
    if asks and missing:
        raise CheckpointError(
            f"{path}: its chat template asks another question than {question.name}'s (it has no {missing[0]!r}); templates are "
            "never run, and of this family that one alone is computed"
        )

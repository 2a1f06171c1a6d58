"""Rerankers that answer yes or no: Qwen3-Reranker's question, as sentence-transformers renders and scores it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

import sentence_transformers
import transformers
from tokenizers import Tokenizer as HFTokenizer

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.yes_no import ASSISTANT, INSTRUCTION, JUDGEMENT, SYSTEM
from embedkit.errors import CheckpointError
from embedkit.reranking.cross_encoder import CrossEncoder
from tests.parity.newer import COMMON, TOLERANCE

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

QUERY = "which animal runs"
TEXTS = ["a dog runs", "", "the old man walks by the water " * 3, "yes"]
TEMPLATE = (
    "<|im_start|>system\n" + SYSTEM + "<|im_end|>\n<|im_start|>user\n<Instruct>: "
    "{{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first "
    "| default('" + INSTRUCTION + "', true) }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}"
    # The template language takes a line end off the end, but not out of a string.
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>{{ '\n\n' }}"
)


# With the instruction where there is one, as the authors' own code has it.
MXBAI_TEMPLATE = (
    "<|im_start|>system\n" + ASSISTANT + "<|im_end|>\n<|im_start|>user\n"
    "{% set own = messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first %}"
    "{% if own %}instruction: {{ own }}{{ '\n' }}{% endif %}"
    "query: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "document: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}\n"
    + JUDGEMENT
    + "<|im_end|>\n<|im_start|>assistant{{ '\n' }}"
)


def write_theirs(
    folder: Path, *, tied: bool, template: str = TEMPLATE, family: str = "Qwen3"
) -> Any:  # Any: an untyped library
    """Save a random Qwen3 or Qwen2 with an output layer and a byte-level tokenizer that has the marks of a chat, "yes" and "no"."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {sign: i for i, sign in enumerate([*sorted(ByteLevel.alphabet()), "ye", "yes", "no"])}
    backend = HFTokenizer(models.BPE(vocabulary, [("y", "e"), ("ye", "s"), ("n", "o")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(special)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=special[0], eos_token=special[2], model_max_length=900
    )
    tokenizer.chat_template = template
    torch.manual_seed(0)
    shape = COMMON | {
        **{"vocab_size": backend.get_vocab_size(), "max_position_embeddings": 1000, "pad_token_id": 259},
        **{"num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": tied},
    }
    if family == "Qwen2":
        del shape["head_dim"]
    config = getattr(transformers, f"{family}Config")(**shape)
    getattr(transformers, f"{family}ForCausalLM")(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sentence_transformers.CrossEncoder(str(folder), device="cpu", local_files_only=True)


@pytest.mark.parametrize("tied", [True, False])
def test_scores_are_those_of_sentence_transformers(tied: bool, tmp_path: Path) -> None:
    theirs = write_theirs(tmp_path / "plain", tied=tied)
    theirs.save_pretrained(str(tmp_path / "saved"))
    wanted = theirs.predict([(QUERY, text) for text in TEXTS], batch_size=2)
    assert np.ptp(wanted) > 1e-3
    for folder in ("plain", "saved"):
        ours = CrossEncoder.load(tmp_path / folder, device="cpu")
        np.testing.assert_allclose(ours.score(QUERY, TEXTS), wanted, atol=TOLERANCE)


def test_the_default_prompt_is_the_instruction(tmp_path: Path) -> None:
    write_theirs(tmp_path / "plain", tied=True)
    own = {"mine": "Find animals"}
    theirs = sentence_transformers.CrossEncoder(
        str(tmp_path / "plain"), device="cpu", local_files_only=True, prompts=own, default_prompt_name="mine"
    )
    theirs.save_pretrained(str(tmp_path / "saved"))
    wanted = theirs.predict([(QUERY, text) for text in TEXTS])
    ours = CrossEncoder.load(tmp_path / "saved", device="cpu")
    np.testing.assert_allclose(ours.score(QUERY, TEXTS), wanted, atol=TOLERANCE)
    assert ours.folder.fingerprint["instruction"] == "Find animals"


def write_mxbai(folder: Path, **prompts: Any) -> Any:
    """Save a random reranker as mxbai-rerank v2 is saved: a Qwen2 with its template and the tokens of its answers."""
    theirs = write_theirs(folder / "plain", tied=True, template=MXBAI_TEMPLATE, family="Qwen2")
    theirs.save_pretrained(str(folder / "saved"))
    settings = folder / "saved" / "1_LogitScore" / "config.json"
    vocabulary = theirs.tokenizer.get_vocab()
    content = {"true_token_id": vocabulary["1"], "false_token_id": vocabulary["0"]}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | content), encoding="utf-8")
    saved = sentence_transformers.CrossEncoder(
        str(folder / "saved"), device="cpu", local_files_only=True, **prompts
    )
    saved.save_pretrained(str(folder / "again"))
    return saved


@pytest.mark.parametrize("instruction", [None, "Find {animals}"])
def test_scores_of_mxbais_question_are_those_of_sentence_transformers(
    instruction: str | None, tmp_path: Path
) -> None:
    prompts = {"prompts": {"mine": instruction}, "default_prompt_name": "mine"} if instruction else {}
    theirs = write_mxbai(tmp_path, **prompts)
    texts = [*TEXTS, "it runs.", "{query} {"]
    wanted = theirs.predict([(QUERY, text) for text in texts])
    assert np.ptp(wanted) > 1e-3
    ours = CrossEncoder.load(tmp_path / "again", device="cpu")
    np.testing.assert_allclose(ours.score(QUERY, texts), wanted, atol=TOLERANCE)
    assert ours.folder.fingerprint["instruction"] == (instruction or "")


def test_a_long_text_loses_its_end_before_what_is_asked_of_it(tmp_path: Path) -> None:
    write_mxbai(tmp_path)
    whole = CrossEncoder.load(tmp_path / "saved", device="cpu")
    question = int(whole.folder.encode_pairs([QUERY], [""]).lengths[0])
    short = CrossEncoder.load(tmp_path / "saved", device="cpu", max_seq_length=question + 20)
    text = "abcdefghij" * 5
    np.testing.assert_allclose(short.score(QUERY, [text]), whole.score(QUERY, [text[:20]]), atol=TOLERANCE)
    assert short.counts.truncated == 1
    with pytest.raises(CheckpointError, match="the question alone has"):
        CrossEncoder.load(tmp_path / "saved", device="cpu", max_seq_length=300).score(QUERY, [text])


def test_a_qwen2_that_is_asked_something_else_is_refused(tmp_path: Path) -> None:
    write_mxbai(tmp_path)
    template = tmp_path / "saved" / "chat_template.jinja"
    template.write_text(MXBAI_TEMPLATE.replace("search relevance expert", "librarian"), encoding="utf-8")
    with pytest.raises(CheckpointError, match="asks another question than mxbai-rerank v2's"):
        CrossEncoder.load(tmp_path / "saved", device="cpu")
    with pytest.raises(CheckpointError, match="Qwen2ForCausalLM"):
        CrossEncoder.load(tmp_path / "plain", device="cpu")


def test_a_text_that_is_too_long_loses_its_end_and_not_the_question(tmp_path: Path) -> None:
    write_theirs(tmp_path, tied=True)
    whole = CrossEncoder.load(tmp_path, device="cpu")
    before, after = whole.folder.encode_pairs([QUERY], [""]).lengths[0], 20
    short = CrossEncoder.load(tmp_path, device="cpu", max_seq_length=int(before + after))
    text = "abcdefghij" * 5
    np.testing.assert_allclose(short.score(QUERY, [text]), whole.score(QUERY, [text[:after]]), atol=TOLERANCE)
    assert short.counts.truncated == 1


def test_another_question_is_refused_and_so_is_a_vector_of_such_a_folder(tmp_path: Path) -> None:
    write_theirs(tmp_path / "other", tied=True, template=TEMPLATE.replace("<Instruct>", "<Task>"))
    with pytest.raises(
        CheckpointError, match=r"asks another question than Qwen3-Reranker's \(it has no '<Instruct>'\)"
    ):
        CrossEncoder.load(tmp_path / "other", device="cpu")
    with pytest.raises(CheckpointError, match="language model"):
        read_model_folder(tmp_path / "other")
    config = tmp_path / "other" / "config.json"
    content = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(content | {"architectures": ["Qwen3Model"]}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="this is an encoder"):
        CrossEncoder.load(tmp_path / "other", device="cpu")

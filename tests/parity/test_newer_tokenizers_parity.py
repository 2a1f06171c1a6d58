"""The tokenizers of the newer families: SentencePiece's and byte-level ones are read as transformers' classes read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import processors
from tokenizers.pre_tokenizers import ByteLevel

transformers = pytest.importorskip("transformers", reason="the extra 'parity' is not installed")

from embedkit.tokenization.tokenizer import Tokenizer  # noqa: E402  (after the check)

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

TEXTS = [
    "The DOG Runs, naïve Été!",
    "the old man walks by the water",
    "[MASK] sings [SEP] <mask> <s> </s> [CLS] <pad> [UNK] <unk> <|endoftext|> <bos> <eos>",
    "東京 the`` dog''  spaces\tand\nlines  ΑΣ İ  ",
    " leading",
    "3.5% isn't we'll 12345",
    "ﬁ ½ e\u0301 \u00a0z",
]
WORDS = "the dog runs old man walks by water The DOG Runs".split()  # noqa: SIM905 (easier to read)
SIGNS = sorted(set("".join(TEXTS)))
BYTES = {sign: i for i, sign in enumerate(sorted(ByteLevel.alphabet()))}


def pieces(specials: list[str]) -> list[tuple[str, float]]:
    """A vocabulary of SentencePiece's unigrams."""
    words = [(f"▁{word}", -3.0) for word in dict.fromkeys(WORDS)]
    signs = [(sign, -6.0) for sign in SIGNS if not sign.isspace() and sign not in specials]
    return [(special, 0.0) for special in specials] + words + [("▁", -2.0)] + signs


def merged(vocabulary: dict[str, int], space: str) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Add a few merges to a vocabulary of single signs."""
    merges = [("t", "h"), ("th", "e"), (space, "the"), ("d", "o"), ("do", "g"), (space, "dog")]
    for left, right in merges:
        vocabulary = {**vocabulary, left + right: len(vocabulary)}
    return vocabulary, merges


def make(name: str) -> Any:  # Any: an untyped library
    if name == "DebertaV2Tokenizer":
        unigrams = [*pieces(["[PAD]", "[CLS]", "[SEP]", "[UNK]"]), ("[MASK]", 0.0)]
        return transformers.DebertaV2Tokenizer(vocab=unigrams)
    if name == "T5Tokenizer":
        return transformers.T5Tokenizer(vocab=pieces(["<pad>", "</s>", "<unk>"]), extra_ids=2)
    if name == "GemmaTokenizer":
        named = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{i:02X}>" for i in range(256))]
        signs = dict.fromkeys([*named, *SIGNS, "▁"])
        vocabulary, merges = merged({sign: i for i, sign in enumerate(signs)}, "▁")
    else:
        vocabulary, merges = merged(BYTES, "Ġ")
        vocabulary["<|endoftext|>"] = len(vocabulary)
    return getattr(transformers, name)(vocab=vocabulary, merges=merges)


# The class, what tokenizer_config.json says besides, and whether the file itself ends each text with <|endoftext|>.
CASES: dict[str, tuple[str, dict[str, Any], bool]] = {
    "deberta": ("DebertaV2Tokenizer", {}, False),
    "deberta, lower case": ("DebertaV2Tokenizer", {"do_lower_case": True}, False),
    "deberta, signs apart": ("DebertaV2Tokenizer", {"split_by_punct": True}, False),
    "t5": ("T5Tokenizer", {}, False),
    "qwen": ("Qwen2Tokenizer", {}, False),
    "qwen, with an end": ("Qwen2Tokenizer", {"add_bos_token": False}, True),
    "gpt2": ("GPT2Tokenizer", {}, False),
    "gpt2, with a space": ("GPT2Tokenizer", {"add_prefix_space": True}, False),
    "gemma": ("GemmaTokenizer", {"add_bos_token": True, "add_eos_token": True}, False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_is_read_as_its_class_reads_it(case: str, tmp_path: Path) -> None:
    name, config, with_end = CASES[case]
    make(name).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | config), encoding="utf-8")
    if with_end:
        backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        end = "<|endoftext|>"
        backend.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, backend.token_to_id(end))]
        )
        backend.save(str(tmp_path / "tokenizer.json"))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(theirs).__name__ == name
    ours = Tokenizer.load(tmp_path, model_class=name)
    for text in [*TEXTS, ""]:
        assert ours.encode([text]).input_ids.tolist() == theirs(text)["input_ids"], text
    for text in TEXTS:
        pair = ours.encode_pairs(["dog"], [text])
        assert pair.input_ids.tolist() == theirs("dog", text)["input_ids"], text
    if with_end:
        assert ours.encode(["dog"]).input_ids[-1] == theirs.convert_tokens_to_ids("<|endoftext|>")

"""What transformers' tokenizer classes do besides `tokenizer.json`: fields of `tokenizer_config.json` that overrule it.

A class of this table normalizes, splits and frames a text by its own rules and takes no more than the vocabulary from the file:
`BertTokenizer` lower-cases unless `do_lower_case` is false, whatever the file says. Other classes leave the file as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import normalizers, pre_tokenizers, processors

from embedkit.errors import CheckpointError

Json = Mapping[str, Any]  # Any: whatever JSON holds

_BERT_TOKENS = {role: f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
_ROBERTA_TOKENS = {
    **{"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>"},
    **{"pad": "<pad>", "unk": "<unk>", "mask": "<mask>"},
}
# The special tokens of each class where a folder names none.
USUAL_TOKENS: dict[str, dict[str, str]] = {
    "BertTokenizer": _BERT_TOKENS,
    "DistilBertTokenizer": _BERT_TOKENS,
    "MPNetTokenizer": _ROBERTA_TOKENS | {"unk": "[UNK]"},
    "RobertaTokenizer": _ROBERTA_TOKENS,
    "XLMRobertaTokenizer": _ROBERTA_TOKENS,
    "CamembertTokenizer": _ROBERTA_TOKENS,
    "AlbertTokenizer": _BERT_TOKENS | {"bos": "[CLS]", "eos": "[SEP]", "pad": "<pad>", "unk": "<unk>"},
    "DebertaV2Tokenizer": _BERT_TOKENS | {"bos": "[CLS]", "eos": "[SEP]"},
    "T5Tokenizer": {"eos": "</s>", "pad": "<pad>", "unk": "<unk>"},
    "GPT2Tokenizer": dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>"),
    "Qwen2Tokenizer": dict.fromkeys(("eos", "pad", "unk"), "<|endoftext|>"),
    "GemmaTokenizer": {role: f"<{role}>" for role in ("bos", "eos", "pad", "unk", "mask")},
}
WORD_PIECE = ("BertTokenizer", "DistilBertTokenizer", "MPNetTokenizer")  # what a vocab.txt may be of
BYTE_LEVEL = (
    "RobertaTokenizer",
    "GPT2Tokenizer",
    "Qwen2Tokenizer",
)  # what vocab.json and merges.txt may be of
# Classes that leave it to the file which special tokens frame a text.
_FRAMED_BY_FILE = ("GPT2Tokenizer", "Qwen2Tokenizer", "GemmaTokenizer")
# Code of tokenizers that folders bring along, of which we know what it does: it sets the end token behind a text.
_QWEN_CODE = ("tokenization_qwen.Qwen2Tokenizer", "tokenization_qwen.Qwen2TokenizerFast")
# How Qwen splits a text: English contractions, words with the sign before them, single digits, signs, line ends, other spaces.
_QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# Two ways to normalize and split that agree on this text are one: case, accents composed and not, scripts without spaces,
# signs that look alike, control characters, quotes of old texts, and spaces of every kind.
_PROBE = (
    "The Naïve CAFÉ re\u0301sume\u0301 İstanbul ΑΣ Straße 東京dog カナ 한국어 ﬁsh ＦＵＬＬ ½ x\u200by z\u0000w ``a'' \"b\" don't 3.5% "
    "[MASK] <s> — …\tq\nr\r\ns  t\u00a0u\u3000v  "
)


def apply_class(backend: tokenizers.Tokenizer, config: Json, name: str | None, folder: Path) -> None:
    """Let a tokenizer normalize, split and frame a text as its class does; what agrees with the file stays the file's.

    Raises:
        CheckpointError: the vocabulary lacks the tokens at the ends of a text.
    """
    if name not in USUAL_TOKENS:
        return
    normalizer, pre_tokenizer = _steps(backend, config, name)
    if _pieces(backend.normalizer, backend.pre_tokenizer) != _pieces(normalizer, pre_tokenizer):
        backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizer
    if name in _FRAMED_BY_FILE:
        return
    before, own = _frames(backend), backend.post_processor
    backend.post_processor = _template(backend, config, name, folder)
    if own is not None and _frames(backend) == before:
        backend.post_processor = own


def add_end(backend: tokenizers.Tokenizer, config: Json, folder: Path) -> None:
    """Set the end token behind every text where the folder's own code does, which is never run: that of gte-Qwen2, where it is told to.

    transformers without that code leaves the token out, and takes the vector of another one.

    Raises:
        CheckpointError: the vocabulary lacks the token.
    """
    named = config.get("auto_map")
    code = named.get("AutoTokenizer") if isinstance(named, dict) else None
    classes = [str(each).rpartition("--")[2] for each in (code if isinstance(code, list) else [code])]
    if not config.get("add_eos_token") or not any(each in _QWEN_CODE for each in classes):
        return
    end = _end_token(backend, config, "Qwen2Tokenizer", "eos", folder)
    if backend.encode("a").ids[-1:] == [end[1]]:
        return
    last = processors.TemplateProcessing(
        single=f"$A:0 {end[0]}:0", pair=f"$A:0 {end[0]}:0 $B:1 {end[0]}:1", special_tokens=[end]
    )
    own = backend.post_processor
    backend.post_processor = last if own is None else processors.Sequence([own, last])


def special_token(
    config: Json, name: str | None, role: str
) -> Any:  # Any: a string, or an object with its `content`
    """Return the special token of a role as the config writes it, else the usual one of the class; None: there is none."""
    return config.get(f"{role}_token") or USUAL_TOKENS.get(name or "", {}).get(role)


def _steps(
    backend: tokenizers.Tokenizer, config: Json, name: str
) -> tuple[Any, Any]:  # Any: steps share no base class
    """Return the normalizer (None: none) and the pre-tokenizer of a class."""
    if name in WORD_PIECE:
        normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=_flag(config, "tokenize_chinese_chars", True),
            strip_accents=config.get("strip_accents"),
            lowercase=_flag(config, "do_lower_case", True),
        )
        return normalizer, pre_tokenizers.BertPreTokenizer()
    prefix = _flag(config, "add_prefix_space", name not in BYTE_LEVEL)
    match name:
        case "Qwen2Tokenizer":
            words = pre_tokenizers.Split(tokenizers.Regex(_QWEN_WORDS), behavior="isolated")
            level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
            return normalizers.NFC(), pre_tokenizers.Sequence([words, level])
        case "GemmaTokenizer":
            return normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", behavior="merged_with_previous")
        case "DebertaV2Tokenizer":
            return _deberta_steps(config, prefix)
    if name in BYTE_LEVEL:
        return None, pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if name == "T5Tokenizer":
        prefix = True
    spaces = pre_tokenizers.Metaspace(prepend_scheme="always" if prefix else "never")
    charsmap = [step for step in _listed(backend.normalizer) if isinstance(step, normalizers.Precompiled)][:1]
    split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
    if name != "AlbertTokenizer":
        return (charsmap[0] if charsmap else None), split
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not _flag(config, "keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if _flag(config, "do_lower_case", True):
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence([*steps, *charsmap]), split


def _deberta_steps(config: Json, prefix: bool) -> tuple[Any, Any]:  # Any: as for the steps
    lower = [normalizers.Lowercase()] if _flag(config, "do_lower_case", False) else []
    spaces = normalizers.Replace(tokenizers.Regex(r"\s{2,}|[\n\r\t]"), " ")
    steps = [*lower, spaces, normalizers.NFC(), normalizers.Strip(left=False, right=True)]
    signs = [pre_tokenizers.Punctuation("isolated")] if _flag(config, "split_by_punct", False) else []
    words = pre_tokenizers.Metaspace(prepend_scheme="always" if prefix else "first")
    return normalizers.Sequence(steps), pre_tokenizers.Sequence([*signs, words])


def _template(
    backend: tokenizers.Tokenizer, config: Json, name: str, folder: Path
) -> Any:  # Any: as for the steps
    """Return what sets the special tokens around one text and two."""
    if name == "T5Tokenizer":
        end = _end_token(backend, config, name, "eos", folder)
        return processors.TemplateProcessing(
            single=f"$A {end[0]}", pair=f"$A {end[0]} $B {end[0]}", special_tokens=[end]
        )
    by_ends = name in (
        "XLMRobertaTokenizer",
        "CamembertTokenizer",
    )  # which name them by what they begin and end
    sep, cls = (
        _end_token(backend, config, name, role, folder)
        for role in (("eos", "bos") if by_ends else ("sep", "cls"))
    )
    if name in ("BertTokenizer", "DistilBertTokenizer", "AlbertTokenizer", "DebertaV2Tokenizer"):
        return processors.BertProcessing(sep, cls)
    prefix = _flag(config, "add_prefix_space", False) and name in BYTE_LEVEL
    return processors.RobertaProcessing(sep, cls, trim_offsets=True, add_prefix_space=prefix)


def read_json(path: Path) -> Any:  # Any: whatever JSON holds
    """Read a JSON file of a tokenizer.

    Raises:
        CheckpointError: it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(
            f"{path}: not JSON ({exc}). Copy the file again from where the model came from"
        ) from exc


def _end_token(
    backend: tokenizers.Tokenizer, config: Json, name: str, role: str, folder: Path
) -> tuple[str, int]:
    token = special_token(config, name, role)
    token = token.get("content") if isinstance(token, dict) else token
    found = backend.token_to_id(token) if isinstance(token, str) else None
    if not isinstance(token, str) or found is None:
        file = next(
            file for file in ("tokenizer.json", "vocab.txt", "vocab.json") if (folder / file).is_file()
        )
        raise CheckpointError(
            f"{folder / file}: there is no {token!r}, which stands at an end of every text. Take the model's own vocabulary"
        )
    return token, found


def _flag(config: Json, key: str, default: bool) -> bool:
    value = config.get(key)
    return default if value is None else bool(value)


def _listed(normalizer: Any) -> Iterator[Any]:  # Any: as for the steps
    if isinstance(normalizer, normalizers.Sequence):
        steps: Any = normalizer  # its stub does not say that it can be iterated
        for step in steps:
            yield from _listed(step)
    elif normalizer is not None:
        yield normalizer


def lowercases(backend: tokenizers.Tokenizer) -> bool:
    """Say whether one of the normalizer's steps does nothing but lower-case."""
    return any(isinstance(step, normalizers.Lowercase) for step in _listed(backend.normalizer))


def _pieces(normalizer: Any, pre_tokenizer: Any) -> list[str]:
    text = _PROBE if normalizer is None else normalizer.normalize_str(_PROBE)
    return [text] if pre_tokenizer is None else [piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)]


def _frames(backend: tokenizers.Tokenizer) -> tuple[list[int], ...]:
    one, two = backend.encode("a"), backend.encode("a", "a")
    return one.ids, one.type_ids, two.ids, two.type_ids

"""Folders whose files disagree about the tokenizer: we read each as transformers does, token by token."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors, trainers

from embedkit.checkpoint.folder import read_model_folder
from embedkit.errors import CheckpointError
from tests.tiny import SPECIAL, WORDS, tiny_tokenizer

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

pytest.importorskip("transformers", reason="the extra 'parity' is not installed")

from transformers import AutoConfig, AutoTokenizer  # noqa: E402  (after the check)

Json = dict[str, Any]
TEXTS = [
    "The DOG Runs, naïve Été!",
    "the old man walks by the water and the boy sings an old song again and " * 3,
    "[MASK] sings [SEP] <mask> <s> </s> [CLS] <pad> [UNK] <unk>",
    "東京 the`` dog''  spaces\tand\nlines  ΑΣ İ",
    "<ent> the <ent>dog NEWTOK newtok xNEWTOKx",
    "",
]
SIGNS = [*map(chr, range(33, 127)), *"éüïñσΣ東京", "\u0301"]
PIECES = [
    *SPECIAL,
    *dict.fromkeys(
        [*WORDS, *(word.capitalize() for word in WORDS), *SIGNS, *("##" + sign for sign in SIGNS)]
    ),
]
NEW = len(PIECES)  # the number of the first token that is added
BERT = {f"{role}_token": f"[{role.upper()}]" for role in ("cls", "sep", "pad", "unk", "mask")}
ROBERTA = {
    **{"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"},
    **{"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"},
}
MPNET = ROBERTA | {"unk_token": "[UNK]"}
ALBERT = BERT | {"bos_token": "[CLS]", "eos_token": "[SEP]", "pad_token": "<pad>", "unk_token": "<unk>"}


def word_piece(pieces: list[str] = PIECES, **normalizer: bool) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.BertNormalizer(**{"lowercase": True} | normalizer)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.add_special_tokens(pieces[:5])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return backend


def changed(**parts: Any) -> tokenizers.Tokenizer:
    """BERT's tokenizer with other parts than its class has."""
    backend = word_piece()
    for name, part in parts.items():
        setattr(backend, name, part)
    return backend


def cut_left() -> tokenizers.Tokenizer:
    backend = word_piece()
    backend.enable_truncation(9, direction="left")
    return backend


def with_tokens() -> tokenizers.Tokenizer:
    backend = word_piece()
    backend.add_tokens(["<ent>", AddedToken("NEWTOK", normalized=False)])
    return backend


def mpnet() -> tokenizers.Tokenizer:
    backend = word_piece(["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *PIECES[5:]])
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return backend


def byte_level() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([*TEXTS, *WORDS], trainer)
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return backend


def unigram(special: list[str], ends: tuple[str, str], *, pair: str) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    words = pre_tokenizers.Metaspace()
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator([*TEXTS, *WORDS] * 3, trainer)
    cls, sep = ends
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=pair,
        special_tokens=[(token, backend.token_to_id(token)) for token in ends],
    )
    return backend


def xlm_roberta() -> tokenizers.Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return unigram(special, ("<s>", "</s>"), pair="<s> $A </s> </s> $B </s>")


def camembert() -> tokenizers.Tokenizer:
    special = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>", "<mask>"]
    return unigram(special, ("<s>", "</s>"), pair="<s> $A </s> </s> $B </s>")


def albert() -> tokenizers.Tokenizer:
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    return unigram(special, ("[CLS]", "[SEP]"), pair="[CLS] $A [SEP] $B:1 [SEP]:1")


def listed(content: str, **flags: bool) -> Json:
    usual = dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
    return {"content": content, **usual, "normalized": False, "special": True} | flags


DECODER = {str(number): listed(token) for number, token in enumerate(SPECIAL)}
VOCABULARY = "\n".join(PIECES) + "\n"
# name -> model type, tokenizer.json, tokenizer_config.json (None: there is none), other files
CASES: dict[str, tuple[str, Callable[[], tokenizers.Tokenizer] | None, Json | None, Json]] = {
    "as it is": ("bert", word_piece, BERT | {"tokenizer_class": "BertTokenizer"}, {}),
    "cased by the class": ("bert", word_piece, BERT | {"do_lower_case": False}, {}),
    "lower-cased by the class": ("bert", lambda: word_piece(lowercase=False), BERT, {}),
    "no tokenizer_config": ("bert", lambda: word_piece(lowercase=False), None, {}),
    "accents kept": ("bert", word_piece, BERT | {"strip_accents": False}, {}),
    "accents stripped, cased": (
        "bert",
        word_piece,
        BERT | {"strip_accents": True, "do_lower_case": False},
        {},
    ),
    "Chinese words": ("bert", word_piece, BERT | {"tokenize_chinese_chars": False}, {}),
    "split at spaces": ("bert", lambda: changed(pre_tokenizer=pre_tokenizers.WhitespaceSplit()), BERT, {}),
    "no template": ("bert", lambda: changed(post_processor=processors.ByteLevel()), BERT, {}),
    "the file stands": (
        "bert",
        lambda: word_piece(lowercase=False),
        BERT | {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True},
        {},
    ),
    "the model's config names the class": (
        "bert",
        lambda: word_piece(lowercase=False),
        BERT,
        {"config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}},
    ),
    "a class of another model": (
        "mpnet",
        lambda: word_piece(lowercase=False),
        BERT | {"tokenizer_class": "BertTokenizer"},
        {},
    ),
    "distilbert": (
        "distilbert",
        word_piece,
        BERT | {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": False},
        {},
    ),
    "modernbert": (
        "modernbert",
        lambda: word_piece(lowercase=False),
        BERT | {"tokenizer_class": "BertTokenizer"},
        {},
    ),
    "mpnet": ("mpnet", mpnet, MPNET | {"do_lower_case": False}, {}),
    "roberta": ("roberta", byte_level, ROBERTA | {"add_prefix_space": True}, {}),
    "xlm-roberta": ("xlm-roberta", xlm_roberta, ROBERTA | {"add_prefix_space": False}, {}),
    "camembert": ("camembert", camembert, ROBERTA, {}),
    "albert cased": ("albert", albert, ALBERT | {"do_lower_case": False}, {}),
    "albert accents": ("albert", albert, ALBERT | {"keep_accents": True}, {}),
    "cut on the left": ("bert", word_piece, BERT | {"truncation_side": "left", "model_max_length": 12}, {}),
    "cut on the left by the file": ("bert", cut_left, BERT | {"model_max_length": 12}, {}),
    "an old name of the limit": ("bert", word_piece, BERT | {"max_len": 12}, {}),
    "tokens in the file": ("bert", with_tokens, BERT, {}),
    "tokens beside the file": (
        "bert",
        word_piece,
        BERT,
        {"added_tokens.json": {"<ent>": NEW, "NEWTOK": NEW + 1}},
    ),
    "tokens beside a vocabulary": (
        "bert",
        None,
        BERT | {"do_lower_case": False, "additional_special_tokens": ["<ent>"]},
        {"vocab.txt": VOCABULARY, "added_tokens.json": {"<ent>": NEW, "NEWTOK": NEW + 1}},
    ),
    "tokens in the config": (
        "bert",
        word_piece,
        BERT | {"added_tokens_decoder": DECODER | {str(NEW): listed("NEWTOK", normalized=True)}},
        {},
    ),
    "tokens that the config does not list": (
        "bert",
        with_tokens,
        BERT | {"added_tokens_decoder": DECODER},
        {},
    ),
    "extra special tokens": ("bert", word_piece, BERT | {"extra_special_tokens": ["dog", "NEWTOK"]}, {}),
    "a map of special tokens": (
        "bert",
        word_piece,
        {},
        {"special_tokens_map.json": BERT | {"mask_token": listed("[MASK]", lstrip=True)}},
    ),
    "a map of another end": (
        "bert",
        word_piece,
        {"tokenizer_class": "BertTokenizer"},
        {"special_tokens_map.json": BERT | {"sep_token": "[PAD]"}},
    ),
    "mpnet's vocabulary": (
        "mpnet",
        None,
        {"tokenizer_class": "MPNetTokenizer"},
        {"vocab.txt": "\n".join(["<s>", "<pad>", "</s>", "[UNK]", "<mask>", *PIECES[5:]])},
    ),
}


def lay(folder: Path, case: str) -> None:
    family, backend, config, files = CASES[case]
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    if family == "distilbert":
        sizes = {"dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 64}
    AutoConfig.for_model(family, vocab_size=900, max_position_embeddings=64, **sizes).save_pretrained(folder)
    if backend is not None:
        backend().save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    for name, content in files.items():
        path = folder / name
        if isinstance(content, dict) and path.exists():
            content = json.loads(path.read_text(encoding="utf-8")) | content
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("case", CASES)
def test_a_folder_gives_the_tokens_that_transformers_gives(case: str, tmp_path: Path) -> None:
    lay(tmp_path, case)
    ours = read_model_folder(tmp_path).tokenizer
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    cut = {"truncation": "longest_first", "max_length": ours.max_length}
    batch = ours.encode(TEXTS)
    assert batch.input_ids.tolist() == [number for ids in theirs(TEXTS, **cut)["input_ids"] for number in ids]
    pairs = ours.encode_pairs(TEXTS[:4], TEXTS[1:5], truncation="longest_first")
    wanted = theirs(TEXTS[:4], TEXTS[1:5], **cut)["input_ids"]
    assert pairs.input_ids.tolist() == [number for ids in wanted for number in ids]


def test_lower_casing_first_is_that_of_their_normalizer(tmp_path: Path) -> None:
    """A sigma at a word's end stays a sigma, and a special token in a text stays one."""
    from sentence_transformers.base.modules import Transformer
    from transformers import AutoModel

    lay(tmp_path, "the file stands")
    config = AutoConfig.from_pretrained(tmp_path)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    theirs = Transformer(str(tmp_path), do_lower_case=True, max_seq_length=64)
    (tmp_path / "modules.json").write_text(
        json.dumps(
            [
                {"path": "", "type": "sentence_transformers.models.Transformer"},
                {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]
        ),
        encoding="utf-8",
    )
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}', encoding="utf-8")
    (tmp_path / "sentence_bert_config.json").write_text('{"do_lower_case": true}', encoding="utf-8")
    ours = read_model_folder(tmp_path).tokenizer
    wanted = [ids for text in TEXTS for ids in theirs.preprocess([text])["input_ids"][0].tolist()]
    assert ours.encode(TEXTS).input_ids.tolist() == wanted


@pytest.mark.parametrize(
    ("config", "files", "message"),
    [
        (
            {"split_special_tokens": True},
            {},
            r"tokenizer_config\.json: split_special_tokens is true; .*to false",
        ),
        ({"truncation_side": "both"}, {}, "truncation_side is 'both'; it must be right or left"),
        (
            {},
            {"added_tokens.json": {"<ent>": NEW + 1}},
            rf"the added token '<ent>' would be number {NEW}; the folder says {NEW + 1}\. Take all",
        ),
        (
            {},
            {"added_tokens.json": {"<ent>": "x"}},
            r"added_tokens\.json: the number of an added token is 'x'",
        ),
        ({}, {"added_tokens.json": []}, r"added_tokens\.json: holds a JSON list; it must be an object"),
        (
            {"added_tokens_decoder": {"1": "x"}},
            {},
            "an added token is 'x'; it must be an object with its content",
        ),
        ({"added_tokens_decoder": []}, {}, r"added_tokens_decoder is \[\]; it must be an object"),
        ({"extra_special_tokens": "x"}, {}, "the extra special tokens are 'x'; they must be a list"),
        (
            {"tokenizer_class": "BertJapaneseTokenizer"},
            {"vocab.txt": VOCABULARY},
            r"vocab\.txt: the vocabulary of a BertJapaneseTokenizer; .*builds BertTokenizer, .*Let transformers write",
        ),
    ],
)
def test_what_is_not_read_as_transformers_does_is_refused_by_name(
    config: Json, files: Json, message: str, tmp_path: Path
) -> None:
    lay(tmp_path, "as it is")
    if "vocab.txt" in files:
        (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(BERT | config), encoding="utf-8")
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        read_model_folder(tmp_path)


def test_a_tokenizer_that_agrees_with_its_class_keeps_its_fingerprint(tmp_path: Path) -> None:
    """The class rules change nothing where they agree with the file: indexes of before stay valid."""
    lay(tmp_path, "as it is")
    loaded = read_model_folder(tmp_path).tokenizer
    assert loaded.backend.to_str() == word_piece().to_str()
    tiny_tokenizer().save(tmp_path)
    assert read_model_folder(tmp_path).tokenizer.fingerprint == tiny_tokenizer().fingerprint

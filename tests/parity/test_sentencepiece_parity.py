"""Folders with SentencePiece's own file and no tokenizer.json: read as transformers reads them with SentencePiece's library."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
transformers = pytest.importorskip("transformers")

from embedkit.tokenization.sentencepiece import FILES  # noqa: E402  (after the check)
from embedkit.tokenization.tokenizer import Tokenizer  # noqa: E402
from tests.parity.test_newer_tokenizers_parity import TEXTS  # noqa: E402

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
# How each family trained its pieces: the numbers of the special ones.
TRAINED: dict[str, dict[str, Any]] = {
    "DebertaV2Tokenizer": {
        **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3},
        **{"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"},
        **{"user_defined_symbols": ["[MASK]"]},
    },
    "T5Tokenizer": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "XLMRobertaTokenizer": {"unk_id": 0, "bos_id": 1, "eos_id": 2},
}


@pytest.mark.parametrize("name", FILES)
def test_a_vocabulary_of_sentencepiece_is_read_as_its_class_reads_it(name: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(
        "\n".join([*TEXTS, "the old man walks by the water and the dog runs"] * 20), encoding="utf-8"
    )
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(tmp_path / "m"),
        vocab_size=70,
        model_type="unigram",
        **TRAINED[name],
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(tmp_path / "m.model", folder / FILES[name])
    theirs = getattr(transformers, name).from_pretrained(folder)
    ours = Tokenizer.load(folder, model_class=name)
    for text in [*TEXTS, "", "unseen ☃ sign"]:
        assert ours.encode([text]).input_ids.tolist() == theirs(text)["input_ids"], text
    assert ours.vocab_size == len(theirs)

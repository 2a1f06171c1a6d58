"""Training a tokenizer from text: WordPiece as in BERT, byte-level BPE as in RoBERTa, Unigram as in XLM-R."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from embedkit.data.records import Document, headed_text
from embedkit.errors import EmbedkitError, TrainingError
from embedkit.native.threads import interruptibly
from embedkit.tokenization.tokenizer import Tokenizer

Algorithm = Literal["wordpiece", "bpe", "unigram"]

BERT_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA_TOKENS = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
HELD_OUT_EVERY = 100
MAX_HELD_OUT = 2_000


@dataclass(frozen=True, kw_only=True)
class TokenizerReport:
    """How a fresh tokenizer does on texts that it was not trained on; words are what white space separates.

    `fertility` is tokens per word, `whole_words` the share of words that are one token, `coverage` the share of words without an
    unknown piece, `unknown_rate` the share of tokens that are the unknown token.
    """

    vocab_size: int
    texts: int
    held_out_texts: int
    held_out_words: int
    fertility: float
    whole_words: float
    coverage: float
    unknown_rate: float


def train_tokenizer(
    texts: Iterable[str],
    *,
    algorithm: Algorithm = "wordpiece",
    vocab_size: int = 30_522,
    lowercase: bool = True,
    max_length: int = 512,
) -> tuple[Tokenizer, TokenizerReport]:
    """Train on a stream of texts, all but every hundredth (2,000 at most), and report on those held out.

    Raises:
        TrainingError: there is no text, it gives fewer than `vocab_size` tokens, or has more characters than that.
        ValueError: the algorithm is unknown, or the vocabulary has no room for the special tokens and an alphabet.
    """
    if algorithm not in get_args(Algorithm):
        raise ValueError(f"algorithm is {algorithm!r}; it must be one of {', '.join(get_args(Algorithm))}")
    smallest = smallest_vocabulary(algorithm)
    if vocab_size < smallest:
        raise ValueError(f"vocab_size is {vocab_size}; {algorithm} needs at least {smallest}")
    tokens = BERT_TOKENS if algorithm == "wordpiece" else ROBERTA_TOKENS
    backend, trainer = _untrained(algorithm, vocab_size, lowercase, list(tokens.values()))
    split = _Split(texts)
    try:
        interruptibly(lambda: backend.train_from_iterator(split, trainer))
    except EmbedkitError:  # of a text that cannot be read
        raise
    except Exception as exc:  # the library raises bare Exception, for example where Unigram finds no seed
        raise TrainingError(f"the tokenizer cannot be trained on {split.trained:,} texts: {exc}") from exc
    if not split.trained:
        raise TrainingError("there is no text to train a tokenizer on; give files with at least two texts")
    found = backend.get_vocab_size(with_added_tokens=True)
    if found < vocab_size:
        raise TrainingError(
            f"the text gives {found:,} tokens; {vocab_size:,} were asked for. "
            f"Ask for at most that with --vocab-size {found}, or give more text"
        )
    if found > vocab_size:  # every character of the texts is a token, whatever was asked for
        raise TrainingError(
            f"the characters of the texts alone make {found:,} tokens; {vocab_size:,} were asked for. "
            f"Ask for at least that with --vocab-size {found}, and for more to have whole words"
        )
    _finish(backend, algorithm, tokens)
    # Unigram's scores lose their last digits on the way through a file: what is returned is what is read again.
    backend = tokenizers.Tokenizer.from_str(backend.to_str())
    tokenizer = Tokenizer(backend, dict(tokens), max_length)
    return tokenizer, _report(tokenizer, split, leading_space=algorithm == "bpe")


def smallest_vocabulary(algorithm: Algorithm) -> int:
    """Return how many tokens there must be at least: the special ones, and all bytes or one more."""
    return len(ROBERTA_TOKENS) + (256 if algorithm == "bpe" else 1)


def texts_of(documents: Iterable[Document]) -> Iterator[str]:
    """Return what a document says to a tokenizer: its title, if it has one, and its text."""
    return (headed_text(document.title, document.text) for document in documents)


class _Split:
    """The texts to train on; every hundredth is put aside instead, as long as there is room."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.trained = 0
        self.held_out: list[str] = []

    def __iter__(self) -> Iterator[str]:
        number = 0
        for text in self._texts:
            if not text.strip():
                continue
            number += 1
            if number % HELD_OUT_EVERY == 0 and len(self.held_out) < MAX_HELD_OUT:
                self.held_out.append(text)
                continue
            self.trained += 1
            yield text


def _untrained(
    algorithm: Algorithm, vocab_size: int, lowercase: bool, special: list[str]
) -> tuple[tokenizers.Tokenizer, trainers.Trainer]:
    if algorithm == "wordpiece":
        backend = tokenizers.Tokenizer(models.WordPiece(unk_token=BERT_TOKENS["unk"]))
        backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        return backend, trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=special,
            limit_alphabet=1_000,  # as BERT's vocabularies: rare characters are [UNK], not rows of the table
            show_progress=False,
        )
    if algorithm == "bpe":
        backend = tokenizers.Tokenizer(models.BPE())
        if lowercase:
            backend.normalizer = normalizers.Lowercase()
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        return backend, trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    backend = tokenizers.Tokenizer(models.Unigram())
    steps: list[normalizers.Normalizer] = [normalizers.NFKC()]
    if lowercase:
        steps.append(normalizers.Lowercase())
    backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return backend, trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        unk_token=ROBERTA_TOKENS["unk"],
        show_progress=False,
    )


def _finish(backend: tokenizers.Tokenizer, algorithm: Algorithm, tokens: dict[str, str]) -> None:
    """Set what stands around a text, and let the mask of BPE take the space before it, as in RoBERTa."""
    sep, cls = ((tokens[role], backend.token_to_id(tokens[role]) or 0) for role in ("sep", "cls"))
    if algorithm == "bpe":
        backend.add_special_tokens([tokenizers.AddedToken(tokens["mask"], lstrip=True, special=True)])
    # Token types as in BERT for all three: the second text is of type 1.
    backend.post_processor = processors.BertProcessing(sep, cls)


def _report(tokenizer: Tokenizer, split: _Split, *, leading_space: bool) -> TokenizerReport:
    """Measure on the held-out texts, word by word; on the few of a tiny corpus there may be none."""
    words = Counter(word for text in split.held_out for word in text.split())
    unknown = tokenizer.special_id("unk")
    distinct = list(words)
    ids = tokenizer.ids([" " + word if leading_space else word for word in distinct])
    total = tokens = whole = covered = unknowns = 0
    for word, pieces in zip(distinct, ids, strict=True):
        count = words[word]
        total += count
        tokens += count * len(pieces)
        whole += count * (len(pieces) == 1 and pieces[0] != unknown)
        covered += count * (unknown not in pieces)
        unknowns += count * pieces.count(unknown)
    nan = float("nan")
    return TokenizerReport(
        vocab_size=tokenizer.vocab_size,
        texts=split.trained,
        held_out_texts=len(split.held_out),
        held_out_words=total,
        fertility=tokens / total if total else nan,
        whole_words=whole / total if total else nan,
        coverage=covered / total if total else nan,
        unknown_rate=unknowns / tokens if tokens else nan,
    )

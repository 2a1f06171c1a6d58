"""How near generated texts come to references: BLEU, chrF, ROUGE, by the definitions of sacrebleu and rouge_score.

The two packages bring nltk, lxml and more for what are a few counts; tests hold our numbers against theirs.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

Words = Sequence[str]

# The standard tokenization of the WMT's mteval-v13a: signs apart, but for points and commas within numbers.
_SIGNS = re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])")
_POINT_AFTER_OTHER = re.compile(r"([^0-9])([\.,])")
_POINT_BEFORE_OTHER = re.compile(r"([\.,])([^0-9])")
_DASH_AFTER_DIGIT = re.compile(r"([0-9])(-)")
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))
_NOT_ROUGE = re.compile(r"[^a-z0-9]+")


def bleu(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return corpus BLEU of up to 4 words in a row, 0 to 100, with exponential smoothing, each output against its references.

    Source: Papineni et al. 2002, https://aclanthology.org/P02-1040; tokenization 13a and smoothing as sacrebleu has them
        (Post 2018, https://arxiv.org/abs/1804.08771).
    """
    matches, totals = [0] * 4, [0] * 4
    length = reference_length = 0
    for output, own in zip(outputs, references, strict=True):
        words, others = bleu_words(output), [bleu_words(reference) for reference in own]
        length += len(words)
        # The reference nearest in length, of two the shorter.
        reference_length += min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        for n in range(4):
            grams = _grams(words, n + 1)
            most: Counter[Words] = Counter()
            for other in others:
                most |= _grams(other, n + 1)
            matches[n] += (grams & most).total()
            totals[n] += grams.total()
    if not matches[0] or not all(totals):
        return 0.0
    logs, halving = 0.0, 1.0
    for match, total in zip(matches, totals, strict=True):
        if not match:
            halving *= 2
        logs += math.log(match / total if match else 1 / (halving * total))
    brevity = min(0.0, 1 - reference_length / length)
    return 100 * math.exp(brevity + logs / 4)


def bleu_words(text: str) -> list[str]:
    """Cut a text into words as mteval-v13a does."""
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    text = _SIGNS.sub(r" \1 ", f" {text} ")
    text = _POINT_AFTER_OTHER.sub(r"\1 \2 ", text)
    text = _POINT_BEFORE_OTHER.sub(r" \1 \2", text)
    return _DASH_AFTER_DIGIT.sub(r"\1 \2 ", text).split()


def chrf(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return corpus chrF2, 0 to 100: characters in a row, 1 to 6, without spaces, recall counting twice as much as precision.

    Each output is held against the reference that it is nearest to.

    Source: Popović 2015, https://aclanthology.org/W15-3049, as sacrebleu has it.
    """
    sums = [(0, 0, 0)] * 6
    for output, own in zip(outputs, references, strict=True):
        grams = [_grams("".join(output.split()), n) for n in range(1, 7)]
        counted = [_overlaps(grams, reference) for reference in own]
        best = max(counted, key=_f2)  # the first of equals
        sums = [(a + x, b + y, c + z) for (a, b, c), (x, y, z) in zip(sums, best, strict=True)]
    return 100 * _f2(sums)


def _overlaps(grams: Sequence[Counter[Words]], reference: str) -> list[tuple[int, int, int]]:
    """Return for each length how many grams the output has, the reference has, and both have."""
    text = "".join(reference.split())
    found = []
    for n, own in enumerate(grams, 1):
        other = _grams(text, n)
        found.append((own.total() if other else 0, other.total(), (own & other).total()))
    return found


def _f2(counts: Sequence[tuple[int, int, int]]) -> float:
    """Return F2 of the mean precision and the mean recall over the lengths that both texts have grams of."""
    usable = [each for each in counts if each[0] and each[1]]
    if not usable:
        return 0.0
    precision = fmean(match / own for own, _, match in usable)
    recall = fmean(match / other for _, other, match in usable)
    return 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def rouge_words(text: str) -> list[str]:
    """Cut a text into lower-cased runs of English letters and digits, as rouge_score does without its stemmer."""
    return _NOT_ROUGE.sub(" ", text.lower()).split()


def rouge_n(output: Words, reference: Words, n: int) -> float:
    """Return the F1 of the n-grams that two texts have in common.

    Source: Lin 2004, https://aclanthology.org/W04-1013, section 2.
    """
    own, other = _grams(output, n), _grams(reference, n)
    return _f1((own & other).total(), own.total(), other.total())


def rouge_l(output: Words, reference: Words) -> float:
    """Return the F1 of the longest common subsequence of two texts.

    Source: Lin 2004, https://aclanthology.org/W04-1013, section 3.
    """
    return _f1(longest_common_subsequence(output, reference), len(output), len(reference))


_ROUGES: dict[str, Callable[[Words, Words], float]] = {
    "rouge1": lambda output, reference: rouge_n(output, reference, 1),
    "rouge2": lambda output, reference: rouge_n(output, reference, 2),
    "rougeL": rouge_l,
}


def rouge(output: str, references: Sequence[str]) -> dict[str, float]:
    """Return ROUGE-1, -2 and -L of a text, 0 to 1: of each the best over the references."""
    words, others = rouge_words(output), [rouge_words(reference) for reference in references]
    return {name: max(score(words, other) for other in others) for name, score in _ROUGES.items()}


def longest_common_subsequence(one: Words, other: Words) -> int:
    """Return how long it is; a whole row of the table is one number, a bit for each word of the first text.

    Source: Hyyrö 2004, Bit-parallel LCS-length computation revisited.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(one)) - 1
    row = full
    for word in other:
        here = row & places.get(word, 0)
        row = ((row + here) | (row - here)) & full
    return len(one) - row.bit_count()


def _f1(match: int, own: int, other: int) -> float:
    return 2 * match / (own + other) if match else 0.0


def _grams(items: Words, n: int) -> Counter[Words]:
    """Count the runs of n words or, of a text, of n characters."""
    if isinstance(items, str):
        return Counter(items[i : i + n] for i in range(len(items) - n + 1))
    return Counter(tuple(items[i : i + n]) for i in range(len(items) - n + 1))

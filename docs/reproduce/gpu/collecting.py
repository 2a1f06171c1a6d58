"""Collect the texts and pairs to train on: each text once, none that shares a sentence with an evaluation set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from sources import KeptOut, cut, piece, rows, sentences, squad_titles_and_texts
from texts import open_pairs, wiki
from varied import VARIED, Row, VariedSet, training_rows

WORDS = 200
# The data sets of before, whose kinds are named "o_…": how many pairs of each, and single texts of each kind, at most.
MOST_PAIRS = {"arxiv": 45_000, "simplewiki": 45_000, "squad": 90_000, "wordnet": 30_000}
MOST_TEXTS = {
    "simplewiki sentence": 50_000,
    "enwiki sentence": 40_000,
    "simplewiki paragraph": 12_000,
    "enwiki paragraph": 20_000,
    "enwiki piece": 12_000,
    "simplewiki piece": 8_000,
    "simplewiki words": 15_000,
    "simplewiki title": 10_000,
}
LONG, LONG_TEXTS = "o_long", 5000  # texts for the positions beyond 256
ANSWERS = "squad_sentence"  # pairs of a question and the sentence that answers it
BARE, BARE_QUERIES = 0.1, 0.25  # how often capitals and punctuation are taken off


class Collection:
    """Distinct texts, numbered in the order they came in, and the pairs and single texts of each source by these numbers."""

    def __init__(self, kept_out: KeptOut) -> None:
        self.numbers: dict[str, int] = {}
        self.pairs: dict[str, list[tuple[int, int]]] = {}
        self.singles: dict[str, list[int]] = {}
        self.refused: Counter[str] = Counter()  # rows of each source with an empty or kept-out text
        self._kept_out = kept_out
        self._refused_texts: set[str] = set()

    def add_pair(self, source: str, query: str, document: str) -> None:
        first, second = self._number(query, WORDS), self._number(document, WORDS)
        if first is None or second is None or first == second:
            self.refused[source] += 1
        else:
            self.pairs.setdefault(source, []).append((first, second))

    def add_single(self, source: str, text: str, words: int = WORDS) -> None:
        number = self._number(text, words)
        if number is None:
            self.refused[source] += 1
        else:
            self.singles.setdefault(source, []).append(number)

    def _number(self, text: str, words: int) -> int | None:
        text = cut(text, words)
        if not text or text in self._refused_texts:
            return None
        if text not in self.numbers:
            if text in self._kept_out:
                self._refused_texts.add(text)
                return None
            self.numbers[text] = len(self.numbers)
        return self.numbers[text]


def bare(text: str, rng: Random, chance: float = BARE) -> str:
    """Take capitals and punctuation off some texts, as people type."""
    if rng.random() >= chance:
        return text
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower().replace("'", "")).split())


def collect_varied(found: Collection, data: Path) -> None:
    for each in VARIED:
        rng = Random(f"gpu {each.name}")
        for row in training_rows(each, data, rng):
            if each.pair is not None:
                _add_paired_row(found, each, row, rng)
            elif each.name == "glossary":
                found.add_pair("glossary", bare(row["term"], rng), row["definition"])
            elif each.name == "tatoeba_paraphrases":
                found.add_pair("tatoeba", bare(row["text1"], rng), row["text2"])
            else:
                chance = BARE_QUERIES if each.name == "web_queries" else BARE
                found.add_single(each.name, bare(row[each.field], rng, chance))


def _add_paired_row(found: Collection, each: VariedSet, row: Row, rng: Random) -> None:
    """Add a row's pair, a second one of the docstring or the package's name, and now and then a piece and a sentence."""
    assert each.pair is not None
    query, document = (row[name] for name in each.pair)
    if query and document:
        chance = 0 if each.name == "physics_abstracts_lower" else BARE  # they have no capitals
        found.add_pair(each.name, bare(query, rng, chance), document)
    described = "description" in row and "code" in row and row["description"] != query
    if described and rng.random() < 0.5:
        found.add_pair(f"{each.name} description", bare(row["description"], rng), row["code"])
    parts = sentences(row[each.pieces]) if each.pieces else []
    if len(parts) >= 3 and rng.random() < 0.25:
        found.add_single(f"{each.name} piece", piece(parts, rng))
    if len(parts) >= 2 and rng.random() < 0.15:
        found.add_single(f"{each.name} sentence", rng.choice(parts))
    if each.name.startswith("debian") and document and rng.random() < 0.3:
        found.add_pair("debian_name", bare(row["name"].replace("-", " "), rng, 0), document)


def collect_open_pairs(found: Collection, data: Path, out: KeptOut) -> Random:
    """Add the pairs of the data sets of before, and return what draws on for their texts."""
    rng = Random("gpu pairs")
    by_source: dict[str, list[tuple[str, str]]] = {}
    for source, query, document in _more_pairs(data, rng, out):
        by_source.setdefault(source, []).append((query, document))
    for source, pairs in by_source.items():
        rng.shuffle(pairs)
        for query, document in pairs[: MOST_PAIRS.get(source, len(pairs))]:
            found.add_pair(f"o_{source}", bare(query, rng), document)
    return rng


def collect_open(found: Collection, data: Path, out: KeptOut) -> None:
    """Add the pairs and texts of the data sets of before."""
    rng = collect_open_pairs(found, data, out)
    for row in rows(data / "pairs/banking77/train.tsv.zst"):
        found.add_single("banking77", row["text"])
    for kind, texts in _sampled_wiki(data, out).items():
        for text in texts:
            found.add_single(f"o_{kind}", text)
    _add_long(found, data, rng)
    _add_forum_parts(found, data, rng)


def _more_pairs(data: Path, rng: Random, out: KeptOut) -> Iterator[tuple[str, str, str]]:
    yield from open_pairs(data, rng, out)
    for row in rows(data / "pairs/open_english_wordnet/glosses.tsv.zst"):
        if rng.random() < 0.3:
            yield "wordnet", row["lemmas"].split("; ")[0], row["definition"]
    for row in rows(data / "pairs/simplewiki_enwiki_leads/all.tsv.zst"):
        yield "leads", row["simple_lead"], row["english_lead"]


def _sampled_wiki(data: Path, out: KeptOut) -> dict[str, list[str]]:
    """Sample each kind evenly from two Wikipedias (Vitter 1985, reservoir sampling)."""
    kept: dict[str, list[str]] = {kind: [] for kind in MOST_TEXTS}
    met: Counter[str] = Counter()
    rng = Random("gpu wiki")
    for kind, text in wiki(data, rng, out):
        if kind not in kept:
            continue
        met[kind] += 1
        if len(kept[kind]) < MOST_TEXTS[kind]:
            kept[kind].append(text)
        elif (place := int(rng.random() * met[kind])) < MOST_TEXTS[kind]:
            kept[kind][place] = text
    return kept


def _add_long(found: Collection, data: Path, rng: Random) -> None:
    count = 0
    for row in rows(data / "text/enwiki.jsonl.zst"):
        words = row["text"].split()
        if len(words) > 800 and count < LONG_TEXTS:
            start = rng.randrange(len(words) - 500)
            found.add_single(LONG, " ".join(words[start : start + rng.randint(220, 400)]), words=400)
            count += 1


def _add_forum_parts(found: Collection, data: Path, rng: Random) -> None:
    for row in rows(data / "pairs/stackexchange_qa/train.tsv.zst"):
        for text in (row["body"], row["answer"]):
            parts = sentences(text)
            if parts and rng.random() < 0.6:
                found.add_single("o_stackexchange sentence", rng.choice(parts))
            if len(parts) > 3 and rng.random() < 0.5:
                found.add_single("o_stackexchange piece", piece(parts, rng))


def collect_answers(found: Collection, data: Path) -> None:
    """Add SQuAD's questions with the sentence that answers each, a paragraph's questions one after another."""
    rng = Random("gpu answers")
    folder = data / "retrieval/squad_v11_train"
    paragraphs = {name: sentences(text) for name, (_, text) in squad_titles_and_texts(folder).items()}
    questions = {row["_id"]: row["text"] for row in rows(folder / "queries.jsonl.zst")}
    answers = {row["_id"]: row["answers"][0] for row in rows(folder / "answers.jsonl.zst")}
    asked: dict[str, list[str]] = {}
    for row in rows(folder / "qrels/train.tsv.zst"):
        asked.setdefault(row["corpus-id"], []).append(row["query-id"])
    order = list(asked)
    rng.shuffle(order)
    for paragraph in order:
        for query in asked[paragraph]:
            told = [each for each in paragraphs[paragraph] if answers[query] in each]
            if len(told) == 1:
                found.add_pair(ANSWERS, bare(questions[query], rng), told[0])

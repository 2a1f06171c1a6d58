"""Write training data by embedkit's own commands, using only the open data sets: of the reranker and the first encoder.

    python docs/reproduce/texts.py texts DATA texts.jsonl --limit 300000
    python docs/reproduce/texts.py pairs DATA pairs/

`texts` writes JSON lines {"text": …} to distil from: sentences, paragraphs, titles, questions, answers, captions,
definitions, and pieces cut from these and joined, with a share for each kind. A source with less than its share gives
all it has, and the others give more. `pairs` writes one file of {"query": …, "positive": …} per source. No text is written
twice, and none shares a sentence with a development or test set. The same data, seed and limit give the same files.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from sources import (
    KeptOut,
    cut,
    fingerprint,
    piece,
    rows,
    scitldr_pairs,
    sentences,
    squad_titles_and_texts,
)

Text = tuple[str, str]  # kind, text
# Percentages. There are few questions and informal texts, so their shares are larger than their sizes.
SHARES = {
    "simplewiki sentence": 9,
    "simplewiki paragraph": 6,
    "simplewiki title": 2,
    "simplewiki title and lead": 3,
    "simplewiki piece": 5,
    "simplewiki words": 4,
    "enwiki sentence": 4,
    "enwiki paragraph": 5,
    "enwiki piece": 4,
    "enwiki lead": 1.5,
    "squad question": 12,
    "squad paragraph": 3,
    "arxiv title": 5,
    "arxiv abstract": 5,
    "arxiv sentence": 5,
    "arxiv title and abstract": 2,
    "wordnet definition": 3,
    "wordnet example": 3,
    "wordnet lemma and definition": 1,
    "stackexchange title": 2.5,
    "stackexchange body": 2,
    "stackexchange title and body": 2,
    "stackexchange answer": 2,
    "stackexchange sentence": 6,
    "stackexchange piece": 6,
    "medquad question": 3,
    "medquad answer": 2,
    "medquad piece": 3,
    "coco caption": 4,
    "banking77 question": 2.5,
    "scitldr summary": 0.7,
    "scitldr abstract": 0.7,
}
# How often a text is written without capitals, and how often also without punctuation.
LOWER, BARE = 0.06, 0.04
QUESTION_LOWER, QUESTION_BARE = 0.12, 0.12


def wiki(data: Path, rng: Random, out: KeptOut) -> Iterator[Text]:
    for source, paragraph_words in (("simplewiki", 20), ("enwiki", 30)):
        for row in rows(data / "text" / f"{source}.jsonl.zst"):
            yield "simplewiki title", row["title"]
            parts = []
            for paragraph in row["text"].split("\n"):
                found = sentences(paragraph)
                parts += found
                for sentence in found:
                    if len(sentence.split()) >= 4:
                        yield f"{source} sentence", sentence
                if len(paragraph.split()) >= paragraph_words:
                    yield f"{source} paragraph", paragraph
            for _ in range(min(len(parts) // 6, 40)):
                yield f"{source} piece", piece(parts, rng)
            for _ in range(min(len(parts) // 4, 3)):
                words = rng.choice(parts).split()
                start = rng.randrange(len(words))
                yield "simplewiki words", " ".join(words[start : start + rng.randint(2, 8)])


def leads(data: Path, rng: Random, out: KeptOut) -> Iterator[Text]:
    for row in rows(data / "pairs/simplewiki_title_lead/all.tsv.zst"):
        yield "simplewiki title and lead", f"{row['title']}. {row['lead']}"
    for row in rows(data / "pairs/simplewiki_enwiki_leads/all.tsv.zst"):
        yield "enwiki lead", row["english_lead"]


def squad(data: Path, rng: Random, out: KeptOut) -> Iterator[Text]:
    folder = data / "retrieval/squad_v11_train"
    for row in rows(folder / "queries.jsonl.zst"):
        yield "squad question", row["text"]
    for title, text in squad_titles_and_texts(folder).values():
        yield "squad paragraph", f"{title} {text}" if rng.random() < 0.5 else text


def arxiv(data: Path, rng: Random, out: KeptOut) -> Iterator[Text]:
    for row in rows(data / "pairs/arxiv_title_abstract/train.tsv.zst"):
        title, abstract = row["title"], row["abstract"]
        if out.title(title):
            continue
        yield "arxiv title", title
        yield "arxiv abstract", abstract
        yield "arxiv title and abstract", f"{title}{rng.choice(('. ', ' '))}{abstract}"
        for sentence in sentences(abstract):
            if len(sentence.split()) >= 4:
                yield "arxiv sentence", sentence


def wordnet(data: Path, rng: Random, out: KeptOut) -> Iterator[Text]:
    for row in rows(data / "pairs/open_english_wordnet/glosses.tsv.zst"):
        yield "wordnet definition", row["definition"]
        lemma = row["lemmas"].split("; ")[0]
        yield "wordnet lemma and definition", f"{lemma}: {row['definition']}"
        for example in row["examples"].split(" | "):
            yield "wordnet example", example


def stackexchange(data: Path, rng: Random, out: KeptOut) -> Iterator[Text]:
    for row in rows(data / "pairs/stackexchange_qa/train.tsv.zst"):
        title, body, answer = row["title"], row["body"], row["answer"]
        yield "stackexchange title", title
        yield "stackexchange body", body
        yield "stackexchange title and body", f"{title} {body}"
        yield "stackexchange answer", answer
        for text in (body, answer):
            parts = sentences(text)
            for sentence in parts:
                if len(sentence.split()) >= 3:
                    yield "stackexchange sentence", sentence
            for _ in range(min(len(parts), 4)):
                yield "stackexchange piece", piece(parts, rng)


def medquad(data: Path, rng: Random, out: KeptOut) -> Iterator[Text]:
    for row in rows(data / "pairs/medquad/train.tsv.zst"):
        yield "medquad question", row["question"]
        yield "medquad answer", row["answer"]
        parts = sentences(row["answer"])
        for _ in range(min(len(parts) // 2, 3)):
            yield "medquad piece", piece(parts, rng)


def short_texts(data: Path, rng: Random, out: KeptOut) -> Iterator[Text]:
    for row in rows(data / "pairs/coco_captions/train.jsonl.zst"):
        for caption in row["captions"]:
            yield "coco caption", caption
    for row in rows(data / "pairs/banking77/train.tsv.zst"):
        yield "banking77 question", row["text"]
    for summary, title, abstract in scitldr_pairs(data / "retrieval/scitldr", "train"):
        yield "scitldr summary", summary
        yield "scitldr abstract", f"{title} {abstract}" if rng.random() < 0.5 else abstract


def sample(data: Path, out: KeptOut, limit: int, seed: int) -> dict[str, list[str]]:
    """Read every source once and keep a random sample of each kind, up to three times its share."""
    room = {kind: int(3 * limit * share / sum(SHARES.values())) + 10 for kind, share in SHARES.items()}
    kept: dict[str, list[str]] = {kind: [] for kind in SHARES}
    met: Counter[str] = Counter()
    for source in (wiki, leads, squad, arxiv, wordnet, stackexchange, medquad, short_texts):
        rng = Random(f"{seed} {source.__name__}")
        for kind, text in source(data, rng, out):
            met[kind] += 1
            if len(kept[kind]) < room[kind]:
                kept[kind].append(text)
            elif (place := int(rng.random() * met[kind])) < room[kind]:
                kept[kind][place] = text
    for kind, texts in kept.items():
        Random(f"{seed} {kind}").shuffle(texts)
    return kept


def distinct(kept: dict[str, list[str]], out: KeptOut) -> dict[str, list[str]]:
    """Shorten texts to 250 words; drop duplicates and held-out texts. Scarce kinds come first."""
    seen: set[str] = set()
    result = {}
    for kind in sorted(kept, key=lambda kind: len(kept[kind]) / SHARES[kind]):
        result[kind] = list[str]()
        for raw in kept[kind]:
            text = cut(raw)
            key = fingerprint(text)
            if len(key) >= 3 and key not in seen and text not in out:
                seen.add(key)
                result[kind].append(text)
    return result


def quotas(available: dict[str, int], limit: int) -> dict[str, int]:
    """Divide `limit` by SHARES; what a scarce kind cannot fill goes to the others in proportion."""
    found: dict[str, int] = {}
    open_kinds = {kind for kind, count in available.items() if count}
    while open_kinds:
        left = limit - sum(found.values())
        total = sum(SHARES[kind] for kind in open_kinds)
        short = {kind for kind in open_kinds if available[kind] <= left * SHARES[kind] / total}
        if not short:
            return found | _parts(left, [kind for kind in SHARES if kind in open_kinds])
        found |= {kind: available[kind] for kind in short}
        open_kinds -= short
    return found


def _parts(limit: int, kinds: list[str]) -> dict[str, int]:
    """Divide `limit` into whole numbers in proportion to the shares, with nothing left over."""
    total, reached, ends = sum(SHARES[kind] for kind in kinds), 0.0, [0]
    for kind in kinds:
        reached += SHARES[kind]
        ends.append(round(limit * reached / total))
    return {kind: stop - start for kind, start, stop in zip(kinds, ends, ends[1:], strict=False)}


def varied(kind: str, text: str, rng: Random) -> str:
    """Make some texts look the way people type: without capitals, or without capitals and punctuation."""
    is_question = "question" in kind or kind == "stackexchange title"
    lower, bare = (QUESTION_LOWER, QUESTION_BARE) if is_question else (LOWER, BARE)
    chance = rng.random()
    if chance < bare:
        return " ".join("".join(c if c.isalnum() else " " for c in text.lower().replace("'", "")).split())
    return text.lower() if chance < bare + lower else text


def write_texts(data: Path, output: Path, limit: int, seed: int) -> None:
    out = KeptOut(data)
    found = distinct(sample(data, out, limit, seed), out)
    counts = quotas({kind: len(texts) for kind, texts in found.items()}, limit)
    rng = Random(seed)
    texts = [varied(kind, text, rng) for kind in SHARES for text in found[kind][: counts.get(kind, 0)]]
    rng.shuffle(texts)
    with output.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    for kind in SHARES:
        print(f"{counts.get(kind, 0):9,}  {kind}", file=sys.stderr)
    words = [len(text.split()) for text in texts]
    print(f"{len(texts):9,}  texts, {sum(words) / len(words):.0f} words each on average", file=sys.stderr)


def open_pairs(data: Path, rng: Random, out: KeptOut) -> Iterator[tuple[str, str, str]]:
    """Yield (source, query, positive)."""
    for row in rows(data / "pairs/arxiv_title_abstract/train.tsv.zst"):
        if not out.title(row["title"]):
            yield "arxiv", row["title"], row["abstract"]
    for row in rows(data / "pairs/simplewiki_title_lead/all.tsv.zst"):
        yield "simplewiki", row["title"], row["lead"]
    squad_folder = data / "retrieval/squad_v11_train"
    paragraphs = squad_titles_and_texts(squad_folder)
    questions = {row["_id"]: row["text"] for row in rows(squad_folder / "queries.jsonl.zst")}
    for row in rows(squad_folder / "qrels/train.tsv.zst"):
        title, text = paragraphs[row["corpus-id"]]
        yield "squad", questions[row["query-id"]], f"{title} {text}"
    for row in rows(data / "pairs/stackexchange_qa/train.tsv.zst"):
        yield "stackexchange", row["title"], row["answer"]
        yield "stackexchange_body", f"{row['title']} {row['body']}", row["answer"]
    for row in rows(data / "pairs/medquad/train.tsv.zst"):
        yield "medquad", row["question"], row["answer"]
    for row in rows(data / "pairs/open_english_wordnet/glosses.tsv.zst"):
        if rng.random() < 0.1:
            yield "wordnet", row["lemmas"].split("; ")[0], row["definition"]
    for row in rows(data / "pairs/coco_captions/train.jsonl.zst"):
        first, second = rng.sample(row["captions"], 2)
        yield "coco", first, second
    for summary, title, abstract in scitldr_pairs(data / "retrieval/scitldr", "train"):
        yield "scitldr", summary, f"{title} {abstract}"


def write_pairs(data: Path, folder: Path, seed: int) -> None:
    rng, out = Random(seed), KeptOut(data)
    found: dict[str, list[tuple[str, str]]] = {}
    seen: set[str] = set()
    for source, query, positive in open_pairs(data, rng, out):
        query, positive = cut(query), cut(positive)
        key = f"{source} {fingerprint(query)} {fingerprint(positive)}"
        if key in seen or not query or not positive or query in out or positive in out:
            continue
        seen.add(key)
        found.setdefault(source, []).append((query, positive))
    folder.mkdir(parents=True, exist_ok=True)
    for source, pairs in found.items():
        rng.shuffle(pairs)
        with (folder / f"{source}.jsonl").open("w", encoding="utf-8") as file:
            for query, positive in pairs:
                row = {"query": query, "positive": positive}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{len(pairs):9,}  {folder / source}.jsonl", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    texts = commands.add_parser("texts", help="texts to distil from")
    texts.add_argument("data", type=Path, help="the folder of data sets")
    texts.add_argument("output", type=Path, help="the JSONL file to write")
    texts.add_argument("--limit", type=int, default=300_000, help="number of texts")
    pairs = commands.add_parser("pairs", help="pairs for contrastive training")
    pairs.add_argument("data", type=Path, help="the folder of data sets")
    pairs.add_argument("output", type=Path, help="the folder to write one JSONL file per source into")
    for command in (texts, pairs):
        command.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.command == "texts":
        write_texts(args.data, args.output, args.limit, args.seed)
    else:
        write_pairs(args.data, args.output, args.seed)


if __name__ == "__main__":
    main()

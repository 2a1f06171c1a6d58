"""Does a floor for cosines tell answers from chance? Relevant documents that it loses, and chance hits that it lets pass.

    python benchmarks/noise.py [--model MODEL] [--sets scifact cacm cisi wikiqa_test squad_v11_dev]

The floor is `CosineNoise.floor`, measured on the sample texts alone. For each set: the share of relevant documents below the floor, of
queries that are left without a hit, and of other sets' queries whose best hit is above it (CACM's and CISI's are about one field, and
are not put to each other). "Chance" is the same for a best hit above `CosineNoise.chance`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from timing import data_folder

from embedkit.data.beir import load_retrieval_set
from embedkit.data.reading import read_documents
from embedkit.data.records import titled_text
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.noise import cosine_noise
from embedkit.models import ENCODER, find_model

SETS = ["scifact", "cacm", "cisi", "wikiqa_test", "squad_v11_dev"]
ONE_FIELD = {"cacm", "cisi"}
QUERIES = 400


@dataclass(frozen=True)
class Encoded:
    """A set's vectors, and for each query the rows of its relevant documents."""

    documents: NDArray[np.float32]
    queries: NDArray[np.float32]
    relevant: list[list[int]]


def encode(encoder: Encoder, name: str) -> Encoded:
    test = load_retrieval_set(data_folder() / "retrieval" / name)
    assert test.corpus is not None
    documents = list(read_documents([str(test.corpus)]))
    rows = {document.doc_id: row for row, document in enumerate(documents)}
    judged = sorted(set(test.queries) & set(test.qrels))[:QUERIES]
    relevant = [
        [rows[doc] for doc, level in test.qrels[query].items() if level > 0 and doc in rows]
        for query in judged
    ]
    texts = [titled_text(document.title, document.text) for document in documents]
    return Encoded(
        encoder.encode_documents(texts),
        encoder.encode_queries([test.queries[query] for query in judged]),
        relevant,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=ENCODER)
    parser.add_argument("--sets", nargs="+", default=SETS)
    asked = parser.parse_args()
    encoder = Encoder.load(find_model(asked.model))
    noise = cosine_noise(encoder)
    sets = {name: encode(encoder, name) for name in asked.sets}
    print(f"mean {noise.mean:.3f}, deviation {noise.deviation:.3f}, floor {noise.floor:.3f}\n")
    print(
        "| set | relevant lost | queries without a hit | others' shown | chance level | queries below | others above |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, encoded in sets.items():
        cosines = encoded.queries @ encoded.documents.T
        right = np.concatenate([cosines[query, rows] for query, rows in enumerate(encoded.relevant)])
        best = cosines.max(axis=1)
        strange = np.concatenate(
            [
                (other.queries @ encoded.documents.T).max(axis=1)
                for title, other in sets.items()
                if title != name and {title, name} != ONE_FIELD
            ]
            or [np.empty(0, np.float32)]
        )
        chance = noise.chance(len(encoded.documents))
        print(
            f"| {name} | {(right < noise.floor).mean():.1%} | {(best < noise.floor).mean():.1%} | {(strange >= noise.floor).mean():.0%} "
            f"| {chance:.2f} | {(best < chance).mean():.1%} | {(strange >= chance).mean():.0%} |"
        )


if __name__ == "__main__":
    main()

"""Write a million distinct sentences of Simple Wikipedia to a file, one per line: the collection for search.py.

python benchmarks/sentences.py OUTPUT.txt [--size 1000000]
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from timing import data_folder

from embedkit.data.reading import read_documents

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'])")


def sentences(data: Path) -> Iterator[str]:
    """Yield sentences of 20 to 400 characters, each once."""
    seen: set[int] = set()
    for article in read_documents([str(data / "text/simplewiki.jsonl.zst")]):
        for paragraph in article.text.split("\n"):
            for sentence in SENTENCE_END.split(paragraph.strip()):
                if 20 <= len(sentence) <= 400 and hash(sentence) not in seen:
                    seen.add(hash(sentence))
                    yield sentence


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path)
    parser.add_argument("--size", type=int, default=1_000_000)
    arguments = parser.parse_args()
    count = 0
    with arguments.output.open("w", encoding="utf-8") as file:
        for count, sentence in enumerate(sentences(data_folder()), 1):
            file.write(sentence + "\n")
            if count == arguments.size:
                break
    print(f"{arguments.output}: {count:,} sentences")


if __name__ == "__main__":
    main()

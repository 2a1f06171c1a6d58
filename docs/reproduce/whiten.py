"""Whiten a sentence encoder by texts of many kinds; the folder that comes out takes no longer to compute, and is in fp32.

    python docs/reproduce/gpu texts DATA texts.jsonl --limit 20000
    python docs/reproduce/whiten.py runs/embedkit-small texts.jsonl runs/whitened
    embedkit model convert runs/whitened --dtype int8 --output runs/shipped

Unlike `embedkit adapt --steps 0`, which does it for documents of one subject, it leaves the vectors' mean where it is: the texts are of no subject.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from sources import rows

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.sentence_folder import load_model, write_model
from embedkit.encoding.encoder import Encoder
from embedkit.errors import EmbedkitError
from embedkit.training.whitening import LinearMap, add_linear, before_normalization, fit_whitening


def whiten(source: str, texts: list[str], output: Path, *, strength: float) -> None:
    folder = read_model_folder(source)
    model, modules = load_model(folder), folder.modules
    with tempfile.TemporaryDirectory() as scratch:
        raw, whole = before_normalization(model), replace(modules, truncate_dim=None)
        write_model(Path(scratch, "raw"), raw, folder.tokenizer, whole, family=folder.family)
        encoder = Encoder.load(Path(scratch, "raw"), device="cpu", precision="fp32")
        vectors = encoder.encode(texts, on_truncate="ok")
    add_linear(model, LinearMap(fit_whitening(vectors, strength).weight))
    write_model(output, model, folder.tokenizer, modules, family=folder.family)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a sentence encoder: a folder or a name")
    parser.add_argument("texts", type=Path, help='JSON lines {"text": …}')
    parser.add_argument("output", type=Path, help="the folder to write")
    parser.add_argument(
        "--strength", type=float, default=0.5, help="0 changes nothing, 1 whitens fully (default 0.5)"
    )
    parser.add_argument("--limit", type=int, default=20_000, help="texts to read, at most (default 20,000)")
    options = parser.parse_args()
    try:
        texts = [row["text"] for row in itertools.islice(rows(options.texts), options.limit)]
        whiten(options.model, texts, options.output, strength=options.strength)
    except EmbedkitError as exc:
        sys.exit(f"error: {exc}")


if __name__ == "__main__":
    main()

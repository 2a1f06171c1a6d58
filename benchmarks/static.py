"""Tokenize and encode with a static model, beside the tokenizers library and sentence-transformers' StaticEmbedding.

    python benchmarks/static.py [--texts 8000] [--rounds 5] [--output FILE.json]

embedkit-static and its copy in fp32, which sentence-transformers loads, encode the texts of `benchmarks/encode.py`. Rows: the library's
WordPiece alone and ours alone; encoding by numpy with the library's tokens, as embedkit did before it had kernels for both; encoding as it
does now; sentence-transformers, where it is installed. All are held to one core, and times are those of the processor, which other work on
the machine disturbs less; the best of several alternating rounds counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

from encode import texts_by_kind
from timing import data_folder, in_turn, report

from embedkit.encoding.encoder import Encoder
from embedkit.inference.numpy_runtime.backend import PackedBackend, TokenTable
from embedkit.models import find_model
from embedkit.tokenization.pieces import PieceReader


class WithoutKernels(Encoder):
    """Encodes with the library's tokens and numpy's means."""

    def encode(self, *arguments: Any, **options: Any) -> Any:  # Any: as `Encoder` has them
        ours, PieceReader.ids = PieceReader.ids, lambda *_: None  # type: ignore[method-assign, assignment]
        assert isinstance(self.backend, PackedBackend)
        table = self.backend.encoder
        assert isinstance(table, TokenTable)
        means, table._means = table._means, None
        try:
            return super().encode(*arguments, **options)
        finally:
            PieceReader.ids, table._means = ours, means  # type: ignore[method-assign]


def tasks(texts: list[str], folder: str, copy: Path) -> dict[str, Callable[[], Any]]:
    ours, before = Encoder.load(folder), WithoutKernels.load(folder)
    library = ours.tokenizer.backend
    found: dict[str, Callable[[], Any]] = {
        "tokens, tokenizers": lambda: library.encode_batch_fast(texts, add_special_tokens=False),
        "tokens, ours": lambda: ours.tokenizer.encode(texts),
        "vectors, without kernels": lambda: before.encode(texts),
        "vectors": lambda: ours.encode(texts),
    }
    if find_spec("sentence_transformers"):
        from sentence_transformers import SentenceTransformer

        peer = SentenceTransformer(str(copy), device="cpu")
        found["vectors, sentence-transformers"] = lambda: peer.encode(texts, show_progress_bar=False)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    folder = str(find_model("embedkit-static"))
    rows = []
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "fp32"
        from cli.main import app

        app(
            ["model", "convert", folder, "--dtype", "fp32", "--output", str(copy), "--quiet"],
            standalone_mode=False,
        )
        for kind, texts in texts_by_kind(data_folder(), asked.texts).items():
            timed = in_turn(tasks(texts, folder, copy), rounds=asked.rounds, clock=time.process_time)
            tokens = len(Encoder.load(folder).tokenizer.encode(texts).input_ids)
            for name, timing in timed.items():
                rows.append(
                    {
                        "texts": kind,
                        "what": name,
                        "texts/s": len(texts) / timing.best,
                        "tokens/s": tokens / timing.best,
                    }
                )
    report("Static models on one core", rows, output=asked.output)


if __name__ == "__main__":
    sys.exit(main())

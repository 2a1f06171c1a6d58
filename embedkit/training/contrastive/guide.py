"""A guide: a model besides the trained one that says which in-batch documents are right answers too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embedkit.checkpoint.folder import fingerprint, read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.micro_batches import PackedEncoder, embed_texts
from embedkit.training.engine.ranks import Ranks


@dataclass(frozen=True)
class Guide:
    """A model that says which in-batch documents are right answers too."""

    encoder: PackedEncoder
    tokenizer: Tokenizer
    fingerprint: str

    def vectors(self, texts: Sequence[str], ranks: Ranks, *, budget: int) -> Tensor:
        """Encode texts, in parts of at most `budget` tokens: -> (N, G), on the device."""
        self.encoder.to(ranks.device)
        found = embed_texts(self.encoder, self.tokenizer, texts, ranks, budget=budget)
        return torch.from_numpy(found).to(ranks.device)


def load_guide(folder: str) -> Guide:
    """Load the model of a folder as a guide.

    Raises:
        CheckpointError: it is not a sentence encoder that we can compute.
    """
    read = read_model_folder(folder)
    model = load_sentence_encoder(read)
    return Guide(PackedEncoder(model), read.tokenizer, str(fingerprint(read)["weights"]))

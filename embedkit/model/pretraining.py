"""An encoder with the heads that it is pretrained with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from embedkit.model.encoder import TransformerEncoder
from embedkit.model.heads import MaskedLMHead, NextSentenceHead


class PretrainingModel(nn.Module):
    """Encoder, masked-language-model head and, where sentence pairs are told apart, next-sentence head.

    Source: Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1.
    """

    def __init__(
        self, encoder: TransformerEncoder, mlm: MaskedLMHead, next_sentence: NextSentenceHead | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.mlm = mlm
        self.next_sentence = next_sentence

    def forward(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        places: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Score the vocabulary at some places only, and each sequence as a pair.

        Shapes:
            input_ids, token_type_ids: (N,) of B sequences one after another; places: (M,) in [0, N)
            returns: (M, V) and (B, 2), or None without a next-sentence head
        """
        hidden = self.encoder.forward_packed(input_ids, lengths, token_type_ids)  # (N, D)
        logits = self.mlm(hidden[places], self.encoder.embeddings.tokens.weight)
        if self.next_sentence is None:
            return logits, None
        ends = torch.tensor(lengths, device=hidden.device).cumsum(0)
        starts = ends - torch.tensor(lengths, device=hidden.device)  # (B,) of the [CLS] tokens
        return logits, self.next_sentence(hidden[starts])

"""What stands on the encoder for pretraining: the masked-language-model head and the sentence-pair head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.config import EncoderConfig
from embedkit.model.encoder import init_weights
from embedkit.model.feed_forward import activate
from embedkit.model.norms import layer_norm


class MaskedLMHead(nn.Module):
    """Transform, norm, and a decoder tied to the token table: (M, D) -> (M, V) logits.

    Source: Devlin et al. 2019, appendix A.2; the transform is in the authors' code, not in the paper.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = config.embedding_size or config.hidden_size
        self.activation = config.hidden_act
        self.dense = nn.Linear(config.hidden_size, size, bias=config.down_bias)
        self.norm = layer_norm(config, size)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        init_weights(self.dense, config.initializer_range)

    def forward(self, hidden: Tensor, token_table: Tensor) -> Tensor:
        """Score every token of the vocabulary at M places.

        Shapes:
            hidden: (M, D); token_table: (V, D), the encoder's own token embeddings
            returns: (M, V)
        """
        return F.linear(self.transform(hidden), token_table, self.bias)

    def transform(self, hidden: Tensor) -> Tensor:
        """(M, D) -> (M, D'): what the decoder compares with the vector of each token."""
        transformed: Tensor = self.norm(activate(self.dense(hidden), self.activation))
        return transformed


class NextSentenceHead(nn.Module):
    """A tanh pooler over [CLS] and two classes; class 0: the second sentence follows the first.

    Source: Devlin et al. 2019, section 3.1, task 2.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, 2)
        for linear in (self.pooler, self.classifier):
            init_weights(linear, config.initializer_range)

    def forward(self, cls_embeddings: Tensor) -> Tensor:
        """(B, D) vectors of the first token -> (B, 2) logits."""
        logits: Tensor = self.classifier(torch.tanh(self.pooler(cls_embeddings)))
        return logits

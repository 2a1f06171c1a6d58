"""TSDAE: a small decoder that rebuilds a text from its sentence vector alone, and its loss.

The encoder reads the text with words deleted; the decoder sees the sentence vector and the earlier tokens of the whole
text. Nothing else passes, so the vector must hold the meaning. The decoder is thrown away after training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.training.losses.shapes import check_bool, check_shape


class SentenceDecoder(nn.Module):
    """A transformer decoder whose cross-attention sees one vector: the sentence embedding.

    Its token table is the encoder's own parameter, for input and output both.

    Source: Wang et al. 2021, https://arxiv.org/abs/2104.06979, section 3.
    """

    def __init__(
        self,
        token_table: nn.Parameter,
        *,
        embedding_size: int,
        num_attention_heads: int,
        num_hidden_layers: int = 1,
        max_position_embeddings: int = 512,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_shape("SentenceDecoder: token_table", token_table, ("V", "D"), "one row a token")
        hidden_size = token_table.shape[1]
        if hidden_size % num_attention_heads:
            raise ValueError(
                f"SentenceDecoder: {num_attention_heads} heads do not divide {hidden_size} dimensions; choose a divisor"
            )
        self.embedding_size = embedding_size
        self.max_position_embeddings = max_position_embeddings
        self.token_table = token_table
        self.positions = nn.Embedding(max_position_embeddings, hidden_size)
        nn.init.normal_(self.positions.weight, std=0.02)  # BERT's
        self.input_norm = nn.LayerNorm(hidden_size)
        self.input_dropout = nn.Dropout(dropout)
        self.memory = nn.Linear(embedding_size, hidden_size)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                hidden_size,
                num_attention_heads,
                dim_feedforward=4 * hidden_size,
                dropout=dropout,
                activation="gelu",
                batch_first=True,
            )
            for _ in range(num_hidden_layers)
        )
        self.output_bias = nn.Parameter(torch.zeros(token_table.shape[0]))

    def forward(self, input_ids: Tensor, sentence_embeddings: Tensor) -> Tensor:
        """Predict each next token from the sentence embedding and the tokens up to here.

        Padding must stand on the right: then no real token can see it, and no mask is needed.

        Shapes:
            input_ids: (B, T) long
            sentence_embeddings: (B, E)
            returns: (B, T, V) logits; those at t are for the token at t + 1
        Raises:
            ValueError: the shapes do not fit, or T exceeds `max_position_embeddings`.
        """
        check_shape("SentenceDecoder: input_ids", input_ids, ("B", "T"), "token ids, one text a row")
        batch, length = input_ids.shape
        if length > self.max_position_embeddings:
            raise ValueError(
                f"SentenceDecoder: texts of {length} tokens; it has {self.max_position_embeddings} positions. "
                "Truncate them or raise max_position_embeddings"
            )
        wanted = (batch, self.embedding_size)
        check_shape("SentenceDecoder: sentence_embeddings", sentence_embeddings, wanted, "one for each text")
        memory = self.memory(sentence_embeddings).unsqueeze(1)  # (B, 1, D)
        hidden = F.embedding(input_ids, self.token_table) + self.positions.weight[:length]  # (B, T, D)
        hidden = self.input_dropout(self.input_norm(hidden))
        later = torch.ones(length, length, dtype=torch.bool, device=input_ids.device).triu(
            1
        )  # torch: True = hidden
        for layer in self.layers:
            hidden = layer(hidden, memory, tgt_mask=later, tgt_is_causal=True)
        return F.linear(hidden, self.token_table, self.output_bias)


def token_cross_entropy(logits: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Cross-entropy of each real token given the logits at the place before it; the first token is given for free.

    Shapes:
        logits: (B, T, V), those at t for the token at t + 1
        input_ids: (B, T) long
        attention_mask: (B, T) bool, True for a real token
        returns: () mean over the predicted tokens, in nats
    Raises:
        ValueError: the shapes do not fit, or texts have a single token.
        TypeError: the mask is not bool.
    Source: Wang et al. 2021, https://arxiv.org/abs/2104.06979, section 3.
    """
    check_shape("token_cross_entropy: logits", logits, ("B", "T", "V"), "one row over the vocabulary a token")
    shape = tuple(logits.shape[:2])
    check_shape("token_cross_entropy: input_ids", input_ids, shape, "one for each row of logits")
    check_shape("token_cross_entropy: attention_mask", attention_mask, shape, "one for each token")
    check_bool("token_cross_entropy: attention_mask", attention_mask, "a real token")
    if shape[1] < 2:
        raise ValueError("token_cross_entropy: texts of 1 token; the first is given, so give at least 2")
    targets = input_ids[:, 1:].masked_fill(~attention_mask[:, 1:], -100)  # F.cross_entropy leaves -100 out
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten())

"""The text generator: a decoder over an encoder's token vectors, or alone as a language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.decoder_config import DecoderConfig
from embedkit.model.decoder_layers import DecoderLayer, EncodedSource, LayerCache, Places, Sight, TokenLayout
from embedkit.model.dropout import dropout
from embedkit.model.embeddings import sinusoidal_table
from embedkit.model.encoder import TransformerEncoder, init_weights
from embedkit.model.filling import fill_up
from embedkit.model.norms import layer_norm
from embedkit.model.positions import relative_position_buckets


class Decoder(nn.Module):
    """Token and position embeddings, layers, and a last norm where the layers norm first; the token table may be an encoder's.

    Sources: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3; Radford et al. 2019 (GPT-2) for norms first.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        pieces, size = config.pieces(), config.hidden_size
        self.tokens = None if config.share_embeddings else nn.Embedding(config.vocab_size, size)
        has_table = config.position != "none"
        self.positions = nn.Embedding(config.max_position_embeddings, size) if has_table else None
        buckets = config.relative_attention_num_buckets
        self.relative_bias = nn.Embedding(buckets, config.num_attention_heads) if buckets else None
        self.embedding_norm = layer_norm(pieces, size) if config.embedding_norm else None
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.final_norm = layer_norm(pieces, size) if config.norm_first else None
        self.output = None if config.tie_word_embeddings else nn.Linear(size, config.vocab_size, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.output_bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights; where norms come first, what is added to the residual is scaled by 1 / sqrt(additions).

        Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, section 2.3.
        """
        config = self.config
        self.apply(lambda module: init_weights(module, config.initializer_range))
        if config.norm_first:
            additions = len(self.layers) * (2 if config.encoder_size is None else 3)
            for name, weight in self.named_parameters():
                if name.endswith(("attention.out.weight", "mlp.down.weight")):
                    weight.detach().div_(math.sqrt(additions))
        if self.positions is not None and config.position == "sinusoidal":
            self.positions.weight.detach().copy_(sinusoidal_table(*self.positions.weight.shape))
            self.positions.weight.requires_grad_(False)

    def forward(
        self,
        embedded: Tensor,
        positions: Tensor,
        places: Places,
        source: EncodedSource | None,
        caches: Sequence[LayerCache] | None = None,
    ) -> Tensor:
        """Compute N packed tokens: their table's rows (N, D) and positions (N,) -> (N, D)."""
        hidden = embedded if self.positions is None else embedded + self.positions(positions)
        if self.relative_bias is not None:
            places = replace(places, sight=self._biased(places, caches))
        if self.embedding_norm is not None:
            hidden = self.embedding_norm(hidden)
        hidden = dropout(hidden, self.config.hidden_dropout_prob if self.training else 0.0)
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, places, source, None if caches is None else caches[number])
        if self.final_norm is not None:
            hidden = self.final_norm(hidden)
        return hidden * self.config.hidden_size**-0.5 if self.config.scale_output else hidden

    def _biased(self, places: Places, caches: Sequence[LayerCache] | None) -> Sight:
        """Return what tokens may look at as what is added to their scores: a number for each distance and head, in all layers alike.

        Source: Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.1.
        """
        assert self.relative_bias is not None
        config, sight, width = self.config, places.sight, places.sequences.width
        cached = None if caches is None else caches[0].keys
        length = width + (0 if cached is None else cached.shape[2])
        device = self.relative_bias.weight.device
        buckets = relative_position_buckets(
            length,
            num_buckets=config.relative_attention_num_buckets,
            max_distance=config.relative_attention_max_distance,
            device=device,
            causal=True,
            num_queries=width,
        )
        added = self.relative_bias(buckets).permute(2, 0, 1)[None]  # (1, H, T, T of the cache)
        seen = sight.mask
        if sight.causal:
            seen = torch.ones(width, length, dtype=torch.bool, device=device).tril(length - width)
        return Sight(causal=False, mask=added if seen is None else added.masked_fill(~seen, -math.inf))


class TextGenerator(nn.Module):
    """Encoder and decoder; without an encoder a language model.

    Raises:
        ValueError: the decoder's config is for another encoder, or shares a table of another size.
    """

    def __init__(self, encoder: TransformerEncoder | None, config: DecoderConfig) -> None:
        super().__init__()
        size = None if encoder is None else encoder.config.hidden_size
        if size != config.encoder_size:
            raise ValueError(f"encoder_size is {config.encoder_size}; the encoder's vectors have {size}")
        if encoder is not None and config.share_embeddings:
            table = tuple(encoder.embeddings.tokens.weight.shape)
            if table != (config.vocab_size, config.hidden_size):
                raise ValueError(
                    f"the decoder shares the encoder's token table, which is {table}; vocab_size and hidden_size are "
                    f"{(config.vocab_size, config.hidden_size)}"
                )
        self.config = config
        self.encoder = encoder
        self.decoder = Decoder(config)

    @property
    def table(self) -> Tensor:
        """The token table that the decoder reads, (V, D)."""
        if self.decoder.tokens is not None:
            return self.decoder.tokens.weight
        assert self.encoder is not None
        return self.encoder.embeddings.tokens.weight

    @property
    def output_weights(self) -> tuple[Tensor, Tensor | None]:
        """What scores the vocabulary: (V, D) weights and (V,) biases."""
        weight = self.table if self.decoder.output is None else self.decoder.output.weight
        return weight, self.decoder.output_bias

    def encode(self, input_ids: Tensor, lengths: Sequence[int]) -> EncodedSource:
        """Encode B packed sources, (M,) ids, for the decoder to read."""
        if self.encoder is None:
            raise ValueError("a language model has no encoder; give the text as a prompt")
        count, size = len(lengths), len(input_ids)
        layout = TokenLayout.of(lengths, input_ids.device)
        input_ids, lengths, _ = fill_up(input_ids, lengths, max_tokens=self.encoder.config.max_tokens)
        hidden = self.encoder.forward_packed(input_ids, lengths)[:size]
        filled = layout.filled(hidden.device)
        return EncodedSource(hidden, layout, None if filled is None else filled.view(count, 1, 1, -1))

    def forward(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        source: EncodedSource | None = None,
        counts: Sequence[int] | None = None,
    ) -> Tensor:
        """Compute what follows each token of whole sequences, as in teacher forcing.

        Shapes:
            input_ids: (N,) of sequences one after another, of source after source
            counts: how many sequences each of the source's B texts has; None means one each
            returns: (N, D), for `logits`
        Raises:
            ValueError: a sequence is longer than the position table.
        """
        longest = max(lengths, default=0)
        if longest > self.config.max_position_embeddings:
            raise ValueError(
                f"a sequence has {longest} tokens; this decoder takes at most {self.config.max_position_embeddings}"
            )
        device = input_ids.device
        ramp = torch.arange(longest, device=device)
        positions = torch.cat([ramp[:length] for length in lengths])
        places = Places(
            TokenLayout.of(lengths, device),
            None if source is None else TokenLayout.of(grouped_lengths(lengths, counts), device),
            Sight(causal=True),
        )
        out: Tensor = self.decoder(F.embedding(input_ids, self.table), positions, places, source)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Score the vocabulary: (M, D) -> (M, V)."""
        return F.linear(hidden, *self.output_weights)


def grouped_lengths(lengths: Sequence[int], counts: Sequence[int] | None) -> list[int]:
    """Add up the lengths of each source's sequences: [3, 2, 4] with counts [2, 1] -> [5, 4]."""
    if counts is None:
        return list(lengths)
    if sum(counts) != len(lengths):
        raise ValueError(f"counts add up to {sum(counts)}; there are {len(lengths)} sequences")
    sizes, start = [], 0
    for count in counts:
        sizes.append(sum(lengths[start : start + count]))
        start += count
    return sizes

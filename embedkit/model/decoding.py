"""Token by token: what a text generator has read so far, kept as keys and values, so that each step computes one token a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from embedkit.model.decoder_layers import EncodedSource, LayerCache, Places, Sight, TokenLayout
from embedkit.model.text_generator import TextGenerator


class Decoding:
    """R sequences that grow together, in the order of their B texts; at first one a text.

    `logits` (R, V), fp32, score what may follow each of them.
    """

    @torch.inference_mode()
    def __init__(
        self, model: TextGenerator, prompts: Sequence[Sequence[int]], source: EncodedSource | None = None
    ) -> None:
        """Read the prompts, of at least one token each."""
        self._model, self._source = model, source
        self._caches = [LayerCache() for _ in model.decoder.layers]
        device = model.table.device
        lengths = [len(prompt) for prompt in prompts]
        if min(lengths, default=0) < 1:
            raise ValueError("a prompt has no token; it needs at least the one that begins a text")
        ids = torch.tensor([token for prompt in prompts for token in prompt], device=device)
        layout = TokenLayout.of(lengths, device, to_the_right=True)
        # Prompts of different lengths end together, so that what is added stands in one column.
        self._seen = layout.filled(device)  # (R, T) bool, None where all are tokens
        self._lengths = torch.tensor(lengths, device=device)  # (R,)
        self._owners = torch.arange(len(prompts), device=device)  # (R,) the text that each sequence is of
        positions = torch.cat([torch.arange(length, device=device) for length in lengths])
        places = Places(
            layout, None if source is None else TokenLayout.of(lengths, device), self._sight_of_prompts()
        )
        hidden = self._decode(ids, positions, places)
        self.logits = self._score(hidden[self._lengths.cumsum(0) - 1])

    @torch.inference_mode()
    def advance(self, tokens: Tensor, parents: Tensor | None = None) -> Tensor:
        """Add a token to each of R' sequences; return the logits of what may follow, (R', V).

        Sequence i goes on from what was sequence `parents[i]` (None: i itself). Parents must be in the order of their texts; what
        nothing goes on from is forgotten.
        """
        if parents is not None:
            self._take(parents)
        device = tokens.device
        if self._seen is not None:
            self._seen = F.pad(self._seen, (0, 1), value=True)
        mask = None if self._seen is None else self._seen[:, None, None, :]
        sources = None
        if self._source is not None:
            counts = torch.bincount(self._owners, minlength=self._source.layout.rows).tolist()
            sources = TokenLayout.of(counts, device)
        places = Places(TokenLayout(len(tokens), 1, None), sources, Sight(causal=False, mask=mask))
        hidden = self._decode(tokens, self._lengths, places)
        self._lengths = self._lengths + 1
        self.logits = self._score(hidden)
        return self.logits

    def _decode(self, ids: Tensor, positions: Tensor, places: Places) -> Tensor:
        model = self._model
        out: Tensor = model.decoder(
            F.embedding(ids, model.table), positions, places, self._source, self._caches
        )
        return out

    def _score(self, hidden: Tensor) -> Tensor:
        return self._model.logits(hidden).float()

    def _sight_of_prompts(self) -> Sight:
        if self._seen is None:
            return Sight(causal=True)
        width = self._seen.shape[1]
        earlier = torch.ones(width, width, dtype=torch.bool, device=self._seen.device).tril()
        # Padding looks at itself: without any key some kernels give NaN.
        itself = torch.eye(width, dtype=torch.bool, device=self._seen.device)
        return Sight(causal=False, mask=(earlier & self._seen[:, None, None, :]) | itself)

    def _take(self, parents: Tensor) -> None:
        self._lengths, self._owners = self._lengths[parents], self._owners[parents]
        if self._seen is not None:
            self._seen = self._seen[parents]
        for cache in self._caches:
            cache.take(parents)
        left, self._owners = torch.unique_consecutive(self._owners, return_inverse=True)
        if self._source is None or len(left) == self._source.layout.rows:
            return
        for cache in self._caches:
            cache.take_sources(left)
        mask, layout = self._source.mask, self._source.layout
        # From here on only the number of sources matters: their vectors were projected in the first step.
        self._source = replace(
            self._source,
            layout=TokenLayout(len(left), layout.width, None),
            mask=None if mask is None else mask[left],
        )

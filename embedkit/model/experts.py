"""A mixture of experts in place of a layer's feed-forward part.

1. A router gives each token a probability for each expert, in fp32; the k most probable are chosen.
2. Choices beyond an expert's capacity are dropped, in training, where there is one.
3. Tokens are sorted by their experts, so that each expert is one product over its own tokens and no other.
4. The outputs, weighted by the probabilities, are added up for each token; the shared expert's is added to that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.config import EncoderConfig
from embedkit.model.feed_forward import FeedForward
from embedkit.model.layers import Run, split_runs
from embedkit.model.routing import current_log


class ExpertFeedForward(nn.Module):
    """Experts, their router and, where the config has one, a shared expert: (N, D) -> (N, D).

    Source: Shazeer et al. 2017, https://arxiv.org/abs/1701.06538, eq. 1 to 5; Fedus et al. 2021, https://arxiv.org/abs/2101.03961,
    section 2.1, for the softmax over all experts before the choice.
    """

    def __init__(self, config: EncoderConfig, *, name: str) -> None:
        """`name` is what the log calls the router."""
        super().__init__()
        assert config.experts is not None
        self.name, self.config = name, config.experts
        hidden, count = config.hidden_size, config.experts.num_experts
        self.router = nn.Linear(hidden, count, bias=False)
        self.noise = nn.Linear(hidden, count, bias=False) if config.experts.noisy else None
        width = config.experts.intermediate_size
        self.experts = nn.ModuleList(FeedForward(config.of_an_expert, width=width) for _ in range(count))
        self.bias = nn.Parameter(torch.zeros(hidden)) if config.experts.shared_bias else None
        shared = config.experts.shared_intermediate_size
        self.shared = FeedForward(config, width=shared) if shared else None

    def forward(self, hidden: Tensor, runs: Sequence[Run]) -> Tensor:
        """Compute each token by its experts.

        Shapes:
            hidden: (N, D) of packed sequences, which `runs` tell apart
            returns: (N, D)
        """
        logits = self._score(hidden)
        weights, chosen = logits.softmax(dim=-1).topk(self.config.num_experts_per_tok, dim=-1)  # (N, k)
        if self.config.norm_topk_prob:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        kept = self._within_capacity(chosen, runs)
        if (log := current_log()) is not None:
            log.choose(self.name, logits, chosen, kept)
        out = self._dispatch(hidden, weights, chosen, kept)
        if self.bias is not None:
            out = out + self.bias
        return out if self.shared is None else out + self.shared(hidden)

    def _score(self, hidden: Tensor) -> Tensor:
        """Score each expert for each token, in fp32 whatever the experts compute in: (N, D) -> (N, E)."""
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        with torch.autocast(hidden.device.type, enabled=False):
            logits = F.linear(wide, self.router.weight.to(wide.dtype))
            if self.noise is not None and self.training:
                size = F.softplus(F.linear(wide, self.noise.weight.to(wide.dtype)))
                logits = logits + torch.randn_like(logits) * size
        return logits

    def _within_capacity(self, chosen: Tensor, runs: Sequence[Run]) -> Tensor | None:
        """Say which of the choices (N, k) an expert has room for; None: all.

        In each sequence all first choices come before all second ones, and each in the order of the tokens.
        """
        if self.config.capacity_factor is None or not self.training:
            return None
        kept = []
        for piece, run in zip(split_runs(chosen, runs), runs, strict=True):
            places = places_in_line(piece.view(run.count, run.length, -1), self.config.num_experts)
            kept.append((places < self.config.capacity(run.length)).flatten(0, 1))  # (count·T, k)
        return torch.cat(kept)

    def _dispatch(self, hidden: Tensor, weights: Tensor, chosen: Tensor, kept: Tensor | None) -> Tensor:
        """Add up the weighted outputs of each token's experts.

        Shapes:
            hidden: (N, D); weights, chosen, kept: (N, k)
            returns: (N, D)
        """
        k, count = self.config.num_experts_per_tok, self.config.num_experts
        # What was dropped is sorted behind the last expert.
        slots = (chosen if kept is None else chosen.masked_fill(~kept, count)).flatten()  # (N·k,)
        order = slots.argsort(stable=True)
        sizes = torch.bincount(slots, minlength=count + 1)[:count].tolist()  # waits for a GPU, once a layer
        order = order[: sum(sizes)]
        tokens = order // k
        pieces = torch.split(hidden[tokens], sizes)
        # An expert without tokens is called as well: where there are several devices its weights need a gradient on each.
        outputs = torch.cat([expert(piece) for expert, piece in zip(self.experts, pieces, strict=True)])
        weighted = outputs * weights.flatten()[order, None]
        return weighted.new_zeros(hidden.shape).index_add(0, tokens, weighted).to(hidden.dtype)


def places_in_line(chosen: Tensor, num_experts: int) -> Tensor:
    """Number the choices of each expert within each sequence, from 0: first choices before second ones, in the order of tokens.

    One sequence whose tokens choose (0, 1), (0, 2) and (1, 0): expert 0 has token 0, token 1, then token 2 by its second choice;
    expert 1 has token 2 by its first, then token 0 -> (0, 1), (1, 0), (0, 2).

    Shapes:
        chosen: (B, T, k) long
        returns: (B, T, k) long
    """
    batch, length, k = chosen.shape
    in_line = chosen.transpose(1, 2).flatten(1)  # (B, k·T), all first choices first
    taken = F.one_hot(in_line, num_experts).cumsum(dim=1)  # (B, k·T, E)
    places = taken.gather(2, in_line[:, :, None])[:, :, 0] - 1
    return places.view(batch, k, length).transpose(1, 2)

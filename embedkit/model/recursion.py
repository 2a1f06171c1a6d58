"""A block of layers that each token goes through as often as a router says.

One recursion of the tokens that take it, which attend to one another alone:
1. Their vectors are taken out of the others', packed sequence by sequence, and go through the block: H -> f(H).
2. Expert choice: H + g · (f(H) - H), where g is the sigmoid of the token's score for this recursion.
   Token choice: f(H); at the token's last recursion H¹ + p · (f(H) - H¹), where H¹ is what it had before the first and p the
   probability of its depth.
3. They are put back among the others.

The paper adds g · f(H) to H, for blocks that do not hold the residual themselves; ours do, so that f(H) - H stands for its f(H).
With g = 1 this is the plain recursion. A causal model may not choose by what comes later; here the choice sees the whole sequence, and
nothing beyond it: no other text of the batch, and no padding.
Source: Bae et al. 2025, https://arxiv.org/abs/2507.10524, section 2.2.1 (eq. 1 and 2), recursion-wise caching of section 2.2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.config import EncoderConfig
from embedkit.model.routing import RECURSION, current_log

# Runs the block on packed tokens of sequences of these lengths; gives their vectors after each of its layers.
Block = Callable[[Tensor, Sequence[int]], Iterator[Tensor]]


class RecursionRouter(nn.Module):
    """Scores each token for each recursion (expert choice), or for each depth (token choice)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        assert config.recursion is not None
        self.config = config.recursion
        self.router = nn.Linear(config.hidden_size, config.recursion.num_depths, bias=False)

    def score(self, hidden: Tensor, step: int | None = None) -> Tensor:
        """Score in fp32 whatever the layers compute in: (N, D) -> (N, R), or (N, 1) for one recursion alone."""
        wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        weight = self.router.weight if step is None else self.router.weight[step : step + 1]
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(wide, weight.to(wide.dtype))

    def forward(self, hidden: Tensor, lengths: Sequence[int], block: Block) -> Iterator[Tensor]:
        """Yield the vectors of all tokens after each layer of each recursion: (N, D) of packed sequences each time."""
        if self.config.routing == "expert_choice":
            return self._by_expert_choice(hidden, lengths, block)
        return self._by_token_choice(hidden, lengths, block)

    def _by_expert_choice(self, hidden: Tensor, lengths: Sequence[int], block: Block) -> Iterator[Tensor]:
        active = torch.arange(len(hidden), device=hidden.device)
        left = list(lengths)
        depths = torch.zeros_like(active)
        for step in range(self.config.num_recursions):
            scores = self.score(hidden[active], step)[:, 0]
            wanted = [self.config.num_selected(length, step) for length in lengths]
            selected = highest(scores, left, wanted)
            if (log := current_log()) is not None:
                log.rows = active
                log.select(scores, torch.zeros_like(scores, dtype=torch.bool).index_fill(0, selected, True))
            active, left = active[selected], wanted
            depths = depths.index_fill(0, active, step + 1)
            before = hidden[active]
            gate = scores[selected].sigmoid()[:, None].to(hidden.dtype)
            for states, last in self._run(block, before, left, active):
                mixed = before + gate * (states - before) if last else states
                after = hidden.index_copy(0, active, mixed.to(hidden.dtype))
                yield after
            hidden = after
        self._note_end(depths)

    def _by_token_choice(self, hidden: Tensor, lengths: Sequence[int], block: Block) -> Iterator[Tensor]:
        logits = self.score(hidden)
        probability, chosen = logits.softmax(dim=-1).max(dim=-1)  # (N,)
        if (log := current_log()) is not None:
            log.choose(RECURSION, logits, chosen[:, None])
        depths = (chosen + 1).clamp(max=self.config.num_recursions)
        gate, first = probability[:, None].to(hidden.dtype), hidden
        for step, left in enumerate(self._counts(depths, lengths)):
            active = (depths > step).nonzero()[:, 0]
            ends, start, share = (depths[active] == step + 1)[:, None], first[active], gate[active]
            for states, last in self._run(block, hidden[active], left, active):
                mixed = torch.where(ends, start + share * (states - start), states) if last else states
                after = hidden.index_copy(0, active, mixed.to(hidden.dtype))
                yield after
            hidden = after
        self._note_end(depths)

    def _counts(self, depths: Tensor, lengths: Sequence[int]) -> list[list[int]]:
        """Count the tokens of each sequence that take each recursion: R lists of B numbers."""
        sequence = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(
            depths.device
        )
        steps = torch.arange(self.config.num_recursions, device=depths.device)
        taken = (depths[:, None] > steps).long()  # (N, R)
        counts = taken.new_zeros(len(lengths), len(steps)).index_add(0, sequence, taken)
        found: list[list[int]] = counts.t().tolist()  # waits for a GPU, once a pass
        return found

    def _run(
        self, block: Block, states: Tensor, lengths: Sequence[int], active: Tensor
    ) -> Iterator[tuple[Tensor, bool]]:
        """Run the block once: yield the vectors after each of its layers, and whether it is the last.

        Routers within it are told which tokens these are.
        """
        if (log := current_log()) is not None:
            log.rows = active
            log.step_lengths.append(list(lengths))
        there = [length for length in lengths if length]
        found = block(states, there) if there else repeat(states, self.config.num_block_layers)
        for number, vectors in enumerate(found, 1):
            yield vectors, number == self.config.num_block_layers

    @staticmethod
    def _note_end(depths: Tensor) -> None:
        log = current_log()
        if log is not None:
            log.depths, log.rows = depths, None


def highest(scores: Tensor, lengths: Sequence[int], wanted: Sequence[int]) -> Tensor:
    """Return the places of the tokens with the highest scores in each of B packed sequences, in their order.

    Of two sequences with scores 3 1 2 | 5 7, of which 2 and 1 are wanted: 0, 2 and 4.

    Shapes:
        scores: (M,), M = sum(lengths); lengths, wanted: B numbers each
        returns: (sum(wanted),) long, ascending
    """
    if list(lengths) == list(wanted):
        return torch.arange(len(scores), device=scores.device)
    counts, taken = torch.tensor(lengths), torch.tensor(wanted)
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), counts).to(scores.device)
    by_score = scores.detach().argsort(descending=True, stable=True)
    order = by_score[sequence[by_score].argsort(stable=True)]  # sequence by sequence, high scores first
    # In each sequence the first so many: a sequence's start less those taken before it, and the taken ones' own numbers.
    shift = torch.repeat_interleave((counts.cumsum(0) - counts) - (taken.cumsum(0) - taken), taken)
    first = shift + torch.arange(len(shift))
    return order[first.to(scores.device)].sort().values

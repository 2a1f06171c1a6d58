"""Beam search: the best few beginnings of each text, kept until nothing that is still open could beat what is finished.

A step, for each text with its K beams:
1. Of all beams' continuations take the 2K likeliest: with one token that ends a text, at least K of them go on.
2. Those that end, and are among the first K of them, are finished: log-likelihood / tokens ** length_penalty. The K best are kept.
3. The first K that do not end are the next beams.
4. A text is done when K are finished and the best beam, at its length now, would not beat the worst of them.

Source: the search of transformers' `generate` with early_stopping False, which this equals (tests/parity); length penalty as in
Wu et al. 2016, https://arxiv.org/abs/1609.08144, eq. 14, with the plain length as the divisor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from embedkit.generation.decoding_rules import DecodingRules
from embedkit.generation.stepping import Hypothesis, Stepper

DEAD = -1e8  # no sum of log-probabilities of a text comes near it


@dataclass
class _Search:
    """One text's beams and what is finished of it."""

    number: int
    sequences: list[list[int]]  # of the beams, prompt included
    scores: list[float]
    finished: list[Hypothesis] = field(default_factory=list)


def beam_search(
    steps: Stepper,
    prompts: Sequence[Sequence[int]],
    rules: DecodingRules,
    *,
    num_beams: int,
    max_new_tokens: int,
    length_penalty: float = 1.0,
) -> list[list[Hypothesis]]:
    """Return up to `num_beams` finished outputs of each prompt, best first."""
    active = [_Search(number, [list(prompt)], [0.0]) for number, prompt in enumerate(prompts)]
    done: dict[int, list[Hypothesis]] = {}
    logits = steps.logits
    for length in range(1, max_new_tokens + 1):
        ranked = _ranked(logits, active, rules, num_new=length - 1, count=2 * num_beams)
        parents: list[int] = []
        first, going_on = 0, []
        for search, candidates in zip(active, ranked, strict=True):
            beams = len(search.sequences)
            kept = _step(search, candidates, rules.end, num_beams, length, max_new_tokens, length_penalty)
            if kept:
                going_on.append(search)
                parents += [first + beam for beam in kept]
            else:
                done[search.number] = search.finished
            first += beams
        active = going_on
        if not active:
            break
        device = logits.device
        tokens = torch.tensor([sequence[-1] for search in active for sequence in search.sequences])
        logits = steps.advance(tokens.to(device), torch.tensor(parents, device=device))
    return [done[number] for number in range(len(prompts))]


def _ranked(
    logits: Tensor, active: Sequence[_Search], rules: DecodingRules, *, num_new: int, count: int
) -> list[list[tuple[float, int, int]]]:
    """Return each text's likeliest continuations, best first: log-likelihood, beam, token."""
    sequences = [sequence for search in active for sequence in search.sequences]
    scores = rules.forbid(logits.log_softmax(dim=-1), sequences, num_new)
    before = torch.tensor([score for search in active for score in search.scores], device=scores.device)
    scores = scores + before[:, None]  # (R, V)
    # All searches have as many beams: one in the first step, `num_beams` later.
    flat = scores.view(len(active), -1)
    values, places = flat.topk(min(count, flat.shape[1]), dim=1)
    size = logits.shape[1]
    beams, tokens = (places // size).tolist(), (places % size).tolist()
    return [list(zip(*row, strict=True)) for row in zip(values.tolist(), beams, tokens, strict=True)]


def _step(
    search: _Search,
    candidates: Sequence[tuple[float, int, int]],
    end: int,
    num_beams: int,
    length: int,
    max_new_tokens: int,
    length_penalty: float,
) -> list[int]:
    """Finish what ends and go on with the best others; return the beams that they come from, none where the text is done."""
    last = length == max_new_tokens
    divisor = length**length_penalty
    going_on: list[tuple[float, int, int]] = []
    for rank, (score, beam, token) in enumerate(candidates):
        if token != end and not last:
            going_on.append((score, beam, token))
        elif rank < num_beams and score > DEAD:
            tokens = (*search.sequences[beam], token)
            search.finished.append(Hypothesis(tokens, score / divisor, finished=token == end))
    # Of equal ones the earlier stays: sorting is stable.
    search.finished = sorted(search.finished, key=lambda each: -each.score)[:num_beams]
    if last:
        return []
    chosen = going_on[:num_beams]
    while len(chosen) < num_beams:  # fewer continuations than beams, in a tiny vocabulary
        chosen.append((-torch.inf, *going_on[0][1:]))
    full = len(search.finished) == num_beams
    if full and chosen[0][0] / divisor <= search.finished[-1].score:
        return []
    search.sequences = [[*search.sequences[beam], token] for _, beam, token in chosen]
    search.scores = [score for score, _, _ in chosen]
    return [beam for _, beam, _ in chosen]

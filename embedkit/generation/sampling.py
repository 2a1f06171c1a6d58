"""One token after another: the likeliest, or one that is drawn.

Each output draws from a generator of its own, so that what it becomes does not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from embedkit.generation.decoding_rules import DecodingRules
from embedkit.generation.options import GenerationOptions
from embedkit.generation.stepping import Hypothesis, Stepper


def draw(
    logits: Tensor,
    uniforms: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Draw a token of each row: (R, V) logits and (R,) numbers in [0, 1) -> (R,).

    Tokens are laid end to end by falling probability; a row's number points at one of them.
    """
    count = logits.shape[1] if top_k is None else min(top_k, logits.shape[1])
    values, tokens = (logits / temperature).topk(count, dim=1)  # falling
    probabilities = values.double().softmax(dim=1)
    ends = probabilities.cumsum(dim=1)
    if top_p is not None:
        # A token stays if those before it do not yet make up `top_p`.
        probabilities = probabilities.masked_fill(ends - probabilities >= top_p, 0.0)
        ends = probabilities.cumsum(dim=1)
    last = (probabilities > 0).sum(dim=1, keepdim=True) - 1
    point = uniforms.to(ends)[:, None] * ends[:, -1:]
    place = torch.searchsorted(ends, point, right=True).minimum(last)
    return tokens.gather(1, place)[:, 0]


def decode_rows(
    steps: Stepper,
    prompts: Sequence[Sequence[int]],
    rules: DecodingRules,
    options: GenerationOptions,
    *,
    numbers: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Return `num_outputs` outputs of each prompt, drawn ones in the order they were drawn in, the greedy one alone.

    `numbers` are the prompts' places in the input, which seed what is drawn. An output's score is the mean log-likelihood of its
    tokens, for `length_penalty` 1.
    """
    numbers = range(len(prompts)) if numbers is None else numbers
    count = options.num_outputs
    owners = [i for i in range(len(prompts)) for _ in range(count)]
    rows = [_Row(owner, list(prompts[owner])) for owner in owners]
    if options.method == "sample":
        for place, row in enumerate(rows):
            row.generator = np.random.default_rng([options.seed, numbers[row.owner], place % count])
    device = steps.logits.device
    parents: Tensor | None = torch.tensor(owners, device=device) if count > 1 else None
    logits = steps.logits if parents is None else steps.logits[parents]
    active = rows
    for length in range(1, options.max_new_tokens + 1):
        sequences = [row.tokens for row in active]
        allowed = rules.forbid(logits.clone(), sequences, length - 1)
        chosen = _choose(allowed, active, options)
        likelihoods = logits.log_softmax(dim=1).gather(1, chosen[:, None])[:, 0]
        for row, token, likelihood in zip(active, chosen.tolist(), likelihoods.tolist(), strict=True):
            row.add(token, likelihood, ended=token == rules.end)
        going_on = [i for i, row in enumerate(active) if not row.ended]
        if not going_on or length == options.max_new_tokens:
            break
        if len(going_on) < len(active):
            places = torch.tensor(going_on, device=device)
            parents = places if parents is None else parents[places]
            active, chosen = [active[i] for i in going_on], chosen[places]
        logits = steps.advance(chosen, parents)
        parents = None
    found: list[list[Hypothesis]] = [[] for _ in prompts]
    for row in rows:
        found[row.owner].append(row.hypothesis(len(prompts[row.owner]), options.length_penalty))
    return found


class _Row:
    """An output that grows."""

    def __init__(self, owner: int, tokens: list[int]) -> None:
        self.owner, self.tokens = owner, tokens
        self.total, self.ended = 0.0, False
        self.generator: np.random.Generator | None = None

    def add(self, token: int, likelihood: float, *, ended: bool) -> None:
        self.tokens.append(token)
        self.total += likelihood
        self.ended = ended

    def hypothesis(self, prompt: int, length_penalty: float) -> Hypothesis:
        length = len(self.tokens) - prompt
        return Hypothesis(tuple(self.tokens), self.total / length**length_penalty, finished=self.ended)


def _choose(allowed: Tensor, rows: Sequence[_Row], options: GenerationOptions) -> Tensor:
    if options.method == "greedy":
        return allowed.argmax(dim=1)
    uniforms = [row.generator.random() for row in rows if row.generator is not None]
    return draw(
        allowed,
        torch.tensor(uniforms, dtype=torch.float64, device=allowed.device),
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
    )

"""Which tokens may not come next, whatever the method: those that no text holds, an end too soon, an n-gram a second time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from embedkit.generation.options import GenerationOptions
from embedkit.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class DecodingRules:
    """What is forbidden. `end` is the token that ends a text; `never` are those that stand in none."""

    end: int
    never: tuple[int, ...] = ()
    min_new_tokens: int = 0
    no_repeat_ngram: int = 0

    @classmethod
    def of(cls, tokenizer: Tokenizer, options: GenerationOptions) -> DecodingRules:
        special = {
            role: tokenizer.backend.token_to_id(token) for role, token in tokenizer.special_tokens.items()
        }
        end = tokenizer.special_id("sep")
        return cls(
            end,
            tuple(sorted({number for number in special.values() if number is not None} - {end})),
            options.min_new_tokens,
            options.no_repeat_ngram,
        )

    def forbid(self, scores: Tensor, sequences: Sequence[Sequence[int]], num_new: int) -> Tensor:
        """Set the scores of forbidden tokens to minus infinity, in place.

        Shapes:
            scores: (R, V) of what follows R sequences, prompts included, of which `num_new` tokens are new
        """
        if self.never:
            scores[:, list(self.never)] = -torch.inf
        if num_new < self.min_new_tokens:
            scores[:, self.end] = -torch.inf
        if self.no_repeat_ngram:
            for row, sequence in enumerate(sequences):
                banned = repeating(sequence, self.no_repeat_ngram)
                if banned:
                    scores[row, banned] = -torch.inf
        return scores


def repeating(sequence: Sequence[int], size: int) -> list[int]:
    """Return the tokens that would make an n-gram of `size` come a second time: [5, 6, 7, 5] with 2 -> [6].

    Source: Paulus et al. 2018, https://arxiv.org/abs/1705.04304, section 2.5.
    """
    if len(sequence) < size:
        return []
    last = tuple(sequence[len(sequence) - size + 1 :])
    return [
        sequence[start + size - 1]
        for start in range(len(sequence) - size + 1)
        if tuple(sequence[start : start + size - 1]) == last
    ]

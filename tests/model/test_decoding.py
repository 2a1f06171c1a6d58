"""Token by token, with what was read before kept: the same logits as of whole sequences."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedkit.model.decoding import Decoding
from embedkit.model.text_generator import TextGenerator
from tests.conftest import DEVICES
from tests.tiny_generator import DECODERS, tiny_generator

ROUNDING = 2e-5  # two layers of float32 sums in another order, with large weights
MODELS = {name: tiny_generator(**fields) for name, fields in DECODERS.items()}
LANGUAGE_MODEL = tiny_generator(encoder_size=None)


def whole(model: TextGenerator, source: Tensor | None, sequence: list[int]) -> Tensor:
    """Logits after a sequence, computed as a whole."""
    read = None if source is None else model.encode(source, [len(source)])
    device = model.table.device
    return model.logits(model(torch.tensor(sequence, device=device), [len(sequence)], read))[-1]


class Twin:
    """The obvious twin: every sequence and the source it reads, computed again at every step."""

    def __init__(self, model: TextGenerator, prompts: list[list[int]], sources: list[Tensor] | None) -> None:
        self.model, self.sources = model, sources
        self.rows = [(owner, list(prompt)) for owner, prompt in enumerate(prompts)]

    def advance(self, tokens: list[int], parents: list[int] | None) -> None:
        rows = self.rows if parents is None else [self.rows[i] for i in parents]
        self.rows = [(owner, [*row, token]) for (owner, row), token in zip(rows, tokens, strict=True)]

    def logits(self) -> Tensor:
        return torch.stack(
            [
                whole(self.model, None if self.sources is None else self.sources[owner], row)
                for owner, row in self.rows
            ]
        )


@torch.inference_mode()
def check(model: TextGenerator, prompts: list[list[int]], source_lengths: list[int] | None, data: st.DataObject | None) -> None:  # fmt: skip
    """Let sequences branch, go on and end at random, and compare after each step."""
    device = model.table.device
    generator = torch.Generator().manual_seed(0)
    sources = None
    if source_lengths is not None:
        sources = [torch.randint(5, 150, (n,), generator=generator).to(device) for n in source_lengths]
    read = None if sources is None else model.encode(torch.cat(sources), list(map(len, sources)))
    steps, twin = Decoding(model, prompts, read), Twin(model, prompts, sources)
    torch.testing.assert_close(steps.logits, twin.logits(), rtol=0, atol=ROUNDING)
    for _ in range(4):
        count = len(twin.rows)
        parents: list[int] | None = None
        if data is not None and data.draw(st.booleans()):
            parents = sorted(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5)))
            parents.sort(key=lambda i: twin.rows[i][0])
        number = count if parents is None else len(parents)
        tokens = torch.randint(5, 150, (number,), generator=generator)
        twin.advance(tokens.tolist(), parents)
        found = steps.advance(
            tokens.to(device), None if parents is None else torch.tensor(parents, device=device)
        )
        torch.testing.assert_close(found, twin.logits(), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", DECODERS)
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3), data=st.data())
@settings(max_examples=8, deadline=None)
def test_an_encoder_decoder_with_a_cache_equals_the_full_computation(
    name: str, lengths: list[int], data: st.DataObject
) -> None:
    check(MODELS[name], [[2]] * len(lengths), lengths, data)


@given(
    prompts=st.lists(st.lists(st.integers(5, 99), min_size=1, max_size=9), min_size=1, max_size=3),
    data=st.data(),
)
@settings(max_examples=15, deadline=None)
def test_a_language_model_with_a_cache_equals_the_full_computation(
    prompts: list[list[int]], data: st.DataObject
) -> None:
    """Prompts of different lengths, which end together in the cache."""
    check(LANGUAGE_MODEL, prompts, None, data)


@pytest.mark.parametrize("device", DEVICES)
def test_the_cache_equals_the_full_computation_on_every_device(device: str) -> None:
    check(tiny_generator(**DECODERS["norm first"]).to(device), [[2], [2], [2]], [7, 3, 1], None)
    check(tiny_generator(encoder_size=None).to(device), [[2, 9], [2], [2, 7, 8, 9]], None, None)


def test_a_prompt_without_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="a prompt has no token"):
        Decoding(LANGUAGE_MODEL, [[2], []])

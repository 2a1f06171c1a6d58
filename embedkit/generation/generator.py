"""A text generator that is ready to use: texts in, generated texts out, with what there is to say about both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from embedkit.checkpoint.generation import GeneratorFolder, read_generator_folder
from embedkit.checkpoint.generation_weights import load_generator
from embedkit.errors import CheckpointError, RecipeError
from embedkit.generation.beam_search import beam_search
from embedkit.generation.copying import is_copy
from embedkit.generation.decoding_rules import DecodingRules
from embedkit.generation.options import GenerationOptions, resolve_options
from embedkit.generation.outputs import Generated, Likelihood, Output
from embedkit.generation.sampling import decode_rows
from embedkit.generation.spacing import loses_spaces, tidy
from embedkit.generation.stepping import Hypothesis
from embedkit.generation.targets import Targets, make_targets, make_windows
from embedkit.inference.torch_runtime.backend import choose_device
from embedkit.model.decoder_layers import EncodedSource
from embedkit.model.decoding import Decoding
from embedkit.model.text_generator import TextGenerator
from embedkit.model.vocabulary_loss import vocabulary_loss
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.batching import padded_batches
from embedkit.types import Device

MAX_TOKENS = 8192  # of a batch's sources, padded
MAX_ROWS = 128  # sequences that are decoded side by side


class Generator:
    """A text generator with its tokenizer on a device."""

    def __init__(self, folder: GeneratorFolder, model: TextGenerator, device: torch.device) -> None:
        self.folder, self.tokenizer, self.device = folder, folder.tokenizer, device
        self.model = model.to(device).eval()

    @classmethod
    def load(
        cls, folder: str | Path, *, device: Device = "auto", max_source_tokens: int | None = None
    ) -> Generator:
        """Load a text generator's folder.

        Raises:
            CheckpointError: the folder is damaged, or another kind of model.
            DeviceError: the device is not available here.
        """
        read = read_generator_folder(folder, max_source_tokens=max_source_tokens)
        return cls(read, load_generator(read), choose_device(device))

    @property
    def is_language_model(self) -> bool:
        return self.model.encoder is None

    def options(self, given: Mapping[str, object] | None = None) -> GenerationOptions:
        """Return how this model generates: the options given over those of its folder over the defaults.

        Raises:
            RecipeError: a value is out of range, or the outputs are longer than the model's position table.
        """
        options = resolve_options(self.folder.generation, given or {}, str(self.folder.path))
        longest = self.folder.decoder.max_position_embeddings
        if options.max_new_tokens > longest:
            raise RecipeError(
                f"{self.folder.path}: max_new_tokens is {options.max_new_tokens}; the decoder's position table ends at {longest}. "
                "Ask for fewer"
            )
        return options

    def generate(self, texts: Sequence[str], options: GenerationOptions, *, first: int = 0) -> Generated:
        """Generate outputs of each text, or continue each, best first where they are compared.

        `first` is the place of the first text in the whole input: what is drawn for a text depends on its place, not on the batch.

        Raises:
            CheckpointError: the weights give scores that are not finite.
        """
        batch = self._sources(texts, options)
        empty = np.array([not text.strip() for text in texts], dtype=np.bool_)
        found: list[list[Output]] = [[] for _ in texts]
        tokens = 0
        rows = np.arange(len(texts)) if self.is_language_model else np.flatnonzero(~empty)
        for group in self._groups(batch.lengths[rows], options):
            numbers = rows[group]
            for number, hypotheses in zip(
                numbers.tolist(), self._decode(batch.take(numbers), numbers + first, options), strict=True
            ):
                prompt = self._prompt_of(batch, number)
                found[number] = [self._output(each, prompt, texts[number]) for each in hypotheses]
                tokens += sum(len(each.tokens) - len(prompt) for each in hypotheses)
        return Generated(found, batch.truncated, empty, self._unknown(batch), tokens)

    def likelihood(
        self, texts: Sequence[str], references: Sequence[Sequence[str]] | None = None
    ) -> Likelihood:
        """Measure how likely references are given their texts, or the texts themselves to a language model.

        References are cut to the decoder's position table.
        """
        nats, tokens, cut = 0.0, 0, 0
        for part in self._measured(texts, references):
            nats, tokens, cut = nats + part.nats, tokens + part.tokens, cut + part.truncated
        return Likelihood(nats, tokens, cut)

    def _measured(
        self, texts: Sequence[str], references: Sequence[Sequence[str]] | None
    ) -> Iterator[Likelihood]:
        longest = self.folder.decoder.max_position_embeddings
        if references is None:
            for start in range(0, len(texts), 16):
                targets = make_windows(self.tokenizer, texts[start : start + 16], max_tokens=longest)
                for at in range(0, len(targets.lengths), 16):
                    yield self._nats(_rows_of(targets, slice(at, at + 16)), None, None)
            return
        batch = self.tokenizer.encode(texts)
        for group in padded_batches(batch.lengths, MAX_TOKENS):
            chosen = group.tolist()
            targets = make_targets(
                self.tokenizer, [text for i in chosen for text in references[i]], max_tokens=longest
            )
            yield self._nats(targets, batch.take(group), [len(references[i]) for i in chosen])

    @torch.inference_mode()
    def _nats(self, targets: Targets, sources: TokenBatch | None, counts: list[int] | None) -> Likelihood:
        source = None if sources is None else self._encode(sources)
        shown, said = (torch.from_numpy(ids).to(self.device) for ids in (targets.shown, targets.said))
        hidden = self.model(shown, targets.lengths.tolist(), source, counts)
        _, nats, _ = vocabulary_loss(hidden, *self.model.output_weights, said)
        return Likelihood(float(nats), len(targets.said), int(targets.truncated.sum()))

    def _sources(self, texts: Sequence[str], options: GenerationOptions) -> TokenBatch:
        """Make tokens of what an encoder reads, or of prompts, which keep their last tokens where they are cut."""
        if not self.is_language_model:
            return self.tokenizer.encode(texts)
        room = self.folder.decoder.max_position_embeddings - options.max_new_tokens
        start = self.tokenizer.special_id("cls")
        prompts, full = [], []
        for ids in self.tokenizer.ids(texts):
            prompts.append([start, *ids[max(0, len(ids) - room) :]])
            full.append(1 + len(ids))
        flat = np.array([token for prompt in prompts for token in prompt], dtype=np.int64)
        return TokenBatch(flat, np.array([len(p) for p in prompts], dtype=np.int64), None, np.array(full))

    def _groups(self, lengths: NDArray[np.int64], options: GenerationOptions) -> Iterator[NDArray[np.int64]]:
        most = max(1, MAX_ROWS // options.rows)
        for group in padded_batches(lengths, MAX_TOKENS):
            for start in range(0, len(group), most):
                yield group[start : start + most]

    def _decode(
        self, batch: TokenBatch, numbers: NDArray[np.int64], options: GenerationOptions
    ) -> list[list[Hypothesis]]:
        prompts = [self._prompt_of(batch, i) for i in range(len(batch))]
        with torch.inference_mode():
            steps = Decoding(self.model, prompts, None if self.is_language_model else self._encode(batch))
            self._check_finite(steps)
            rules = DecodingRules.of(self.tokenizer, options)
            if options.method != "beam":
                return decode_rows(steps, prompts, rules, options, numbers=numbers.tolist())
            found = beam_search(
                steps,
                prompts,
                rules,
                num_beams=options.num_beams,
                max_new_tokens=options.max_new_tokens,
                length_penalty=options.length_penalty,
            )
        return [each[: options.num_outputs] for each in found]

    def _check_finite(self, steps: Decoding) -> None:
        """Refuse weights that compute nothing: whatever follows from NaN looks like a text, or like none."""
        if not bool(steps.logits.isfinite().all()):
            raise CheckpointError(
                f"{self.folder.path}: the model gives scores that are not finite, so that no token is likelier than another. "
                "Its weights are damaged: copy them again, or train it again at a lower optim.lr"
            )

    def _encode(self, batch: TokenBatch) -> EncodedSource:
        ids = torch.from_numpy(batch.input_ids).to(self.device)
        return self.model.encode(ids, batch.lengths.tolist())

    def _prompt_of(self, batch: TokenBatch, number: int) -> list[int]:
        if not self.is_language_model:
            return [self.tokenizer.special_id("cls")]
        stop = int(batch.lengths[: number + 1].sum())
        prompt: list[int] = batch.input_ids[stop - int(batch.lengths[number]) : stop].tolist()
        return prompt

    def _output(self, hypothesis: Hypothesis, prompt: list[int], source: str) -> Output:
        decode = self.tokenizer.backend.decode
        text = decode(list(hypothesis.tokens))
        if self.is_language_model:  # with the space before it, where there is one
            text = text[len(decode(prompt)) :]
        else:
            text = text.strip()
        text = tidy(text) if loses_spaces(self.tokenizer) else text
        copied = not self.is_language_model and is_copy(text, source)
        return Output(text, hypothesis.score, hypothesis.finished, copied)

    def _unknown(self, batch: TokenBatch) -> NDArray[np.float64]:
        unknown = self.tokenizer.special_tokens.get("unk")
        number = None if unknown is None else self.tokenizer.backend.token_to_id(unknown)
        if number is None:
            return np.zeros(len(batch))
        starts = np.cumsum(batch.lengths) - batch.lengths
        special = 1 if self.is_language_model else self.tokenizer.single.num_special
        unknowns = np.add.reduceat((batch.input_ids == number).astype(np.int64), starts)
        found: NDArray[np.float64] = unknowns / np.maximum(batch.lengths - special, 1)
        return found


def _rows_of(targets: Targets, rows: slice) -> Targets:
    start = int(targets.lengths[: rows.start].sum())
    lengths = targets.lengths[rows]
    stop = start + int(lengths.sum())
    return Targets(targets.shown[start:stop], targets.said[start:stop], lengths, targets.truncated[rows])

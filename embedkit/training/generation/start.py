"""What a text generator's training starts from: nothing, an encoder, or a text generator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from embedkit.checkpoint.folder import ModelFolder, fingerprint, read_model_folder
from embedkit.checkpoint.generation import is_generator, read_generator_folder
from embedkit.checkpoint.generation_weights import load_generator
from embedkit.checkpoint.hf_config import family_of
from embedkit.checkpoint.names import Family
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.errors import CheckpointError, TrainingError
from embedkit.generation.options import GenerationOptions
from embedkit.model.config import EncoderConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.text_generator import TextGenerator
from embedkit.models import find_model
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.generation.recipe import DecoderRecipe, GenerationRecipe, LanguageModelRecipe


@dataclass(frozen=True, kw_only=True)
class GeneratorStart:
    """A model to train; `origin` is the SHA-256 of the weights it starts from, `fresh` names what is new."""

    model: TextGenerator
    tokenizer: Tokenizer
    family: Family | None
    origin: str
    fresh: tuple[str, ...]


def start_from_folder(path: str | Path, recipe: GenerationRecipe) -> GeneratorStart:
    """Put a fresh decoder on an encoder, or load an encoder–decoder to train further.

    Raises:
        CheckpointError: the folder is another kind of model, or its weights cannot be used.
        TrainingError: the recipe does not fit the model.
    """
    if is_generator(find_model(path)):
        generator = read_generator_folder(path, max_source_tokens=recipe.max_source_tokens)
        if generator.encoder is None:
            raise CheckpointError(
                f"{path}: this is a language model, which reads no source. Train it further on texts with: "
                f"embedkit train lm TEXTS --model {path}"
            )
        start = GeneratorStart(
            model=load_generator(generator),
            tokenizer=generator.tokenizer,
            family=generator.family,
            origin=str(generator.fingerprint["weights"]),
            fresh=(),
        )
    else:
        folder = read_model_folder(path)
        start = GeneratorStart(
            model=_with_decoder(_encoder(folder, path), folder.tokenizer, recipe),
            # An encoder's own limit may be that of short texts; what there are positions for can be read.
            tokenizer=folder.tokenizer.with_max_length(recipe.max_source_tokens or folder.config.max_tokens),
            family=folder.family,
            origin=str(fingerprint(folder)["weights"]),
            fresh=("decoder",),
        )
    return _checked(start, recipe)


def start_afresh(tokenizer: Tokenizer, recipe: GenerationRecipe) -> GeneratorStart:
    """Make an encoder and a decoder of the recipe's shapes, with weights drawn from its seed.

    Raises:
        TrainingError: the recipe's sizes do not fit together.
    """
    config = recipe.encoder.config(vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.special_id("pad"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        encoder = TransformerEncoder(config)
    limit = recipe.max_source_tokens or min(tokenizer.max_length, config.max_tokens)
    start = GeneratorStart(
        model=_with_decoder(encoder, tokenizer, recipe),
        tokenizer=tokenizer.with_max_length(limit),
        family=family_of(config),
        origin="scratch",
        fresh=("encoder", "decoder"),
    )
    return _checked(start, recipe)


def start_language_model(
    recipe: LanguageModelRecipe, *, tokenizer: Tokenizer | None = None, path: str | Path | None = None
) -> GeneratorStart:
    """Make a language model of the recipe's shape for a tokenizer, or load one to train further.

    Raises:
        CheckpointError: the folder is another kind of model, or its weights cannot be used.
        TrainingError: the recipe does not fit the model.
    """
    if path is not None:
        folder = read_generator_folder(path)
        if folder.encoder is not None:
            raise CheckpointError(
                f"{path}: this is an encoder–decoder, which learns from pairs. Train it further with: "
                f"embedkit train generation PAIRS --model {path}"
            )
        model, words, origin = load_generator(folder), folder.tokenizer, str(folder.fingerprint["weights"])
    else:
        assert tokenizer is not None
        model, words, origin = (
            _fresh_decoder(None, tokenizer, recipe.decoder, recipe.run.seed),
            tokenizer,
            "scratch",
        )
    longest = model.config.max_position_embeddings
    if recipe.sequence_length > longest:
        raise TrainingError(
            f"sequence_length is {recipe.sequence_length}; the model's position table ends at {longest}. Lower it, or raise "
            "decoder.max_position_embeddings of a fresh model"
        )
    _check_generation(recipe.generation, longest)
    fresh = ("language model",) if path is None else ()
    return GeneratorStart(
        model=model, tokenizer=words.with_max_length(longest), family=None, origin=origin, fresh=fresh
    )


def _encoder(folder: ModelFolder, path: str | Path) -> TransformerEncoder:
    if folder.static:
        raise TrainingError(
            f"{path}: a static model is a table of token vectors without order. Start from a transformer encoder"
        )
    return load_sentence_encoder(folder).encoder


def _with_decoder(
    encoder: TransformerEncoder, tokenizer: Tokenizer, recipe: GenerationRecipe
) -> TextGenerator:
    config = encoder.config
    if recipe.decoder.share_embeddings and config.embedding_size is not None:
        raise TrainingError(
            f"the encoder's token table has {config.embedding_size} columns, its layers {config.hidden_size}; a decoder cannot share it. "
            "Give it its own: --set decoder.share_embeddings=false"
        )
    return _fresh_decoder(encoder, tokenizer, recipe.decoder, recipe.run.seed)


def _fresh_decoder(
    encoder: TransformerEncoder | None, tokenizer: Tokenizer, recipe: DecoderRecipe, seed: int
) -> TextGenerator:
    shape: EncoderConfig | None = None if encoder is None else encoder.config
    shared = shape is not None and recipe.share_embeddings
    size = shape.vocab_size if shared and shape is not None else tokenizer.vocab_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return TextGenerator(encoder, recipe.config(shape, vocab_size=size))
        except ValueError as exc:
            raise TrainingError(f"decoder: {exc}. Change it with --set decoder.…") from exc


def _checked(start: GeneratorStart, recipe: GenerationRecipe) -> GeneratorStart:
    """Hold the recipe against the model's position tables, and freeze what is to stay."""
    encoder, longest = start.model.encoder, start.model.config.max_position_embeddings
    assert encoder is not None
    if (recipe.max_source_tokens or 0) > encoder.config.max_tokens:
        raise TrainingError(
            f"max_source_tokens is {recipe.max_source_tokens}; the encoder's position table ends at {encoder.config.max_tokens}. Lower it"
        )
    if recipe.max_target_tokens > longest:
        raise TrainingError(
            f"max_target_tokens is {recipe.max_target_tokens}; the decoder's position table ends at {longest}. Lower it, or raise "
            "decoder.max_position_embeddings of a fresh decoder"
        )
    _check_generation(recipe.generation, longest)
    for role in ("cls", "sep"):
        start.tokenizer.special_id(role)  # begins and ends a target
    if recipe.freeze_encoder:
        encoder.requires_grad_(False)
    return start


def _check_generation(options: GenerationOptions, longest: int) -> None:
    if options.max_new_tokens > longest:
        raise TrainingError(
            f"generation.max_new_tokens is {options.max_new_tokens}; the decoder's position table ends at {longest}. Lower it, or raise "
            "decoder.max_position_embeddings of a fresh decoder"
        )

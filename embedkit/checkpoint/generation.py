"""The folder of a text generator: one of T5's as transformers saves it, or in a format of our own. No torch here.

config.json:
    architectures   [EmbedkitEncoderDecoder] or [EmbedkitLanguageModel]
    model_type      embedkit-encoder-decoder or embedkit-language-model: no other program has a place for it
    format          1
    encoder         the encoder's config.json as Hugging Face has it; none for a language model
    decoder         the fields of `DecoderConfig`
    generation      how texts are generated unless the user says otherwise; read by `embedkit.generation`
model.safetensors holds the parameters under our own names. A matrix may be stored as int8, with a scale for each row beside it.
The tokenizer's files lie beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from embedkit.checkpoint.digests import weights_digest
from embedkit.checkpoint.families.row import Names
from embedkit.checkpoint.families.t5_decoder import (
    OUTPUT,
    is_t5_generator,
    read_t5_decoder,
    t5_generator_names,
)
from embedkit.checkpoint.folder import fit_tokenizer, weight_files
from embedkit.checkpoint.generation_defaults import read_generation_defaults
from embedkit.checkpoint.hf_config import GENERATOR_PREFIX, read_config, write_config
from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.checkpoint.names import Family
from embedkit.checkpoint.stored_arrays import read_arrays
from embedkit.errors import CheckpointError, RecipeError
from embedkit.model.config import EncoderConfig
from embedkit.model.decoder_config import DecoderConfig
from embedkit.models import find_model, model_name
from embedkit.recipe import build
from embedkit.tokenization.tokenizer import Tokenizer

FORMAT = 1
ENCODER_DECODER = f"{GENERATOR_PREFIX}encoder-decoder"
LANGUAGE_MODEL = f"{GENERATOR_PREFIX}language-model"
_ARCHITECTURES = {ENCODER_DECODER: "EmbedkitEncoderDecoder", LANGUAGE_MODEL: "EmbedkitLanguageModel"}

StoredAs = Literal["fp32", "fp16", "int8"]  # what weights are written as
Json = Mapping[str, Any]  # Any: whatever JSON holds


@dataclass(frozen=True, kw_only=True)
class GeneratorFolder:
    """A text generator on disk, read but for its weights.

    `tokenizer` cuts sources to what the encoder reads; of a language model its limit is that of the position table. `names` says what
    the weights are called in the files, None: as we do.
    """

    path: Path
    family: Family | None
    encoder: EncoderConfig | None
    decoder: DecoderConfig
    tokenizer: Tokenizer
    generation: Json
    names: Names | None = None

    @property
    def name(self) -> str:
        """What to call the model: the name of a shipped one, else its path."""
        return model_name(self.path)

    @property
    def fingerprint(self) -> dict[str, Any]:  # Any: whatever JSON holds
        """What decides what is generated, but for the options."""
        return {
            "weights": weights_digest(weight_files(self.path)),
            "tokenizer": self.tokenizer.fingerprint,
            "max_source_tokens": self.tokenizer.max_length,
        }


def is_generator(folder: Path) -> bool:
    """Say whether a folder's config.json is that of a text generator."""
    content = read_json(folder / "config.json", {})
    # With modules beside it a T5 is a sentence encoder, whatever class it was saved from.
    if is_t5_generator(content) and not (folder / "modules.json").exists():
        return True
    return str(content.get("model_type")).startswith(GENERATOR_PREFIX)


def read_generator_folder(folder: str | Path, *, max_source_tokens: int | None = None) -> GeneratorFolder:
    """Read and check everything in a text generator's folder but the weights.

    Raises:
        CheckpointError: the folder or a file is missing or unreadable, or it is another kind of model.
    """
    path = find_model(folder)
    if not path.is_dir():
        raise CheckpointError(f"{folder}: there is no such model folder; check the path")
    content, where = read_json(path / "config.json", None), str(path / "config.json")
    if is_t5_generator(content):
        return _read_t5(path, content, where, max_source_tokens)
    kind = content.get("model_type")
    if kind not in _ARCHITECTURES:
        what = (content.get("architectures") or [kind])[0]
        raise CheckpointError(
            f"{path}: this is no text generator ({what}). Train one, which may start from an encoder, with: "
            "embedkit train generation PAIRS --model ENCODER --output FOLDER"
        )
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{where}: format is {content.get('format')!r}; this embedkit reads {FORMAT}. Upgrade it"
        )
    decoder = _decoder(content, where)
    if (kind == LANGUAGE_MODEL) != (decoder.encoder_size is None):
        raise CheckpointError(
            f"{where}: model_type is {kind!r}, but encoder_size of the decoder is {decoder.encoder_size}. "
            "Take the model's own config.json"
        )
    family, encoder = None, None
    if kind == ENCODER_DECODER:
        family, encoder = read_config(
            json_field(content, "encoder", dict[str, Any](), where), f"{where}: encoder"
        )
    limits = encoder or decoder.pieces()
    tokenizer = Tokenizer.load(path, default_max_length=limits.max_tokens, as_is=True)
    tokenizer = fit_tokenizer(tokenizer, limits, path, own_limit=None, max_seq_length=max_source_tokens)
    return GeneratorFolder(
        path=path,
        family=family,
        encoder=encoder,
        decoder=decoder,
        tokenizer=tokenizer,
        generation=json_field(content, "generation", dict[str, Any](), where),
    )


def _read_t5(path: Path, content: Json, where: str, max_source_tokens: int | None) -> GeneratorFolder:
    """Read a T5 that generates; what it writes begins with the padding token and ends as its sources do."""
    family, encoder = read_config(content, where)
    decoder = read_t5_decoder(content, encoder, where, has_output=OUTPUT in read_arrays(weight_files(path)))
    tokenizer = Tokenizer.load(path, default_max_length=encoder.max_tokens, as_is=True)
    start = tokenizer.special_tokens.get("pad")
    if start is None or tokenizer.special_id("pad") != encoder.pad_token_id:
        raise CheckpointError(
            f"{path}: the tokenizer's padding token is {start!r}; the config wants that of id {encoder.pad_token_id}. "
            "Take both from the same model"
        )
    tokenizer = replace(tokenizer, special_tokens={**tokenizer.special_tokens, "cls": start})
    ends = tokenizer.special_id("sep")
    return GeneratorFolder(
        path=path,
        family=family,
        encoder=encoder,
        decoder=decoder,
        tokenizer=fit_tokenizer(tokenizer, encoder, path, own_limit=None, max_seq_length=max_source_tokens),
        generation=read_generation_defaults(path, start=encoder.pad_token_id, end=ends),
        names=t5_generator_names(encoder, decoder),
    )


def _decoder(content: Json, where: str) -> DecoderConfig:
    try:
        return build(
            DecoderConfig, json_field(content, "decoder", dict[str, Any](), where), where, "decoder."
        )
    except RecipeError as exc:
        raise CheckpointError(f"{exc}. Take the model's own config.json") from exc


def generator_config(
    encoder: EncoderConfig | None, decoder: DecoderConfig, *, family: Family | None, generation: Json
) -> dict[str, Any]:  # Any: whatever JSON holds
    """Return the content of a text generator's config.json."""
    kind = LANGUAGE_MODEL if encoder is None else ENCODER_DECODER
    content: dict[str, Any] = {"architectures": [_ARCHITECTURES[kind]], "model_type": kind, "format": FORMAT}
    if encoder is not None:
        assert family is not None
        content["encoder"] = write_config(encoder, family)
    return content | {"decoder": asdict(decoder), "generation": dict(generation)}

"""Pretraining checkpoints, both ways: an encoder with its masked-language-model and next-sentence heads.

The folder is what transformers' `AutoModelForMaskedLM` (or `AutoModelForPreTraining`) and sentence-transformers load.
"""

from __future__ import annotations

from pathlib import Path

from embedkit.checkpoint.folder import WEIGHTS, ModelFolder, check_one_model
from embedkit.checkpoint.hf_config import write_config
from embedkit.checkpoint.json_files import write_json
from embedkit.checkpoint.names import (
    BASE_PREFIX,
    NEXT_SENTENCE,
    Family,
    has_mlm_head,
    mlm_head_names,
    next_sentence_names,
    stripped_names,
)
from embedkit.checkpoint.st_modules import SentenceModules, write_modules
from embedkit.checkpoint.weights import (
    assign,
    assign_encoder,
    export_encoder,
    export_tensors,
    read_model_tensors,
    save_tensors,
)
from embedkit.errors import CheckpointError
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.heads import MaskedLMHead, NextSentenceHead
from embedkit.model.pretraining import PretrainingModel
from embedkit.tokenization.tokenizer import Tokenizer


def load_pretraining(
    folder: ModelFolder, *, next_sentence: bool = False, fresh_heads: bool = True
) -> tuple[PretrainingModel, tuple[str, ...]]:
    """Build the model of a folder with its weights, fp32, on the CPU; also name the heads that are new.

    Raises:
        CheckpointError: weights are missing or mis-shaped, a head is missing and `fresh_heads` is False, or the family
            has no such head.
    """
    family, config, where = folder.family, folder.config, folder.encoder_path
    check_one_model(folder, "pretraining")
    if not has_mlm_head(family):
        raise CheckpointError(
            f"{folder.path}: a masked-language-model head on a {family} model is not computed. Take a model of another family"
        )
    stripped = read_model_tensors(folder.weights_path, folder.adapter, family)
    encoder = TransformerEncoder(config)
    assign_encoder(encoder, family, stripped, where)
    model = PretrainingModel(encoder, MaskedLMHead(config))
    fresh = []
    # The heads' names may start with the base prefix themselves (bert.pooler), so they are looked up stripped as well.
    names = mlm_head_names(family, config)
    if all(theirs in stripped for parts in names.values() for theirs in parts):
        assign(model.mlm, names, stripped, where)
    else:
        fresh.append("masked-language-model head")
    if next_sentence:
        if family not in NEXT_SENTENCE:
            raise CheckpointError(
                f"{folder.path}: a {family} model has no next-sentence head; train it without --next-sentence"
            )
        model.next_sentence = NextSentenceHead(config)
        pair = stripped_names(next_sentence_names(family), family)
        if all(theirs in stripped for parts in pair.values() for theirs in parts):
            assign(model.next_sentence, pair, stripped, where)
        else:
            fresh.append("next-sentence head")
    if fresh and not fresh_heads:
        raise CheckpointError(
            f"{where}: has no {' and no '.join(fresh)}; it was not saved with this model. "
            "Take a checkpoint as pretraining wrote it"
        )
    return model, tuple(fresh)


def write_pretraining(folder: Path, model: PretrainingModel, tokenizer: Tokenizer, family: Family) -> None:
    """Write the model's files into an existing folder: mean pooling for sentences, the heads beside the encoder."""
    config = model.encoder.config
    head = "ForMaskedLM" if model.next_sentence is None else "ForPreTraining"
    content = write_config(config, family, head=head) | {"tie_word_embeddings": True}
    write_json(folder / "config.json", content)
    prefix = BASE_PREFIX[family]
    tensors = export_encoder(model.encoder, family, prefix=prefix)
    tensors |= export_tensors(model.mlm, mlm_head_names(family, config))
    if model.next_sentence is not None:
        tensors |= export_tensors(model.next_sentence, next_sentence_names(family))
    save_tensors(tensors, folder / WEIGHTS)
    write_modules(folder, SentenceModules(max_seq_length=tokenizer.max_length), config)
    tokenizer.save(folder, token_types=config.type_vocab_size > 1)

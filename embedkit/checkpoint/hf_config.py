"""`config.json` as Hugging Face writes it <-> `EncoderConfig`; our own kind is in `embedkit.checkpoint.own_config`."""

from __future__ import annotations

from typing import Any, cast

from embedkit.checkpoint.families.bert_config import read_bert, write_bert
from embedkit.checkpoint.families.bert_names import BertKind
from embedkit.checkpoint.families.fields import SIZES
from embedkit.checkpoint.families.jina import is_hub_jina, is_plain_flash
from embedkit.checkpoint.families.jina_bert import is_hub_jina_bert
from embedkit.checkpoint.families.rotary import has_nomic_experts
from embedkit.checkpoint.families.row import Json
from embedkit.checkpoint.families.table import ROWS
from embedkit.checkpoint.names import FAMILIES, Family, HubFamily, family_named
from embedkit.checkpoint.own_config import OWN, own_fields, read_own_config
from embedkit.checkpoint.quantized import QUANTIZATION
from embedkit.errors import CheckpointError
from embedkit.model.config import EncoderConfig

_ARCHITECTURES: dict[Family, str] = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "distilbert": "DistilBert",
    "mpnet": "MPNet",
    "albert": "Albert",
    "electra": "Electra",
    "modernbert": "ModernBert",
    **{family: row.architecture for family, row in ROWS.items()},
    "embedkit": "Embedkit",
}
GENERATOR_PREFIX = "embedkit-"  # begins the model_type of our own folders of text generators
# What transformers reads a family's tokenizer with where the folder names nothing.
TOKENIZER_CLASSES: dict[Family, str] = {
    "bert": "BertTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "distilbert": "BertTokenizer",
    "mpnet": "MPNetTokenizer",
    "albert": "AlbertTokenizer",
    "electra": "BertTokenizer",
    "modernbert": "TokenizersBackend",
    **{family: row.tokenizer_class for family, row in ROWS.items()},
    "embedkit": "BertTokenizer",
}


def read_config(content: Json, where: str) -> tuple[Family, EncoderConfig]:
    """Turn the content of a `config.json` into a family and an encoder's shape.

    Raises:
        CheckpointError: an unknown family, a missing field, or a piece that we do not compute.
    """
    check_no_generator(content, where)
    if content.get("quantization_config", QUANTIZATION) not in (None, QUANTIZATION):
        raise CheckpointError(
            f"{where}: has a quantization_config; take the model's weights as they were before quantization"
        )
    kind = content.get("model_type")
    if kind == OWN:
        return OWN, read_own_config(content, where, required=SIZES)
    family, code = _family(content), own_code(content)
    if family is None:
        beside = f", and the code that the folder brings along ({code}) is never run" if code else ""
        raise CheckpointError(
            f"{where}: model_type is {kind!r}; embedkit reads {', '.join(FAMILIES)}{beside}. Choose a model of one of these"
        )
    if not is_plain_flash(content):
        _check_own_code(family, code, where)
    try:
        if family in ROWS:
            read = EncoderConfig(**ROWS[family].read(content, where))
            return (OWN if has_nomic_experts(content) else family), read
        return family, EncoderConfig(**read_bert(cast("BertKind", family), content, where))
    except (ValueError, TypeError) as exc:
        raise CheckpointError(f"{where}: {exc}. Take the model's own config.json") from exc


def _family(content: Json) -> HubFamily | None:
    if is_hub_jina(content):
        return "jina_embeddings_v3"
    if is_hub_jina_bert(content):
        return "jina_bert"
    return "xlm-roberta" if is_plain_flash(content) else family_named(content.get("model_type"))


def own_code(content: Json) -> str | None:
    """Return the class of the code that a folder brings along for its encoder, `file.Class`; None: it brings none."""
    named = content.get("auto_map")
    code = named.get("AutoModel") if isinstance(named, dict) else None
    return code if isinstance(code, str) else None


def _check_own_code(family: HubFamily, code: str | None, where: str) -> None:
    """Refuse code of its own that may compute something else than the family does.

    Raises:
        CheckpointError: the code is none that is known to be this family's.
    """
    known = ROWS[family].own_code if family in ROWS else ()
    if code is not None and not code.rpartition(".")[2].startswith(known or ("-",)):
        raise CheckpointError(
            f"{where}: the folder brings code of its own along (auto_map: {code}), which is never run, and which may compute another "
            f"model than a {family}. If it is a plain one, take auto_map out of the file"
        )


def check_no_generator(content: Json, where: str) -> None:
    """Refuse a text generator where an encoder or a cross-encoder is wanted.

    Raises:
        CheckpointError: it is one.
    """
    kind = str(content.get("model_type"))
    if kind.startswith(GENERATOR_PREFIX):
        raise CheckpointError(
            f"{where}: this is a text generator ({kind.removeprefix(GENERATOR_PREFIX)}), which gives no vectors and scores no pairs. "
            "Generate texts with it: embedkit generate INPUT --model FOLDER"
        )


def family_of(config: EncoderConfig) -> Family:
    """Return the family under which an encoder of this shape is saved: one that can say all of it, else our own."""
    family = _nearest_family(config)
    try:
        said = read_config(write_config(config, family), "config.json")[1] == config
    except CheckpointError:
        said = False
    return family if said else "embedkit"


def _nearest_family(config: EncoderConfig) -> HubFamily:
    if config.disentangled is not None:
        return "deberta-v2"
    if config.position == "alibi":
        return "jina_bert"
    if config.position == "rope":
        if config.norm != "layer":
            return _nearest_llama(config)
        if config.norm_first:
            return "modernbert"
        if not config.gated_mlp and config.type_vocab_size == 1:
            return "jina_embeddings_v3"
        return "gte" if config.gate_second else "nomic_bert"
    if config.relative_attention_num_buckets:
        return "t5" if config.position == "none" else "mpnet"
    if config.causal:
        return "gpt2"
    if config.embedding_size is not None or config.num_hidden_groups is not None:
        return "albert" if config.num_hidden_groups is not None else "electra"
    if config.type_vocab_size == 0:
        return "distilbert"
    return "roberta" if config.position_offset else "bert"


def _nearest_llama(config: EncoderConfig) -> HubFamily:
    if config.post_norm:
        return "gemma3_text"
    if config.qk_norm:
        return "qwen3"
    if config.attention_out_bias is not None:
        return "qwen2"
    if config.local_attention:
        return "mistral"
    return "llama" if config.causal else "eurobert"


def write_config(config: EncoderConfig, family: Family, *, head: str = "Model") -> dict[str, Any]:
    """Turn an encoder's shape into the content of a `config.json`; `head` ends the name of its class.

    `write_config(config, "bert", head="ForMaskedLM")` names the architecture BertForMaskedLM.
    """
    if family in ROWS and head == "Model":
        head = ROWS[family].class_end
    content: dict[str, Any] = {"architectures": [_ARCHITECTURES[family] + head], "model_type": family}
    if family == OWN:
        return content | own_fields(config)
    if family in ROWS:
        return content | ROWS[family].write(config)
    return content | write_bert(cast("BertKind", family), config)

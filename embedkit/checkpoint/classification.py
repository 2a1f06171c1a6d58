"""Cross-encoder folders, both ways: `…ForSequenceClassification` and what sentence-transformers' `CrossEncoder` adds.

Activations that a file names by their class are compared with a short list; none is ever imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedkit.checkpoint.adapters import CONFIG as ADAPTER_CONFIG
from embedkit.checkpoint.adapters import Adapter, read_adapter
from embedkit.checkpoint.classification_heads import head_content, read_head
from embedkit.checkpoint.colbert import says_colbert
from embedkit.checkpoint.digests import weights_digest
from embedkit.checkpoint.folder import fit_tokenizer, read_tokenizer, tokenizer_path, weight_files
from embedkit.checkpoint.hf_config import check_no_generator, read_config, write_config
from embedkit.checkpoint.json_files import json_field, read_json
from embedkit.checkpoint.modular_head import ModularHead, is_modular, read_modular_head
from embedkit.checkpoint.multi_vector_modules import says_multi_vector
from embedkit.checkpoint.names import Family
from embedkit.checkpoint.sparse_modules import is_sparse, sparse_refusal
from embedkit.checkpoint.st_parts import ACTIVATION_CLASSES
from embedkit.checkpoint.st_settings import check_arguments
from embedkit.checkpoint.static import is_static
from embedkit.checkpoint.yes_no import YesNo, answers_by_words, is_yes_no, read_yes_no
from embedkit.errors import CheckpointError
from embedkit.model.config import DenseActivation, EncoderConfig, HeadConfig
from embedkit.models import find_model, missing_model, model_name
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.tokenizer import Tokenizer, Truncation

OWN_KEY = "embedkit"  # what of config.json is ours alone; others pass over it


@dataclass(frozen=True, kw_only=True)
class ClassifierFolder:
    """A cross-encoder on disk, read but for its weights.

    `activation` turns logits into scores. `token_types` says whether the model is told the two texts apart. `rerank_weight` is what
    part the model's score has in the order of reranked hits, beside the first stage's: from 0 to 1, the default. `answers` are of a
    language model that is asked whether a text fits: see `embedkit.checkpoint.yes_no`. `modular` says where a head lies that is a list of
    modules.
    """

    path: Path
    family: Family
    config: EncoderConfig
    head: HeadConfig
    labels: tuple[str, ...]
    activation: DenseActivation
    token_types: bool
    tokenizer: Tokenizer
    rerank_weight: float = 1.0
    answers: YesNo | None = None
    adapter: Adapter | None = None
    modular: ModularHead | None = None

    @property
    def weights_path(self) -> Path:
        """Where the weights lie: of an adapter, those of the model that it changes."""
        return self.path if self.adapter is None else self.adapter.base

    @property
    def all_weight_files(self) -> list[Path]:
        files = weight_files(self.weights_path)
        if self.modular is not None:
            files += [
                file for name in self.modular.folders.values() for file in weight_files(self.path / name)
            ]
        return files if self.adapter is None else [*files, self.adapter.file]

    @property
    def name(self) -> str:
        """What to call the model: the name of a shipped one, else its path."""
        return model_name(self.path)

    @property
    def fingerprint(self) -> dict[str, Any]:  # Any: whatever JSON holds
        """What decides the score of a pair, as plain JSON values."""
        return {
            "weights": weights_digest(self.all_weight_files),
            "tokenizer": self.tokenizer.fingerprint,
            "activation": self.activation,
            "max_seq_length": self.tokenizer.max_length,
            **({} if self.answers is None else {"instruction": self.answers.instruction}),
        }

    def encode_pairs(
        self, first: Sequence[str], second: Sequence[str], *, truncation: Truncation = "second"
    ) -> TokenBatch:
        """Make tokens of pairs of texts as the model reads them."""
        if self.answers is not None:
            return self.answers.encode_pairs(self.tokenizer, first, second)
        batch = self.tokenizer.encode_pairs(first, second, truncation=truncation)
        return batch if self.token_types else replace(batch, token_type_ids=None)


def is_classifier(folder: Path) -> bool:
    """Say whether a folder's config.json names a cross-encoder's class."""
    if (folder / ADAPTER_CONFIG).is_file():
        adapter = read_adapter(folder)
        assert adapter is not None
        return adapter.task == "SEQ_CLS" or (adapter.base != folder and is_classifier(adapter.base))
    names = read_json(folder / "config.json", {}).get("architectures") or []
    named = any(str(name).endswith("ForSequenceClassification") for name in names)
    return named or is_yes_no(folder) or is_modular(folder)


def read_classifier_folder(folder: str | Path, *, max_seq_length: int | None = None) -> ClassifierFolder:
    """Read and check everything in a cross-encoder's folder but the weights; a shipped model's name stands for its folder.

    `max_seq_length` None takes the folder's own limit, which never exceeds the position table.

    Raises:
        CheckpointError: the folder or a file is missing or unreadable, it is a bi-encoder, or of a kind that we do not compute.
    """
    path = find_model(folder)
    if not path.is_dir():
        raise CheckpointError(missing_model(str(folder)))
    if is_static(path):
        raise CheckpointError(
            f"{path}: this is a static model, a table of token vectors, which cannot read two texts together. "
            "Rerank with a cross-encoder"
        )
    if says_multi_vector(path) or says_colbert(path):
        raise CheckpointError(
            f"{path}: this is a multi-vector model, which reads query and text apart; here a cross-encoder is wanted. "
            "A search reranks with it by its token vectors: search --rerank FOLDER, or embedkit rerank --maxsim --model FOLDER"
        )
    if is_sparse(path):
        raise sparse_refusal(path, "a cross-encoder")
    adapter = read_adapter(path)
    own = (path / "config.json").is_file() or adapter is None
    config_path = (path if own or adapter is None else adapter.base) / "config.json"
    content, where = read_json(config_path, None), str(config_path)
    check_no_generator(content, where)
    family, config = read_config(content, where)
    yes_no = answers_by_words(path, content)
    modular = read_modular_head(path, config.hidden_size) if is_modular(path) else None
    if not yes_no and modular is None and not (adapter is not None and adapter.task == "SEQ_CLS"):
        _check_is_classifier(path, content)
    settings = read_json(path / "sentence_bert_config.json", {})
    texts = read_json(path / "config_sentence_transformers.json", {})
    if texts.get("default_prompt_name") and not yes_no:
        raise CheckpointError(
            f"{path / 'config_sentence_transformers.json'}: default_prompt_name is {texts['default_prompt_name']!r}; "
            "cross-encoders with prompts are not computed. Choose a model without"
        )
    check_arguments(settings, path / "sentence_bert_config.json")
    lowercase = json_field(settings, "do_lower_case", False, str(path / "sentence_bert_config.json"))
    tokenizer = read_tokenizer(tokenizer_path(path, adapter), family, config, content, lowercase=lowercase)
    tokenizer = fit_tokenizer(
        tokenizer, config, path, own_limit=settings.get("max_seq_length"), max_seq_length=max_seq_length
    )
    labels = ("yes",) if yes_no else _labels(content, where, modular)
    return ClassifierFolder(
        path=path,
        family=family,
        config=config,
        head=read_head(family, config, content, len(labels), where) if modular is None else modular.config,
        labels=labels,
        activation=_read_activation(path, content, texts, len(labels)),
        token_types=has_token_types(tokenizer_path(path, adapter), config),
        tokenizer=tokenizer,
        rerank_weight=_rerank_weight(content, where),
        adapter=adapter,
        answers=read_yes_no(path, family, tokenizer, texts) if yes_no else None,
        modular=modular,
    )


def has_token_types(path: Path, config: EncoderConfig) -> bool:
    """Say whether the model is told the two texts apart: it has the table, and its tokenizer does not leave them out."""
    settings = read_json(path / "tokenizer_config.json", {})
    named = settings.get("model_input_names")
    if (
        named is None
    ):  # the plain tokenizer of transformers 5 leaves them out, all others of these families do not
        named = [] if settings.get("tokenizer_class") == "TokenizersBackend" else ["token_type_ids"]
    return config.type_vocab_size > 1 and "token_type_ids" in named


def _check_is_classifier(path: Path, content: Mapping[str, Any]) -> None:
    names = [str(name) for name in content.get("architectures") or []]
    modules = read_json(path / "modules.json", [])
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules if isinstance(module, dict)]
    if "Pooling" in kinds or (
        names and not any(name.endswith("ForSequenceClassification") for name in names)
    ):
        what = names[0] if names else "Transformer and Pooling"
        if "Pooling" not in kinds and what.endswith("ForCausalLM"):
            raise CheckpointError(
                f"{path}: this is a language model ({what}). Of those that answer a question about query and text Qwen3-Reranker's "
                "alone is computed, with its question; take that, or a …ForSequenceClassification model"
            )
        raise CheckpointError(
            f"{path}: this is an encoder ({what}), which gives each text a vector of its own and does not score pairs. "
            "Take --maxsim, which compares its token vectors, or take --rerank maxsim, or make a cross-encoder of it with: "
            f"embedkit train reranker DATA --model {path} --output DIR"
        )
    if len(kinds) > 1:
        raise CheckpointError(
            f"{path / 'modules.json'}: the modules are {', '.join(kinds)}; a cross-encoder with more than Transformer "
            "is not computed. Choose a …ForSequenceClassification model"
        )


def _rerank_weight(content: Mapping[str, Any], where: str) -> float:
    own = content.get(OWN_KEY, {})
    weight = own.get("rerank_weight", 1.0) if isinstance(own, dict) else own
    if not isinstance(weight, int | float) or not 0 <= weight <= 1:
        raise CheckpointError(
            f"{where}: {OWN_KEY}.rerank_weight is {weight!r}; it must be a number from 0 to 1. Correct it, or leave it out"
        )
    return float(weight)


def _labels(content: Mapping[str, Any], where: str, modular: ModularHead | None) -> tuple[str, ...]:
    named = content.get("id2label")
    count = content.get("num_labels", 2)  # transformers assumes 2 where a config says nothing
    if modular is not None:
        count = modular.config.num_labels
        if not isinstance(named, dict) or len(named) != count:
            named = None  # those of the encoder's config, which has no head
    if named is None:
        return tuple(f"LABEL_{i}" for i in range(count))
    if not isinstance(named, dict) or not named or {str(i) for i in range(len(named))} != set(named):
        raise CheckpointError(f"{where}: id2label is {named!r}; it must name the labels '0', '1' and so on")
    return tuple(str(named[str(i)]) for i in range(len(named)))


def _read_activation(
    path: Path, content: Mapping[str, Any], texts: Mapping[str, Any], num_labels: int
) -> DenseActivation:
    """Find the activation in the newest of its three places; without one, sigmoid for one label and none for several."""
    own = content.get("sentence_transformers")
    places = (
        ("config_sentence_transformers.json", texts.get("activation_fn")),
        ("config.json", own.get("activation_fn") if isinstance(own, dict) else None),
        ("config.json", content.get("sbert_ce_default_activation_function")),
    )
    for file, name in places:
        if name is None:
            continue
        known: dict[str, DenseActivation] = {}
        for activation, full in ACTIVATION_CLASSES.items():
            known[full] = known["torch.nn." + full.rpartition(".")[2]] = activation
        if name not in known:
            raise CheckpointError(
                f"{path / file}: the activation is {name!r}; known are {', '.join(ACTIVATION_CLASSES.values())}. "
                "Code that a model brings along is never run"
            )
        return known[name]
    return "sigmoid" if num_labels == 1 else "identity"


def classifier_config(
    config: EncoderConfig,
    head: HeadConfig,
    *,
    family: Family,
    labels: tuple[str, ...],
    activation: DenseActivation,
    rerank_weight: float = 1.0,
) -> dict[str, Any]:
    """Turn a cross-encoder's shape into the content of a `config.json`.

    Raises:
        ValueError: there are more or fewer labels than the head has.
    """
    if len(labels) != head.num_labels:
        raise ValueError(f"{len(labels)} labels for a head of {head.num_labels}; there must be as many")
    name = ACTIVATION_CLASSES[activation]
    content = write_config(config, family, head="ForSequenceClassification") | {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        # Releases of sentence-transformers before 4.0 read the one, later ones the other.
        "sbert_ce_default_activation_function": name,
        "sentence_transformers": {"activation_fn": name},
    }
    if rerank_weight != 1:
        content[OWN_KEY] = {"rerank_weight": rerank_weight}
    return content | head_content(family, head)

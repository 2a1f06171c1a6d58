"""Cross-encoder folders: both spellings of the activation, and what is refused with which words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from embedkit.checkpoint.classification import read_classifier_folder
from embedkit.checkpoint.classification_weights import load_classifier, save_classifier
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.sentence_folder import write_model
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, OutputError, TrainingError
from embedkit.model.static import StaticEncoder
from embedkit.reranking.maxsim import MaxSim
from embedkit.training.reranker.start import start_from
from tests.tiny import tiny_tokenizer
from tests.tiny_cross_encoder import tiny_classifier, write_tiny_cross_encoder

SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"


def edit(path: Path, **changes: Any) -> None:  # Any: whatever JSON holds
    """Change keys of a JSON file; None takes a key out."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    content = {key: value for key, value in (content | changes).items() if value is not None}
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_cross_encoder(tmp_path / "model")


def test_what_is_saved_is_read_bit_for_bit(tmp_path: Path) -> None:
    model = tiny_classifier(num_labels=2)
    save_classifier(
        tmp_path / "m", model, tiny_tokenizer(), family="bert", labels=("no", "yes"), activation="tanh"
    )
    read = read_classifier_folder(tmp_path / "m")
    assert (read.labels, read.activation, read.head) == (("no", "yes"), "tanh", model.config)
    assert read.tokenizer.max_length == 32
    for (name, ours), theirs in zip(
        model.state_dict().items(), load_classifier(read).state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize(
    ("old", "new", "file", "wanted"),
    [
        (None, None, None, "sigmoid"),  # what sentence-transformers does for one label
        (SIGMOID, None, None, "sigmoid"),
        (IDENTITY, None, None, "identity"),
        (SIGMOID, {"activation_fn": IDENTITY}, None, "identity"),
        (SIGMOID, {"version": "4.0.1"}, None, "sigmoid"),
        (SIGMOID, {"activation_fn": SIGMOID}, IDENTITY, "identity"),
        ("torch.nn.Tanh", None, None, "tanh"),
    ],
)
def test_activation_is_found_in_the_newest_place(
    folder: Path, old: str | None, new: dict[str, str] | None, file: str | None, wanted: str
) -> None:
    edit(folder / "config.json", sbert_ce_default_activation_function=old, sentence_transformers=new)
    edit(folder / "config_sentence_transformers.json", activation_fn=file)
    assert read_classifier_folder(folder).activation == wanted


def test_several_labels_have_no_activation_by_default(tmp_path: Path) -> None:
    folder = write_tiny_cross_encoder(tmp_path / "m", labels=("a", "b"))
    edit(folder / "config.json", sbert_ce_default_activation_function=None, sentence_transformers=None)
    assert read_classifier_folder(folder).activation == "identity"


def test_unknown_activation_is_named_and_never_imported(folder: Path) -> None:
    edit(folder / "config.json", sentence_transformers={"activation_fn": "antigravity.Fly"})
    with pytest.raises(
        CheckpointError, match=r"config.json: the activation is 'antigravity.Fly'; known are torch"
    ):
        read_classifier_folder(folder)


def test_bi_encoder_is_told_what_it_is_and_what_to_use(tiny_model: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_classifier_folder(tiny_model)
    message = str(caught.value)
    assert "this is an encoder (BertModel), which gives each text a vector of its own" in message
    assert "--rerank maxsim" in message
    assert f"embedkit train reranker DATA --model {tiny_model} --output DIR" in message


def test_a_language_model_with_another_question_is_told_so(tiny_model: Path, tmp_path: Path) -> None:
    """mxbai-rerank v2 is such a one: its question stands in a library, and not in its folder."""
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    (folder / "modules.json").unlink()
    edit(folder / "config.json", architectures=["Qwen2ForCausalLM"])
    with pytest.raises(
        CheckpointError, match=r"a language model \(Qwen2ForCausalLM\)\. Of those that answer"
    ):
        read_classifier_folder(folder)


def test_static_model_is_told_what_it_is(tmp_path: Path) -> None:
    model = StaticEncoder(tiny_tokenizer().vocab_size, 8, normalize=False)
    write_model(tmp_path / "static", model, tiny_tokenizer(), SentenceModules(), family=None)
    with pytest.raises(
        CheckpointError, match="this is a static model, a table of token vectors, which cannot read"
    ):
        read_classifier_folder(tmp_path / "static")
    with pytest.raises(
        TrainingError, match=r"a static model is a table of token vectors.* Start from a transformer"
    ):
        start_from(tmp_path / "static", num_labels=1, seed=0)
    with pytest.raises(
        CheckpointError, match="gives its tokens no vectors in context, which maxsim compares"
    ):
        MaxSim(Encoder.load(tmp_path / "static", device="cpu"))


def test_cross_encoder_is_refused_as_bi_encoder(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="this is a cross-encoder"):
        read_model_folder(folder)


def test_label_count_that_does_not_fit_the_weights_is_an_error(folder: Path) -> None:
    edit(folder / "config.json", id2label={"0": "a", "1": "b", "2": "c"})
    with pytest.raises(
        CheckpointError, match=r"'classifier.weight' has shape \(1, 32\); config.json asks for \(3, 32\)"
    ):
        load_classifier(read_classifier_folder(folder))


def test_odd_labels_are_an_error(folder: Path) -> None:
    edit(folder / "config.json", id2label={"1": "a"})
    with pytest.raises(CheckpointError, match=r"id2label is .*; it must name the labels '0', '1' and so on"):
        read_classifier_folder(folder)


def test_more_modules_than_the_transformer_are_refused(folder: Path) -> None:
    kinds = ["Transformer", "Dense"]
    rows = [{"idx": i, "path": "", "type": f"sentence_transformers.models.{k}"} for i, k in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match="the modules are Transformer, Dense; a cross-encoder with more"
    ):
        read_classifier_folder(folder)


def test_default_prompt_is_refused(folder: Path) -> None:
    edit(folder / "config_sentence_transformers.json", default_prompt_name="web")
    with pytest.raises(CheckpointError, match="default_prompt_name is 'web'; cross-encoders with prompts"):
        read_classifier_folder(folder)


def test_limit_is_the_folders_own_or_the_one_asked_for(folder: Path) -> None:
    assert read_classifier_folder(folder, max_seq_length=20).tokenizer.max_length == 20
    edit(folder / "sentence_bert_config.json", max_seq_length=24)
    assert read_classifier_folder(folder).tokenizer.max_length == 24
    with pytest.raises(
        CheckpointError, match="max_seq_length 65 was asked for; the position table ends at 64 tokens"
    ):
        read_classifier_folder(folder, max_seq_length=65)


def test_token_types_are_left_out_where_the_tokenizer_leaves_them_out(folder: Path) -> None:
    assert read_classifier_folder(folder).token_types
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    assert not read_classifier_folder(folder).token_types
    edit(folder / "tokenizer_config.json", model_input_names=None)
    assert read_classifier_folder(folder).token_types
    edit(folder / "tokenizer_config.json", tokenizer_class="TokenizersBackend")
    assert not read_classifier_folder(folder).token_types


def test_missing_head_is_an_error(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 of 4 weights are missing: classifier\.bias"):
        load_classifier(read_classifier_folder(folder))


def test_fingerprint_changes_with_weights_and_limit(folder: Path, tmp_path: Path) -> None:
    first = read_classifier_folder(folder).fingerprint
    assert read_classifier_folder(folder).fingerprint == first
    other = read_classifier_folder(write_tiny_cross_encoder(tmp_path / "other", seed=1)).fingerprint
    assert other["weights"] != first["weights"]
    assert other["tokenizer"] == first["tokenizer"]
    assert read_classifier_folder(folder, max_seq_length=20).fingerprint["max_seq_length"] == 20


def test_existing_target_is_not_overwritten(folder: Path) -> None:
    with pytest.raises(OutputError, match="already exists"):
        save_classifier(folder, tiny_classifier(), tiny_tokenizer(), family="bert")
    with pytest.raises(ValueError, match="2 labels for a head of 1; there must be as many"):
        save_classifier(
            folder.with_name("new"), tiny_classifier(), tiny_tokenizer(), family="bert", labels=("a", "b")
        )


def test_missing_folder_and_wrong_tokenizer(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: there is no such model folder; check the path"):
        read_classifier_folder(tmp_path / "nowhere")
    edit(folder / "config.json", vocab_size=10)
    with pytest.raises(CheckpointError, match="tokens, the token table 10 rows"):
        read_classifier_folder(folder)


def test_the_part_in_the_order_of_hits_is_kept(tmp_path: Path) -> None:
    save_classifier(tmp_path / "half", tiny_classifier(), tiny_tokenizer(), family="bert", rerank_weight=0.5)
    assert read_classifier_folder(tmp_path / "half").rerank_weight == 0.5
    folder = write_tiny_cross_encoder(tmp_path / "m")
    assert read_classifier_folder(folder).rerank_weight == 1
    edit(folder / "config.json", embedkit={"rerank_weight": 0.25})
    assert read_classifier_folder(folder).rerank_weight == 0.25
    edit(folder / "config.json", embedkit={"rerank_weight": 2})
    with pytest.raises(
        CheckpointError, match=r"embedkit.rerank_weight is 2; it must be a number from 0 to 1"
    ):
        read_classifier_folder(folder)

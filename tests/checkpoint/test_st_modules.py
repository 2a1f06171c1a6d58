"""The files around an encoder: both spellings of pooling, and modules that are not computed, let alone run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedkit.checkpoint.st_modules import SentenceModules, read_modules, write_modules
from embedkit.checkpoint.st_router import read_module_list
from embedkit.errors import CheckpointError
from embedkit.model.config import DenseConfig, PoolingMode, SentenceConfig
from tests.tiny import tiny_config

FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weighted_mean": "pooling_mode_weightedmean_tokens",
    "last": "pooling_mode_lasttoken",
}
NEW_NAMES = {"mean_sqrt_len": "mean_sqrt_len_tokens", "weighted_mean": "weightedmean", "last": "lasttoken"}
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
]


def lay(folder: Path, modules: object = MODULES, **files: object) -> Path:
    """Write modules.json, and each of `files` under its name with `__` for `/`."""
    (folder / "1_Pooling").mkdir(exist_ok=True)
    contents = {"1_Pooling__config": {FLAGS["mean"]: True}, "modules": modules} | files
    for name, content in contents.items():
        path = folder / (name.replace("__", "/") + ".json")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def module(kind: str, path: str = "x") -> dict[str, Any]:
    return {"path": path, "type": f"sentence_transformers.models.{kind}"}


@pytest.mark.parametrize("mode", FLAGS)
def test_both_spellings_of_the_pooling_are_read(mode: PoolingMode, tmp_path: Path) -> None:
    old = {flag: name == mode for name, flag in FLAGS.items()} | {"word_embedding_dimension": 32}
    new = {"embedding_dimension": 32, "pooling_mode": NEW_NAMES.get(mode, mode), "include_prompt": False}
    assert read_modules(lay(tmp_path, **{"1_Pooling__config": old})).sentence.pooling == (mode,)
    read = read_modules(lay(tmp_path, **{"1_Pooling__config": new})).sentence
    assert (read.pooling, read.pool_prompt) == ((mode,), False)


def test_several_poolings_keep_their_order(tmp_path: Path) -> None:
    new = {"pooling_mode": ["mean", "cls"]}
    assert read_modules(lay(tmp_path, **{"1_Pooling__config": new})).sentence.pooling == ("mean", "cls")
    old = {
        FLAGS["mean"]: True,
        FLAGS["cls"]: True,
    }  # sentence-transformers puts cls first, whatever the file's order
    assert read_modules(lay(tmp_path, **{"1_Pooling__config": old})).sentence.pooling == ("cls", "mean")


def test_newer_class_paths_are_known_by_their_last_part(tmp_path: Path) -> None:
    newer = [
        {"path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
    ]
    assert read_modules(lay(tmp_path, newer)) == SentenceModules()


def test_a_plain_encoder_folder_gets_mean_pooling(tmp_path: Path) -> None:
    assert read_modules(tmp_path) == SentenceModules()


@pytest.mark.parametrize(
    "sentence",
    [
        SentenceConfig(),
        SentenceConfig(pooling=("cls", "max"), normalize=True, pool_prompt=False),
        SentenceConfig(pooling=("mean", "cls")),  # an order that only the newer spelling can say
        SentenceConfig(
            dense=(
                DenseConfig(in_features=32, out_features=32, residual=True),
                DenseConfig(in_features=32, out_features=8, residual=True),
            )
        ),
        SentenceConfig(
            pooling=("last",),
            dense=(DenseConfig(in_features=32, out_features=8, activation="gelu"),),
            normalize=True,
        ),
    ],
)
def test_what_is_written_is_read_again(sentence: SentenceConfig, tmp_path: Path) -> None:
    modules = SentenceModules(
        sentence=sentence,
        dense_folders=("2_Dense", "3_Dense")[: len(sentence.dense)],
        max_seq_length=77,
        prompts={"query": "Frage: ", "empty": ""},
        default_prompt_name="empty",
        similarity="dot",
    )
    write_modules(tmp_path, modules, tiny_config())
    assert read_modules(tmp_path) == modules
    types = {row["type"] for row in json.loads((tmp_path / "modules.json").read_text(encoding="utf-8"))}
    assert all(name.startswith("sentence_transformers.models.") for name in types)


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            [{"type": "os.system", "path": ""}],
            r"module type 'os\.system' is not one that embedkit computes .*never run",
        ),
        ([{"type": "my_model.Transformer", "path": ""}], "'my_model.Transformer' is not one"),
        ([{"type": None}], "module type None is not one"),
        ([module("LSTM")], r"'sentence_transformers\.models\.LSTM' is not one"),
        (
            [module("Pooling")],
            "module 0 is Pooling; wanted Transformer, Pooling, then Dense, LayerNorm or Normalize",
        ),
        (
            [module("Transformer", ""), module("Normalize")],
            "module 1 is Normalize; wanted Transformer, Pooling",
        ),
        ([module("Transformer", "")], "one module only; wanted Transformer, then Pooling"),
        (
            [module("Transformer", "../elsewhere"), MODULES[1]],
            r"the path '\.\./elsewhere' leads out of the model's",
        ),
        (
            [module("Transformer", ""), module("Pooling", "/etc")],
            "the path '/etc' leads out of the model's folder",
        ),
        ([module("Transformer", 3)], "'path' is 3; it must be a string"),  # type: ignore[arg-type] # the point
        (
            [*MODULES, module("Normalize"), module("Dense")],
            "Dense stands after Normalize; only before is computed",
        ),
    ],
)
def test_modules_that_we_do_not_compute_are_refused(modules: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"modules\.json: .*{message}"):
        read_modules(lay(tmp_path, modules))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "1_Pooling__config",
            {},
            r"1_Pooling/config\.json: pooling is \[\]; known are pooling_mode_cls_token",
        ),
        (
            "1_Pooling__config",
            {"pooling_mode_attention": True},
            r"pooling is \['pooling_mode_attention'\]; known are",
        ),
        (
            "1_Pooling__config",
            {"pooling_mode": "median"},
            r"pooling is \['median'\]; known are cls, max, mean",
        ),
        (
            "2_Dense__config",
            {"in_features": 3},
            r"2_Dense/config\.json: the sizes are .*'out_features': 0.*at least 1",
        ),
        ("2_Dense__config", {"in_features": "3"}, "'in_features' is '3'; it must be a whole number"),
        (
            "2_Dense__config",
            {"activation_function": "os.system"},
            r"activation_function is 'os\.system'; known are torch\.nn's Identity",
        ),
        (
            "2_Dense__config",
            {"use_residual": "yes", "in_features": 3, "out_features": 3},
            "'use_residual' is 'yes'; it must be",
        ),
        (
            "sentence_bert_config",
            {"transformer_task": "sequence-classification"},
            "has 'feature-extraction'. Is this a",
        ),
        (
            "config_sentence_transformers",
            {"prompts": {"a": 1}},
            r"prompts is \{'a': 1\}; each must be a string",
        ),
        (
            "config_sentence_transformers",
            {"default_prompt_name": "a"},
            "is 'a'; prompts has: none. Correct the file",
        ),
        (
            "config_sentence_transformers",
            {"similarity_fn_name": "jaccard"},
            "is 'jaccard'; known are cosine, dot",
        ),
    ],
)
def test_settings_that_we_do_not_compute_are_refused(
    name: str, content: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_modules(
            lay(
                tmp_path,
                [*MODULES, module("Dense", "2_Dense")],
                **{"2_Dense__config": {"in_features": 3, "out_features": 3}} | {name: content},
            )
        )


@pytest.mark.parametrize("key", ["([], None)", "(" * 100_000, "query"])
def test_a_router_with_an_odd_key_is_refused(tmp_path: Path, key: str) -> None:
    rows = [{"path": "", "type": "sentence_transformers.models.Router"}]
    (tmp_path / "modules.json").write_text(json.dumps(rows), encoding="utf-8")
    router = {
        "types": {"part": "sentence_transformers.models.Transformer"},
        "structure": {"query": ["part"]},
        "parameters": {"route_mappings": {key: "query"}},
    }
    (tmp_path / "router_config.json").write_text(json.dumps(router), encoding="utf-8")
    with pytest.raises(CheckpointError, match="it must be a task and a modality"):
        read_module_list(tmp_path)

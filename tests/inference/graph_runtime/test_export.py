"""Exported graphs give our vectors, whatever the family, the pooling and the padding; what does not is not left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from embedkit.checkpoint.folder import ModelFolder, read_model_folder
from embedkit.checkpoint.names import FAMILIES, Family
from embedkit.checkpoint.sentence_folder import write_model
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.checkpoint.weights import save_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, DeviceError, MissingExtraError, OutputError
from embedkit.extras import EXTRAS, has_extra, load_extra
from embedkit.inference.graph_runtime import export as exporting
from embedkit.inference.graph_runtime import onnx_writer as onnx_graph
from embedkit.inference.graph_runtime.backend import PIECE_TOKENS, cut
from embedkit.inference.graph_runtime.export import (
    ExportedGraph,
    cached_graph,
    compare_with_ours,
    export_model,
)
from embedkit.inference.graph_runtime.graph import RUNNERS, GraphRuntime, load_graph, run_padded
from embedkit.inference.graph_runtime.onnx_writer import write_graph
from embedkit.inference.loading import choose, load_backend, load_reference
from embedkit.inference.precision_measuring import cosines
from embedkit.model.config import DenseConfig, LayerNormConfig, PoolingMode, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.sentence_config import UsualActivation
from embedkit.model.static import StaticEncoder
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.tokenization.batch import TokenBatch
from tests.conftest import REPOSITORY
from tests.tiny import FAMILY_SHAPES, tiny_config, tiny_tokenizer, write_tiny_model
from tests.tiny_cross_encoder import write_tiny_cross_encoder

if not (
    has_extra("onnx") and has_extra("onnxruntime")
):  # not imported here: only our own modules keep them from calling home
    pytest.skip("the extra 'onnx' is not installed", allow_module_level=True)

TOLERANCE = 1e-5  # fp32, vectors of unit length
TEXTS = [
    "the dog runs",
    "",
    "a small red horse eats a large green guitar by the beach " * 3,
    "a boy",
    "x " * 40,
]
needs_openvino = pytest.mark.skipif(not has_extra("openvino"), reason="the extra 'openvino' is not installed")
# OpenVINO is large: it comes with the packages of `make test-parity`.
runtimes = pytest.mark.parametrize("runtime", ["onnx", pytest.param("openvino", marks=pytest.mark.parity)])


def export_folder(folder: ModelFolder, runtime: GraphRuntime, target: Path) -> ExportedGraph:
    return export_model(folder, runtime, target, reference=partial(load_reference, folder))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def needs(runtime: GraphRuntime) -> None:
    if not has_extra(RUNNERS[runtime][0]):
        pytest.skip(f"the extra {runtime!r} is not installed")


def write_family(folder: Path, family: Family, sentence: SentenceConfig) -> ModelFolder:
    torch.manual_seed(0)
    model = SentenceEncoder(TransformerEncoder(tiny_config(**FAMILY_SHAPES[family])), sentence)
    for parameter in model.parameters():  # fresh biases are 0 and norms 1, which would hide a mix-up
        if parameter.ndim == 1:
            parameter.data += torch.randn_like(parameter) * 0.1
    save_sentence_encoder(folder, model, tiny_tokenizer(), SentenceModules(sentence=sentence), family=family)
    return read_model_folder(folder)


def random_batch(folder: ModelFolder) -> TokenBatch:
    """Sequences of all lengths, the longest that the model reads among them: some alone in a piece, some padded."""
    draw = np.random.default_rng(0)
    lengths = np.array([folder.config.max_tokens, 1, 40, 5, *draw.integers(1, 20, 40)])
    return TokenBatch(draw.integers(5, folder.config.vocab_size, lengths.sum()), lengths)


@runtimes
@pytest.mark.usefixtures("needs")
@pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES if not tiny_config(**FAMILY_SHAPES[family]).attention_variant],
)
def test_every_family_gives_the_vectors_of_torch(
    runtime: GraphRuntime, family: Family, tmp_path: Path
) -> None:
    folder = write_family(tmp_path / "m", family, SentenceConfig(normalize=True))
    ours = load_backend(folder, choose(folder, device="cpu", backend="torch"))
    graph = load_backend(folder, choose(folder, device="cpu", backend=runtime))
    assert repr(graph) == f"{runtime} on cpu, fp32"
    batch = random_batch(folder)
    np.testing.assert_allclose(graph.pooled(batch), ours.pooled(batch), atol=TOLERANCE)
    # Token vectors are some units long.
    np.testing.assert_allclose(graph.hidden_states(batch), ours.hidden_states(batch), atol=3 * TOLERANCE)


@runtimes
@pytest.mark.usefixtures("needs")
def test_poolings_dense_layers_and_activations(runtime: GraphRuntime, tmp_path: Path) -> None:
    modes: tuple[PoolingMode, ...] = get_args(PoolingMode)
    dense = [
        DenseConfig(
            in_features=24 if number else 32 * len(modes),
            out_features=24,
            bias=number % 2 == 0,
            activation=activation,
        )
        for number, activation in enumerate(get_args(UsualActivation))
    ]
    sentence = SentenceConfig(pooling=modes, dense=(*dense[:4], LayerNormConfig(size=24), *dense[4:]))
    folder = read_model_folder(write_tiny_model(tmp_path / "m", sentence=sentence))
    batch = random_batch(folder)
    wanted, found = (
        load_backend(folder, choose(folder, device="cpu", backend=name)).pooled(batch)
        for name in ("torch", runtime)
    )
    assert np.ptp(wanted, axis=0).max() > 1e-3  # not all alike after so many layers
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


@runtimes
@pytest.mark.usefixtures("needs")
def test_texts_prompts_and_chunks_through_the_encoder(runtime: GraphRuntime, tmp_path: Path) -> None:
    sentence = SentenceConfig(
        dense=(DenseConfig(in_features=32, out_features=8),), normalize=True, pool_prompt=False
    )
    folder = write_tiny_model(tmp_path / "m", sentence=sentence)
    found, exact = (Encoder.load(folder, device="cpu", backend=name) for name in (runtime, "torch"))
    assert found.choice is not None
    assert (found.choice.runtime, found.choice.reason) == (runtime, "asked for")
    for prompt, on_truncate in (("", "ok"), ("the red ", "chunk")):
        np.testing.assert_allclose(
            found.encode(TEXTS, prompt=prompt, on_truncate=on_truncate),  # type: ignore[arg-type] # a literal above
            exact.encode(TEXTS, prompt=prompt, on_truncate=on_truncate),  # type: ignore[arg-type]
            atol=TOLERANCE,
        )


def test_pieces_hold_every_row_once_and_stay_within_the_limit() -> None:
    lengths = np.random.default_rng(0).integers(1, 300, 200)
    lengths[17] = 3 * PIECE_TOKENS  # alone, and longer than the limit
    pieces = cut(lengths)
    assert np.concatenate(pieces).tolist() == list(range(200))
    sizes = [len(rows) * lengths[rows].max() for rows in pieces]
    assert max(size for size in sizes if size != 3 * PIECE_TOKENS) <= PIECE_TOKENS
    assert [rows.tolist() for rows in cut(np.array([], dtype=np.int64))] == [[]]


@pytest.mark.parity
@needs_openvino
def test_openvino_in_lower_precisions_comes_close(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", config=tiny_config(hidden_size=128, intermediate_size=256))
    exact = Encoder.load(folder, device="cpu").encode(TEXTS, on_truncate="ok")
    for precision, least in (("bf16", 0.9995), ("int8", 0.99)):
        try:
            encoder = Encoder.load(folder, device="cpu", precision=precision, backend="openvino")  # type: ignore[arg-type] # a literal above
        except DeviceError as exc:
            pytest.skip(str(exc))
        near = cosines(encoder.encode(TEXTS, on_truncate="ok"), exact)
        assert least < near.min() < 1 - 1e-7, precision  # 1: it would be fp32 in truth


@pytest.mark.parity
@needs_openvino
def test_int8_weights_are_those_of_before_but_for_rounding(tiny_model: Path, tmp_path: Path) -> None:
    """Column j has the scale max |w_j| / 127, so no weight moves by more than half of that."""
    extra = load_extra("openvino", purpose="the test")
    write_graph(read_model_folder(tiny_model), tmp_path / "model.onnx")
    model = extra.openvino.Core().read_model(tmp_path / "model.onnx")
    before = _constant_weights(model)
    extra.compress_weights(model)
    assert _constant_weights(model) == {}
    stored = [node for node in model.get_ops() if str(node.get_element_type()) == "<Type: 'int8_t'>"]
    assert len(stored) == len(before) == 2 * 6  # layers; queries, keys, values, out, up, down
    restored = [
        (constant.get_data() * _scale_of(constant)).T
        for constant in stored
        if constant.get_type_name() == "Constant"
    ]
    for weight in before.values():
        step = np.abs(weight).max(axis=0) / 127
        same = [each for each in restored if each.shape == weight.shape]
        assert min((np.abs(each - weight) / step).max() for each in same) <= 0.5 + 1e-3


def _constant_weights(model: object) -> dict[str, np.ndarray]:
    return {
        node.get_friendly_name(): node.input_value(1).get_node().get_data()
        for node in model.get_ops()  # type: ignore[attr-defined] # openvino has no types
        if node.get_type_name() == "MatMul" and node.input_value(1).get_node().get_type_name() == "Constant"
    }


def _scale_of(constant: object) -> np.ndarray:
    (convert,) = constant.output(0).get_target_inputs()  # type: ignore[attr-defined] # as above
    (multiply,) = convert.get_node().output(0).get_target_inputs()
    scale: np.ndarray = multiply.get_node().input_value(1).get_node().get_data()
    return scale


@runtimes
@pytest.mark.usefixtures("needs")
def test_an_export_says_what_a_program_has_to_know(
    runtime: GraphRuntime, tiny_model: Path, tmp_path: Path
) -> None:
    folder = read_model_folder(tiny_model)
    exported = export_folder(folder, runtime, tmp_path / "out")
    assert exported.agreement.texts == 9
    assert exported.agreement.largest_difference < TOLERANCE
    about = json.loads((tmp_path / "out" / "export.json").read_text(encoding="utf-8"))
    assert exported.file == tmp_path / "out" / about["file"]
    assert about["inputs"] == {
        "input_ids": "int64 (batch, length)",
        "attention_mask": "int64 (batch, length), 1 for tokens, 0 for padding, which is on the right",
    }
    assert about["outputs"]["sentence_embedding"] == "float32 (batch, 32)"
    assert (about["max_seq_length"], about["pooling"], about["normalize"]) == (32, "mean", True)
    assert about["compared"]["largest_difference"] == exported.agreement.largest_difference
    names = {path.name for path in (tmp_path / "out").iterdir()}
    files = {"model.onnx"} if runtime == "onnx" else {"model.xml", "model.bin"}
    assert names == files | {
        "export.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    }
    with pytest.raises(OutputError, match=r"out: already exists"):
        export_folder(folder, runtime, tmp_path / "out")


def test_a_graph_runs_with_the_runtime_and_the_tokenizer_alone(tiny_model: Path, tmp_path: Path) -> None:
    """What a program without embedkit does: the two packages, padding by the tokenizer, no other knowledge."""
    import tokenizers

    export_folder(read_model_folder(tiny_model), "onnx", tmp_path / "out")
    import onnxruntime

    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    tokenizer.enable_truncation(32)
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(TEXTS)
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    inputs = {
        "input_ids": np.array([each.ids for each in encoded]),
        "attention_mask": np.array([each.attention_mask for each in encoded]),
    }
    vectors, tokens = session.run(["sentence_embedding", "token_embeddings"], inputs)
    wanted = Encoder.load(tiny_model, device="cpu").encode(TEXTS, on_truncate="ok")
    np.testing.assert_allclose(vectors, wanted, atol=TOLERANCE)
    assert tokens.shape == (5, 32, 32)


def test_vectors_that_are_not_ours_are_refused_and_nothing_is_left(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "MASKED", 0.0)  # padding takes part in attention
    with pytest.raises(CheckpointError) as caught:
        export_folder(read_model_folder(tiny_model), "onnx", tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(f"{tiny_model}: vectors of the onnx graph differ from ours by 0.")
    assert message.endswith("wanted 0.0001 at most. Nothing was written: encode with another --backend")
    assert list(tmp_path.iterdir()) == []


def test_each_text_of_the_comparison_stands_alone_or_beside_longer_ones(
    tiny_model: Path, tmp_path: Path
) -> None:
    seen: list[list[int]] = []

    class Watching:
        def run(self, output: str, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
            seen.append(attention_mask.sum(axis=1).tolist())
            return graph.run(output, input_ids, attention_mask)

    folder = read_model_folder(tiny_model)
    write_graph(folder, tmp_path / "model.onnx")
    graph = load_graph(tmp_path / "model.onnx", "onnx", precision="fp32", threads=1)
    assert (
        compare_with_ours(folder, Watching(), partial(load_reference, folder)).largest_difference < TOLERANCE
    )
    assert any(len(lengths) > 1 and min(lengths) < max(lengths) for lengths in seen)  # padding
    assert {min(map(min, seen)), max(map(max, seen))} == {
        2,
        32,
    }  # from [CLS] [SEP] to all that the model reads


def test_what_the_cache_holds_is_made_once_and_anew_for_another_model(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = read_model_folder(tiny_model)
    file = cached_graph(folder, "onnx", reference=partial(load_reference, folder))
    assert file.is_relative_to(tmp_path / "cache" / "exported")
    made = file.stat().st_mtime_ns
    shorter = read_model_folder(tiny_model, max_seq_length=8)  # the graph is the same
    assert cached_graph(shorter, "onnx", reference=partial(load_reference, shorter)) == file
    assert file.stat().st_mtime_ns == made
    other = read_model_folder(write_tiny_model(tmp_path / "m", seed=1))
    assert cached_graph(other, "onnx", reference=partial(load_reference, other)) != file
    monkeypatch.setattr(exporting, "FORM", exporting.FORM + 1)
    assert cached_graph(folder, "onnx", reference=partial(load_reference, folder)) != file


def test_large_weights_stand_in_a_second_file(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_extra("onnx", purpose="the test"), "ONE_FILE_BYTES", 1000)
    exported = export_folder(read_model_folder(tiny_model), "onnx", tmp_path / "out")
    assert exported.file.stat().st_size < (tmp_path / "out" / "model.onnx.data").stat().st_size
    assert exported.agreement.largest_difference < TOLERANCE


def test_what_is_not_computed_so_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DeviceError,
        match=r"the onnx backend does not compute this model in bf16 here: it computes in fp32\. Leave",
    ):
        Encoder.load(tiny_model, device="cpu", precision="bf16", backend="onnx")
    static = StaticEncoder(tiny_tokenizer().vocab_size, 16)
    write_model(tmp_path / "s", static, tiny_tokenizer(), SentenceModules(), family=None)
    with pytest.raises(DeviceError, match=r"the onnx backend does not compute.*: a static model is a table"):
        Encoder.load(tmp_path / "s", device="cpu", backend="onnx")
    with pytest.raises(CheckpointError, match="a static model is a table of vectors; there is no graph"):
        export_folder(read_model_folder(tmp_path / "s"), "onnx", tmp_path / "out")
    reranker = write_tiny_cross_encoder(tmp_path / "r")
    with pytest.raises(
        DeviceError, match=r"the onnx backend does not compute .*: it computes no class scores"
    ):
        CrossEncoder.load(reranker, device="cpu", backend="onnx")
    backend = load_backend(
        read_model_folder(tiny_model), choose(read_model_folder(tiny_model), device="cpu", backend="onnx")
    )
    with pytest.raises(ValueError, match="takes single texts, whose tokens are all of type 0"):
        backend.pooled(TokenBatch(np.array([2, 9, 3]), np.array([3]), np.array([0, 0, 1])))


@runtimes
@pytest.mark.usefixtures("needs")
def test_a_file_that_is_no_graph_is_named(runtime: GraphRuntime, tmp_path: Path) -> None:
    path = tmp_path / RUNNERS[runtime][1]
    path.write_bytes(b"no graph at all")
    with pytest.raises(CheckpointError, match=r"model\.\w+: (ONNX Runtime|OpenVINO) \d.* cannot read it"):
        run_padded(
            load_graph(path, runtime, precision="fp32", threads=1),
            "sentence_embedding",
            TokenBatch(np.array([1]), np.array([1])),
        )


@runtimes
@pytest.mark.usefixtures("needs")
def test_a_runtime_neither_calls_home_nor_keeps_anything_there(
    runtime: GraphRuntime, tiny_model: Path, tmp_path: Path
) -> None:
    program = (
        "import socket, sys\n"
        "def refuse(*address): sys.exit(f'goes to the network: {address}')\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\n"
        "from embedkit.encoding.encoder import Encoder\n"
        f"Encoder.load(sys.argv[1], device='cpu', backend={runtime!r}).encode(['the dog runs'])\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home), "EMBEDKIT_CACHE": str(tmp_path / "cache"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny_model)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(home.rglob("*")) == []


@runtimes
def test_a_missing_package_is_named(
    runtime: GraphRuntime, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXTRAS, RUNNERS[runtime][0], "no_such_package")
    message = rf"the {runtime} backend needs the package 'no_such_package'.*'embedkit\[{runtime}\]'"
    with pytest.raises(MissingExtraError, match=message):
        Encoder.load(tiny_model, device="cpu", backend=runtime)
    with pytest.raises(MissingExtraError, match=f"exporting for {runtime} needs the package"):
        export_folder(read_model_folder(tiny_model), runtime, tmp_path / "out")

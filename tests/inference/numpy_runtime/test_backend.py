"""Backends without torch give the vectors of torch: numpy for the families it computes, our kernels, the static table."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embedkit.checkpoint.arrays import load_sentence_weights
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.names import FAMILIES, Family
from embedkit.checkpoint.sentence_folder import write_model
from embedkit.checkpoint.sparse_weights import sparse_of, write_sparse
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.checkpoint.weights import load_sentence_encoder, save_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.multi_vector import MultiVectorEncoder
from embedkit.encoding.sparse import SparseEncoder
from embedkit.errors import DeviceError
from embedkit.inference.numpy_runtime.backend import PackedBackend
from embedkit.inference.numpy_runtime.encoder import NumpyEncoder, why_not
from embedkit.model.config import DenseConfig, EncoderConfig, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.sparse_config import TermPooling
from embedkit.model.static import StaticEncoder
from embedkit.native.encoder import why_not as native_why_not
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.types import Computing, WantedRuntime
from tests.conftest import REPOSITORY
from tests.tiny import FAMILY_SHAPES, tiny_config, tiny_tokenizer, write_tiny_model
from tests.tiny_cross_encoder import QUERY, write_tiny_cross_encoder
from tests.tiny_masked_lm import write_tiny_masked_lm
from tests.tiny_multi_vector import tiny_multi_vector_config, write_tiny_multi_vector

TOLERANCE = 1e-5  # what is promised of vectors of unit length in fp32
TEXTS = [
    "the dog runs",
    "",
    "a small red horse eats a large green guitar by the beach " * 3,
    "a boy",
    "the dog sings",
]
SENTENCE = SentenceConfig(
    pooling=("mean", "cls"), dense=(DenseConfig(in_features=64, out_features=24),), normalize=True
)
NATIVE = tiny_config(num_attention_heads=2)  # heads of 16, the fewest that the kernels compute
needs_kernels = pytest.mark.skipif(
    native_why_not(NATIVE, "fp32") is not None, reason=f"no kernels: {native_why_not(NATIVE, 'fp32')}"
)
# What computes which families without torch, one of each kind.
BY_NUMPY: list[tuple[str, Family]] = [("numpy", "bert"), ("numpy", "mpnet"), ("numpy", "albert")]
BY_KERNELS: list[tuple[str, Family]] = [
    *(("native", family) for _, family in BY_NUMPY),
    ("native", "modernbert"),
]
WITHOUT_TORCH = [*BY_NUMPY, *(pytest.param(*each, marks=needs_kernels) for each in BY_KERNELS)]


def write_family(folder: Path, family: Family) -> Path:
    torch.manual_seed(0)
    model = SentenceEncoder(TransformerEncoder(tiny_config(**FAMILY_SHAPES[family])), SENTENCE)
    for parameter in model.parameters():  # fresh biases are 0, which would hide a mix-up
        if parameter.ndim == 1:
            parameter.data += torch.randn_like(parameter) * 0.1
    save_sentence_encoder(folder, model, tiny_tokenizer(), SentenceModules(sentence=SENTENCE), family=family)
    return folder


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if why_not(tiny_config(**FAMILY_SHAPES[family])) is None]
)
def test_numpy_gives_the_vectors_of_torch(family: Family, tmp_path: Path) -> None:
    folder = write_family(tmp_path / "m", family)
    numpy, exact = (Encoder.load(folder, device="cpu", backend=name) for name in ("numpy", "torch"))
    assert repr(numpy.backend) == "numpy on cpu, fp32"
    np.testing.assert_allclose(
        numpy.encode(TEXTS, on_truncate="ok"), exact.encode(TEXTS, on_truncate="ok"), atol=TOLERANCE
    )


def test_numpy_computes_token_types_and_fewer_layers(tiny_model: Path) -> None:
    read = read_model_folder(tiny_model)
    encoder = NumpyEncoder(read.config, load_sentence_weights(read).encoder)
    model = load_sentence_encoder(read).encoder
    ids, types = np.array([2, 9, 8, 3, 7, 3]), np.array([0, 0, 0, 0, 1, 1])
    with torch.no_grad():
        wanted = model.forward_packed(torch.from_numpy(ids), [6], torch.from_numpy(types))
    np.testing.assert_allclose(encoder.hidden_states(ids, np.array([6]), types), wanted, atol=TOLERANCE)
    first = load_sentence_encoder(read).encoder
    first.config = replace(read.config, num_hidden_layers=1)
    del first.layers[1:]
    with torch.no_grad():
        wanted = first.forward_packed(torch.from_numpy(ids), [6], torch.from_numpy(types))
    found = encoder.hidden_states(ids, np.array([6]), types, layers=1)
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


def test_what_numpy_does_not_compute_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = write_family(tmp_path / "m", "modernbert")
    with pytest.raises(
        DeviceError, match=r"the numpy backend does not compute this model in fp32 here: it has rotary"
    ):
        Encoder.load(folder, backend="numpy")
    with pytest.raises(ValueError, match="not computed with numpy: it has rotary positions"):
        NumpyEncoder(
            read_model_folder(folder).config, load_sentence_weights(read_model_folder(folder)).encoder
        )
    assert why_not(tiny_config(gated_mlp=True)) == "its layers are not those of BERT"


@needs_kernels
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"type_vocab_size": 0, "hidden_act": "gelu_tanh"},
        {"position_offset": 2, "pad_token_id": 1, "hidden_act": "relu"},
        FAMILY_SHAPES["mpnet"],
        FAMILY_SHAPES["albert"],
        FAMILY_SHAPES["electra"],
        *(
            FAMILY_SHAPES[family] | {"num_attention_heads": 1}
            for family in ("modernbert", "nomic_bert", "gte", "jina_embeddings_v3")
        ),
    ],
)
def test_kernels_give_the_vectors_of_torch(shape: dict[str, object], tmp_path: Path) -> None:
    config = tiny_config(**{"num_attention_heads": 2} | shape)
    folder = write_tiny_model(tmp_path / "m", config=config, sentence=SENTENCE)
    native, exact = (Encoder.load(folder, device="cpu", backend=name) for name in ("native", "torch"))
    assert repr(native.backend) == "native on cpu, fp32"
    np.testing.assert_allclose(
        native.encode(TEXTS, on_truncate="ok"), exact.encode(TEXTS, on_truncate="ok"), atol=TOLERANCE
    )
    found, wanted = (each.encode(TEXTS, prompt="a girl ", on_truncate="chunk") for each in (native, exact))
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


@pytest.mark.parametrize("backend", ["numpy", pytest.param("native", marks=needs_kernels)])
@pytest.mark.parametrize("pool_prompt", [True, False])
def test_a_prompt_that_is_not_pooled(backend: WantedRuntime, pool_prompt: bool, tmp_path: Path) -> None:
    sentence = SentenceConfig(normalize=True, pool_prompt=pool_prompt)
    folder = write_tiny_model(tmp_path / "m", config=NATIVE, sentence=sentence)
    found, wanted = (
        Encoder.load(folder, device="cpu", backend=name).encode(TEXTS[:2], prompt="the red ")
        for name in (backend, "torch")
    )
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


@pytest.mark.parametrize("backend", ["numpy", pytest.param("native", marks=needs_kernels)])
@pytest.mark.parametrize("pool_prompt", [True, False])
def test_pooling_that_reads_first_tokens_alone(
    backend: WantedRuntime, pool_prompt: bool, tmp_path: Path
) -> None:
    """Of [CLS] the last layer is computed alone; a prompt that is not pooled moves the first token that counts."""
    sentence = SentenceConfig(pooling=("cls",), normalize=True, pool_prompt=pool_prompt)
    folder = write_tiny_model(tmp_path / "m", config=NATIVE, sentence=sentence)
    found, wanted = (
        Encoder.load(folder, device="cpu", backend=name).encode(TEXTS, prompt="the red ", on_truncate="ok")
        for name in (backend, "torch")
    )
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


@pytest.mark.parametrize("normalized", [True, False])
def test_static_model_gives_the_vectors_of_torch(normalized: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    model = StaticEncoder(tokenizer.vocab_size, 16, normalize=normalized)
    write_model(tmp_path / "m", model, tokenizer, SentenceModules(), family=None)
    plain, exact = (Encoder.load(tmp_path / "m", device="cpu", backend=name) for name in ("auto", "torch"))
    assert isinstance(plain.backend, PackedBackend)
    np.testing.assert_allclose(plain.encode(TEXTS[2:]), exact.encode(TEXTS[2:]), atol=TOLERANCE)


def native_config(family: Family) -> EncoderConfig:
    """A tiny shape with heads that the kernels compute."""
    return tiny_config(**FAMILY_SHAPES[family] | {"num_attention_heads": heads_of(family)})


def heads_of(family: Family) -> int:
    """Two of 16 numbers, or one of 32 where it is rotary."""
    return 1 if FAMILY_SHAPES[family].get("position") == "rope" else 2


def cross_encoder(folder: Path, config: EncoderConfig, family: Family = "bert") -> Path:
    return write_tiny_cross_encoder(folder, family=family, **vars(config))


@pytest.mark.parametrize(("backend", "family"), WITHOUT_TORCH)
@pytest.mark.parametrize("layers", [None, 1])
def test_pairs_score_as_with_torch(
    backend: WantedRuntime, layers: int | None, family: Family, tmp_path: Path
) -> None:
    config = native_config(family)
    folder = cross_encoder(tmp_path / "m", config, family)
    found, wanted = (
        CrossEncoder.load(folder, device="cpu", backend=name, layers=layers).score(QUERY, TEXTS)
        for name in (backend, "torch")
    )
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)
    assert np.ptp(found) > 0.05


@needs_kernels
@pytest.mark.parametrize("family", ["mpnet", "albert", "modernbert"])
def test_weights_of_terms_and_vectors_of_tokens_are_those_of_torch(family: Family, tmp_path: Path) -> None:
    read = read_model_folder(
        write_tiny_masked_lm(tmp_path / "mlm", family=family, num_attention_heads=heads_of(family))
    )
    model, _ = sparse_of(read, TermPooling(), weigh_queries=False)
    settings = replace(read.modules, similarity="dot")
    write_sparse(tmp_path / "sparse", model, read.tokenizer, settings, family=family)
    config = tiny_multi_vector_config(**FAMILY_SHAPES[family] | {"num_attention_heads": heads_of(family)})
    write_tiny_multi_vector(tmp_path / "tokens", config=config)
    ours, theirs = (Computing(device="cpu", precision="fp32", backend=name) for name in ("native", "torch"))
    found, wanted = (
        SparseEncoder.load(tmp_path / "sparse", computing=each).encode_documents(TEXTS).to_dense()
        for each in (ours, theirs)
    )
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)
    for encode in (
        "encode_queries",
        "encode_documents",
    ):  # queries are filled up with tokens that none attends to
        tokens, exact = (
            getattr(MultiVectorEncoder.load(tmp_path / "tokens", computing=each), encode)(TEXTS)
            for each in (ours, theirs)
        )
        np.testing.assert_array_equal(tokens.counts, exact.counts)
        np.testing.assert_allclose(tokens.vectors, exact.vectors, atol=TOLERANCE)


@needs_kernels
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_lower_precisions_of_the_kernels_come_close(precision: str, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", config=NATIVE)
    if native_why_not(NATIVE, precision) is not None:  # type: ignore[arg-type] # of the names
        pytest.skip(f"no {precision} here")
    exact = Encoder.load(folder, device="cpu").encode(TEXTS, on_truncate="ok")
    found = Encoder.load(folder, device="cpu", precision=precision).encode(TEXTS, on_truncate="ok")  # type: ignore[arg-type] # of the names
    assert 0.99 < (found * exact).sum(axis=1).min() < 1 - 1e-7


def test_encoding_and_reranking_load_no_torch(tmp_path: Path) -> None:
    """One process computes all, and says after which torch was there."""
    computed = BY_NUMPY if native_why_not(NATIVE, "fp32") else [*BY_NUMPY, *BY_KERNELS]
    given = []
    for backend, family in computed:
        config = native_config(family)
        encoder = write_tiny_model(tmp_path / f"{backend}-{family}", config=config)
        pairs = cross_encoder(tmp_path / f"{backend}-{family}-pairs", config, family)
        given.append((backend, str(encoder), str(pairs)))
    program = (
        "import sys\n"
        "from embedkit.encoding.encoder import Encoder\n"
        "from embedkit.reranking.cross_encoder import CrossEncoder\n"
        "from embedkit.reranking.maxsim import MaxSim\n"
        f"for backend, encoder, pairs in {given!r}:\n"
        "    encoder = Encoder.load(encoder, device='cpu', backend=backend)\n"
        "    MaxSim(encoder).score('a dog', ['the dog'])\n"
        "    CrossEncoder.load(pairs, device='cpu', backend=backend).score('a dog', ['the dog'])\n"
        "    print(pairs, 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.splitlines() == [f"{pairs} False" for _, _, pairs in given]

"""One way from a folder to what computes it, for encoders, cross-encoders and masked language models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embedkit.checkpoint.classification import read_classifier_folder
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.sentence_folder import write_model
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.errors import DeviceError
from embedkit.inference import choice as choosing
from embedkit.inference.backend import AnyFolder, Backend, Output
from embedkit.inference.loading import choose, load_backend
from embedkit.model.static import StaticEncoder
from embedkit.types import WantedRuntime
from tests.tiny import tiny_config, tiny_tokenizer, write_tiny_model
from tests.tiny_cross_encoder import QUERY, TEXTS, write_tiny_cross_encoder
from tests.tiny_masked_lm import write_tiny_masked_lm


def encoder(path: Path) -> AnyFolder:
    return read_model_folder(write_tiny_model(path))


def cross_encoder(path: Path) -> AnyFolder:
    return read_classifier_folder(write_tiny_cross_encoder(path))


def masked_lm(path: Path) -> AnyFolder:
    return read_model_folder(write_tiny_masked_lm(path))


def static(path: Path) -> AnyFolder:
    write_model(
        path, StaticEncoder(tiny_config().vocab_size, 16), tiny_tokenizer(), SentenceModules(), family=None
    )
    return read_model_folder(path)


CALLS: dict[Output, Callable[[Backend, AnyFolder], np.ndarray]] = {
    "pooled": lambda backend, folder: backend.pooled(folder.tokenizer.encode(TEXTS)),
    "hidden_states": lambda backend, folder: backend.hidden_states(folder.tokenizer.encode(TEXTS)),
    "mlm_logits": lambda backend, folder: backend.mlm_logits(folder.tokenizer.encode(TEXTS), np.array([1])),
    "class_logits": lambda backend, folder: backend.class_logits(folder.tokenizer.encode(TEXTS)),
}


@pytest.mark.parametrize(
    ("make", "runtime", "computed"),
    [
        (encoder, "torch", ("pooled", "hidden_states")),
        (encoder, "numpy", ("pooled", "hidden_states")),
        (static, "torch", ("pooled",)),
        (static, "numpy", ("pooled",)),
        (cross_encoder, "torch", ("pooled", "hidden_states", "class_logits")),
        (cross_encoder, "numpy", ("pooled", "hidden_states", "class_logits")),
        (masked_lm, "torch", ("hidden_states", "mlm_logits")),
    ],
)
def test_a_backend_computes_what_its_model_has_and_refuses_the_rest(
    make: Callable[[Path], AnyFolder], runtime: WantedRuntime, computed: tuple[Output, ...], tmp_path: Path
) -> None:
    folder = make(tmp_path / "m")
    choice = choose(folder, output=computed[-1], device="cpu", backend=runtime)
    assert (choice.runtime, choice.output) == (runtime, computed[-1])
    backend = load_backend(folder, choice)
    assert repr(backend) == f"{runtime} on cpu, fp32"
    for output, call in CALLS.items():
        if output in computed:
            assert call(backend, folder).dtype == np.float32
        else:
            with pytest.raises(
                TypeError,
                match=rf"{runtime} on cpu, fp32 computes no .* of this model\. .*choose\(…, output='{output}'\)",
            ):
                call(backend, folder)


def test_shapes_of_what_is_computed(tmp_path: Path) -> None:
    """Five texts; a model of 32 dimensions, two labels and a vocabulary of its tokenizer's size."""
    read = read_classifier_folder(write_tiny_cross_encoder(tmp_path / "c", labels=("no", "yes")))
    batch = read.encode_pairs([QUERY] * 5, TEXTS)
    backend = load_backend(read, choose(read, device="cpu"))
    assert backend.pooled(batch).shape == (5, 32)
    assert backend.class_logits(batch).shape == (5, 2)
    assert np.abs(backend.class_logits(batch, layers=1) - backend.class_logits(batch)).max() > 1e-3
    model = read_model_folder(write_tiny_masked_lm(tmp_path / "m"))
    batch = model.tokenizer.encode(TEXTS)
    backend = load_backend(model, choose(model, output="mlm_logits", device="cpu"))
    assert backend.mlm_logits(batch, np.array([1, 3])).shape == (2, model.config.vocab_size)


def test_what_no_other_runtime_computes_is_torchs_and_the_reason_is_said(tmp_path: Path) -> None:
    folder = masked_lm(tmp_path / "m")
    choice = choose(folder, output="mlm_logits", device="cpu")
    assert choice.runtime == "torch"
    assert choice.reason == "not native: it computes no masked-language-model logits"
    with pytest.raises(
        DeviceError,
        match=r"the numpy backend does not compute this model in fp32 here: "
        r"it computes no masked-language-model logits\. Leave the choice to --backend auto",
    ):
        choose(folder, output="mlm_logits", device="cpu", backend="numpy")
    with pytest.raises(
        DeviceError, match=r"the openvino backend does not compute .*: it computes no class scores"
    ):
        choose(cross_encoder(tmp_path / "c"), device="cpu", backend="openvino")


def test_interactive_means_a_handful_of_texts_of_an_encoder_but_not_of_a_cross_encoder(
    tmp_path: Path,
) -> None:
    assert choose(encoder(tmp_path / "e"), device="cpu", interactive=True).runtime == "numpy"
    assert choose(cross_encoder(tmp_path / "c"), device="cpu", interactive=True).runtime != "numpy"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A processor on which torch computes bf16 in earnest, whatever this one does, and nothing was measured yet."""
    monkeypatch.setattr(choosing, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setattr("embedkit.inference.precision_measuring.SECONDS", 0.0)
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize(
    ("make", "output"), [(encoder, "pooled"), (cross_encoder, "class_logits"), (masked_lm, "mlm_logits")]
)
def test_precisions_of_all_kinds_of_models_are_measured_the_same_way(
    make: Callable[[Path], AnyFolder], output: Output, tmp_path: Path
) -> None:
    folder = make(tmp_path / "m")
    assert choose(folder, output=output, device="cpu", precision="auto", interactive=True).findings == ()
    found = choose(folder, output=output, device="cpu", precision="auto", backend="torch").findings
    assert [finding.precision for finding in found] == ["fp32", "bf16"]
    assert found[0].worst_cosine == pytest.approx(1)
    assert 0.99 < found[1].worst_cosine < 1 - 1e-7
    assert len(list((tmp_path / "cache" / "precision").iterdir())) == 1
    again = choose(folder, output=output, device="cpu", precision="auto", backend="torch", interactive=True)
    # An encoder is not measured for a handful of texts, and takes no notice of what was; a cross-encoder does.
    assert again.findings == (found if make is cross_encoder else ())


def test_skipped_tokens_are_not_pooled_or_refused(tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path / "c")
    batch = folder.tokenizer.encode(TEXTS)
    with pytest.raises(ValueError, match="skip is 2; a cross-encoder's head reads"):
        load_backend(folder, choose(folder, device="cpu", backend="torch")).pooled(batch, skip=2)

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.pretraining import load_pretraining
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.data.records import ReadOptions
from embedkit.errors import TrainingError
from embedkit.native.dispatch import why_not_here
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine import native_linear
from embedkit.training.engine.estimate import estimate, matmul_peak
from embedkit.training.engine.loop import train
from embedkit.training.engine.memory import keep_freed_memory
from embedkit.training.engine.ranks import alone
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.pretraining.corpus import Corpus, build_corpus, open_corpus
from embedkit.training.pretraining.mlm import continued_model, fresh_model, pretraining_loss
from tests.training.corpora import make_journey, make_recipe


@pytest.fixture(scope="module")
def trained(corpus: Corpus, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a finished run of both tasks."""
    recipe = make_recipe("run.steps=4", "masking.next_sentence=order")
    journey = make_journey(corpus, tokenizer, recipe)
    output = tmp_path_factory.mktemp("runs") / "run"
    list(train(journey, recipe.run, recipe.optim, RunFolder(output)))
    return output


def test_the_loss_by_hand() -> None:
    """Two of four masked places on this rank, each with even odds of two tokens: 2 · ln 2 / 4; one of two pairs, sure and right."""
    found = pretraining_loss(
        torch.zeros(2, 2),
        torch.tensor([0, 1]),
        torch.tensor([[50.0, -50.0]]),
        torch.tensor([0]),
        num_masked=4,
        num_pairs=2,
    )
    values = {name: round(value.item(), 4) for name, value in found.items()}
    assert values == {
        "loss": 0.3466,
        "accuracy": 0.25,
        "mlm_loss": 0.3466,
        "pair_loss": 0.0,
        "pair_accuracy": 0.5,
    }


def test_the_output_is_a_model_folder_with_its_heads(trained: Path) -> None:
    folder = read_model_folder(trained)
    assert folder.family == "bert"
    assert folder.tokenizer.max_length == 32
    load_sentence_encoder(folder)
    model, fresh = load_pretraining(folder, next_sentence=True)
    assert fresh == ()
    best = RunFolder(trained).read_best()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, best[name]), name


def test_training_goes_on_from_a_finished_model(trained: Path) -> None:
    folder = read_model_folder(trained)
    model, family, fresh = continued_model(make_recipe("freeze_layers=1"), folder)
    assert (family, tuple(fresh), model.next_sentence) == ("bert", (), None)
    trains = {
        name.split(".")[1] if "layers" not in name else name[:16]
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    assert trains == {"encoder.layers.1", "bias", "dense", "norm"}
    with pytest.raises(TrainingError, match="freeze_layers is 3; the model has 2 layers to freeze"):
        continued_model(make_recipe("freeze_layers=3"), folder)


def test_an_encoder_without_heads_gets_fresh_ones(tiny_model: Path) -> None:
    recipe = make_recipe("masking.next_sentence=next")
    _, _, fresh = continued_model(recipe, read_model_folder(tiny_model))
    assert fresh == ("masked-language-model head", "next-sentence head")


def test_sequences_longer_than_the_position_table_are_refused(tokenizer: Tokenizer, trained: Path) -> None:
    message = r"text\.sequence_length is 65; the model's position table ends at 64 tokens"
    with pytest.raises(TrainingError, match=message):
        fresh_model(make_recipe("text.sequence_length=65"), tokenizer)
    with pytest.raises(TrainingError, match=message):
        continued_model(make_recipe("text.sequence_length=65"), read_model_folder(trained))


def test_documents_of_one_sentence_make_no_pairs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"the cat sees dog {i}\n" for i in range(40)), encoding="utf-8")
    list(build_corpus([str(path)], ReadOptions(), tokenizer, tmp_path / "cache", "x"))
    with pytest.raises(
        TrainingError, match="documents hold no pairs of neighbouring sentences within 32 tokens"
    ):
        make_journey(open_corpus(tmp_path / "cache"), tokenizer, make_recipe("masking.next_sentence=next"))


def test_one_document_to_train_on_has_no_foreign_sentences(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The two documents fall on different sides: of each there is one, and no other to take a sentence from."""
    path = tmp_path / "two.jsonl"
    sentences = " ".join(f"The cat sees the dog {i}." for i in range(6))
    for number in range(100):  # until the hash of one text is below a half and of the other is not
        path.write_text(f'{{"text": "{sentences}"}}\n{{"text": "{number} {sentences}"}}\n', encoding="utf-8")
        list(build_corpus([str(path)], ReadOptions(), tokenizer, tmp_path / str(number), "x"))
        corpus = open_corpus(tmp_path / str(number))
        if (corpus.hashes < 2**63).sum() == 1:
            break
    recipe = make_recipe("text.held_out=0.5", "masking.next_sentence=next")
    with pytest.raises(
        TrainingError,
        match="there is 1 document with pairs of sentences; a sentence that does not follow comes from another",
    ):
        make_journey(corpus, tokenizer, recipe)
    make_journey(corpus, tokenizer, make_recipe("text.held_out=0.5", "masking.next_sentence=order")).batch(0)


def test_the_estimate_counts_and_leaves_the_weights_alone(corpus: Corpus, tokenizer: Tokenizer) -> None:
    recipe = make_recipe("freeze_layers=1", "run.steps=1000")
    journey = make_journey(corpus, tokenizer, recipe)
    before = {name: tensor.clone() for name, tensor in journey.module.state_dict().items()}
    found = estimate(journey, recipe.run, recipe.optim, ranks=alone(), measured_steps=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in journey.module.state_dict().items())
    # 80 tokens, 64 positions, 2 types of 32 and a norm; two layers of 8,544; the head's 1,056 + 64 + 80.
    assert found.parameters == (80 + 64 + 2) * 32 + 64 + 2 * 8_544 + 1_200
    assert found.trained_parameters == 8_544 + 1_200
    assert found.steps == 1000
    assert found.tokens == pytest.approx(256_000, rel=0.2)
    assert found.seconds == pytest.approx(found.tokens / found.tokens_per_second)
    assert 0 < found.share_of_peak < 1
    assert matmul_peak(torch.device("cpu"), "fp32", seconds=0.01) > 1e8


def test_the_estimate_keeps_freed_memory_as_the_run_does(corpus: Corpus, tokenizer: Tokenizer) -> None:
    def asked() -> int:
        info = keep_freed_memory.cache_info()
        return info.hits + info.misses

    recipe, before = make_recipe("run.steps=1"), asked()
    estimate(
        make_journey(corpus, tokenizer, recipe), recipe.run, recipe.optim, ranks=alone(), measured_steps=1
    )
    assert asked() == before + 1


@pytest.mark.skipif(why_not_here("fp32") is not None, reason=str(why_not_here("fp32")))
def test_the_estimate_computes_with_the_kernels_of_the_run(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_linear, "why_not", lambda: None)  # whatever is faster here
    recipe = make_recipe("model.hidden_size=64", "run.steps=2")
    measured, trained = (make_journey(corpus, tokenizer, recipe) for _ in range(2))
    estimate(measured, recipe.run, recipe.optim, ranks=alone(), measured_steps=1)
    list(train(trained, recipe.run, recipe.optim, RunFolder(tmp_path / "run")))
    layers = [
        {name for name, child in journey.module.named_modules() if "forward" in vars(child)}
        for journey in (measured, trained)
    ]
    assert layers[0] == layers[1]
    assert any("layers.0" in name for name in layers[0])


@pytest.mark.gpu
def test_the_estimate_counts_the_memory_of_the_run_alone(corpus: Corpus, tokenizer: Tokenizer) -> None:
    """The matrices that the peak is measured with take 400 MB, and so does what was there before; a tiny model does not."""
    torch.zeros(100_000_000, device="cuda")
    recipe = make_recipe()
    found = estimate(make_journey(corpus, tokenizer, recipe), recipe.run, recipe.optim, ranks=alone("cuda"))
    assert 0 < found.memory_bytes < 100e6

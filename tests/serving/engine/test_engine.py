"""`Engine`: the same answers as the encoder and the cross-encoder give, in whatever company and order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.checkpoint.folder import read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, RecordError
from embedkit.model.config import SentenceConfig
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.serving.engine import tasks
from embedkit.serving.engine.engine import EmbedWork, Engine, ScoreWork, TokenVectorsWork
from embedkit.serving.limits import Limits
from embedkit.types import Float32, OnTruncate, TextRole
from tests.encoding.fakes import CountingBackend
from tests.serving.engine.fakes import PATIENCE_SECONDS, HeldBackend, expected, wait_for
from tests.tiny import write_static_model, write_tiny_model
from tests.tiny_cross_encoder import LONG, QUERY, write_tiny_cross_encoder
from tests.tiny_cross_encoder import TEXTS as PAIRED

ROUNDING = 1e-6  # unit vectors, other batch shapes
TEXTS = ["the dog runs", "", "水 水", "girl", "the dog runs", LONG + " " + LONG, "  ", "a small red horse"]
PROMPTS = {"query": "which dog: ", "passage": "a song: "}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("prompts") / "model"
    sentence = SentenceConfig(normalize=True, pool_prompt=False)
    return Encoder.load(write_tiny_model(folder, sentence=sentence, prompts=PROMPTS))


@pytest.mark.parametrize("role", [None, "query", "document"])
@pytest.mark.parametrize("on_truncate", ["ok", "chunk"])
def test_vectors_are_those_of_the_encoder(
    encoder: Encoder, role: TextRole | None, on_truncate: OnTruncate
) -> None:
    with Engine() as engine:
        work = EmbedWork(encoder=encoder, texts=TEXTS, role=role, on_truncate=on_truncate)
        found = engine.embed(work).result(PATIENCE_SECONDS)
    prompt = None if role is None else encoder.role_prompt(role)
    wanted = encoder.encode(TEXTS, prompt=prompt, on_truncate=on_truncate)
    np.testing.assert_allclose(found.vectors, wanted, rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(np.flatnonzero(found.empty), [1, 6])
    np.testing.assert_array_equal(np.flatnonzero(found.unknown), [2])
    np.testing.assert_array_equal(np.flatnonzero(found.truncated), [] if on_truncate == "chunk" else [5])


def test_tokens_are_those_of_each_text_with_its_prompt(encoder: Encoder) -> None:
    """[CLS] which dog : the dog runs [SEP] are 8; equal texts have as many each. A window of 32 cuts the long one."""
    with Engine() as engine:
        found = engine.embed(EmbedWork(encoder=encoder, texts=TEXTS, role="query")).result(PATIENCE_SECONDS)
        chunks = engine.embed(EmbedWork(encoder=encoder, texts=[LONG * 3], on_truncate="chunk"))
    alone = [len(encoder.tokenizer.encode([PROMPTS["query"] + text]).input_ids) for text in TEXTS]
    np.testing.assert_array_equal(found.tokens, alone)
    assert found.tokens[5] == 32
    assert chunks.result().tokens[0] == encoder.tokenizer.encode_chunks([LONG * 3])[0].lengths.sum() > 32


def test_a_prompt_of_the_request_goes_before_the_roles(encoder: Encoder) -> None:
    with Engine() as engine:
        work = EmbedWork(encoder=encoder, texts=["girl"], role="query", prompt="a song: ")
        found = engine.embed(work).result(PATIENCE_SECONDS)
    np.testing.assert_allclose(
        found.vectors, encoder.encode(["girl"], prompt="a song: "), rtol=0, atol=ROUNDING
    )


def test_vectors_are_cut_and_normalized_again(tiny_model: Path) -> None:
    encoder = Encoder.load(tiny_model, truncate_dim=7)
    with Engine() as engine:
        found = engine.embed(EmbedWork(encoder=encoder, texts=TEXTS)).result(PATIENCE_SECONDS)
    assert found.vectors.shape == (8, 7)
    np.testing.assert_allclose(found.vectors, encoder.encode(TEXTS), rtol=0, atol=ROUNDING)


def test_static_models_are_computed_too(tmp_path: Path) -> None:
    encoder = Encoder.load(write_static_model(tmp_path / "model"))
    with Engine() as engine:
        found = engine.embed(EmbedWork(encoder=encoder, texts=TEXTS)).result(PATIENCE_SECONDS)
        nothing = engine.embed(EmbedWork(encoder=encoder, texts=[""])).result(PATIENCE_SECONDS)
    np.testing.assert_allclose(found.vectors, encoder.encode(TEXTS), rtol=0, atol=ROUNDING)
    assert not nothing.vectors.any()
    assert nothing.tokens.tolist() == [0]


def test_no_texts_give_no_rows_of_the_right_width(encoder: Encoder) -> None:
    with Engine() as engine:
        assert engine.embed(EmbedWork(encoder=encoder, texts=[])).result(0).vectors.shape == (0, 32)


@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
def test_scores_are_those_of_the_cross_encoder(tmp_path: Path, activation: str) -> None:
    model = CrossEncoder.load(write_tiny_cross_encoder(tmp_path / "m", activation=activation))  # type: ignore[arg-type] # one of two
    queries = [QUERY] * len(PAIRED)
    wanted, odds = model.score(QUERY, PAIRED), model.log_odds(queries, PAIRED)
    before = model.counts
    with Engine() as engine:
        plain = engine.score(ScoreWork(model=model, queries=queries, texts=PAIRED)).result(PATIENCE_SECONDS)
        raw = engine.score(ScoreWork(model=model, queries=queries, texts=PAIRED, raw=True)).result(
            PATIENCE_SECONDS
        )
    np.testing.assert_allclose(plain.scores, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(raw.scores, odds, rtol=0, atol=1e-5)
    batch, counts = model.tokenize(queries, PAIRED)
    np.testing.assert_array_equal(plain.tokens, batch.lengths)
    np.testing.assert_array_equal(plain.truncated, batch.truncated)
    assert model.counts == before + counts + counts


def test_a_model_of_several_labels_is_refused_as_a_reranker(tmp_path: Path) -> None:
    model = CrossEncoder.load(write_tiny_cross_encoder(tmp_path / "m", labels=("a", "b")))
    with Engine() as engine:
        future = engine.score(ScoreWork(model=model, queries=["a"], texts=["b"]))
        with pytest.raises(CheckpointError, match="2 labels"):
            future.result(PATIENCE_SECONDS)


@pytest.mark.parametrize("on_truncate", ["ok", "chunk"])
def test_token_vectors_are_the_last_layers(encoder: Encoder, on_truncate: OnTruncate) -> None:
    with Engine() as engine:
        work = TokenVectorsWork(encoder=encoder, texts=TEXTS, role="document", on_truncate=on_truncate)
        found = engine.token_vectors(work).result(PATIENCE_SECONDS)
    for text, vectors, tokens in zip(TEXTS, found.vectors, found.tokens, strict=True):
        prompt = encoder.read_prompt(encoder.role_prompt("document"))
        window = encoder.tokenize([text], prompt, on_truncate=on_truncate)
        np.testing.assert_allclose(vectors, encoder.backend.hidden_states(window.batch), rtol=0, atol=1e-5)
        assert vectors.shape == (tokens, 32)
        assert vectors.dtype == np.float32
    assert found.truncated.any() == (on_truncate == "ok")


def test_static_models_have_no_token_vectors_in_context(tmp_path: Path) -> None:
    encoder = Encoder.load(write_static_model(tmp_path / "model"))
    with Engine() as engine:
        future = engine.token_vectors(TokenVectorsWork(encoder=encoder, texts=["dog"]))
        with pytest.raises(CheckpointError, match="no vectors in context"):
            future.result(PATIENCE_SECONDS)


def test_token_vectors_that_no_answer_holds_are_refused(encoder: Encoder) -> None:
    """Two million tokens of 32 numbers of 4 bytes are 256 MiB."""
    texts = [LONG * 10] * (tasks.MOST_TOKEN_VECTOR_BYTES // (32 * 32 * 4) + 1)
    with Engine() as engine:
        future = engine.token_vectors(TokenVectorsWork(encoder=encoder, texts=texts))
        with pytest.raises(RecordError, match=r"256 MiB at most\. Send fewer texts"):
            future.result(PATIENCE_SECONDS)


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@settings(max_examples=10)
@given(data=st.data())
def test_answers_do_not_depend_on_the_company(
    company: dict[str, tuple[Encoder, dict[str, Float32]]],
    backend: str,
    data: st.DataObject,
) -> None:
    encoder, alone = company[backend]
    requests = data.draw(
        st.lists(st.lists(st.sampled_from(list(alone)), min_size=1, max_size=6), min_size=1, max_size=6)
    )
    with Engine() as engine:
        futures = [
            engine.embed(EmbedWork(encoder=encoder, texts=texts, priority="interactive"))
            for texts in requests
        ]
        for texts, future in zip(requests, futures, strict=True):
            wanted = np.stack([alone[text] for text in texts])
            np.testing.assert_allclose(future.result(PATIENCE_SECONDS).vectors, wanted, rtol=0, atol=ROUNDING)


@pytest.fixture(scope="module")
def company(
    tiny_model: Path,
) -> dict[str, tuple[Encoder, dict[str, Float32]]]:
    """For each runtime a model, and the vectors of each text on its own."""
    encoders = {
        "numpy": Encoder.load(tiny_model, backend="numpy"),
        "torch": Encoder.load(tiny_model, backend="torch"),
    }
    return {
        name: (encoder, {text: encoder.encode(text) for text in TEXTS}) for name, encoder in encoders.items()
    }


def test_requests_that_come_while_a_batch_is_computed_are_computed_together(tiny_model: Path) -> None:
    folder, backend = read_model_folder(tiny_model), HeldBackend()
    encoder = Encoder(folder, backend)
    with Engine() as engine:
        with backend.held():
            first = engine.embed(EmbedWork(encoder=encoder, texts=["girl"]))
            backend.wait_until_computing()
            others = [engine.embed(EmbedWork(encoder=encoder, texts=[text, "a dog"])) for text in TEXTS]
            tokens = [len(encoder.tokenizer.encode([text]).input_ids) for text in ("girl", *TEXTS)]
            real = sum(tokens) + 4 * len(TEXTS)  # a dog: 4
            wait_for(lambda: engine.stats().waiting_tokens == real)
        for future in [first, *others]:
            future.result(PATIENCE_SECONDS)
        stats = engine.stats()
    assert len(backend.batches) == 2
    assert sorted(map(len, backend.batches)) == [1, 2 * len(TEXTS)]
    assert backend.batches[1].lengths.tolist() == sorted(backend.batches[1].lengths, reverse=True)
    assert stats.totals["embed"].requests == 1 + len(TEXTS)
    assert stats.totals["embed"].texts == 1 + 2 * len(TEXTS)
    assert stats.totals["embed"].batches == 2
    assert stats.totals["embed"].tokens == sum(len(batch.input_ids) for batch in backend.batches)
    assert (stats.batch_sizes[0], stats.batch_sizes[4], sum(stats.batch_sizes)) == (1, 1, 2)
    assert stats.batch_sequences == 17
    assert (stats.waiting_tokens, stats.waiting_requests, stats.running_requests) == (0, 0, 0)


def test_prompts_that_are_not_pooled_are_not_mixed_with_others(encoder: Encoder) -> None:
    backend = HeldBackend()
    held = Encoder(encoder.folder, backend)
    with Engine() as engine:
        with backend.held():
            futures = [engine.embed(EmbedWork(encoder=held, texts=["girl"], role="query")) for _ in range(3)]
            futures += [engine.embed(EmbedWork(encoder=held, texts=["girl"])) for _ in range(3)]
        for future in futures:
            future.result(PATIENCE_SECONDS)
    prompt = held.read_prompt(PROMPTS["query"])
    assert backend.skips == {0, prompt.skip}
    for batch in backend.batches:
        assert len(set(batch.lengths.tolist())) == 1  # all with the prompt, or all without


def test_a_huge_request_is_never_in_the_queue_as_a_whole(tiny_model: Path) -> None:
    """20,000 texts of 3 tokens through a queue of 4,096: at most two windows of 1,024 estimated tokens at a time."""
    folder = read_model_folder(tiny_model)
    encoder = Encoder(folder, CountingBackend())
    texts = ["girl"] * 10_000 + ["boy"] * 10_000
    seen = []
    with Engine(Limits(queue_tokens=4096)) as engine:
        future = engine.embed(EmbedWork(encoder=encoder, texts=texts))
        while not future.done():
            seen.append(engine.stats().waiting_tokens)
        found = future.result()
    sums = [int(folder.tokenizer.encode([text]).input_ids.sum()) for text in ("girl", "boy")]
    np.testing.assert_array_equal(found.vectors, expected([3] * 20_000, np.repeat(sums, 10_000)))
    assert 0 < max(seen) <= 2048

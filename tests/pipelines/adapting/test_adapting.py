"""Adapting a model: every stage, going on after a stop in each of them, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from embedkit.data.records import titled_text
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, OutputError, RecordError, TrainingError
from embedkit.pipelines.adapting.adapting import Adaptation
from embedkit.pipelines.adapting.estimate import estimate_adaptation
from embedkit.pipelines.adapting.folder import read_json, read_rows
from embedkit.pipelines.adapting.pairs import QueryPassage
from embedkit.pipelines.adapting.recipe import OF_TRAINING, STAGES, AdaptRecipe
from embedkit.pipelines.adapting.report import encode_as
from embedkit.training.engine.recipes import RunRecipe
from tests.adapting import make_adaptation, write_documents
from tests.tiny import write_static_model
from tests.tiny_cross_encoder import write_tiny_cross_encoder
from tests.tiny_generator import write_tiny_generator

TEXTS = ["the dog sleeps in the water", "a boy sings a song"]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("documents") / "documents.jsonl")


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_cross_encoder(tmp_path_factory.mktemp("reranker") / "model")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generation = {"max_new_tokens": 4}
    return write_tiny_generator(tmp_path_factory.mktemp("generator") / "model", generation=generation)


def vectors(folder: Path) -> np.ndarray:
    return Encoder.load(folder, device="cpu", precision="fp32").encode(TEXTS)


def test_all_stages_make_a_model_and_a_report(
    documents: Path, tiny_model: Path, reranker: Path, generator: Path, tmp_path: Path
) -> None:
    adaptation = make_adaptation(
        documents, tiny_model, tmp_path / "mine", "mlm_steps=2", reranker=reranker, generator=generator
    )
    seen = dict.fromkeys(report.stage for report in adaptation.run())
    assert list(seen) == list(STAGES)
    folder, counts = adaptation.folder, adaptation.counts
    assert counts["documents"] == 60
    assert counts["passages"] > 60
    assert set(counts["queries"]) == {"title", "heading", "first sentence", "crop", "generated"}
    assert counts["held_out"] == 20
    held_out = {pair.passage_id for pair in adaptation.held_out}
    assert len(held_out) == 20
    assert not held_out & {pair.passage_id for pair in adaptation.pairs}
    labelled, rows = read_json(folder.labelled), read_rows(folder.rows)
    assert labelled["rows"] == len(rows) > 50
    assert labelled["scale"] >= 1
    assert all(len(row["negatives"]) == len(row["margins"]) == 1 and row["margins"][0] > 0 for row in rows)
    report = read_json(folder.report)
    assert report["queries"] == 20
    assert report["passages"] == counts["passages"]
    assert report["agreement"] < 1
    assert report["keep"] == (not report["why"][0].startswith(("held-out queries find their passages no", "the gain", "cosines")))  # fmt: skip
    assert not np.allclose(vectors(folder.output), vectors(tiny_model), atol=1e-4)


def test_no_query_gets_a_negative_of_its_own_document_nor_a_title_that_gives_it_away(
    documents: Path, tiny_model: Path, tmp_path: Path
) -> None:
    adaptation = make_adaptation(documents, tiny_model, tmp_path / "mine")
    list(adaptation.run())
    bare = {passage.text: passage for passage in adaptation.passages}
    titled = {titled_text(passage.title, passage.text): passage for passage in adaptation.passages}
    pairs = {pair.query: pair for pair in adaptation.pairs}
    for row in read_rows(adaptation.folder.rows):
        pair = pairs[row["query"]]
        for negative in row["negatives"]:
            found = bare if pair.kind == "title" else titled
            assert found[negative].metadata["document"] != pair.document
    assert {pair.kind for pair in adaptation.pairs} == {"title", "first sentence", "crop"}
    assert read_json(adaptation.folder.labelled)["scale"] is None  # no cross-encoder, no margins


def test_a_document_that_is_a_title_alone_is_no_empty_negative(
    documents: Path, tiny_model: Path, tmp_path: Path
) -> None:
    lines = documents.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    titles = [{"id": f"title of {row['id']}", "title": f"the {row['title']}", "text": ""} for row in rows]
    both = tmp_path / "documents.jsonl"
    both.write_text("\n".join([*lines, *map(json.dumps, titles)]) + "\n", encoding="utf-8")
    adaptation = make_adaptation(both, tiny_model, tmp_path / "mine")
    assert any(report.stage == "label" for report in adaptation.run())  # and no further
    assert {pair.kind for pair in adaptation.pairs} >= {"title"}
    assert all(text for row in read_rows(adaptation.folder.mined) for text in row["negatives"])


def test_stops_in_all_stages_change_nothing(
    documents: Path, tiny_model: Path, reranker: Path, generator: Path, whole: bytes, tmp_path: Path
) -> None:
    """An adaptation that is stopped at the start of each of its stages, one after the other, ends as one that nobody stopped."""

    def again(stop: str | None = None) -> Sequence[str]:
        adaptation = make_adaptation(
            documents, tiny_model, tmp_path / "mine", "mlm_steps=2", reranker=reranker, generator=generator
        )
        resume = adaptation.folder.settings.is_file()
        stages = []
        reports = adaptation.run(resume=resume)
        for report in reports:
            stages.append(report.stage)
            if report.stage == stop and not report.done:
                break
        del reports
        return stages

    for stop in STAGES:
        assert again(stop)[-1] == stop
    assert again()[-1] == "measure"
    assert (tmp_path / "mine" / "model.safetensors").read_bytes() == whole
    before = (tmp_path / "mine" / "training" / "report.json").stat().st_mtime_ns
    assert again() == ["queries", "label", "rank", "measure"]  # all is there already
    assert (tmp_path / "mine" / "training" / "report.json").stat().st_mtime_ns == before


@pytest.fixture(scope="module")
def whole(
    documents: Path,
    tiny_model: Path,
    reranker: Path,
    generator: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> bytes:
    """The weights of an adaptation that nobody stopped."""
    output = tmp_path_factory.mktemp("whole") / "mine"
    list(
        make_adaptation(
            documents, tiny_model, output, "mlm_steps=2", reranker=reranker, generator=generator
        ).run()
    )
    return (output / "model.safetensors").read_bytes()


def test_a_share_of_one_is_what_training_made_and_a_small_one_is_near_the_start(
    documents: Path, tiny_model: Path, tmp_path: Path
) -> None:
    whole, some = (
        make_adaptation(
            documents, tiny_model, tmp_path / str(share), f"share={share}", "whitening=0", "ranking_steps=0"
        )
        for share in (1.0, 0.01)
    )
    list(whole.run())
    list(some.run())
    np.testing.assert_array_equal(vectors(whole.folder.output), vectors(whole.folder.encoder.output))
    far, near = (np.abs(vectors(each.folder.output) - vectors(tiny_model)).max() for each in (whole, some))
    assert 0 < near < far / 10


def test_whitening_alone_trains_nothing_and_spreads_the_passages(
    documents: Path, tiny_model: Path, reranker: Path, tmp_path: Path
) -> None:
    alone = ("steps=0", "ranking_steps=0")
    adaptation = make_adaptation(documents, tiny_model, tmp_path / "mine", *alone, reranker=reranker)
    folder = adaptation.folder
    assert list(dict.fromkeys(each.stage for each in adaptation.run())) == ["queries", "whiten", "measure"]
    assert sorted(path.name for path in folder.work.iterdir()) == ["adapt.json", "derived.json", "held_out.jsonl", "mapped.json", "pairs.jsonl", "passages.jsonl", "report.json"]  # fmt: skip
    texts = [titled_text(each.title, each.text) for each in adaptation.passages]
    before, after = (
        Encoder.load(path, device="cpu").encode_documents(texts) for path in (tiny_model, folder.output)
    )
    together = [float(np.linalg.norm(each.mean(axis=0))) for each in (before, after)]
    assert together[1] < 0.3 * together[0]
    # As strong as it may be, it evens out more.
    strong = make_adaptation(documents, tiny_model, tmp_path / "strong", *alone, "whitening=1")
    list(strong.run())
    spreads = [
        np.linalg.eigvalsh(np.cov(vectors.T))[-1] / np.trace(np.cov(vectors.T))
        for vectors in (after, Encoder.load(strong.folder.output, device="cpu").encode_documents(texts))
    ]
    assert spreads[1] < 0.8 * spreads[0]


def test_learning_from_hybrid_search_alone_leaves_nothing_but_the_model(
    documents: Path, tiny_model: Path, tmp_path: Path
) -> None:
    ranked, whitened, both = (
        make_adaptation(documents, tiny_model, tmp_path / name, "steps=0", *settings)
        for name, settings in (
            ("ranked", ["whitening=0"]),
            ("whitened", ["ranking_steps=0"]),
            ("both", []),
        )
    )
    stages = list(dict.fromkeys(each.stage for each in ranked.run()))
    assert stages == ["queries", "rank", "measure"]
    assert {path.name for path in ranked.folder.work.iterdir()} == {
        "adapt.json", "derived.json", "held_out.jsonl", "mapped.json", "pairs.jsonl", "passages.jsonl", "report.json"
    }  # fmt: skip
    list(whitened.run())
    list(both.run())
    found = [vectors(each.folder.output) for each in (ranked, whitened, both)]
    start = vectors(tiny_model)
    assert 0 < np.abs(found[0] - start).max() < np.abs(found[1] - start).max()  # three steps are few
    assert 0 < np.abs(found[2] - found[1]).max() < np.abs(found[2] - start).max()


def test_what_training_alone_reads_are_settings() -> None:
    assert {each.name for each in fields(AdaptRecipe)} > OF_TRAINING


@pytest.mark.parametrize(
    ("settings", "static", "encoded"), [(["steps=0"], False, 0), (["steps=0"], True, 0), ([], False, 1)]
)
def test_passages_that_a_map_was_found_from_are_not_encoded_again(
    settings: list[str],
    static: bool,
    encoded: int,
    documents: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A report on vectors that are there already is the report on texts encoded by both models, which a run gives that was stopped before."""
    model = write_static_model(tmp_path / "static") if static else tiny_model
    adaptation = make_adaptation(documents, model, tmp_path / "mine", *settings)
    cut = {pair.passage_id for pair in held_out_pairs(adaptation)}
    texts = {titled_text(each.title, each.text) for each in adaptation.passages if each.doc_id not in cut}
    reports = []
    for again in (False, True):
        asked: list[str] = []

        def counting(
            encoder: Encoder, given: Sequence[str], role: str, asked: list[str] = asked
        ) -> np.ndarray:
            asked += given if role == "document" else ()
            return encode_as(encoder, given, role)

        monkeypatch.setattr("embedkit.pipelines.adapting.report.encode_as", counting)
        list(make_adaptation(documents, model, tmp_path / "mine", *settings).run(resume=True))
        assert len([text for text in asked if text in texts]) == len(texts) * (2 if again else encoded)
        reports.append(read_json(adaptation.folder.report))
        adaptation.folder.report.unlink()
    one, other = reports
    for name in ("p_value", "agreement", "mean_cosine"):
        assert one[name] == pytest.approx(other[name], rel=1e-4)
    assert one["rose"] == other["rose"]
    assert one["held_out"] == other["held_out"]


def held_out_pairs(adaptation: Adaptation) -> Sequence[QueryPassage]:
    """Go through the first stage of an adaptation and return what it held out."""
    for report in adaptation.run():
        if report.done:
            break
    return adaptation.held_out


def test_a_model_compared_by_dot_product_is_not_whitened(
    documents: Path, tiny_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "dot"
    shutil.copytree(tiny_model, model)
    settings = model / "config_sentence_transformers.json"
    settings.write_text(json.dumps({"similarity_fn_name": "dot"}), encoding="utf-8")
    modules = json.loads((model / "modules.json").read_text(encoding="utf-8"))
    kept = [each for each in modules if not each["type"].endswith("Normalize")]
    (model / "modules.json").write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(TrainingError, match=r"compared by dot; .* --whitening 0 --ranking-steps 0"):
        make_adaptation(documents, model, tmp_path / "mine")
    make_adaptation(documents, model, tmp_path / "mine", "whitening=0", "ranking_steps=0")


def test_too_few_documents_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    few = write_documents(tmp_path / "few.jsonl", 5)
    adaptation = make_adaptation(few, tiny_model, tmp_path / "mine")
    with pytest.raises(
        TrainingError, match=r"5 documents of 6 different passages: too little to adapt to\. At least 50"
    ):
        list(adaptation.run())
    with pytest.raises(TrainingError, match="5 documents"):
        estimate_adaptation(adaptation.sources, adaptation)
    same = tmp_path / "same.jsonl"
    same.write_text(
        "".join(json.dumps({"id": n, "text": "the dog"}) + "\n" for n in range(70)), encoding="utf-8"
    )
    with pytest.raises(TrainingError, match="70 documents of 1 different passage:"):
        list(make_adaptation(same, tiny_model, tmp_path / "other").run())
    short = tmp_path / "short.jsonl"
    short.write_text(
        "".join(json.dumps({"id": n, "text": f"{n} dogs"}) + "\n" for n in range(70)), encoding="utf-8"
    )
    with pytest.raises(TrainingError, match="queries were found for 0 passages"):
        list(make_adaptation(short, tiny_model, tmp_path / "third").run())


def test_an_id_that_comes_twice_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    twice = tmp_path / "twice.jsonl"
    twice.write_text('{"id": "a", "text": "one"}\n{"id": "a", "text": "two"}\n', encoding="utf-8")
    with pytest.raises(RecordError, match=r"twice\.jsonl:2: the id 'a' is that of a document before"):
        list(make_adaptation(twice, tiny_model, tmp_path / "mine").run())


def test_documents_that_the_model_cannot_read_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    foreign = write_documents(tmp_path / "some.jsonl")
    with foreign.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"id": "jp", "text": "東京 は 日本 の 首都 です"}) + "\n")
    adaptation = make_adaptation(foreign, tiny_model, tmp_path / "mine")
    adaptation.folder.work.mkdir(parents=True)
    list(adaptation.derive())
    assert adaptation.counts["unknown"] == 1
    assert adaptation.counts["first_unknown"].endswith("some.jsonl:61")


def test_another_start_or_output_is_refused(
    documents: Path, tiny_model: Path, reranker: Path, tmp_path: Path
) -> None:
    first = make_adaptation(documents, tiny_model, tmp_path / "mine")
    with pytest.raises(TrainingError, match="there is no adaptation to resume"):
        first.run(resume=True)
    first.run()
    with pytest.raises(OutputError, match="Go on with it by --resume"):
        first.run()
    with pytest.raises(TrainingError, match=r"other settings or data:\n  recipe.steps"):
        make_adaptation(documents, tiny_model, tmp_path / "mine", "steps=5").run(resume=True)
    with pytest.raises(CheckpointError):
        make_adaptation(documents, tiny_model, tmp_path / "new", reranker=tiny_model)
    with pytest.raises(CheckpointError):
        make_adaptation(documents, reranker, tmp_path / "new")
    language_model = write_tiny_generator(tmp_path / "lm", encoder_size=None)
    with pytest.raises(TrainingError, match="a language model, which goes on with a text"):
        make_adaptation(documents, tiny_model, tmp_path / "new", generator=language_model)


@pytest.mark.parametrize("judged", [True, False])
def test_a_dry_run_counts_all_stages_and_writes_nothing(
    documents: Path, tiny_model: Path, reranker: Path, generator: Path, tmp_path: Path, *, judged: bool
) -> None:
    adaptation = make_adaptation(
        documents,
        tiny_model,
        tmp_path / "mine",
        "mlm_steps=2",
        reranker=reranker if judged else None,
        generator=generator,
    )
    found = estimate_adaptation(adaptation.sources, adaptation)
    assert set(found.seconds) == set(STAGES) - (set() if judged else {"label"})
    assert found.total_seconds == sum(found.seconds.values()) > 0
    assert not adaptation.folder.output.exists()


@pytest.mark.parametrize("seed", [-1, 2**63])
@pytest.mark.parametrize("kind", [AdaptRecipe, RunRecipe])
def test_a_seed_that_torch_does_not_take_is_refused(kind: type[AdaptRecipe | RunRecipe], seed: int) -> None:
    with pytest.raises(ValueError, match="it must be from 0 to 9223372036854775807"):
        kind(steps=1, seed=seed)


@pytest.mark.parametrize(
    ("settings", "queries"),
    [
        ({"steps": 400}, 5000),
        ({"steps": 100}, 1600),
        ({"steps": 10}, 500),
        ({"steps": 100, "max_queries": 50}, 50),
    ],
)
def test_no_more_queries_are_labelled_than_training_reads(settings: dict[str, int], queries: int) -> None:
    assert AdaptRecipe(**settings).train_queries == queries

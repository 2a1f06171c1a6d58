from __future__ import annotations

from pathlib import Path

import pytest

from embedkit.errors import OutputError, RecordError
from embedkit.pipelines.collection_cache import CachedCollection, digest


def _corpus(folder: Path, text: str = "a") -> Path:
    path = folder / "corpus.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_place_depends_on_the_corpus_and_on_all_of_the_encoder(tmp_path: Path) -> None:
    encoder = {"weights": "f00d", "precision": "fp32"}
    first = CachedCollection.of(tmp_path, "mini", corpus=_corpus(tmp_path), encoder=encoder)
    assert first.path.name.startswith("mini-")
    assert (
        CachedCollection.of(
            tmp_path, "mini", corpus=_corpus(tmp_path), encoder=dict(reversed(encoder.items()))
        )
        == first
    )
    places = {
        first.path,
        CachedCollection.of(
            tmp_path, "mini", corpus=_corpus(tmp_path), encoder=encoder | {"precision": "bf16"}
        ).path,
        CachedCollection.of(tmp_path, "other", corpus=_corpus(tmp_path), encoder=encoder).path,
        CachedCollection.of(tmp_path, "mini", corpus=_corpus(tmp_path, "b"), encoder=encoder).path,
    }
    assert len(places) == 4


def test_it_is_whole_once_that_is_noted_and_never_by_another_states_note(tmp_path: Path) -> None:
    cached = CachedCollection.of(tmp_path, "mini", corpus=_corpus(tmp_path), encoder={})
    assert not cached.is_whole()
    with pytest.raises(OutputError):
        cached.mark_whole()
    cached.path.mkdir(parents=True)
    cached.mark_whole()
    assert cached.is_whole()
    # The same name by chance (48 bits), another file behind it.
    stranger = CachedCollection(tmp_path, "mini", cached.corpus_hash[:12] + "0" * 52, cached.encoder_hash)
    assert stranger.path == cached.path
    assert not stranger.is_whole()


def test_earlier_states_of_a_collection_are_found(tmp_path: Path) -> None:
    before = CachedCollection.of(tmp_path, "mini", corpus=_corpus(tmp_path), encoder={})
    before.path.mkdir(parents=True)
    assert before.earlier() == ()
    assert CachedCollection.of(tmp_path, "mini", corpus=_corpus(tmp_path, "b"), encoder={}).earlier() == (
        before.path,
    )
    assert (
        CachedCollection.of(tmp_path, "mini", corpus=_corpus(tmp_path, "b"), encoder={"x": 1}).earlier() == ()
    )
    assert CachedCollection.of(tmp_path, "min", corpus=_corpus(tmp_path, "b"), encoder={}).earlier() == ()


def test_a_corpus_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"none.jsonl: cannot be read \(No such file or directory\)"):
        CachedCollection.of(tmp_path, "mini", corpus=tmp_path / "none.jsonl", encoder={})


def test_a_digest_is_sha256_of_sorted_json() -> None:
    # printf '{"a": 1, "b": [2]}' | sha256sum
    assert digest({"b": [2], "a": 1}) == "ae8a9a50524642753023cd4de34447191a8651989979c60bbcc5b0eeebb6e1dc"

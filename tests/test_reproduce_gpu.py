"""docs/reproduce/gpu: the training of the encoders on a GPU, driven through on the CPU with tiny models."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedkit.encoding.encoder import Encoder
from embedkit.reranking.cross_encoder import CrossEncoder
from tests.open_data import write, write_jsonl, write_open_data
from tests.tiny import FAMILY_SHAPES, WORDS, tiny_config, write_tiny_model

GPU = Path(__file__).resolve().parent.parent / "docs" / "reproduce" / "gpu"
# The sets of the folder `varied`, by their columns.
VARIED = {
    "query description code": ("code_python", "code_other", "shell_commands"),
    "title body": ("forum_title_body",),
    "title answer": ("forum_qa",),
    "question answer": ("faq_qa",),
    "heading text": ("docs_sections", "textbook_sections"),
    "synopsis description name": ("debian_descriptions",),
    "subject body": ("commit_messages",),
    "title text": ("news_headline_text", "recipes"),
    "title abstract": ("physics_abstracts_lower",),
    "term definition": ("glossary",),
    "question": ("trivia_qa",),
    "query": ("web_queries",),
    "text": ("claims_headlines", "sentences"),
    "title": ("nist_titles",),
    "text1 text2": ("tatoeba_paraphrases",),
}
HELD_OUT = 25  # rows of faq_qa that its dev set asks for
# What the scripts compute over sequences without padding is what embedkit computes of one text, or one pair, by itself.
PARITY = """
import json, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from commands import main
for arguments in json.loads(sys.argv[2]):
    main(arguments)
for arguments in json.loads(sys.argv[4]):
    try:
        main(arguments)
    except SystemExit as exc:
        print(exc)
from cross_encoder import CrossStudent
from data import Special, Texts, pack_pairs
from embedkit.checkpoint.classification import read_classifier_folder
from embedkit.checkpoint.classification_weights import load_classifier
from embedkit.checkpoint.folder import read_model_folder
from model import embed, load_trained, run_layers
from reranker import OBJECTIVES
state = Path(sys.argv[3])
folder = read_model_folder(state / "small")
special = Special.of(folder)
texts = Texts(state / "texts.npz", special)
small, rows = load_trained(folder), texts.dev_rows[:40]
ids = [texts.flat[int(texts.starts[row]) :][: texts.lens[row]].tolist() for row in rows]
with torch.no_grad():
    ours = embed(small, texts, rows, 200)
    alone = [small.model(torch.tensor([[special.cls, *each, special.sep]]))[0] for each in ids]
    print("vectors", (ours - torch.stack(alone)).abs().max().item())
    loaded = load_classifier(read_classifier_folder(state / "rerank"))
    cross = CrossStudent(loaded.encoder)
    cross.model = loaded
    scores = cross.eval().scores(texts, rows[:20], rows[20:], cap=64)
    packed = pack_pairs(texts, rows[:20], rows[20:], cap=64)
    plain, filled = (run_layers(loaded.encoder, each, compiled=False) for each in (packed, packed.filled(3000, 0)))
    pairs = [([special.cls, *a, special.sep], [*b, special.sep]) for a, b in zip(ids[:20], ids[20:])]
    single = [
        loaded.eval()(
            torch.tensor(a + b), [len(a + b)], torch.tensor([0] * len(a) + [1] * len(b))
        )[0, 0, 0]
        for a, b in pairs
    ]
    right = torch.tensor([[3.0, 1.0, 0.0]])
    for name, objective in OBJECTIVES.items():
        assert objective(right, right / 4) < objective(right.flip(1), right / 4), name
    print("scores", (scores - torch.stack(single)).abs().max().item(), (filled[: len(plain)] - plain).abs().max().item())
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """All data sets, 40 rows of each varied one, and of one of them rows that are held out."""
    data = tmp_path / "data"
    write_open_data(data)
    rng = np.random.default_rng(0)

    def sentence(count: int) -> str:
        return " ".join(rng.choice(WORDS[:60], size=count))

    for columns, names in VARIED.items():
        for name in names:
            fields = columns.split()
            kept = [sentence(6) for _ in range(2500 if name == "faq_qa" else 100)]
            wanted = {False: 40, True: HELD_OUT if name == "faq_qa" else 0}
            firsts = [
                text for held in wanted for text in [t for t in kept if is_held(t) is held][: wanted[held]]
            ]
            found = [{fields[0]: first, **{field: sentence(12) for field in fields[1:]}} for first in firsts]
            place = data / "varied" / name / "train"
            if "code" in fields:
                write_jsonl(place.with_suffix(".jsonl.zst"), found)
            else:
                lines = ["\t".join(fields), *("\t".join(row.values()) for row in found)]
                write(place.with_suffix(".tsv.zst"), lines)
    for name in ("cacm", "cisi", "time", "squad_v11_dev"):
        write(
            data / f"retrieval/{name}/qrels/test.tsv",
            ["query-id\tcorpus-id\tscore", "t-0\tt\t1", "d-0\td\t1"],
        )
    for name in ("stsb", "sick"):
        pairs = [f"{sentence(5)}\t{sentence(5)}\t{number % 5}" for number in range(12)]
        write(data / f"sts/{name}/dev.tsv", ["sentence1\tsentence2\tscore", *pairs])
    return data


def is_held(text: str) -> bool:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()[0] % 50 == 0


@pytest.mark.slow
def test_every_stage_of_the_training_on_a_gpu_runs_on_a_cpu_too(data: Path, tmp_path: Path) -> None:
    """Six layers and a random MPNet for a teacher, all tiny: the folders that come out are embedkit's to load."""
    start = write_tiny_model(
        tmp_path / "start", config=tiny_config(num_hidden_layers=6, max_position_embeddings=512)
    )
    mpnet = tiny_config(**FAMILY_SHAPES["mpnet"] | {"hidden_size": 48, "max_position_embeddings": 514})
    teacher = write_tiny_model(tmp_path / "teacher", seed=1, config=mpnet)
    state, out = tmp_path / "state", tmp_path / "out"
    common = ["--start", str(start)]
    small = ["--tokens", "2000"]
    stages = [
        ["prepare", str(data), str(state), *common],
        ["teacher", str(state), "--teacher", str(teacher), *common, *small],
        [
            *[
                "encoders",
                str(state),
                *common,
                *small,
                "--ablation",
                "0.05",
                "--small",
                "0.3",
                "--tiny",
                "0.2",
            ],
            *["--warm", "1", "--kept-tokens", "120", "--inner", "16"],
        ],
        ["static", str(state), *common, *small, "--seconds", "0.1", "--dimension", "16"],
        ["reranker", str(state), *small, "--ablation", "0", "--seconds", "0.1", "--relative-margin", "0.01"],
        ["assemble", str(state), str(out), *common, "--tiny-tokens", "110"],
    ]
    alike = tmp_path / "alike"  # where each text of a source is too near to be a negative
    alike.mkdir()
    for name in ("texts.npz", "teacher.safetensors", "small"):
        (alike / name).symlink_to(state / name)
    refused = [
        ["teacher", str(tmp_path), *common],
        ["teacher", str(state), "--teacher", "embedkit-small", *common],
        ["encoders", str(state), *common],
        ["reranker", str(tmp_path), *small],
        ["reranker", str(alike), *small, "--relative-margin", "0.99"],
    ]
    mistakes = [
        f"{tmp_path / 'texts.npz'}: it is not there; the stage prepare writes it",
        "are not in its vocabulary",
        f"{state / 'small'}: it is there already",
        f"{tmp_path / 'small'}: it is not there; the stage encoders writes it",
        f"{alike}: no source has 7 negatives for a query below 0.01 of the right text's",
    ]
    command = [sys.executable, "-c", PARITY, str(GPU), json.dumps(stages), str(state), json.dumps(refused)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line, mistake in zip(lines[:5], mistakes, strict=True):
        assert line.startswith("error: ")
        assert mistake in line
    differences = [float(number) for line in lines[5:] for number in line.split()[1:]]
    assert len(differences) == 3
    assert max(differences) < 1e-4  # of fp32, in another order

    results = json.loads((state / "results.json").read_text(encoding="utf-8"))
    assert {"teacher", "start", "small, share 0.85", "tiny", "static", "reranker"} <= set(results)
    assert all(0 <= result.get("mean others", 0) <= 1 for result in results.values())
    assert min(results[name]["steps"] for name in ("small, share 1.0", "tiny", "static", "reranker")) >= 1
    about = json.loads((state / "about.json").read_text(encoding="utf-8"))
    assert about["pairs"]["faq_qa"] == 40  # and none of the held-out rows
    with np.load(state / "texts.npz") as stored:
        assert len(stored["dev|v_faq_qa|q"]) == HELD_OUT
        assert about["tokens"] == stored["counts"].sum() == len(stored["flat"])

    texts = ["the dog runs on the beach", "a zebra writes"]
    for name, size in (("embedkit-small", 32), ("embedkit-tiny", 32), ("embedkit-static", 16)):
        vectors = Encoder.load(out / name, device="cpu").encode(texts)
        assert vectors.shape == (2, size)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    tiny = json.loads((out / "embedkit-tiny/config.json").read_text(encoding="utf-8"))
    assert (tiny["vocab_size"], tiny["num_hidden_layers"], tiny["intermediate_size"]) == (110, 3, 16)
    assert CrossEncoder.load(state / "rerank", device="cpu").score("a dog", texts).shape == (2,)


def test_the_stages_explain_themselves_without_torch() -> None:
    command = [sys.executable, "-X", "importtime", str(GPU), "encoders", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "distil small from the teacher" in " ".join(done.stdout.split())
    assert " torch\n" not in done.stderr


def test_pairs_of_every_source_are_written_for_mining_without_rows_held_out(
    data: Path, tmp_path: Path
) -> None:
    squad = data / "retrieval/squad_v11_train"
    write_jsonl(squad / "answers.jsonl.zst", [{"_id": "t-0", "answers": ["document"]}])
    command = [sys.executable, str(GPU), "pairs", str(data), str(tmp_path / "pairs"), "--limit", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in (tmp_path / "pairs").glob("*.jsonl")
    }
    (answered,) = found["squad_sentence"]
    assert answered["positive"] == "A document of squad_v11_train t"
    assert len(found["faq_qa"]) == 7
    assert not any(is_held(row["query"]) for row in found["faq_qa"])
    assert all(0 < len(rows) <= 7 for rows in found.values())

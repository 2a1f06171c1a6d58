"""A tiny corpus and tokenizer for tests of training: made sentences with some order in them."""

from __future__ import annotations

import json
import random
from pathlib import Path

from embedkit.data.records import ReadOptions
from embedkit.recipe import load_recipe
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.tokenization.train import train_tokenizer
from embedkit.training.engine.recipes import PretrainRecipe
from embedkit.training.pretraining.corpus import Corpus, build_corpus, corpus_fingerprint, open_corpus
from embedkit.training.pretraining.mlm import Pretraining, fresh_model

ANIMALS = ("cat", "dog", "horse", "bird", "fish", "mouse", "sheep", "goat")
DEEDS = ("eats", "sees", "likes", "follows", "hears", "finds")
PLACES = ("house", "garden", "forest", "river", "field", "street")

# The smallest run that has everything: two layers of 32, dropout on.
TINY = (
    "model.hidden_size=32",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=2",
    "model.intermediate_size=64",
    "model.max_position_embeddings=64",
    "text.sequence_length=32",
    "text.batch_tokens=256",
    "text.held_out=0.1",
    "text.evaluate_tokens=512",
    "optim.warmup_steps=2",
    "optim.lr=2e-3",
    "run.precision=fp32",
    "run.evaluate_every=4",
    "run.save_every=4",
)

# The same with experts, or with a recursion by a router. Auxiliary losses weigh much, so that an error in them shows.
ROUTED = {
    "experts": (
        "model.experts.num_experts=4",
        "model.experts.every_n_layers=1",
        "model.experts.capacity_factor=1.0",
        "model.experts.shared_intermediate_size=16",
        "routing.balance_weight=0.5",
        "routing.z_weight=0.1",
    ),
    "expert choice": (
        "model.num_hidden_layers=5",
        "model.recursion.routing=expert_choice",
        "routing.selection_weight=0.5",
    ),
    "token choice": (
        "model.num_hidden_layers=5",
        "model.recursion.routing=token_choice",
        "routing.balance_weight=0.5",
        "routing.z_weight=0.1",
    ),
}


def write_texts(path: Path, documents: int = 120, *, seed: int = 0) -> Path:
    """Write documents of two to nine sentences each."""
    rng = random.Random(seed)
    with path.open("w", encoding="utf-8") as stream:
        for number in range(documents):
            sentences = [
                f"The {rng.choice(ANIMALS)} {rng.choice(DEEDS)} the {rng.choice(ANIMALS)} in the {rng.choice(PLACES)} {number}."
                for _ in range(rng.randint(2, 9))
            ]
            stream.write(
                json.dumps({"id": str(number), "title": f"Story {number}", "text": " ".join(sentences)})
                + "\n"
            )
    return path


def make_tokenizer(texts: Path) -> Tokenizer:
    lines = (json.loads(line)["text"] for line in texts.read_text(encoding="utf-8").splitlines())
    tokenizer, _ = train_tokenizer(lines, vocab_size=80, max_length=64)
    return tokenizer


def make_corpus(folder: Path, texts: Path, tokenizer: Tokenizer) -> Corpus:
    fingerprint = corpus_fingerprint([str(texts)], ReadOptions(), tokenizer)
    if not folder.exists():
        list(build_corpus([str(texts)], ReadOptions(), tokenizer, folder, fingerprint))
    return open_corpus(folder)


def make_recipe(*overrides: str) -> PretrainRecipe:
    return load_recipe(PretrainRecipe, overrides=(*TINY, "run.steps=10", *overrides))


def make_journey(
    corpus: Corpus, tokenizer: Tokenizer, recipe: PretrainRecipe, *, parts: int = 1
) -> Pretraining:
    model, family = fresh_model(recipe, tokenizer)
    return Pretraining(model, tokenizer, family, corpus, recipe, parts=parts)

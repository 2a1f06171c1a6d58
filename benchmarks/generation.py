"""Measure text generation: a query generator, people's questions that count as copies, spaces that come back, speed beside transformers.

    python benchmarks/generation.py copies     questions of SQuAD train that would count as copies of their paragraphs
    python benchmarks/generation.py spaces     questions of SQuAD train that come back from tokens as they were
    python benchmarks/generation.py speed      [--texts 64] [--tokens 16] [--rounds 3]
    python benchmarks/generation.py queries --output FOLDER [--steps 2000] [--texts 500] [--seed 0] [--data FOLDER]

Queries are those of the recipe query-generation on embedkit-tiny, trained so many steps on what `QUERIES` names (where the folder holds a
run that was stopped, it goes on), then measured by beam search on so many paragraphs of SQuAD dev, with 20 examples; the rate is of the
steps that this call made.
Speed is processor time for the same work: BART with random weights, of the sizes of the recipe query-generation, writes a fixed number of
tokens for paragraphs of SQuAD dev; once by transformers, once by embedkit with the same weights' shapes. The best of several rounds counts.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from timing import data_folder

from embedkit.generation.beam_search import beam_search
from embedkit.generation.copying import LEAST_WORDS, is_copy
from embedkit.generation.decoding_rules import DecodingRules
from embedkit.generation.generator import Generator
from embedkit.generation.options import GenerationOptions
from embedkit.generation.quality import Quality, measure_outputs
from embedkit.generation.sampling import decode_rows
from embedkit.generation.spacing import tidy
from embedkit.model.config import EncoderConfig
from embedkit.model.decoder_config import DecoderConfig
from embedkit.model.decoding import Decoding
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.text_generator import TextGenerator
from embedkit.models import ENCODER, TINY, shipped
from embedkit.recipe import load_recipe
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.loop import train
from embedkit.training.engine.reporting import Evaluated, Step
from embedkit.training.engine.run_folder import RunFolder
from embedkit.training.generation.pairs import Side, SourceTargets, read_source_targets
from embedkit.training.generation.recipe import GenerationRecipe
from embedkit.training.generation.start import start_from_folder
from embedkit.training.generation.training import GenerationTraining

LAYERS, DECODER_LAYERS, HIDDEN, HEADS, ENCODER_INNER, INNER = 3, 2, 384, 12, 512, 1024
BEAMS = 4
EXAMPLES = 20
# What the query generator learns from: a set of the data folder, which column is read and which written, and how many rows at most. None
# of them is among the collections that `benchmarks/adapt.py` measures.
QUERIES = (
    ("retrieval/squad_v11_train", None, None),
    ("retrieval/scitldr:train", None, None),
    ("varied/faq_qa", ("answer", "question"), None),
    ("pairs/stackexchange_qa", ("answer", "title"), None),
    ("pairs/arxiv_title_abstract", ("abstract", "title"), 8000),
)


def squad(split: str, count: int | None, data: Path | None = None) -> SourceTargets:
    pairs = read_source_targets([str((data or data_folder()) / "retrieval" / f"squad_v11_{split}")])
    return pairs if count is None else pairs.take(random.Random(0).sample(range(len(pairs)), count))


def query_pairs(data: Path) -> SourceTargets:
    found: list[SourceTargets] = []
    for name, columns, most in QUERIES:
        place = str(data / name) if columns is None else str(next((data / name).glob("train.*")))
        sides: dict[Side, str] = {} if columns is None else {"source": columns[0], "target": columns[1]}
        pairs = read_source_targets([place], columns=sides)
        if most is not None and len(pairs) > most:
            pairs = pairs.take(sorted(random.Random(0).sample(range(len(pairs)), most)))
        found.append(pairs)
        print(f"{name}: {len(pairs):,} texts, {pairs.num_targets:,} queries", flush=True)
    return SourceTargets(
        sources=[text for pairs in found for text in pairs.sources],
        targets=[texts for pairs in found for texts in pairs.targets],
    )


def queries(output: Path, data: Path | None, *, steps: int, texts: int, seed: int) -> None:
    settings = {"run.steps": steps, "run.seed": seed, "evaluate_sources": min(texts, 300)}
    recipe = load_recipe(GenerationRecipe, preset="query-generation", values=settings)
    start = start_from_folder(shipped(TINY), recipe)
    journey = GenerationTraining(start, query_pairs(data or data_folder()), recipe)
    resume = (output / "training" / "run.json").exists()
    made: list[Step] = []
    for report in train(journey, recipe.run, recipe.optim, RunFolder(output), resume=resume):
        if isinstance(report, Step):
            made.append(report)
        elif isinstance(report, Evaluated):
            values = ", ".join(f"{name} {value:.3f}" for name, value in report.values.items())
            print(f"step {report.step:,}: held out: {values}", flush=True)
    if made:
        seconds, tokens = sum(step.seconds for step in made), sum(step.tokens for step in made)
        print(f"{len(made):,} steps in {seconds:,.0f} s, {tokens / seconds:,.0f} tokens/s")
    generator = Generator.load(output)
    dev = squad("dev", texts, data)
    options = generator.options({"method": "beam", "num_beams": BEAMS})
    *_, found = measure_outputs(generator, dev.sources, dev.targets, options)
    assert isinstance(found, Quality)
    print(
        f"{len(dev):,} paragraphs of SQuAD dev: {', '.join(f'{k} {v:.3f}' for k, v in found.values.items())}"
    )
    for row in random.Random(1).sample(range(len(dev)), min(EXAMPLES, len(dev))):
        print(f"\n{' '.join(dev.sources[row].split())[:200]}…\n  written  {found.outputs[row]}")
        print(f"  asked    {dev.targets[row][0]}")


def copies() -> None:
    pairs = squad("train", 1500)
    both = [(target, pairs.sources[i]) for i, targets in enumerate(pairs.targets) for target in targets]
    print(
        f"{len(both):,} questions; copies have at least {LEAST_WORDS} words in a row, and this share of theirs:"
    )
    for share in (0.6, 0.75, 0.8, 0.9, 1.0):
        found = sum(is_copy(target, source, least_share=share) for target, source in both)
        print(f"{share:5.2f}  {found / len(both):6.2%} of the questions count as copies")


def spaces() -> None:
    tokenizer = Tokenizer.load(shipped(ENCODER))
    normalize = tokenizer.backend.normalizer.normalize_str
    pairs = squad("train", 1500)
    texts = [" ".join(normalize(target).split()) for targets in pairs.targets for target in targets]
    decoded = [tokenizer.backend.decode(ids) for ids in tokenizer.ids(texts)]
    for name, shown in (("the decoder alone", decoded), ("tidied", list(map(tidy, decoded)))):
        same = sum(one == other for one, other in zip(texts, shown, strict=True))
        print(f"{same / len(texts):6.1%} of {len(texts):,} questions come back as they were: {name}")


def ours(vocab_size: int) -> TextGenerator:
    sizes = {"vocab_size": vocab_size, "hidden_size": HIDDEN, "num_attention_heads": HEADS}
    encoder = TransformerEncoder(
        EncoderConfig(num_hidden_layers=LAYERS, intermediate_size=ENCODER_INNER, **sizes)
    )
    decoder = DecoderConfig(
        num_hidden_layers=DECODER_LAYERS,
        intermediate_size=INNER,
        encoder_size=HIDDEN,
        share_embeddings=True,
        **sizes,
    )
    return TextGenerator(encoder, decoder).eval()


def theirs(vocab_size: int) -> torch.nn.Module:
    import transformers

    return transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=vocab_size,
            d_model=HIDDEN,
            encoder_layers=LAYERS,
            decoder_layers=DECODER_LAYERS,
            encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS,
            encoder_ffn_dim=ENCODER_INNER,
            decoder_ffn_dim=INNER,
            max_position_embeddings=512,
            bos_token_id=0,
            pad_token_id=0,
            eos_token_id=3,
            decoder_start_token_id=2,
            forced_eos_token_id=None,
        )
    ).eval()


@torch.inference_mode()
def write(model: TextGenerator, texts: Sequence[Sequence[int]], tokens: int, beams: int) -> None:
    """Write exactly so many tokens for each text."""
    source = model.encode(torch.tensor([token for text in texts for token in text]), list(map(len, texts)))
    prompts = [[2]] * len(texts)
    steps, rules = Decoding(model, prompts, source), DecodingRules(3, min_new_tokens=tokens)
    if beams > 1:
        beam_search(steps, prompts, rules, num_beams=beams, max_new_tokens=tokens)
    else:
        decode_rows(steps, prompts, rules, GenerationOptions(method="greedy", max_new_tokens=tokens))


def speed(count: int, tokens: int, rounds: int) -> None:
    tokenizer = Tokenizer.load(shipped(ENCODER))
    batch = tokenizer.encode(squad("dev", count).sources)
    ids, mask, _ = batch.padded(0)
    order = (-batch.lengths).argsort(kind="stable")
    texts = [batch.take([i]).input_ids.tolist() for i in order]
    own, other = ours(tokenizer.vocab_size), theirs(tokenizer.vocab_size)
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask).long()}
    for beams in (1, BEAMS):
        limits = {"min_new_tokens": tokens, "max_new_tokens": tokens, "num_beams": beams, "do_sample": False}
        jobs: dict[str, Callable[[], object]] = {
            "transformers": lambda limits=limits: other.generate(**inputs, **limits),
            "embedkit": lambda beams=beams: write(own, texts, tokens, beams),
        }
        best = dict.fromkeys(jobs, float("inf"))
        for _ in range(rounds):
            for name, job in jobs.items():
                started = time.process_time()
                job()
                best[name] = min(best[name], time.process_time() - started)
        rates = {name: count / seconds for name, seconds in best.items()}
        shown = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
        ratio = rates["embedkit"] / rates["transformers"]
        print(
            f"{beams} beam(s), {count} texts of {batch.lengths.mean():.0f} tokens: {shown} texts per second of CPU ({ratio:.2f} ×)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["queries", "copies", "spaces", "speed"])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--texts", type=int)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.what == "queries":
        if given.output is None:
            parser.error("queries needs --output, the folder of the run")
        queries(given.output, given.data, steps=given.steps, texts=given.texts or 500, seed=given.seed)
    elif given.what == "speed":
        torch.set_num_threads(1)
        speed(given.texts or 64, given.tokens, given.rounds)
    else:
        {"copies": copies, "spaces": spaces}[given.what]()


if __name__ == "__main__":
    main()

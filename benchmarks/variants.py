"""Compare variants of the encoder at equal compute: masked language modelling, then the same contrastive steps for all.

    python benchmarks/variants.py RUNS --minutes 30 [--data FOLDER] [--variants NAME ...] [--seeds 0 1] [--contrastive-steps 150]
                                  [--batch-tokens 1024]
    python benchmarks/variants.py RUNS --table      # as Markdown, of whatever is finished
    python benchmarks/variants.py --list

A variant is a name of the list, a preset of `train mlm` (`mini-local`), or a preset with changes, each after a colon:
`mini-low-rank:model.attention_rank=16`. A recipe of `train contrastive`, or its keys, come after a plus:
`mini+structured:loss.aspect_diversity=0`. Variants that differ after the plus alone share their pretraining.

`--minutes` is how long the first variant's pretraining takes here with seed 0, by its speed over a few steps; the floating-point
operations of that are what every other gets, in fewer steps where a step is more work. This plan is written to RUNS/plan.json once, and
holds for whatever joins later. All read the same texts, pieces and masks of simplewiki, and the same batches of SQuAD train, simplewiki
titles with leads, and pairs of captions; then come Spearman's correlation on STS-B dev and nDCG@10 on SQuAD dev. Each finished run is a
file in RUNS/results; after a stop the same command goes on, within a run from its last state.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from timing import data_folder, surroundings

CHECKS = 10  # evaluations and states of a run
# What the table has unless others are named: preset, and what comes after the plus.
VARIANTS = {
    "mini": "mini",
    "relative": "mini-relative",
    "rotary": "mini-rotary",
    "local": "mini-local",
    "low rank": "mini-low-rank",
    "random features": "mini-random-features",
    "additive scores": "mini-additive",
    "bilinear scores": "mini-bilinear",
    "diverse heads": "mini-diverse",
    "experts": "mini-moe",  # 2 of 8 in every second layer, half as wide
    "experts, one a token": "mini-moe:model.experts.num_experts_per_tok=1:model.experts.intermediate_size=1024"
    ":model.experts.capacity_factor=1.25",  # as Fedus et al. 2021 have them
    "recursion": "mini-mor",  # expert choice
    "recursion, token choice": "mini-mor:model.recursion.routing=token_choice",
    "attention pooling": "mini+head.pooling=attention",
    "structured": "mini+structured:loss.aspect_diversity=0",
    "structured, diverse": "mini+structured",
    "mean of layers": "mini+head.layer_start=0",
    "bilinear similarity": "mini+loss.similarity=bilinear",
}


@dataclass(frozen=True)
class Variant:
    """A row of the table: how the encoder is pretrained, and what is put on it."""

    name: str
    preset: str
    pretraining: tuple[str, ...] = ()
    recipe: str | None = None
    contrastive: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> Variant:
        """Read a variant as the command line has it."""
        before, _, after = VARIANTS.get(text, text).partition("+")
        preset, *pretraining = before.split(":")
        parts = [part for part in after.split(":") if part]
        recipe = parts.pop(0) if parts and "=" not in parts[0] else None
        return cls(text, preset, tuple(pretraining), recipe, tuple(parts))

    def pretrained_as(self, seed: int) -> str:
        """Name the pretraining that this variant shares with others."""
        return _slug("-".join((self.preset, *self.pretraining, f"seed{seed}")))


@dataclass(frozen=True)
class Plan:
    """What is the same for every run of a folder."""

    minutes: float
    flops: float  # of one pretraining, forward and backward
    baseline: str
    baseline_steps: int
    contrastive_steps: int
    batch_size: int
    documents: int
    vocab_size: int
    precision: str
    batch_tokens: int | None = None  # of a step of pretraining; None: the preset's


@dataclass(frozen=True)
class Place:
    """The folders of a comparison."""

    root: Path
    data: Path

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def prepared(self) -> Path:
        return self.root / "prepared"

    def result(self, kind: str, name: str) -> Path:
        return self.root / "results" / kind / f"{name}.json"

    def run(self, kind: str, name: str) -> Path:
        return self.root / "runs" / kind / name


def prepare(place: Place, documents: int, vocab_size: int) -> None:
    """Write the articles, a tokenizer, their tokens and the pairs, unless they are there."""
    from embedkit.data.reading import read_documents
    from embedkit.data.records import ReadOptions
    from embedkit.tokenization.train import texts_of, train_tokenizer
    from embedkit.training.pretraining.corpus import build_corpus

    if (place.prepared / "done").exists():
        return
    shutil.rmtree(place.prepared, ignore_errors=True)
    place.prepared.mkdir(parents=True)
    source = str(place.data / "text" / "simplewiki.jsonl.zst")
    articles = list(itertools.islice(read_documents([source]), documents or None))
    say(f"{len(articles):,} articles; training the tokenizer")
    tokenizer, _ = train_tokenizer(texts_of(articles), vocab_size=vocab_size)
    (place.prepared / "tokenizer").mkdir()
    tokenizer.save(place.prepared / "tokenizer")
    texts = place.prepared / "articles.txt"
    with texts.open("w", encoding="utf-8") as stream:
        stream.writelines(" ".join(text.split()) + "\n" for text in texts_of(articles))
    list(build_corpus([str(texts)], ReadOptions(), tokenizer, place.prepared / "corpus", "variants"))
    texts.unlink()
    write_pairs(place.prepared / "leads.jsonl", leads(place.data))
    write_pairs(place.prepared / "captions.jsonl", captions(place.data))
    (place.prepared / "done").touch()


def leads(data: Path) -> Iterator[tuple[str, str]]:
    from embedkit.data.one_file import open_rows

    for _, row in open_rows(data / "pairs" / "simplewiki_title_lead" / "all.tsv.zst"):
        yield str(row["title"]), str(row["lead"])


def captions(data: Path) -> Iterator[tuple[str, str]]:
    from embedkit.data.one_file import open_rows

    for _, row in open_rows(data / "pairs" / "coco_captions" / "train.jsonl.zst"):
        first, second, *_ = row["captions"]
        yield first, second


def write_pairs(path: Path, pairs: Iterator[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for query, positive in pairs:
            stream.write(json.dumps({"query": query, "positive": positive}) + "\n")


def pretraining_of(
    place: Place, variant: Variant, seed: int, steps: int, precision: str, batch_tokens: int | None
) -> tuple[Any, Any]:
    """Return the journey of a pretraining, and its recipe."""
    from embedkit.recipe import load_recipe
    from embedkit.tokenization.tokenizer import Tokenizer
    from embedkit.training.engine.recipes import PretrainRecipe
    from embedkit.training.pretraining.corpus import open_corpus
    from embedkit.training.pretraining.mlm import Pretraining, fresh_model

    every = max(1, steps // CHECKS)
    own = [f"run.steps={steps}", f"run.seed={seed}", f"run.precision={precision}", "run.keep_last=1"]
    own += [f"run.evaluate_every={every}", f"run.save_every={every}"]
    # A third of the steps reads short sequences, as `mini` does in its 3,600.
    own += [f"text.short_steps={steps // 3}", f"optim.warmup_steps={min(100, max(1, steps // 10))}"]
    own.append(
        f"text.evaluate_tokens={min(65_536, 512 * steps)}"
    )  # of a short try not more than of its training
    own += [] if batch_tokens is None else [f"text.batch_tokens={batch_tokens}"]
    recipe = load_recipe(PretrainRecipe, preset=variant.preset, overrides=(*own, *variant.pretraining))
    tokenizer = Tokenizer.load(place.prepared / "tokenizer")
    model, family = fresh_model(recipe, tokenizer)
    corpus = open_corpus(place.prepared / "corpus")
    return Pretraining(model, tokenizer, family, corpus, recipe), recipe


def measured_work(
    place: Place, variant: Variant, precision: str, batch_tokens: int | None
) -> tuple[float, float, float]:
    """Make a few steps of a variant: operations and seconds of a step, on average, and operations of a token, forward."""
    from embedkit.training.engine.loop import seeded
    from embedkit.training.engine.ranks import alone
    from embedkit.training.engine.run_precision import with_precision

    journey, recipe = pretraining_of(place, variant, 0, 3000, precision, batch_tokens)
    ranks = with_precision(alone(), recipe.run)
    journey.module.train()
    flops, seconds, per_token = [], [], 0.0
    # Short sequences are a third of the steps. The first of each kind warms up.
    for step in (0, 1, 1500, 1501, 1502):
        started = time.perf_counter()
        with seeded(0, step, ranks):
            shares = journey.backward(journey.module, step, ranks)
        if step not in (0, 1500):
            flops.append(float(shares.flops))
            seconds.append(time.perf_counter() - started)
            per_token = float(shares.flops) / 3 / shares.tokens
    return statistics.mean(flops), statistics.mean(seconds), per_token


def make_plan(place: Place, given: argparse.Namespace, baseline: Variant) -> Plan:
    """Read the plan, or settle it by the speed of the baseline."""
    if place.plan.exists():
        plan = Plan(**json.loads(place.plan.read_text(encoding="utf-8")))
        wanted = {
            "minutes": given.minutes,
            "contrastive_steps": given.contrastive_steps,
            "batch_size": given.batch_size,
            "documents": given.documents,
            "vocab_size": given.vocab_size,
            "batch_tokens": given.batch_tokens,
        }
        for name, value in wanted.items():
            if value is not None and value != getattr(plan, name):
                sys.exit(
                    f"{place.plan}: {name} is {getattr(plan, name)}, and {value} was asked for. Use another folder"
                )
        return plan
    if given.minutes is None:
        sys.exit("--minutes: say how long the baseline's pretraining may take, such as 30")
    vocab_size = 8192 if given.vocab_size is None else given.vocab_size
    prepare(place, given.documents or 0, vocab_size)
    flops, seconds, _ = measured_work(place, baseline, given.precision, given.batch_tokens)
    steps = max(20, round(given.minutes * 60 / seconds))
    plan = Plan(
        minutes=given.minutes,
        flops=flops * steps,
        baseline=baseline.name,
        baseline_steps=steps,
        contrastive_steps=150 if given.contrastive_steps is None else given.contrastive_steps,
        batch_size=64 if given.batch_size is None else given.batch_size,
        documents=given.documents or 0,
        vocab_size=vocab_size,
        precision=given.precision,
        batch_tokens=given.batch_tokens,
    )
    write(place.plan, asdict(plan))
    return plan


def pretrain(place: Place, plan: Plan, variant: Variant, seed: int) -> Path:
    """Pretrain a variant, or go on with it, or take what is finished; return the model's folder."""
    from embedkit.training.engine.loop import train
    from embedkit.training.engine.run_folder import RunFolder

    name = variant.pretrained_as(seed)
    output, result = place.run("pretraining", name), place.result("pretraining", name)
    if result.exists():
        return output
    flops, _, per_token = measured_work(place, variant, plan.precision, plan.batch_tokens)
    steps = max(1, round(plan.flops / flops))
    journey, recipe = pretraining_of(place, variant, seed, steps, plan.precision, plan.batch_tokens)
    folder = RunFolder(output)
    resume = (folder.path / "run.json").exists()
    started = time.process_time()
    reports = train(journey, recipe.run, recipe.optim, folder, resume=resume)
    watch(reports, f"{variant.name}, seed {seed}: pretraining", steps)
    seconds = time.process_time() - started
    log = read_log(folder.log_path)
    made = [entry for entry in log if entry["kind"] == "step"]
    checks = [entry for entry in log if entry["kind"] == "evaluated"]
    tokens = sum(entry["tokens"] for entry in made)
    content = {
        "steps": steps,
        "flops": sum(entry["flops"] for entry in made),
        "tokens": tokens,
        "tokens_per_second": tokens / sum(entry["seconds"] for entry in made),
        # Other work on the machine slows the clock, not the processor's time; of a run that was resumed it is not known.
        "tokens_per_cpu_second": None if resume else tokens / seconds,
        "flops_per_token": per_token,
        "parameters": sum(p.numel() for p in journey.module.encoder.parameters()),
        "accuracy": max(entry["values"]["accuracy"] for entry in checks),
        "held_out": checks[-1]["values"],
    }
    # Nothing is dropped outside of training: the share is that of the last steps.
    dropped = [
        entry["values"]["dropped"]
        for entry in made[-max(1, steps // CHECKS) :]
        if "dropped" in entry["values"]
    ]
    if dropped:
        content["dropped"] = statistics.mean(dropped)
    shutil.rmtree(folder.states)
    write(result, content)
    return output


def fine_tune(place: Place, plan: Plan, variant: Variant, seed: int, encoder: Path) -> None:
    """Train a pretrained variant on pairs and measure it."""
    from embedkit.checkpoint.folder import read_model_folder
    from embedkit.checkpoint.weights import load_sentence_encoder
    from embedkit.recipe import load_recipe
    from embedkit.training.contrastive.data_sets import make_data_set, read_data_set
    from embedkit.training.contrastive.head import with_head
    from embedkit.training.contrastive.recipe import ContrastiveRecipe
    from embedkit.training.contrastive.training import Contrastive
    from embedkit.training.engine.loop import train
    from embedkit.training.engine.run_folder import RunFolder

    steps = plan.contrastive_steps
    every = max(1, steps // 3)
    own = [f"run.steps={steps}", f"run.seed={seed}", f"run.precision={plan.precision}", "run.keep_last=1"]
    own += [f"run.evaluate_every={every}", f"run.save_every={every}"]
    own += [
        f"data.batch_size={plan.batch_size}",
        "data.max_length=96",
        "data.mixing=0.5",
        "data.held_out=0.005",
    ]
    own += ["optim.lr=4e-4", f"optim.warmup_steps={max(1, steps // 10)}"]  # as docs/contrastive.md has them
    recipe = load_recipe(
        ContrastiveRecipe,
        preset="contrastive",
        path=variant.recipe,
        overrides=(*own, *variant.contrastive),
    )
    folder = read_model_folder(encoder)
    folder, model = with_head(folder, load_sentence_encoder(folder), recipe)
    squad = str(place.data / "retrieval" / "squad_v11_train")
    sources = [squad, *(str(place.prepared / name) for name in ("leads.jsonl", "captions.jsonl"))]
    read = [read_data_set(source, {}, recipe.loss) for source in sources]
    sets = [make_data_set(rows, recipe, folder, model, number=number) for number, rows in enumerate(read)]
    journey = Contrastive(folder, model, sets, recipe, origin=encoder.name)
    output = RunFolder(place.run("contrastive", _slug(f"{variant.name}-seed{seed}")))
    resume = (output.path / "run.json").exists()
    started = time.process_time()
    reports = train(journey, recipe.run, recipe.optim, output, resume=resume)
    watch(reports, f"{variant.name}, seed {seed}: contrastive", steps)
    content = {
        "variant": variant.name,
        "seed": seed,
        "pretraining": variant.pretrained_as(seed),
        "contrastive_cpu_seconds": None if resume else time.process_time() - started,
        **measure(place.data, output.output),
        "fewer_recursions": {
            count: measure(place.data, output.output, recursions=count)
            for count in fewer_recursions(folder.config)
        },
        "with": surroundings(),
    }
    write(place.result("contrastive", _slug(f"{variant.name}-seed{seed}")), content)
    shutil.rmtree(output.output)


def fewer_recursions(config: Any) -> list[int]:
    """Return how often layers that recur may run besides as often as they were trained with: 1, 2 … one less."""
    return [] if config.recursion is None else list(range(1, config.recursion.num_recursions))


def measure(data: Path, folder: Path, *, recursions: int | None = None) -> dict[str, float]:
    """Measure a finished model on STS-B dev and SQuAD dev."""
    from embedkit.encoding.encoder import Encoder
    from embedkit.training.engine.evaluation_sets import load_evaluation_sets

    encoder = Encoder.load(folder, device="cpu", recursions=recursions)

    def embed(texts: Sequence[str], role: str) -> Any:
        if role == "document":
            return encoder.encode(texts, prompt=encoder.role_prompt("document"), on_truncate="ok")
        return encoder.encode(texts, on_truncate="ok")

    def search(texts: Sequence[str], role: str) -> Any:
        vectors = embed(texts, role)
        return encoder.as_queries(vectors) if role == "query" else vectors

    similarity, retrieval = load_evaluation_sets(
        [str(data / "sts" / "stsb" / "dev.tsv"), str(data / "retrieval" / "squad_v11_dev")]
    )
    return {"stsb_dev": similarity.measure(embed), "squad_dev": retrieval.measure(search)}


def watch(reports: Iterator[Any], what: str, steps: int) -> None:
    """Follow a run: a line for each evaluation, with the time that is left."""
    from embedkit.training.engine.reporting import Evaluated, Step

    started, first = time.monotonic(), None
    for report in reports:
        if isinstance(report, Step):
            first = report.step - 1 if first is None else first
        if isinstance(report, Evaluated) and first is not None:
            left = (time.monotonic() - started) / (report.step - first) * (steps - report.step)
            values = "  ".join(f"{name} {value:.4g}" for name, value in report.values.items())
            say(f"{what} {report.step:,}/{steps:,}  {values}  {left / 60:.1f} min left")


def read_log(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


Rows = dict[str, list[dict[str, Any]]]  # of each variant, one a seed


def finished(place: Place, names: Sequence[str]) -> Rows:
    """Read what is finished, in the order of `names`; others follow."""
    results: Rows = {}
    for path in sorted((place.root / "results" / "contrastive").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        before = json.loads(place.result("pretraining", found["pretraining"]).read_text(encoding="utf-8"))
        results.setdefault(found["variant"], []).append({**before, **found})
    order = [name for name in names if name in results] + [name for name in results if name not in names]
    return {name: results[name] for name in order}


def table(results: Rows) -> str:
    """Return what is finished as Markdown: means over the seeds, and ± half of their range."""
    header = "variant | seeds | MLM accuracy | STS-B dev | SQuAD dev nDCG@10 | parameters | MFLOP a token | tokens/s | steps"
    lines = [f"| {header} |", "|---" + "|---:" * header.count("|") + "|"]
    for name, rows in results.items():
        cells = [name, str(len(rows))]
        cells += [spread([row[key] for row in rows]) for key in ("accuracy", "stsb_dev", "squad_dev")]
        speeds = [row["tokens_per_cpu_second"] or row["tokens_per_second"] for row in rows]
        cells += [f"{rows[0]['parameters'] / 1e6:.2f} M", f"{rows[0]['flops_per_token'] / 1e6:.2f}"]
        cells += [f"{statistics.mean(speeds):,.0f}", f"{rows[0]['steps']:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def routing_table(results: Rows) -> str:
    """Return what routers did, on held-out text after the pretraining, and what fewer recursions cost; empty where nothing is routed."""
    lines = []
    for name, rows in results.items():
        found = [
            measure for measure in rows[0]["held_out"] if measure.startswith(("router_", "experts_", "depth"))
        ]
        cells = [
            f"{measure} {statistics.mean(row['held_out'][measure] for row in rows):.3f}" for measure in found
        ]
        if "dropped" in rows[0]:
            cells.append(f"dropped {statistics.mean(row['dropped'] for row in rows):.4f}")
        for count in rows[0]["fewer_recursions"]:
            values = [
                f"{key} {spread([row['fewer_recursions'][count][key] for row in rows])}"
                for key in ("stsb_dev", "squad_dev")
            ]
            cells.append(f"at {count} recursions {', '.join(values)}")
        if cells:
            lines.append(f"- {name}: {'; '.join(cells)}")
    return "\n".join(lines)


def show(place: Place, names: Sequence[str]) -> None:
    results = finished(place, names)
    print(table(results))
    if routed := routing_table(results):
        print(f"\n{routed}")


def spread(values: Sequence[float]) -> str:
    middle = f"{statistics.mean(values):.4f}".removeprefix("0")
    half = f"{(max(values) - min(values)) / 2:.4f}".removeprefix("0")
    return middle if len(values) == 1 else f"{middle} ± {half}"


def _slug(text: str) -> str:
    return re.sub(r"[^\w.=]+", "-", text)


def write(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="?", type=Path, help="folder of the comparison")
    parser.add_argument("--minutes", type=float, help="pretraining of the first variant, by its speed here")
    parser.add_argument("--data", type=Path, help="folder of the real data (default: $EMBEDKIT_DATA)")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), help="default: the list's")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--contrastive-steps", type=int, help="default: 150")
    parser.add_argument("--batch-size", type=int, help="pairs of a contrastive step; default: 64")
    parser.add_argument(
        "--batch-tokens", type=int, help="tokens of a step of pretraining; default: the preset's"
    )
    parser.add_argument("--documents", type=int, help="articles to pretrain on; default: all")
    parser.add_argument("--vocab-size", type=int, help="of the tokenizer; default: 8192")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--threads", type=int, help="threads to compute with (default: torch's)")
    parser.add_argument("--table", action="store_true", help="print what is finished, and compute nothing")
    parser.add_argument("--list", action="store_true", help="print the variants that have names")
    given = parser.parse_args()
    if given.list:
        print("\n".join(f"{name}: {what}" for name, what in VARIANTS.items()))
        return
    if given.runs is None:
        parser.error("name the folder of the comparison")
    place = Place(given.runs, given.data or data_folder())
    if given.table:
        show(place, given.variants)
        return
    if given.threads is not None:
        import torch

        torch.set_num_threads(given.threads)
    variants = [Variant.of(name) for name in given.variants]
    plan = make_plan(place, given, replace(variants[0], contrastive=(), recipe=None))
    prepare(place, plan.documents, plan.vocab_size)
    distinct = {each.pretrained_as(seed) for each in variants for seed in given.seeds}
    say(
        f"{len(distinct)} pretrainings of {plan.flops:.3g} operations each ({plan.baseline_steps:,} steps of {plan.baseline}), "
        f"{len(variants) * len(given.seeds)} times {plan.contrastive_steps:,} contrastive steps"
    )
    for seed in given.seeds:  # a table of all variants by one seed comes first
        for variant in variants:
            name = _slug(f"{variant.name}-seed{seed}")
            if not place.result("contrastive", name).exists():
                fine_tune(place, plan, variant, seed, pretrain(place, plan, variant, seed))
    show(place, given.variants)


if __name__ == "__main__":
    main()

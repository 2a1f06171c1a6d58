"""The stages of training on one GPU, in this order: prepare, teacher, encoders, static, reranker, assemble."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # sources.py, texts.py, varied.py

from embedkit.errors import EmbedkitError, OutputError, TrainingError

STATE_HELP = "the folder that the stages share: prepare writes it"
TEXTS, VECTORS, RESULTS = "texts.npz", "teacher.safetensors", "results.json"
Results = dict[str, dict[str, float]]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except EmbedkitError as exc:
        sys.exit(f"error: {exc}")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python docs/reproduce/gpu", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_prepare(commands)
    _add_texts(commands)
    _add_pairs(commands)
    _add_teacher(commands)
    _add_encoders(commands)
    _add_static(commands)
    _add_reranker(commands)
    _add_assemble(commands)
    return top


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    help_text: str,
    run: Callable[[argparse.Namespace], None],
) -> argparse.ArgumentParser:
    formatter = argparse.ArgumentDefaultsHelpFormatter
    command = commands.add_parser(name, help=help_text, description=help_text, formatter_class=formatter)
    command.set_defaults(run=run)
    return command


def _add_start(command: argparse.ArgumentParser) -> None:
    start = (
        "the model that small starts from, whose tokenizer the texts are prepared with: a folder or a name"
    )
    command.add_argument("--start", default="all-MiniLM-L6-v2", help=start)


def _add_tokens(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tokens", type=int, default=131_072, help="tokens of a batch")


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", type=Path, help="the folder of data sets")


def _add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "prepare", "Write the texts, pairs and dev sets as token ids; needs no GPU.", _prepare
    )
    _add_data(command)
    command.add_argument("state", type=Path, help="the folder to write, which the other stages share")
    _add_start(command)


def _add_texts(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    help_text = "Write a sample of the texts as JSON lines for `embedkit train distill`; needs no GPU."
    command = _command(commands, "texts", help_text, _texts)
    _add_data(command)
    command.add_argument("output", type=Path, help="the JSONL file to write")
    command.add_argument("--limit", type=int, default=300_000, help="number of texts")


def _add_pairs(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    help_text = "Write pairs of every source as JSON lines for `embedkit mine`; needs no GPU."
    command = _command(commands, "pairs", help_text, _pairs)
    _add_data(command)
    command.add_argument("output", type=Path, help="the folder to write a file of each source into")
    command.add_argument("--limit", type=int, default=3000, help="number of pairs of a source, at most")


def _add_teacher(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(commands, "teacher", "Compute the teacher's vectors of all texts, once.", _teacher)
    command.add_argument("state", type=Path, help=STATE_HELP)
    command.add_argument(
        "--teacher",
        default="all-mpnet-base-v2",
        help="a folder or a name; its vocabulary must hold the start's",
    )
    _add_start(command)
    _add_tokens(command)


def _add_encoders(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "encoders",
        "Choose the loss, distil small from the teacher, and tiny from small.",
        _encoders,
    )
    command.add_argument("state", type=Path, help=STATE_HELP)
    _add_start(command)
    _add_tokens(command)
    command.add_argument("--lr", type=float, default=4e-4, help="the highest learning rate")
    command.add_argument(
        "--ablation",
        type=float,
        default=13,
        help="seconds for each loss that is tried; 0 takes the chosen one",
    )
    command.add_argument("--small", type=float, default=230, help="seconds for small")
    command.add_argument("--tiny", type=float, default=70, help="seconds for tiny")
    command.add_argument("--warm", type=int, default=12, help="steps of a first run that is thrown away")
    command.add_argument("--kept-tokens", type=int, default=24_000, help="tokens that tiny is trained with")
    command.add_argument("--inner", type=int, default=512, help="inner units of tiny's layers")
    command.add_argument("--compile", action="store_true", help="compile what stands between two attentions")


def _add_static(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(commands, "static", "Distil a static model: a table of token vectors.", _static)
    command.add_argument("state", type=Path, help=STATE_HELP)
    _add_start(command)
    _add_tokens(command)
    command.add_argument("--seconds", type=float, default=18, help="seconds of training")
    command.add_argument("--dimension", type=int, default=256, help="dimensions of its vectors")


def _add_reranker(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "reranker",
        "Mine negatives, choose an objective and train a cross-encoder from small.",
        _reranker,
    )
    command.add_argument("state", type=Path, help=STATE_HELP)
    _add_tokens(command)
    command.add_argument("--lr", type=float, default=2e-4, help="the highest learning rate")
    command.add_argument(
        "--ablation", type=float, default=14, help="seconds for each objective that is tried; 0 takes softmax"
    )
    command.add_argument("--seconds", type=float, default=100, help="seconds of training")
    command.add_argument(
        "--relative-margin",
        type=float,
        default=0.05,
        help="share by which a negative's cosine is below the right one's",
    )
    command.add_argument("--compile", action="store_true", help="compile what stands between two attentions")


def _add_assemble(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands, "assemble", "Write the folders that are shipped, in int8; needs no GPU.", _assemble
    )
    command.add_argument("state", type=Path, help=STATE_HELP)
    command.add_argument("output", type=Path, help="the folder to write them into")
    _add_start(command)
    command.add_argument("--tiny-tokens", type=int, default=23_600, help="tokens that tiny keeps")


def _prepare(options: argparse.Namespace) -> None:
    from prepare import prepare

    prepare(options.data, options.state, start=options.start)


def _texts(options: argparse.Namespace) -> None:
    from prepare import write_texts

    write_texts(options.data, options.output, limit=options.limit)


def _pairs(options: argparse.Namespace) -> None:
    from prepare import write_pairs

    write_pairs(options.data, options.output, limit=options.limit)


def _teacher(options: argparse.Namespace) -> None:
    _require(options.state / TEXTS, "prepare")
    from teacher import compute

    found = compute(options.state, teacher=options.teacher, start=options.start, tokens=options.tokens)
    _note(options.state, found)


def _encoders(options: argparse.Namespace) -> None:
    _require(options.state / TEXTS, "prepare")
    _require(options.state / VECTORS, "teacher")
    _refuse_existing(options.state / "small", options.state / "tiny")
    from encoders import EncoderOptions, encoders

    chosen = EncoderOptions(
        start=options.start,
        tokens=options.tokens,
        rate=options.lr,
        ablation_seconds=options.ablation,
        small_seconds=options.small,
        tiny_seconds=options.tiny,
        warm_steps=options.warm,
        kept_tokens=options.kept_tokens,
        inner=options.inner,
        compiled=options.compile,
    )
    _note(options.state, encoders(options.state, chosen))


def _static(options: argparse.Namespace) -> None:
    _require(options.state / TEXTS, "prepare")
    _require(options.state / VECTORS, "teacher")
    _refuse_existing(options.state / "static")
    from static import static

    found = static(
        options.state,
        start=options.start,
        tokens=options.tokens,
        dimension=options.dimension,
        seconds=options.seconds,
    )
    _note(options.state, found)


def _reranker(options: argparse.Namespace) -> None:
    _require(options.state / "small", "encoders")
    _refuse_existing(options.state / "rerank")
    from reranker import RerankerOptions, reranker

    chosen = RerankerOptions(
        teacher_margin=options.relative_margin,
        tokens=options.tokens,
        rate=options.lr,
        ablation_seconds=options.ablation,
        seconds=options.seconds,
        compiled=options.compile,
    )
    _note(options.state, reranker(options.state, chosen))


def _assemble(options: argparse.Namespace) -> None:
    _require(options.state / "tiny", "encoders")
    _refuse_existing(options.state / "tiny-cut")
    from assemble import assemble

    assemble(options.state, options.output, start=options.start, tiny_tokens=options.tiny_tokens)


def _refuse_existing(*folders: Path) -> None:
    """Say before a long run, not after it, that its result would have no place."""
    for folder in folders:
        if folder.exists():
            raise OutputError(
                f"{folder}: it is there already; this stage writes it. Move it away, or delete it"
            )


def _require(path: Path, stage: str) -> None:
    if not path.exists():
        raise TrainingError(f"{path}: it is not there; the stage {stage} writes it. Run that first")


def _note(state: Path, found: Results) -> None:
    """Add what a stage reached to the results of the others."""
    path = state / RESULTS
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(before | found, indent=1) + "\n", encoding="utf-8")

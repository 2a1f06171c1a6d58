"""Check every CUDA path against the CPU and measure it; see docs/gpu.md.

    python -m benchmarks.gpu [--output gpu-results] [--wheels FOLDER] [--seconds 540] [--only STAGE …]

Checks come first, then measurements, the most important first. Every result is written as soon as it is there, one
line per case in results.jsonl, and summary.txt at the end. The exit code is 1 if a check was wrong, a case failed, or
checks were not reached in time.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .packages import NEEDED, WANTED, install, missing
from .stages import Log, run_stage
from .summary import succeeded, summary


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parse(arguments)
    with tempfile.TemporaryDirectory(prefix="embedkit-gpu-") as place:
        os.environ["EMBEDKIT_CACHE"] = str(Path(place) / "cache")  # earlier findings do not count
        if not _take_packages(given.wheels, Path(place) / "packages"):
            return 1
        import torch

        if given.device == "cuda" and not torch.cuda.is_available():
            print(f"torch {torch.__version__} finds no CUDA device. Nothing was checked or measured.")
            return 0
        # Python cannot interrupt a kernel that never ends: then print where it hangs, and exit.
        faulthandler.dump_traceback_later(given.seconds + 30, exit=True)
        try:
            return _run(given, Path(place))
        finally:
            faulthandler.cancel_dump_traceback_later()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=Path("gpu-results"), help="folder for the results")
    parser.add_argument(
        "--wheels", type=Path, help="folder of wheels to install first, into a temporary folder"
    )
    parser.add_argument(
        "--seconds", type=float, default=540, help="time for all stages together (default: 540)"
    )
    parser.add_argument("--only", nargs="+", metavar="STAGE", default=[], help="run these stages only")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    parser.add_argument(
        "--quick", action="store_true", help=argparse.SUPPRESS
    )  # tiny sizes, to test the cases
    return parser.parse_args(arguments)


def _take_packages(wheels: Path | None, target: Path) -> bool:
    """Print which packages are missing, install the wheels if there are any, and return whether we can run."""
    absent = missing(NEEDED | WANTED)
    print(f"missing packages: {', '.join(absent.values()) or 'none'}")
    if wheels is not None:
        trouble = install(wheels.resolve(), target)
        absent = missing(absent)
        print(
            trouble
            or f"missing after installing the wheels of {wheels}: {', '.join(absent.values()) or 'none'}"
        )
    needed = missing(NEEDED)
    if needed:
        print(
            f"{', '.join(needed.values())} must be installed. Use a Python that has them (make gpu GPU_PYTHON=python3) "
            "or a folder of their wheels (make gpu WHEELS=FOLDER)"
        )
    return not needed


def _run(given: argparse.Namespace, place: Path) -> int:
    from .all_stages import all_stages
    from .setting import Setting, surroundings

    logging.disable(logging.WARNING)  # a random reranker cannot be calibrated, and says so
    began = time.monotonic()
    output: Path = given.output
    output.mkdir(parents=True, exist_ok=True)
    setting = Setting(given.device, given.quick, place, output)
    stages = [stage for stage in all_stages(setting) if not given.only or stage.name in given.only]
    if unknown := set(given.only) - {stage.name for stage in stages}:
        sys.exit(
            f"no stage {', '.join(sorted(unknown))}; there are: {', '.join(s.name for s in all_stages(setting))}"
        )
    about = surroundings(setting)
    (output / "environment.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    log = Log(output / "results.jsonl")
    for stage in stages:
        run_stage(stage, log, until=began + given.seconds)
        setting.tidy()
    text = summary(about, stages, log.results)
    (output / "summary.txt").write_text(text, encoding="utf-8")
    print(f"\n{text}\nresults are in {output}")
    return 0 if succeeded(stages, log.results) else 1


if __name__ == "__main__":
    sys.exit(main())

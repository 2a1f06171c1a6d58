"""Runs in processes of their own, which start at once: a server that has loaded torch forks them."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

SECONDS = 300
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        "torch._dynamo",  # which the first step of any optimizer loads, else in every process
        "tests.training.engine.worker",
        "tests.training.contrastive_runs",
        "tests.training.generation_runs",
    ]
)


def exit_code(work: Callable[..., None], *arguments: Any, ranks: int = 1) -> int:  # Any: what `work` takes
    """Call `work` in so many processes, which find each other as those of torchrun do, and return how they ended.

    An error in one is printed on standard error, and is an AssertionError here; one that was killed is none.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        FORKSERVER.Process(target=_as_rank, args=(rank, ranks, port, work, arguments), daemon=True)
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert set(codes) <= {0, -9}, f"{work.__module__} {arguments} ended with {codes}"
    return min(code for code in codes if code is not None)


def _as_rank(
    rank: int, world: int, port: int, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:  # Any: as above
    if world > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    work(*arguments)

"""What a worker does that is killed (see `tests.forking`)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from embedkit.distributed.shard import ShardBuilder
from tests.distributed import hashes


def build_all(folder: Path) -> list[str]:
    """Build what is missing of all shards, and return their hashes."""
    builder = ShardBuilder(folder)
    builder.prepare()
    for shard in range(len(builder.plan.shards)):
        builder.build(shard, lambda progress: None)
    return hashes(folder)


def work_until(folder: str, moment: str) -> None:
    """Build all shards; end the process, as a kill does, at the moment when such a file or folder is to take its name."""

    def hook(event: str, values: tuple[object, ...]) -> None:
        if event == "os.rename" and str(values[1]).endswith(moment):
            os.write(1, b"killed\n")
            os._exit(137)

    sys.addaudithook(hook)
    build_all(Path(folder))

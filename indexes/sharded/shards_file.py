"""`shards.json`: what a search opens: where the shards lie, and how vectors are compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from embedkit.errors import IndexFileError, IndexMismatchError
from embedkit.storage.files import write_text
from embedkit.storage.hashing import json_digest

from ..storage.settings import Settings

FORMAT = 1
SHARDS = "shards.json"
_AGAIN = "The command that built the index writes it again"


@dataclass(frozen=True)
class ShardPlace:
    """One shard: its location is a path within the folder, or the address of a server that holds it."""

    name: str
    location: str
    documents: int
    passages: int
    content_hash: str

    @property
    def is_served(self) -> bool:
        return is_address(self.location)


@dataclass(frozen=True)
class ShardsFile:
    """All shards of an index, in the order of its input."""

    plan: str
    settings: Settings
    model_path: str
    shards: Sequence[ShardPlace]

    def write(self, folder: Path) -> None:
        """Write it in one step.

        Raises:
            OutputError: the disk is full or cannot be written.
        """
        content = {
            "format": FORMAT,
            "plan": self.plan,
            "settings": json.loads(self.settings.to_json()),
            "model_path": self.model_path,
            "shards": [asdict(shard) for shard in self.shards],
        }
        text = json.dumps({**content, "digest": json_digest(content)}, indent=1, ensure_ascii=False)
        write_text(folder / SHARDS, text + "\n")

    def check_belongs(self, found: Settings, place: str) -> None:
        """Refuse a shard that is not searched as the others are.

        Raises:
            IndexMismatchError: what differs.
        """
        wanted = self.settings
        if (wanted.fingerprint is None) is not (found.fingerprint is None):
            made = ("an encoder", "ready vectors")[found.fingerprint is None]
            raise IndexMismatchError(f"{place}: was built from {made}, unlike the other shards. Leave it out")
        if wanted.kind == found.kind:
            found.check_encoder(wanted.fingerprint, place)
        for name in ("kind", "dimension", "metric", "storage", "fields"):
            here, there = getattr(wanted, name), getattr(found, name)
            if here != there:
                raise IndexMismatchError(
                    f"{place}: its {name} is {there}, and that of the other shards {here}. Leave it out, or build it as they were"
                )
        found.check_cutting(wanted.cutting, place)

    @classmethod
    def read(cls, folder: Path) -> ShardsFile:
        """Read it.

        Raises:
            IndexFileError: there is none, it is damaged, or of a newer format.
        """
        path = folder / SHARDS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            digest = content.pop("digest")
            if content["format"] != FORMAT:
                raise IndexFileError(
                    f"{path}: format {content['format']}; this embedkit reads {FORMAT}. Update embedkit, or build the index again"
                )
            if digest != json_digest(content):
                raise IndexFileError(f"{path}: not what was written: its hash differs. {_AGAIN}")
            settings = Settings.from_json(json.dumps(content["settings"]))
            shards = [ShardPlace(**shard) for shard in content["shards"]]
            return cls(content["plan"], settings, content["model_path"], shards)
        except OSError as exc:
            raise IndexFileError(f"{path}: cannot be read ({exc.strerror or exc}). {_AGAIN}") from exc
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise IndexFileError(f"{path}: damaged ({exc}). {_AGAIN}") from exc


def is_address(location: str) -> bool:
    """Say whether a shard lies behind a server."""
    return location.lower().startswith(("http://", "https://"))


def is_sharded(folder: str | Path) -> bool:
    """Say whether a folder is a finished index in shards."""
    return (Path(folder) / SHARDS).is_file()

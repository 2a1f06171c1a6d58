"""How much one request, and all of them together, may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that keep memory flat and every client served.

    `body_bytes` bounds one body, `inputs` the texts of one request. `queue_tokens` wait at most; beyond them requests are
    refused with 429. `seconds` is what one request may take, `drain_seconds` what running ones get after SIGTERM.
    """

    body_bytes: int = 64 * 2**20
    inputs: int = 10_000
    queue_tokens: int = 2**20
    seconds: float = 300.0
    drain_seconds: float = 30.0
    linger_seconds: float = 0.002

    def __post_init__(self) -> None:
        for name in ("body_bytes", "inputs", "queue_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("seconds", "drain_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.linger_seconds < 0:
            raise ValueError(f"linger_seconds is {self.linger_seconds}; it must not be negative")

"""What routers did, counted: whole numbers that add up over the parts of a batch and over devices, and what is reported of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from embedkit.model.config import EncoderConfig
from embedkit.model.routing import RECURSION, RoutingLog, recording
from embedkit.tokenization.kinds import TOKEN_KINDS
from embedkit.training.engine.ranks import Ranks


def router_sizes(config: EncoderConfig | None) -> dict[str, int]:
    """Return how many experts, or depths, each router of an encoder chooses from."""
    sizes: dict[str, int] = {}
    if config is None:
        return sizes
    if config.experts is not None:
        for module in range(config.num_distinct_layers):
            if config.has_experts(module):
                sizes[f"layer {module}"] = config.experts.num_experts
    if config.recursion is not None and config.recursion.routing == "token_choice":
        sizes[RECURSION] = config.recursion.num_depths
    return sizes


class Tally:
    """Counts of an encoder's routers; of one that routes nothing, or of a static model (None), it stays empty.

    With `kinds`, the number of each token's kind, depths are counted by kind of token.
    """

    def __init__(
        self, config: EncoderConfig | None, device: torch.device, *, kinds: NDArray[np.int64] | None = None
    ) -> None:
        self.config, self.active = config, config is not None and config.routed is not None
        self._kinds = None if kinds is None else torch.from_numpy(kinds).to(device)
        sizes = router_sizes(config)
        # Doubles hold whole numbers exactly up to 2^53.
        shapes: dict[str, tuple[int, ...]] = {f"load {router}": (size,) for router, size in sizes.items()}
        shapes |= {f"tokens {router}": (1,) for router in sizes}
        shapes |= {"limited": (1,), "dropped": (1,), "candidates": (1,), "depth": (len(TOKEN_KINDS), 2)}
        self._counts = {
            name: torch.zeros(shape, dtype=torch.float64, device=device) for name, shape in shapes.items()
        }

    @contextmanager
    def watching(self, input_ids: NDArray[np.int64]) -> Iterator[None]:
        """Count what routers do in the forward pass within it over these tokens, (N,)."""
        if not self.active:
            yield
            return
        with recording() as log:
            yield
        self.add(log, torch.from_numpy(input_ids))

    @torch.no_grad()
    def add(self, log: RoutingLog, input_ids: Tensor | None = None) -> None:
        """Add the counts of one forward pass; `input_ids` (N,) are its tokens, where kinds are told apart."""
        for each in log.counted_choices():
            size = each.logits.shape[-1]
            self._counts[f"load {each.router}"] += torch.bincount(each.chosen.flatten(), minlength=size)
            self._counts[f"tokens {each.router}"] += len(each.chosen)
            if each.kept is not None:
                self._counts["limited"] += each.kept.numel()
                self._counts["dropped"] += (~each.kept).sum()
        self._counts["candidates"] += sum(len(each.logits) for each in log.counted_selections())
        depths = log.counted_depths()
        if depths is not None:
            kinds = torch.zeros_like(depths)
            if self._kinds is not None and input_ids is not None:
                kinds = self._kinds[input_ids.to(self._kinds.device)]
            pairs = torch.stack([depths, torch.ones_like(depths)], dim=1).double()  # (N, 2)
            self._counts["depth"].index_add_(0, kinds, pairs)

    def exchange(self, ranks: Ranks) -> None:
        """Add up the counts of all devices."""
        if not self.active or ranks.world == 1:
            return
        flat = torch.cat([count.flatten() for count in self._counts.values()])
        dist.all_reduce(flat)
        parts = torch.split(flat, [count.numel() for count in self._counts.values()])
        for count, part in zip(self._counts.values(), parts, strict=True):
            count.copy_(part.view_as(count))

    def load(self, router: str) -> Tensor:
        """Return how many choices each expert got: (E,)."""
        return self._counts[f"load {router}"]

    def tokens(self, router: str) -> float:
        """Return how many tokens the router saw."""
        return float(self._counts[f"tokens {router}"])

    @property
    def candidates(self) -> float:
        """How many tokens were candidates for a recursion, over all recursions."""
        return float(self._counts["candidates"])

    def measures(self) -> dict[str, float]:
        """Return what is reported: nothing where nothing is routed.

        | name | meaning |
        |---|---|
        | `router_entropy` | entropy of the experts' shares of the choices, in nats, mean over layers; log E where all are used alike |
        | `experts_used` | experts with a token, mean over layers |
        | `dropped` | share of the choices that found an expert full, where there is a capacity |
        | `depth` | recursions of a token, on average; `depth_…` of each kind of token |
        | `depth_entropy` | entropy of the shares of the depths, in nats |
        """
        layers = [name for name in router_sizes(self.config) if name != RECURSION]
        found: dict[str, float] = {}
        if layers:
            loads = [self.load(name).cpu() for name in layers]
            found["router_entropy"] = float(np.mean([entropy(load) for load in loads]))
            found["experts_used"] = float(np.mean([int((load > 0).sum()) for load in loads]))
            limited = float(self._counts["limited"])
            if limited:
                found["dropped"] = float(self._counts["dropped"]) / limited
        if RECURSION in router_sizes(self.config):
            found["depth_entropy"] = entropy(self.load(RECURSION).cpu())
        return found | self._depths()

    def _depths(self) -> dict[str, float]:
        depths = self._counts["depth"].cpu()  # (kinds, 2)
        if not depths[:, 1].any():
            return {}
        found = {"depth": float(depths[:, 0].sum() / depths[:, 1].sum())}
        if self._kinds is not None:
            for kind, (total, count) in zip(TOKEN_KINDS, depths.tolist(), strict=True):
                if count:
                    found[f"depth_{kind}"] = total / count
        return found


def entropy(load: Tensor) -> float:
    """Return the entropy of some counts' shares, in nats: (E,) -> 0 … log E."""
    share = load / load.sum().clamp(min=1)
    return float(-(share * share.clamp(min=torch.finfo(share.dtype).tiny).log()).sum())

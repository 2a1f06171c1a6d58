"""The same exact search on a torch device: tiles of the memory map go there as they are stored, a running top-k stays.

The only file here that imports torch. Codes are sent as fp16 or int8 where they are stored so, scored in fp32, and what
is found is scored again by the stored vectors in double precision, as on this machine's processors.
"""

from __future__ import annotations

import numpy as np
import torch

from embedkit.errors import DeviceError

from ..candidates import Candidates, Mask
from ..storage.codes import FloatArray
from ..storage.segment import Segment
from .snapshot import MARGIN, Snapshot

_TILE_BYTES = 64 * 2**20  # large enough for a copy at full speed, small beside any device's memory


def search_device(
    snapshot: Snapshot, queries: FloatArray, k: int, *, mask: Mask | None, matching: int, device: str
) -> Candidates:
    """Return at least the best k of (Q, E) queries, as `Snapshot.search_exact` does.

    Raises:
        DeviceError: there is no such device here.
    """
    try:
        chosen = torch.device(device)
        on_device = torch.from_numpy(queries).to(chosen)
    except (RuntimeError, AssertionError) as exc:  # torch asserts that it was built with CUDA
        reason = str(exc).splitlines()[0]
        raise DeviceError(
            f"device {device!r}: {reason}. Use --device cpu, or one that torch finds here"
        ) from exc
    fetch = min(matching, k + MARGIN)
    while True:
        if not fetch:
            return Candidates.none(len(queries), 0)
        fast = _top(snapshot, on_device, fetch, mask)
        found = snapshot.rescore(queries, fast)
        kth = found.scores[:, min(k, fetch) - 1]
        # fp32 products on a device may be rounded through TF32 only if a caller allowed it; ten times the usual bound.
        error = 10 * snapshot.scorer.error(queries, found.scores[:, 0])
        if fetch == matching or not (fast.scores[:, -1] >= kth - error).any():
            return found
        fetch = min(matching, 4 * fetch)


def _top(snapshot: Snapshot, queries: torch.Tensor, fetch: int, mask: Mask | None) -> Candidates:
    best = torch.full((len(queries), fetch), -torch.inf, device=queries.device)
    rows = torch.full((len(queries), fetch), -1, dtype=torch.int64, device=queries.device)
    for segment in snapshot.segments:
        step = max(1024, _TILE_BYTES // (segment.codes.itemsize * segment.dimension))
        for start in range(0, len(segment), step):
            stop = min(len(segment), start + step)
            allowed = None if mask is None else mask[segment.rows[start:stop]]
            if allowed is not None and not allowed.any():
                continue
            tile_rows = torch.from_numpy(np.array(segment.rows[start:stop])).to(queries.device)
            scores = _score(snapshot, segment, queries, start, stop)
            if allowed is not None:
                scores.masked_fill_(~torch.from_numpy(allowed).to(queries.device), -torch.inf)
            best_here, at = scores.topk(min(fetch, stop - start), dim=1)
            all_scores = torch.cat([best, best_here], dim=1)
            all_rows = torch.cat([rows, tile_rows[at]], dim=1)
            best, order = all_scores.topk(fetch, dim=1)
            rows = all_rows.gather(1, order)
    rows[best == -torch.inf] = -1
    return Candidates(best.cpu().numpy(), rows.cpu().numpy())


def _score(
    snapshot: Snapshot, segment: Segment, queries: torch.Tensor, start: int, stop: int
) -> torch.Tensor:
    """Score (Q, E) queries against a tile as (Q, T), in fp32."""
    segment.check(start, stop)
    vectors = torch.from_numpy(np.array(segment.codes[start:stop])).to(queries.device).float()  # (T, E)
    if segment.scales is not None:
        vectors = (vectors - 128) * torch.from_numpy(np.array(segment.scales)).to(queries.device)
    scores = queries @ vectors.T
    if snapshot.settings.metric == "l2":
        scores = 2 * scores - (vectors * vectors).sum(dim=1) - (queries * queries).sum(dim=1, keepdim=True)
    return scores

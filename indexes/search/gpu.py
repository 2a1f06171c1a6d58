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
_SCORE_BYTES = 512 * 2**20  # of scores at a time, so that memory does not grow with the number of queries


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
    for segment in snapshot.dense:
        step = max(1024, _TILE_BYTES // (segment.codes.itemsize * segment.dimension))
        for start in range(0, len(segment), step):
            stop = min(len(segment), start + step)
            allowed = None if mask is None else mask[segment.rows[start:stop]]
            if allowed is not None and not allowed.any():
                continue
            hidden = None if allowed is None else ~torch.from_numpy(allowed).to(queries.device)
            tile_rows = torch.from_numpy(np.array(segment.rows[start:stop])).to(queries.device)
            vectors = _vectors(segment, start, stop, queries.device)
            size = max(1, _SCORE_BYTES // (4 * (stop - start)))
            for part in (slice(first, first + size) for first in range(0, len(queries), size)):
                scores = _score(queries[part], vectors, squared=snapshot.settings.metric == "l2")
                if hidden is not None:
                    scores.masked_fill_(hidden, -torch.inf)
                best_here, at = scores.topk(min(fetch, stop - start), dim=1)
                all_scores = torch.cat([best[part], best_here], dim=1)
                all_rows = torch.cat([rows[part], tile_rows[at]], dim=1)
                best[part], order = all_scores.topk(fetch, dim=1)
                rows[part] = all_rows.gather(1, order)
    rows[best == -torch.inf] = -1
    return Candidates(best.cpu().numpy(), rows.cpu().numpy())


def _vectors(segment: Segment, start: int, stop: int, device: torch.device) -> torch.Tensor:
    """Copy a tile's codes to the device, and decode them there: (T, E) in fp32."""
    segment.check(start, stop)
    vectors = torch.from_numpy(np.array(segment.codes[start:stop])).to(device).float()
    if segment.scales is not None:
        vectors = (vectors - 128) * torch.from_numpy(np.array(segment.scales)).to(device)
    return vectors


def _score(queries: torch.Tensor, vectors: torch.Tensor, *, squared: bool) -> torch.Tensor:
    """Score (Q, E) queries against a tile as (Q, T), in fp32; `squared` by minus the squared distance."""
    scores = queries @ vectors.T
    if squared:
        scores = 2 * scores - (vectors * vectors).sum(dim=1) - (queries * queries).sum(dim=1, keepdim=True)
    return scores

"""/metrics for Prometheus, and /ready for whatever sends requests here: not while the server is about to end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Literal

from embedkit.serving.engine.engine import EngineStats
from embedkit.serving.engine.stats import BATCH_SIZES
from embedkit.serving.http.app import SECONDS, App, RequestCounts
from embedkit.serving.http.messages import HttpRequest, HttpResponse, Route
from embedkit.serving.http.search_bodies import error_body
from embedkit.serving.services import Services

TAG = "Running"
TEXT = "text/plain; version=0.0.4; charset=utf-8"  # Prometheus' text format
STATM = Path("/proc/self/statm")


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """Whether to send requests here."""

    status: Literal["ready", "draining"]


def routes(services: Services, app: App) -> list[Route]:
    """Return the routes that tell how the server is."""

    async def metrics(request: HttpRequest) -> HttpResponse:
        return HttpResponse(body=exposition(services, app).encode(), media_type=TEXT)

    async def ready(request: HttpRequest) -> HttpResponse:
        if app.draining:
            return HttpResponse(status=503, content={"status": "draining"}, headers={"retry-after": "5"})
        return HttpResponse(content={"status": "ready"})

    return [
        Route(
            method="GET",
            path="/metrics",
            handle=metrics,
            error_body=error_body,
            summary="Count requests and measure times, in Prometheus' text format",
            tag=TAG,
        ),
        Route(
            method="GET",
            path="/ready",
            handle=ready,
            error_body=error_body,
            summary="Say whether to send requests here; 503 once the server is about to end",
            tag=TAG,
            gives=Readiness,
            keyless=True,
        ),
    ]


def exposition(services: Services, app: App) -> str:
    """Write all metrics: TEI's under its own names, of all routes that compute; ours begin with embedkit_."""
    lines = [
        *_of_requests(app.counts, computing=_computing(app.routes)),
        *_of_engine(services.engine.stats()),
        *_of_process(services),
    ]
    return "\n".join(lines) + "\n"


def _computing(routes: Sequence[Route]) -> set[tuple[str, str]]:
    return {(route.method, route.path) for route in routes if route.takes is not None}


def _of_requests(counts: RequestCounts, *, computing: set[tuple[str, str]]) -> Iterator[str]:
    answered = sorted(counts.answered.items())
    ours = [(key, count) for key, count in answered if key[:2] in computing]
    yield from _metric(
        "te_request_count",
        "counter",
        "Requests for something to be computed, by route.",
        _summed((({"method": path}, count) for (_, path, _), count in ours)),
    )
    yield from _metric(
        "te_request_success",
        "counter",
        "Those that were answered.",
        _summed((({"method": path}, count) for (_, path, status), count in ours if status < 400)),
    )
    yield from _metric(
        "te_request_failure",
        "counter",
        "Those that were not, by status; 499: the client had gone.",
        _summed((({"err": str(status)}, count) for (_, _, status), count in ours if status >= 400)),
    )
    yield from _metric("te_request_duration", "histogram", "Seconds from request to answer.", ())
    yield from _histogram("te_request_duration", counts, [key for key in counts.seconds if key in computing])
    yield from _metric(
        "embedkit_http_requests_total",
        "counter",
        "All requests; those to no route have an empty one.",
        [
            ({"method": method, "route": path, "status": str(status)}, count)
            for (method, path, status), count in answered
        ],
    )
    yield from _metric("embedkit_http_request_seconds", "histogram", "Seconds from request to answer.", ())
    for method, path in sorted(counts.seconds):
        labels = {"method": method, "route": path}
        yield from _histogram("embedkit_http_request_seconds", counts, [(method, path)], labels)
    yield from _metric(
        "embedkit_http_requests_running", "gauge", "Requests that are being answered.", [({}, counts.running)]
    )


def _of_engine(stats: EngineStats) -> Iterator[str]:
    yield from _metric(
        "te_queue_size", "gauge", "Requests of which nothing is computed yet.", [({}, stats.waiting_requests)]
    )
    yield from _metric("te_batch_next_size", "histogram", "Sequences of a batch.", ())
    yield from _buckets("te_batch_next_size", BATCH_SIZES, stats.batch_sizes, stats.batch_sequences)
    for name, meaning, value in (
        ("embedkit_queue_tokens", "Tokens that wait or are being computed.", stats.waiting_tokens),
        ("embedkit_engine_requests_running", "Requests in part computed.", stats.running_requests),
        ("embedkit_tokens_per_second", "Of the last batches.", stats.tokens_per_second or 0),
    ):
        yield from _metric(name, "gauge", meaning, [({}, value)])
    for name, meaning, value in (
        ("embedkit_compute_seconds_total", "Time in batches.", stats.compute_seconds),
        ("embedkit_queue_seconds_total", "Waiting of all requests.", stats.queue_seconds),
        ("embedkit_refused_total", "Requests refused as too much waited.", stats.refused),
        ("embedkit_cancelled_total", "Requests whose client had gone.", stats.cancelled),
    ):
        yield from _metric(name, "counter", meaning, [({}, value)])
    for name, meaning in (
        ("requests", "Answered requests."),
        ("texts", "Texts, or pairs, of answered requests."),
        ("tokens", "Computed tokens."),
        ("batches", "Computed batches."),
    ):
        totals = [({"kind": kind}, getattr(total, name)) for kind, total in stats.totals.items()]
        yield from _metric(f"embedkit_engine_{name}_total", "counter", meaning, totals)


def _of_process(services: Services) -> Iterator[str]:
    yield from _metric("embedkit_info", "gauge", "The version.", [({"version": version("embedkit")}, 1)])
    yield from _metric(
        "process_start_time_seconds", "gauge", "When the server began.", [({}, services.started)]
    )
    if STATM.is_file():
        pages = int(STATM.read_text(encoding="ascii").split()[1])
        memory = pages * os.sysconf("SC_PAGE_SIZE")
        yield from _metric("process_resident_memory_bytes", "gauge", "Memory in use.", [({}, memory)])


def _metric(
    name: str, kind: str, meaning: str, values: Iterable[tuple[Mapping[str, str], float]]
) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values:
        yield f"{name}{_labels(labels)} {value}"


def _summed(values: Iterable[tuple[Mapping[str, str], int]]) -> list[tuple[Mapping[str, str], float]]:
    """Add up the values of equal labels."""
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for labels, value in values:
        key = tuple(labels.items())
        sums[key] = sums.get(key, 0) + value
    return [(dict(key), value) for key, value in sums.items()]


def _histogram(
    name: str,
    counts: RequestCounts,
    keys: Sequence[tuple[str, str]],
    labels: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Write one histogram of the times of some routes together."""
    labels = labels or {}
    buckets = [sum(counts.seconds[key][place] for key in keys) for place in range(len(SECONDS) + 1)]
    yield from _buckets(name, SECONDS, buckets, sum(counts.total_seconds[key] for key in keys), labels)


def _buckets(
    name: str,
    limits: Sequence[float],
    counts: Sequence[int],
    total: float,
    labels: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Write a histogram: how many are at most each of the limits, and beyond; `total` is the sum of all values."""
    labels = labels or {}
    for limit, reached in zip((*map(str, limits), "+Inf"), accumulate(counts), strict=True):
        yield f"{name}_bucket{_labels({**labels, 'le': limit})} {reached}"
    yield f"{name}_sum{_labels(labels)} {total}"
    yield f"{name}_count{_labels(labels)} {sum(counts)}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    escaped = {
        name: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        for name, value in labels.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"

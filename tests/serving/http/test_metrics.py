from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from embedkit.serving.http import metrics, tei_api
from embedkit.serving.http.app import App
from embedkit.serving.http.messages import Route
from tests.serving.asking import Client
from tests.serving.running import served
from tests.serving.tiny_services import tiny_services

LINE = re.compile(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [-+0-9.e]+')


def test_metrics_count_what_was_answered(tmp_path: Path) -> None:
    with tiny_services(tmp_path) as services:

        def routes(app: App) -> list[Route]:
            return [*tei_api.routes(services), *metrics.routes(services, app)]

        with served(routes) as address:
            client = Client(address, ())
            for body in ({"inputs": "a girl"}, {"inputs": ["a", "b"]}, {"inputs": ""}):
                client.post("/embed", body)
            client.get("/nowhere")
            answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = answer.content.splitlines()
    assert [line for line in lines if not line.startswith("# ") and not LINE.fullmatch(line)] == []
    typed = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {"te_request_count", "te_request_duration", "process_resident_memory_bytes"} <= typed
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['te_request_count{method="/embed"}'] == "3"
    assert values['te_request_success{method="/embed"}'] == "2"
    assert values['te_request_failure{err="400"}'] == "1"
    assert values["te_request_duration_count"] == values['te_request_duration_bucket{le="+Inf"}'] == "3"
    assert float(values["te_request_duration_sum"]) > 0
    assert values['embedkit_http_requests_total{method="",route="",status="404"}'] == "1"
    assert values["embedkit_http_requests_running"] == "1"
    assert float(values["process_resident_memory_bytes"]) > 10**7
    assert values["te_queue_size"] == "0"
    assert int(values["te_batch_next_size_count"]) >= 1
    assert values["te_batch_next_size_sum"] == "3"
    assert values['embedkit_engine_texts_total{kind="embed"}'] == "3"
    assert int(values['embedkit_engine_tokens_total{kind="embed"}']) > 3
    buckets = [int(value) for name, value in values.items() if name.startswith("te_request_duration_bucket")]
    assert buckets == sorted(buckets)


def test_ready_until_the_server_drains(tmp_path: Path) -> None:
    apps: list[App] = []
    with tiny_services(tmp_path) as services:

        def routes(app: App) -> list[Route]:
            apps.append(app)
            return [*tei_api.routes(services), *metrics.routes(services, app)]

        with served(routes) as address:
            client = Client(address, ())
            assert client.get("/ready").content == {"status": "ready"}
            apps[0].draining = True
            answer = client.get("/ready")
            assert (answer.status, answer.content) == (503, {"status": "draining"})
            assert answer.headers["retry-after"] == "5"
            assert client.get("/health").status == 200
            assert client.post("/embed", {"inputs": "a"}).status == 503

"""One server of tiny models, with the routes of all APIs, for all of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import pytest

from embedkit.serving.services import Services
from tests.serving.running import served
from tests.serving.tiny_services import api_routes, tiny_services


@pytest.fixture(scope="session", autouse=True)
def quiet_clients() -> Iterator[None]:
    """Keep clients from what they fetch or send when they are imported; Hugging Face's may ask our server, though."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        patch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        patch.setenv("HF_HUB_OFFLINE", "0")
        if find_spec("huggingface_hub") is not None:  # it may have been imported before
            patch.setattr(import_module("huggingface_hub.constants"), "HF_HUB_OFFLINE", False)
        yield


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    pytest.importorskip("starlette")
    with tiny_services(tmp_path_factory.mktemp("models")) as made:
        yield made


@pytest.fixture(scope="session")
def address(services: Services) -> Iterator[str]:
    with served(partial(api_routes, services), limits=services.limits) as at:
        yield at

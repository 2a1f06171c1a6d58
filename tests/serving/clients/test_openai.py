from __future__ import annotations

import numpy as np
import pytest

from embedkit.serving.services import Services
from tests.serving.tiny_services import LONG

# What other projects warn of is not ours to mend.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
TEXTS = ["a girl plays the piano", "the dog sleeps"]


def test_embeddings(address: str, services: Services) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
    own = services.encoders["tiny"].encode(TEXTS)
    for form in ({}, {"encoding_format": "float"}):  # without, the client asks for base64
        answer = client.embeddings.create(model="tiny", input=TEXTS, user="somebody", **form)
        np.testing.assert_allclose([row.embedding for row in answer.data], own, atol=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    assert answer.usage.truncated == 0
    few = client.embeddings.create(model="text-embedding-3-small", input=TEXTS[0], dimensions=8)
    assert np.linalg.norm(few.data[0].embedding) == pytest.approx(1, abs=1e-5)


def test_models(address: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
    assert [model.id for model in client.models.list()][:2] == ["tiny", "org/raw"]
    assert client.models.retrieve("tiny").owned_by == "embedkit"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt' is served here"):
        client.models.retrieve("gpt")


def test_errors_are_read(address: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError, match="input is empty") as caught:
        client.embeddings.create(model="tiny", input=[])
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match="there is tiny, org/raw"):
        client.embeddings.create(model="text-embedding-ada-002", input="a")
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model="tiny", input=[[1, 2, 3]])


def test_what_was_cut(address: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    raw = client.embeddings.with_raw_response.create(model="tiny", input=LONG)
    assert raw.headers["x-embedkit-truncated"] == "1"
    with pytest.raises(openai.BadRequestError, match="the model reads 32"):
        client.embeddings.create(model="tiny", input=LONG, extra_headers={"x-embedkit-on-truncate": "error"})
    asked = client.embeddings.create(model="tiny", input=TEXTS, extra_body={"input_type": "query"})
    assert len(asked.data) == 2

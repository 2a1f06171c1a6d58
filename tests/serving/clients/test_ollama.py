from __future__ import annotations

import numpy as np
import pytest

from embedkit.serving.services import Services
from tests.serving.tiny_services import LONG

# What other projects warn of is not ours to mend.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
TEXTS = ["a girl plays the piano", "the dog sleeps"]


def test_embed(address: str, services: Services) -> None:
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(host=address)
    own = services.encoders["tiny"].encode(TEXTS)
    answer = client.embed(model="tiny", input=TEXTS, truncate=True, options={"num_ctx": 512}, keep_alive="5m")
    np.testing.assert_allclose(answer.embeddings, own, atol=1e-6)
    assert answer.prompt_eval_count > 0
    np.testing.assert_allclose(client.embeddings(model="tiny", prompt=TEXTS[0]).embedding, own[0], atol=1e-6)
    assert np.shape(client.embed(model="tiny:latest", input=TEXTS[0], dimensions=8).embeddings) == (1, 8)


def test_models(address: str) -> None:
    ollama = pytest.importorskip("ollama")
    assert [model.model for model in ollama.Client(host=address).list().models] == ["tiny", "org/raw"]


def test_errors_are_read(address: str) -> None:
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(host=address)
    with pytest.raises(ollama.ResponseError, match="no embedding model 'nomic-embed-text'") as missing:
        client.embed(model="nomic-embed-text", input="a")
    assert missing.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="the model reads 32"):
        client.embed(model="tiny", input=LONG, truncate=False)

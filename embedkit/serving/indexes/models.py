"""The encoders of the indexes that are served: each loaded once, however many indexes it made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from embedkit.pipelines.embedders import check_kind, load_embedder
from embedkit.pipelines.models import of_index
from embedkit.types import Computing

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.pipelines.embedders import AnyEncoder
    from indexes import Searchable
    from indexes.storage.settings import Fingerprint


class IndexModels:
    """Finds the encoder that made an index, among those that are `given` or loaded, or loads it.

    What was loaded goes once no index is of it any more.
    """

    def __init__(self, given: Iterable[Encoder] = (), computing: Computing | None = None) -> None:
        self._given: dict[str, AnyEncoder] = {_key(encoder.fingerprint): encoder for encoder in given}
        self._loaded: WeakValueDictionary[str, AnyEncoder] = WeakValueDictionary()
        self._computing = computing or Computing()
        self._loading = Lock()

    def of(self, index: Searchable) -> AnyEncoder | None:
        """Return the encoder of an index, of the index's kind; None where its vectors were made elsewhere.

        Raises:
            CheckpointError, DeviceError: it cannot be found, loaded or computed here, or no index is searched with it.
            IndexMismatchError: what lies where it lay is another one.
        """
        from embedkit.inference.token_merging import merging_of

        fingerprint = index.settings.fingerprint
        if fingerprint is None:
            return None
        key = _key(fingerprint)
        with self._loading:
            encoder = self._given.get(key) or self._loaded.get(key)
            if encoder is None:
                model = of_index(index, None)
                check_kind(index, model)
                encoder = load_embedder(
                    model,
                    self._computing,
                    "query",
                    merge_tokens=merging_of(fingerprint),
                    max_active_dims=fingerprint.get("max_active_dims"),
                ).encoder
                index.check_encoder(encoder.fingerprint)
                self._loaded[key] = encoder
        return encoder


def _key(fingerprint: Fingerprint) -> str:
    return json.dumps(fingerprint, sort_keys=True, default=dict)

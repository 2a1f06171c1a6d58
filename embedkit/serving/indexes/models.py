"""The encoders of the indexes that are served: each loaded once, however many indexes it made."""

from __future__ import annotations

import json
from collections.abc import Iterable
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from embedkit.pipelines.models import load_encoder, of_index
from embedkit.types import Computing

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from indexes import Searchable
    from indexes.storage.settings import Fingerprint


class IndexModels:
    """Finds the encoder that made an index, among those that are `given` or loaded, or loads it.

    What was loaded goes once no index is of it any more.
    """

    def __init__(self, given: Iterable[Encoder] = (), computing: Computing | None = None) -> None:
        self._given = {_key(encoder.fingerprint): encoder for encoder in given}
        self._loaded: WeakValueDictionary[str, Encoder] = WeakValueDictionary()
        self._computing = computing or Computing()
        self._loading = Lock()

    def of(self, index: Searchable) -> Encoder | None:
        """Return the encoder of an index; None where its vectors were made elsewhere.

        Raises:
            CheckpointError, DeviceError: it cannot be found, loaded or computed here, or no index is searched with it.
            IndexMismatchError: what lies where it lay is another one.
        """
        from embedkit.inference.token_merging import merging_of

        index.settings.need_dense(index.path, "a server")
        fingerprint = index.settings.fingerprint
        if fingerprint is None:
            return None
        key = _key(fingerprint)
        with self._loading:
            encoder = self._given.get(key) or self._loaded.get(key)
            if encoder is None:
                share = merging_of(fingerprint)
                encoder = load_encoder(of_index(index, None), self._computing, merge_tokens=share)
                index.check_encoder(encoder.fingerprint)
                self._loaded[key] = encoder
        encoder.check_searchable(by_field=True)
        return encoder


def _key(fingerprint: Fingerprint) -> str:
    return json.dumps(fingerprint, sort_keys=True, default=dict)

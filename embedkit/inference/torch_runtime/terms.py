"""The weights of the vocabulary's terms by torch: encoder, masked-language-model head and pooling on one device."""

from __future__ import annotations

import torch
from torch import Tensor

from embedkit.checkpoint.folder import ModelFolder
from embedkit.checkpoint.mlm_arrays import load_mlm_weights
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.inference.torch_runtime.backend import DTYPES, TorchBackend, rows
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.heads import MaskedLMHead
from embedkit.model.sparse_config import TermPooling
from embedkit.model.term_pooling import pool_terms
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import DeviceType, Float32, Precision


class TorchTerms(TorchBackend):
    """An encoder with a masked-language-model head whose logits are pooled, a stretch of the vocabulary at a time."""

    def __init__(
        self,
        encoder: TransformerEncoder,
        head: MaskedLMHead,
        decoder: Tensor,
        *,
        device: torch.device,
        precision: Precision,
    ) -> None:
        """`decoder` (V, D') is the token table, or what the folder has in its place."""
        dtype = DTYPES[precision]
        self.head = head.to(device=device, dtype=dtype).eval()
        self.decoder = decoder.to(device=device, dtype=dtype)
        super().__init__(encoder.to(device=device, dtype=dtype).eval(), device=device, precision=precision)

    @torch.inference_mode()
    def term_weights(self, batch: TokenBatch, pooling: TermPooling) -> Float32:
        assert self.encoder is not None
        hidden = self.encoder.forward_packed(*self._tokens(batch))[: len(batch.input_ids)]
        inner = self.head.transform(hidden)
        terms = pool_terms(inner, self.decoder, self.head.bias, batch.lengths.tolist(), pooling)
        return rows(terms, len(batch))


def load_terms(folder: ModelFolder, *, device: DeviceType, precision: Precision) -> TorchTerms:
    """Load a folder's encoder and head.

    Raises:
        CheckpointError: the weights do not fit the folder's config, or there is no masked-language-model head.
    """
    weights = load_mlm_weights(folder)
    encoder = load_sentence_encoder(folder).encoder
    head = MaskedLMHead(folder.config)
    named = {
        "dense.weight": weights.dense,
        "dense.bias": weights.dense_bias,
        "norm.weight": weights.norm,
        "norm.bias": weights.norm_bias,
        "bias": weights.bias,
    }
    head.load_state_dict({name: torch.tensor(array) for name, array in named.items() if array is not None})
    decoder = torch.tensor(weights.decoder)
    return TorchTerms(encoder, head, decoder, device=torch.device(device), precision=precision)

"""The sentence encoder: a transformer, pooling, dense layers and normalization."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedkit.model.attention_pooling import AttentionPooling
from embedkit.model.config import DenseActivation, DenseConfig, HeadLayer, LayerNormConfig, SentenceConfig
from embedkit.model.encoder import TransformerEncoder, init_weights, padded_run
from embedkit.model.field_experts import FieldExperts
from embedkit.model.layers import Run, runs_of, split_runs
from embedkit.model.learned_parts import SimilarityConfig
from embedkit.model.pooling import pool
from embedkit.model.similarity import LearnedSimilarity

DENSE_ACTIVATIONS: dict[DenseActivation, type[nn.Module]] = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "selu": nn.SELU,
    "relu6": nn.ReLU6,
    "softsign": nn.Softsign,
    "log_sigmoid": nn.LogSigmoid,
    "hardtanh": nn.Hardtanh,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
}


class LayerMean(nn.Module):
    """The weighted mean of what several layers give, with weights that are learned and start alike.

    Source: Peters et al. 2018, https://arxiv.org/abs/1802.05365, eq. 1, with the weights divided by their sum in place of a softmax, as
        sentence-transformers' WeightedLayerPooling does.
    """

    def __init__(self, num_layers: int, start: int) -> None:
        """Take the layers from `start` on, counted from 0, the embeddings, to `num_layers`.

        Raises:
            ValueError: there is none.
        """
        super().__init__()
        if start > num_layers:
            raise ValueError(f"layer_start is {start}; the encoder has {num_layers} layers")
        self.start = start
        self.layer_weights = nn.Parameter(torch.ones(num_layers + 1 - start))

    def forward(self, states: Iterable[Tensor]) -> Tensor:
        """Mix what the embeddings and each layer give: L + 1 times (N, D) -> (N, D)."""
        total: Tensor | None = None
        for number, state in enumerate(states):
            if number >= self.start:
                part = self.layer_weights[number - self.start] * state
                total = part if total is None else total + part
        assert total is not None
        return (total / self.layer_weights.sum()).to(state.dtype)


class SentenceEncoder(nn.Module):
    """Encoder, pooling, dense layers, normalization: (B, T) token ids to (B, E) sentence vectors.

    `similarity` compares such vectors where the config says so; no vector depends on it.
    Source: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084, section 3.
    """

    def __init__(self, encoder: TransformerEncoder, config: SentenceConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        hidden_size, layers = encoder.config.hidden_size, encoder.config.num_hidden_layers
        self.layer_mean = None if config.layer_start is None else LayerMean(layers, config.layer_start)
        self.attention_pooling = (
            None if config.attention is None else AttentionPooling(hidden_size, config.attention)
        )
        if self.attention_pooling is not None:  # small weights: it starts near the mean
            self.attention_pooling.apply(lambda each: init_weights(each, encoder.config.initializer_range))
        self.dense = nn.ModuleList(_layer(layer) for layer in config.dense)
        self.similarity = _similarity(config.similarity, config.embedding_size(hidden_size))

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Encode a padded batch: (B, T) -> (B, E)."""
        if self.layer_mean is None:
            hidden = self.encoder(input_ids, attention_mask, token_type_ids)
        else:
            types = None if token_type_ids is None else token_type_ids.flatten()
            run = padded_run(input_ids, attention_mask)
            hidden = self._mean_of_layers(input_ids.flatten(), [run], types).view(*input_ids.shape, -1)
        return self.head(self._pool(hidden, attention_mask))

    def forward_packed(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        token_type_ids: Tensor | None = None,
        *,
        skip: int = 0,
    ) -> Tensor:
        """Encode packed sequences: (N,) ids of B sequences -> (B, E).

        `skip` leaves the first tokens of every sequence out of the pooling: for models that do not pool their prompt.
        """
        if self.layer_mean is None:
            hidden = self.encoder.forward_packed(input_ids, lengths, token_type_ids)  # (N, D)
        else:
            hidden = self._mean_of_layers(input_ids, runs_of(lengths), token_type_ids)
        return self.pool_packed(hidden, lengths, skip=skip)

    def _mean_of_layers(
        self, input_ids: Tensor, runs: Sequence[Run], token_type_ids: Tensor | None
    ) -> Tensor:
        """Mix the layers as they are; the last one is what the encoder returns, after its norm where it has one."""
        assert self.layer_mean is not None
        *earlier, last = self.encoder.states(input_ids, runs, token_type_ids)
        mixed: Tensor = self.layer_mean([*earlier, self.encoder.finish(last)])
        return mixed

    def pool_packed(self, hidden: Tensor, lengths: Sequence[int], *, skip: int = 0) -> Tensor:
        """Reduce the token vectors of B packed sequences, (N, D), to sentence vectors, (B, E)."""
        pooled = []
        runs = runs_of(lengths)
        for piece, run in zip(split_runs(hidden, runs), runs, strict=True):
            tokens = piece.view(run.count, run.length, -1)
            mask = None
            if skip:
                mask = torch.ones(run.count, run.length, dtype=torch.bool, device=hidden.device)
                mask[:, :skip] = False
            pooled.append(self._pool(tokens, mask))
        return self.head(pooled[0] if len(pooled) == 1 else torch.cat(pooled))

    def _pool(self, token_embeddings: Tensor, attention_mask: Tensor | None) -> Tensor:
        if self.attention_pooling is not None:
            pooled: Tensor = self.attention_pooling(token_embeddings, attention_mask)
            return pooled
        return torch.cat(
            [pool(token_embeddings, attention_mask, mode) for mode in self.config.pooling], dim=-1
        )

    def head(self, pooled: Tensor) -> Tensor:
        """Apply the dense layers and the normalization to pooled vectors: (B, P) -> (B, E)."""
        for dense in self.dense:
            pooled = dense(pooled)
        # The norm is taken in fp32: in half precision vectors come out 0.1 % too long or too short.
        return F.normalize(pooled.float(), dim=-1).to(pooled.dtype) if self.config.normalize else pooled


def _similarity(
    config: SimilarityConfig | None, embedding_size: int
) -> LearnedSimilarity | FieldExperts | None:
    if config is None:
        return None
    kind = FieldExperts if config.kind == "fields" else LearnedSimilarity
    return kind(embedding_size, config)


def _layer(layer: HeadLayer) -> nn.Sequential:
    if isinstance(layer, LayerNormConfig):
        return nn.Sequential(nn.LayerNorm(layer.size, eps=layer.eps))
    linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
    activation = DENSE_ACTIVATIONS[layer.activation]()
    return _ResidualDense(layer, linear, activation) if layer.residual else nn.Sequential(linear, activation)


class _ResidualDense(nn.Sequential):
    """A dense layer whose input is added to its output, by a matrix where their lengths differ: (B, P) -> (B, P')."""

    def __init__(self, config: DenseConfig, linear: nn.Linear, activation: nn.Module) -> None:
        super().__init__(linear, activation)
        projects = config.projects_residual
        self.residual = nn.Linear(config.in_features, config.out_features, bias=False) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self[1](self[0](x))
        return out + (x if self.residual is None else self.residual(x))

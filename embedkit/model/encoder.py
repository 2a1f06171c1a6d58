"""The transformer encoder: token ids in, one vector a token out, for every family of BERT."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from embedkit.model.attention_form import AttentionForm
from embedkit.model.config import EncoderConfig
from embedkit.model.disentangled import DistanceTable, FirstConvolution, has_convolution
from embedkit.model.embeddings import Embeddings, sinusoidal_table
from embedkit.model.experts import ExpertFeedForward
from embedkit.model.layers import AttentionBias, EncoderLayer, Run, runs_of
from embedkit.model.norms import layer_norm
from embedkit.model.positions import alibi_scores, relative_position_buckets, rotary_table
from embedkit.model.recursion import RecursionRouter


class TransformerEncoder(nn.Module):
    """A stack of transformer layers over packed or padded tokens.

    `forward` takes a padded batch, `forward_packed` takes sequences one after another; both give the same numbers.
    Sources: Devlin et al. 2019 (BERT), and those named in `EncoderConfig` for the other pieces.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(_layer(config, module) for module in range(config.num_distinct_layers))
        recursion = config.recursion
        self.recursion = RecursionRouter(config) if recursion is not None and recursion.routed else None
        self.final_norm = layer_norm(config, config.hidden_size) if config.norm_first else None
        buckets = config.relative_attention_num_buckets
        self.relative_bias = nn.Embedding(buckets, config.num_attention_heads) if buckets else None
        self.distances = DistanceTable(config) if config.disentangled is not None else None
        self.convolution = FirstConvolution(config) if has_convolution(config) else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights: normal, std 0.02, cut at two deviations, as BERT's own code does; biases zero."""
        self.apply(lambda module: init_weights(module, self.config.initializer_range))
        if self.config.position == "sinusoidal" and self.embeddings.positions is not None:
            with torch.no_grad():
                self.embeddings.positions.weight.copy_(
                    sinusoidal_table(*self.embeddings.positions.weight.shape)
                )

    def layer(self, number: int) -> EncoderLayer:
        """Return the module that computes layer `number`; ALBERT and recursion compute several with one."""
        layer = self.layers[self.config.module_of(number)]
        assert isinstance(layer, EncoderLayer)
        return layer

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Encode a padded batch; where tokens are routed it is packed first, and positions count from the first real token.

        Shapes:
            input_ids, token_type_ids: (B, T) long; attention_mask: (B, T) bool, True = real token
            returns: (B, T, D); what stands at padding is meaningless
        Raises:
            ValueError: a sequence is longer than the position table, or the mask is not bool.
        """
        run = padded_run(input_ids, attention_mask)
        if attention_mask is not None and (self.config.routed or self.convolution is not None):
            return self._forward_real(input_ids, attention_mask, token_type_ids)
        types = None if token_type_ids is None else token_type_ids.flatten()
        return self._encode(input_ids.flatten(), [run], types).view(run.count, run.length, -1)

    def forward_packed(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        token_type_ids: Tensor | None = None,
        *,
        num_keys: Sequence[int] | None = None,
    ) -> Tensor:
        """Encode sequences that lie one after another; fastest where equal lengths are neighbours.

        Of each sequence the first `num_keys` tokens are attended to; None: all.

        Shapes:
            input_ids, token_type_ids: (N,) long, N = sum(lengths)
            returns: (N, D)
        Raises:
            ValueError: the lengths do not add up to N, or one is longer than the position table; or `num_keys` are of a model in
                which others than these matter (`EncoderConfig.why_no_keys`).
        """
        if sum(lengths) != input_ids.shape[0]:
            raise ValueError(f"lengths add up to {sum(lengths)}; input_ids has {input_ids.shape[0]} tokens")
        runs = runs_of(lengths)
        if num_keys is not None:
            if reason := self.config.why_no_keys:
                raise ValueError(f"num_keys are given for a model with {reason}")
            runs = seen_runs(runs, num_keys, input_ids.device)
        return self._encode(input_ids, runs, token_type_ids)

    def _forward_real(self, input_ids: Tensor, mask: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Encode the real tokens of a padded batch alone: no router is to see the others."""
        lengths = [length for length in mask.sum(dim=1).tolist() if length]
        types = None if token_type_ids is None else token_type_ids[mask]
        packed = self.forward_packed(input_ids[mask], lengths, types)
        return packed.new_zeros(*mask.shape, packed.shape[1]).masked_scatter(mask[:, :, None], packed)

    def _encode(self, input_ids: Tensor, runs: Sequence[Run], token_type_ids: Tensor | None) -> Tensor:
        hidden, biases = self.embed(input_ids, runs, token_type_ids)
        for states in self.walk(hidden, runs, biases):
            hidden = states
        return self.finish(hidden)

    def walk(
        self, hidden: Tensor, runs: Sequence[Run], biases: dict[bool, list[AttentionBias]]
    ) -> Iterator[Tensor]:
        """Yield the vectors of all tokens after each layer, (N, D), from what `embed` returned."""
        number, recursion = 0, self.config.recursion
        while number < self.config.num_hidden_layers:
            if self.recursion is not None and recursion is not None and number == recursion.num_first_layers:
                lengths = [run.length for run in runs for _ in range(run.count)]
                for states in self.recursion(hidden, lengths, self._block):
                    hidden = states
                    yield hidden
                number = recursion.end
            else:
                before = hidden
                hidden = self.layer(number)(hidden, runs, biases[self.config.layer_is_local(number)])
                if self.convolution is not None and number == 0:
                    hidden = self.convolution(before, hidden, [(run.count, run.length) for run in runs])
                yield hidden
                number += 1

    def finish(self, hidden: Tensor) -> Tensor:
        """Apply the norm behind the last layer, where there is one."""
        return hidden if self.final_norm is None else self.final_norm(hidden)

    def states(
        self, input_ids: Tensor, runs: Sequence[Run], token_type_ids: Tensor | None
    ) -> Iterator[Tensor]:
        """Yield what the first layer reads, and what each layer gives, as it is: L + 1 times (N, D)."""
        hidden, biases = self.embed(input_ids, runs, token_type_ids)
        yield hidden
        yield from self.walk(hidden, runs, biases)

    def _block(self, hidden: Tensor, lengths: Sequence[int]) -> Iterator[Tensor]:
        """Run the layers that recur on packed tokens, whose distances no layer asks for; yield the vectors after each."""
        assert self.config.recursion is not None
        first, runs = self.config.recursion.num_first_layers, runs_of(lengths)
        for number in range(first, first + self.config.recursion.num_block_layers):
            hidden = self.layer(number)(hidden, runs, [AttentionBias(None, None)] * len(runs))
            yield hidden

    def embed(
        self, input_ids: Tensor, runs: Sequence[Run], token_type_ids: Tensor | None
    ) -> tuple[Tensor, dict[bool, list[AttentionBias]]]:
        """Return what the first layer reads, (N, D), and each run's bias for global (False) and local (True) layers."""
        longest = max((run.length for run in runs), default=0)
        if longest > self.config.max_tokens:
            raise ValueError(
                f"a sequence has {longest} tokens; this encoder takes at most {self.config.max_tokens}"
            )
        device = input_ids.device
        ramp = torch.arange(longest, device=device)
        position_ids = torch.cat([ramp[: run.length].repeat(run.count) for run in runs])
        hidden = self.embeddings(input_ids, position_ids, token_type_ids)
        kinds = {self.config.layer_is_local(number) for number in range(self.config.num_hidden_layers)}
        biases = {local: [self._bias(run, local, hidden) for run in runs] for local in kinds}
        if self.distances is not None:
            found = self.distances([run.length for run in runs], device)
            biases = {
                local: [replace(bias, distances=own) for bias, own in zip(those, found, strict=True)]
                for local, those in biases.items()
            }
        return hidden, biases

    def _bias(self, run: Run, local: bool, hidden: Tensor) -> AttentionBias:
        config, length, device = self.config, run.length, hidden.device
        mask = self._seen(run, local, device)
        if (added := self._added(length, device)) is not None:
            mask = added if mask is None else added.masked_fill(~mask, -math.inf)
            mask = mask.to(hidden.dtype)
        rotary = self._rotary(run, local, device) if config.position == "rope" else None
        return AttentionBias(mask, rotary, causal=config.causal and mask is None)

    def _added(self, length: int, device: torch.device) -> Tensor | None:
        """Return what distances add to the scores of all layers, (1, H, T, T); None: nothing."""
        config = self.config
        if config.position == "alibi":
            return alibi_scores(length, num_heads=config.num_attention_heads, device=device)[None]
        if self.relative_bias is None:
            return None
        buckets = relative_position_buckets(
            length,
            num_buckets=config.relative_attention_num_buckets,
            max_distance=config.relative_attention_max_distance,
            device=device,
        )
        added: Tensor = self.relative_bias(buckets).permute(2, 0, 1)[None]
        return added

    def _rotary(self, run: Run, local: bool, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return cos and sin of a run's rotation angles: (T, d), or (count, 1, T, d) where sequences have their own."""
        config = self.config
        table = partial(
            rotary_table,
            run.length,
            head_size=config.head_size,
            theta=config.local_rope_theta if local else config.global_rope_theta,
            device=device,
            factor=1.0 if local else config.rope_factor,
            scaling=None if local else config.rope_scaling,
        )
        if local or not config.scaled_by_length or run.attention_mask is None:
            return table()
        # By the length of the text alone: beside a longer one in the batch it is to have the same vector.
        tables = [table(scaled_for=count) for count in run.attention_mask.sum(dim=1).tolist()]
        cos, sin = (torch.stack(each)[:, None] for each in zip(*tables, strict=True))
        return cos, sin

    def _seen(self, run: Run, local: bool, device: torch.device) -> Tensor | None:
        """Say which keys each query of a run may attend to, as a mask; None: all, or, of causal attention, all before it."""
        config, length = self.config, run.length
        mask = (
            None if run.attention_mask is None else run.attention_mask[:, None, None, :]
        )  # (count, 1, 1, T)
        reach = config.local_attention // 2
        narrow = local and length > reach + 1
        added = self.relative_bias is not None or config.position == "alibi"
        if not narrow and not (config.causal and (mask is not None or added)):
            return mask
        position = torch.arange(length, device=device)
        behind = position[:, None] - position[None, :]  # (T, T)
        near = torch.ones_like(behind, dtype=torch.bool)
        if narrow:
            near &= behind.abs() <= reach
        if config.causal:
            near &= behind >= 0
        if mask is None:
            return near
        # Padding far from real tokens attends to itself: without any key some kernels give NaN, which spreads.
        both = mask & near
        alone = ~both.any(dim=-1, keepdim=True)
        return both | (alone & torch.eye(length, dtype=torch.bool, device=device))


def seen_runs(runs: Sequence[Run], num_keys: Sequence[int], device: torch.device) -> list[Run]:
    """Return runs with the masks of sequences of which only the first `num_keys` tokens are attended to."""
    first, found = 0, []
    for run in runs:
        keys = torch.tensor(num_keys[first : first + run.count], device=device)
        mask = torch.arange(run.length, device=device) < keys[:, None]
        found.append(replace(run, attention_mask=mask))
        first += run.count
    return found


def padded_run(input_ids: Tensor, attention_mask: Tensor | None) -> Run:
    """Return a padded batch, (B, T), as the one run that it is.

    Raises:
        ValueError: the mask is not bool.
    """
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        raise ValueError(f"attention_mask is {attention_mask.dtype}; it must be bool, True for real tokens")
    batch, length = input_ids.shape
    return Run(0, batch, length, attention_mask)


def _layer(config: EncoderConfig, module: int) -> EncoderLayer:
    experts = ExpertFeedForward(config, name=f"layer {module}") if config.has_experts(module) else None
    return EncoderLayer(config, first=module == 0, experts=experts)


def init_weights(module: nn.Module, std: float) -> None:
    """Draw one module's weights as BERT does; layer norms start as the identity."""
    if isinstance(module, nn.Linear | nn.Embedding | nn.Conv1d):
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
    if isinstance(module, nn.Linear | nn.Conv1d) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, AttentionForm):
        module.reset_parameters(std)

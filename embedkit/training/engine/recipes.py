"""What a training run needs to know, as frozen dataclasses: how long, how fast, on what, with which model.

`RunRecipe` and `OptimRecipe` are shared by every journey; the rest of this file is pretraining's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from embedkit.model.config import Activation, Attention, EncoderConfig, Position
from embedkit.model.routing_config import ExpertsConfig, RecursionConfig

Schedule = Literal["constant", "linear", "cosine", "wsd"]
Precision = Literal["auto", "fp32", "bf16"]
NextSentence = Literal["none", "next", "order"]
Strategy = Literal["ddp", "fsdp"]
LoraTarget = Literal["qkv", "out", "up", "down"]


def check_least(recipe: object, smallest: float, *names: str) -> None:
    """Hold fields of a recipe against the smallest value that they may have; None is no value.

    Raises:
        ValueError: one is smaller.
    """
    for name in names:
        value = getattr(recipe, name)
        if value is not None and value < smallest:
            raise ValueError(f"{name} is {value}; it must be at least {smallest}")


def check_seed(seed: int) -> None:
    """Hold a seed against what torch takes.

    Raises:
        ValueError: it is below 0, or of more than 63 bits.
    """
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed}; it must be from 0 to {2**63 - 1}")


def check_held_out(share: float) -> None:
    """Refuse to hold out nothing, or all.

    Raises:
        ValueError: the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"held_out is {share}; it must be above 0 and below 1")


def check_below_one(recipe: object, *names: str) -> None:
    """Hold fields of a recipe within 0 (included) and 1 (not included); None is no value.

    Raises:
        ValueError: one is outside.
    """
    for name in names:
        value = getattr(recipe, name)
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class LoraRecipe:
    """Train two narrow matrices of `rank` beside each linear layer of the encoder that `targets` names, and leave its weights.

    `alpha` over the rank is what their product is multiplied by; `dropout` is that of their input. `save` merged writes a model as
    any other, adapter only the matrices, as PEFT does. Source: `embedkit.model.lora`.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[LoraTarget, ...] = ("qkv", "out", "up", "down")
    save: Literal["merged", "adapter"] = "merged"

    def __post_init__(self) -> None:
        check_least(self, 1, "rank")
        check_below_one(self, "dropout")
        if self.alpha <= 0:
            raise ValueError(f"alpha is {self.alpha}; it must be above 0")
        if not self.targets:
            raise ValueError("targets is empty; name at least one of qkv, out, up, down")


@dataclass(frozen=True, kw_only=True)
class OptimRecipe:
    """AdamW and its learning rate.

    The rate rises linearly over `warmup_steps`, then follows `schedule` down to `final_lr` × `lr` at the last step: `linear`,
    `cosine`, or `wsd` (constant, then linear over the last `decay_share` of the steps; Hu et al. 2024,
    https://arxiv.org/abs/2404.06395). Weight decay leaves out biases and norms. Gradients longer than
    `max_grad_norm` are scaled down to it; 0 leaves them.
    """

    lr: float = 5e-4
    warmup_steps: int = 100
    schedule: Schedule = "linear"
    decay_share: float = 0.2
    final_lr: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}; it must be above 0")
        check_least(self, 0, "warmup_steps", "weight_decay", "max_grad_norm", "eps")
        check_below_one(self, "beta1", "beta2")
        for name in ("decay_share", "final_lr"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """How long to train and what to keep.

    A state is saved every `save_every` steps and the last `keep_last` are kept, besides the best by held-out loss. `accumulate`
    cuts a batch into so many parts, computed one after another. `ema_decay` above 0 keeps a running mean of the weights,
    which is what is evaluated and written. With `patience` the run ends early, after so many evaluations in a row that were not the
    best. `precision` auto means the faster of bf16 and fp32 on this machine, see `embedkit.training.engine.precision`.
    """

    steps: int
    seed: int = 0
    evaluate_every: int = 500
    save_every: int = 500
    keep_last: int = 2
    patience: int | None = None
    accumulate: int = 1
    precision: Precision = "auto"
    ema_decay: float = 0.0
    compile: bool = False
    gradient_checkpointing: bool = False
    strategy: Strategy = "ddp"

    def __post_init__(self) -> None:
        check_least(self, 1, "steps", "evaluate_every", "save_every", "keep_last", "accumulate", "patience")
        check_seed(self.seed)
        check_below_one(self, "ema_decay")


def check_encoder_run(run: RunRecipe) -> None:
    """Refuse settings of the loop that sentence encoders are not trained with.

    Raises:
        ValueError: batches are to be accumulated, or weights sharded.
    """
    if run.accumulate != 1:
        raise ValueError(
            f"run.accumulate is {run.accumulate}; batches are cut into parts by data.micro_tokens instead"
        )
    if run.strategy != "ddp":
        raise ValueError(f"run.strategy is {run.strategy!r}; sentence encoders are trained with 'ddp'")


@dataclass(frozen=True, kw_only=True)
class RoutingRecipe:
    """How much the auxiliary losses of routers weigh; without this table, as here. A model without routers has none of them.

    `balance_weight` is for equal use of experts, or of depths (Fedus et al. 2021); `z_weight` for small scores (Zoph et al. 2022);
    `selection_weight` for clear selections in recursion by expert choice (Bae et al. 2025). The defaults are these papers'.
    """

    balance_weight: float = 0.01
    z_weight: float = 0.001
    selection_weight: float = 0.001

    def __post_init__(self) -> None:
        check_least(self, 0, "balance_weight", "z_weight", "selection_weight")


@dataclass(frozen=True, kw_only=True)
class ModelRecipe:
    """The shape of a fresh encoder but for its vocabulary, which is the tokenizer's.

    The fields are those of `EncoderConfig`; `rope_theta` is the base of rotary positions. `initializer_range` is the deviation of
    fresh weights. BERT's 0.02 suits 768 dimensions; narrower layers need larger weights to pass on as much. `experts` and `recursion`
    are tables of their own: see `ExpertsConfig` and `RecursionConfig`.
    """

    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    hidden_act: Activation = "gelu"
    position: Position = "learned"
    max_relative_position: int = 16
    max_position_embeddings: int = 512
    attention: Attention = "dot"
    attention_rank: int = 32
    attention_features: int = 64
    local_attention: int = 0
    global_attn_every_n_layers: int = 3
    rope_theta: float = 10_000.0
    initializer_range: float = 0.02
    dropout: float = 0.1
    experts: ExpertsConfig | None = None
    recursion: RecursionConfig | None = None

    def __post_init__(self) -> None:
        check_below_one(self, "dropout")
        if self.initializer_range <= 0:
            raise ValueError(f"initializer_range is {self.initializer_range}; it must be above 0")
        if self.local_attention and self.global_attn_every_n_layers == 1:
            raise ValueError(
                f"local_attention is {self.local_attention} and global_attn_every_n_layers 1: then every layer is global. "
                "Set the latter to 2 or more"
            )
        usual = {each.name: each.default for each in fields(self)}
        for name, (reader, reads) in self._readers().items():
            if not reads and getattr(self, name) != usual[name]:
                raise ValueError(f"{name} is {getattr(self, name)}; nothing reads it without {reader}")
        self.config(vocab_size=1, pad_token_id=0)  # checks the sizes

    def _readers(self) -> dict[str, tuple[str, bool]]:
        """Say of each setting that one variant alone reads which that is, and whether it is there."""
        return {
            "max_relative_position": ("position 'relative'", self.position == "relative"),
            "rope_theta": ("position 'rope'", self.position == "rope"),
            "attention_rank": ("attention 'low_rank'", self.attention == "low_rank"),
            "attention_features": ("attention 'random_features'", self.attention == "random_features"),
            "global_attn_every_n_layers": ("local_attention", self.local_attention > 0),
        }

    def config(self, *, vocab_size: int, pad_token_id: int) -> EncoderConfig:
        """Return the encoder's shape for a vocabulary."""
        # What nothing reads stays as usual, so that a shape which one of Hugging Face's families can say is saved as that.
        unread = {name for name, (_, reads) in self._readers().items() if not reads}
        unread |= {"dropout", "rope_theta"}
        read: dict[str, Any] = {  # Any: of whatever types the fields are
            each.name: getattr(self, each.name) for each in fields(self) if each.name not in unread
        }
        if self.position == "rope":
            read |= {"global_rope_theta": self.rope_theta, "local_rope_theta": self.rope_theta}
        return EncoderConfig(
            vocab_size=vocab_size,
            pad_token_id=pad_token_id,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            **read,
        )


@dataclass(frozen=True, kw_only=True)
class TextRecipe:
    """How texts become batches.

    A batch holds about `batch_tokens` tokens, over all devices. Documents are cut into sequences of up to `sequence_length`
    tokens, whose lengths are rounded down to multiples of `length_step`, so that a batch has few different ones. The first
    `short_steps` steps take sequences of `short_length` instead; over the first `batch_warmup_steps` the batch grows
    from `batch_warmup_tokens`. `held_out` is the share of documents kept for evaluation, which reads `evaluate_tokens` of them.
    """

    sequence_length: int = 128
    batch_tokens: int = 8192
    length_step: int = 8
    short_steps: int = 0
    short_length: int = 64
    batch_warmup_steps: int = 0
    batch_warmup_tokens: int = 2048
    held_out: float = 0.01
    evaluate_tokens: int = 65_536

    def __post_init__(self) -> None:
        check_least(self, 8, "sequence_length", "short_length")
        check_least(self, 1, "length_step", "evaluate_tokens", "batch_warmup_tokens")
        check_least(self, 0, "short_steps", "batch_warmup_steps")
        check_below_one(self, "held_out")
        if self.held_out == 0:
            raise ValueError("held_out is 0; some documents must be kept for evaluation, such as 0.01")
        if self.batch_tokens < self.sequence_length:
            raise ValueError(
                f"batch_tokens is {self.batch_tokens}; it must hold a sequence of {self.sequence_length} tokens"
            )
        if self.sequence_length < self.length_step:
            raise ValueError(
                f"length_step is {self.length_step}; it must be at most sequence_length {self.sequence_length}"
            )


@dataclass(frozen=True, kw_only=True)
class MaskingRecipe:
    """What is masked, and whether sentence pairs are told apart too.

    `ratio` of the tokens of a sequence are to be predicted; of them `mask_share` become [MASK], `random_share` a random token, and
    the rest stay. `next_sentence` adds the second task: `next`, is this the sentence that follows (Devlin et al. 2019), or
    `order`, are the two in their order (Lan et al. 2020).
    """

    ratio: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    whole_words: bool = False
    next_sentence: NextSentence = "none"

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio is {self.ratio}; it must be above 0 and below 1")
        if min(self.mask_share, self.random_share) < 0 or self.mask_share + self.random_share > 1:
            raise ValueError(
                f"mask_share {self.mask_share} and random_share {self.random_share} must not be negative nor exceed 1 together"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe:
    """Everything that `embedkit train mlm` needs besides the texts and the tokenizer.

    `head_diversity` is the weight of a penalty that makes the heads of each layer differ (`embedkit.training.engine.diversity`).
    """

    run: RunRecipe
    model: ModelRecipe = field(default_factory=ModelRecipe)
    text: TextRecipe = field(default_factory=TextRecipe)
    masking: MaskingRecipe = field(default_factory=MaskingRecipe)
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    routing: RoutingRecipe | None = None
    freeze_layers: int = 0
    head_diversity: float = 0.0

    def __post_init__(self) -> None:
        check_least(self, 0, "freeze_layers", "head_diversity")

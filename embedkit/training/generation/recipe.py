"""The recipes of `embedkit train generation` and `embedkit train lm`."""

from __future__ import annotations

from dataclasses import dataclass, field

from embedkit.checkpoint.generation import StoredAs
from embedkit.generation.options import GenerationOptions
from embedkit.model.config import Activation, EncoderConfig
from embedkit.model.decoder_config import DecoderConfig, DecoderPosition
from embedkit.training.engine.recipes import (
    ModelRecipe,
    OptimRecipe,
    RunRecipe,
    TextRecipe,
    check_below_one,
    check_held_out,
    check_least,
)


@dataclass(frozen=True, kw_only=True)
class DecoderRecipe:
    """The shape of a fresh decoder but for its vocabulary, which is the tokenizer's.

    `hidden_size` none takes the encoder's width, as it must where the two share their token table (`share_embeddings`).
    """

    hidden_size: int | None = None
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    hidden_act: Activation = "gelu"
    position: DecoderPosition = "learned"
    max_position_embeddings: int = 128
    norm_first: bool = True
    embedding_norm: bool = False
    share_embeddings: bool = True
    tie_word_embeddings: bool = True
    output_bias: bool = True
    initializer_range: float = 0.02
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_below_one(self, "dropout")
        check_least(
            self, 1, "hidden_size", "num_hidden_layers", "intermediate_size", "max_position_embeddings"
        )
        if self.initializer_range <= 0:
            raise ValueError(f"initializer_range is {self.initializer_range}; it must be above 0")

    def config(self, encoder: EncoderConfig | None, *, vocab_size: int) -> DecoderConfig:
        """Return the decoder's shape over an encoder, or alone.

        Raises:
            ValueError: two sizes do not fit together.
        """
        width = None if encoder is None else encoder.hidden_size
        size = self.hidden_size or width
        if size is None:
            raise ValueError("hidden_size is none; a language model has no encoder to take it from")
        return DecoderConfig(
            vocab_size=vocab_size,
            hidden_size=size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            hidden_act=self.hidden_act,
            position=self.position,
            max_position_embeddings=self.max_position_embeddings,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            initializer_range=self.initializer_range,
            norm_first=self.norm_first,
            embedding_norm=self.embedding_norm,
            encoder_size=width,
            share_embeddings=self.share_embeddings and encoder is not None,
            tie_word_embeddings=self.tie_word_embeddings,
            output_bias=self.output_bias,
        )


@dataclass(frozen=True, kw_only=True)
class GenerationRecipe:
    """Everything that `embedkit train generation` needs besides the pairs and what to start from.

    A step takes `batch_sources` sources, over all devices, each with up to `targets_per_source` of its targets: a source is encoded
    once for all of them. `max_source_tokens` none reads as much as the encoder does; targets are cut to `max_target_tokens`.
    `held_out` is the share of sources kept for evaluation, at most `evaluate_sources`. `encoder` is the shape of a fresh encoder.
    `stored` is the number format of the finished model's weights, and `generation` what the model does unless told otherwise.
    """

    run: RunRecipe
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    encoder: ModelRecipe = field(default_factory=ModelRecipe)
    decoder: DecoderRecipe = field(default_factory=DecoderRecipe)
    batch_sources: int = 32
    targets_per_source: int = 4
    max_source_tokens: int | None = None
    max_target_tokens: int = 64
    label_smoothing: float = 0.1
    freeze_encoder: bool = False
    held_out: float = 0.01
    evaluate_sources: int = 500
    stored: StoredAs = "fp32"
    generation: GenerationOptions = field(default_factory=GenerationOptions)

    def __post_init__(self) -> None:
        check_least(self, 1, "batch_sources", "targets_per_source", "evaluate_sources")
        check_least(self, 2, "max_target_tokens")
        check_least(self, 8, "max_source_tokens")
        check_below_one(self, "label_smoothing")
        check_held_out(self.held_out)


@dataclass(frozen=True, kw_only=True)
class LanguageModelRecipe:
    """Everything that `embedkit train lm` needs besides the texts and the tokenizer, or the model to train further.

    A document is cut into sequences of `sequence_length` predictions each; every token is predicted once an epoch. A batch holds about
    `batch_tokens` of them, over all devices. `held_out` is the share of documents kept for evaluation, of which `evaluate_tokens` are
    read.
    """

    run: RunRecipe
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    decoder: DecoderRecipe = field(default_factory=lambda: DecoderRecipe(hidden_size=256))
    sequence_length: int = 128
    batch_tokens: int = 8192
    label_smoothing: float = 0.0
    held_out: float = 0.01
    evaluate_tokens: int = 65_536
    stored: StoredAs = "fp32"
    generation: GenerationOptions = field(
        default_factory=lambda: GenerationOptions(method="sample", top_p=0.9)
    )

    def __post_init__(self) -> None:
        self.text()  # checks its fields
        check_below_one(self, "label_smoothing")
        if self.decoder.hidden_size is None:
            raise ValueError(
                "decoder.hidden_size is none; a language model has no encoder to take it from. Set it"
            )

    def text(self) -> TextRecipe:
        """Return how texts become batches, as for masked language models."""
        return TextRecipe(
            sequence_length=self.sequence_length,
            batch_tokens=self.batch_tokens,
            length_step=1,
            held_out=self.held_out,
            evaluate_tokens=self.evaluate_tokens,
        )

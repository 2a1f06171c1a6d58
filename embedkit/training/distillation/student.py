"""Students to distil a teacher into: some of its layers, or a fresh encoder, or a static table of token vectors.

1. The vocabulary is cut to what a corpus uses (`embedkit.training.distillation.vocabulary_pruning`), or stays.
2. The encoder is copied from chosen teacher layers, whole or narrower (`embedkit.training.distillation.ffn_pruning`), or drawn fresh.
3. Where vectors are to be shorter, a dense layer cuts them: the principal axes of the teacher's vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.checkpoint.folder import ModelFolder
from embedkit.checkpoint.hf_config import family_of
from embedkit.checkpoint.names import Family
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.checkpoint.static import without_template
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.errors import TrainingError
from embedkit.model.config import DenseConfig, EncoderConfig, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.static import StaticEncoder
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.distillation.ffn_pruning import contributions, narrowed, strongest
from embedkit.training.distillation.recipe import StudentRecipe
from embedkit.training.distillation.vocabulary_pruning import Pruned, count_tokens, prune_vocabulary

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Student:
    """A model to train, with everything that its folder will say."""

    model: SentenceEncoder | StaticEncoder
    tokenizer: Tokenizer
    modules: SentenceModules
    family: Family | None  # None: static
    described: str

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


def principal_axes(vectors: Floats, dimension: int) -> Floats:
    """Find the directions that keep most of the vectors' squared length: (N, E) -> (dimension, E), orthonormal rows.

    Vectors are not centred, since their cosines are to be kept and these depend on the origin.

    Raises:
        TrainingError: fewer vectors than axes, or more axes than dimensions.
    Source: Jolliffe 2002, Principal Component Analysis, section 2.1; as a last layer, sentence-transformers' model
        compression.
    """
    count, width = vectors.shape
    if not 1 <= dimension <= width:
        raise TrainingError(
            f"student.dimension is {dimension}; the teacher's vectors have {width} dimensions, so choose from 1 to {width}"
        )
    if count < dimension:
        raise TrainingError(
            f"student.dimension is {dimension}; {count} texts span at most as many axes. Give more texts, or fewer dimensions"
        )
    wide = np.asarray(vectors, dtype=np.float64)
    _, axes = np.linalg.eigh(wide.T @ wide)  # in ascending order
    result: Floats = np.ascontiguousarray(axes[:, ::-1][:, :dimension].T, dtype=np.float32)
    return result


def make_student(
    recipe: StudentRecipe,
    teacher: ModelFolder,
    texts: Sequence[str],
    *,
    axes: Floats | None,
    max_length: int,
    seed: int,
    embed: Callable[[Sequence[str]], Floats],
) -> Student:
    """Make the student of a recipe.

    `axes` (E', E) are the principal axes where vectors are cut; `embed` gives a fresh static table its first values.

    Raises:
        TrainingError: the recipe asks for layers that the teacher lacks, or for more tokens than its positions.
        CheckpointError: the teacher's weights cannot be used.
    """
    learned = teacher.modules.sentence.similarity
    if learned is not None:
        raise TrainingError(
            f"{teacher.path}: its similarity is {learned.kind}, which a student's vectors alone do not have. "
            "Distil a model that is compared by cosine or dot product"
        )
    tokenizer, pruned = teacher.tokenizer, None
    if recipe.prune_below:
        pruned = prune_vocabulary(tokenizer, texts, at_least=recipe.prune_below)
        tokenizer = pruned.tokenizer
    width = teacher.embedding_size if axes is None else len(axes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if recipe.kind == "static":
            return _static(tokenizer, texts, width, axes, embed)
        if recipe.layers:
            return _from_layers(recipe, teacher, tokenizer, pruned, texts, axes, max_length)
        return _fresh(recipe, teacher, tokenizer, width, max_length)


def _from_layers(
    recipe: StudentRecipe,
    teacher: ModelFolder,
    tokenizer: Tokenizer,
    pruned: Pruned | None,
    texts: Sequence[str],
    axes: Floats | None,
    max_length: int,
) -> Student:
    count = teacher.config.num_hidden_layers
    wrong = [layer for layer in recipe.layers if not 0 <= layer < count]
    if wrong:
        raise TrainingError(
            f"student.layers names layer {wrong[0]}; the teacher has {count} layers, numbered from 0 to {count - 1}"
        )
    if teacher.config.num_hidden_groups is not None or teacher.config.recursion is not None:
        raise TrainingError(
            "student.layers: the teacher's layers share their weights (ALBERT, recursion); there are none to choose. "
            "Train from scratch"
        )
    if teacher.config.experts is not None:
        raise TrainingError(
            f"student.layers: the teacher has {teacher.config.routed} in every n-th layer, which some layers of it would not have "
            "in their places. Train from scratch"
        )
    if teacher.modules.sentence.layer_start is not None:
        raise TrainingError(
            "student.layers: the teacher's token vectors are a mean of its layers; a part of them has another mean. Train from scratch"
        )
    check_length(max_length, teacher.config.max_tokens)
    source = load_sentence_encoder(teacher)
    units: Sequence[Tensor] = ()
    if recipe.intermediate_size is not None:
        measured = contributions(source, teacher.tokenizer.with_max_length(max_length), texts, recipe.layers)
        units = [strongest(contribution, recipe.intermediate_size) for contribution in measured]
    config = replace(
        teacher.config,
        num_hidden_layers=len(recipe.layers),
        intermediate_size=recipe.intermediate_size or teacher.config.intermediate_size,
        max_position_embeddings=_num_positions(teacher.config, max_length),
        vocab_size=teacher.config.vocab_size if pruned is None else len(pruned.kept),
        pad_token_id=teacher.config.pad_token_id if pruned is None else tokenizer.special_id("pad"),
        hidden_dropout_prob=recipe.dropout,
        attention_probs_dropout_prob=recipe.dropout,
    )
    sentence = teacher.modules.sentence
    if axes is not None:
        dense = DenseConfig(
            in_features=axes.shape[1], out_features=len(axes), bias=False, activation="identity"
        )
        sentence = replace(sentence, dense=(*sentence.dense, dense))
    model = SentenceEncoder(TransformerEncoder(config), sentence)
    with torch.no_grad():
        _copy_encoder(source.encoder, model.encoder, recipe.layers, pruned, units)
        for ours, theirs in zip(model.dense, source.dense, strict=False):
            ours.load_state_dict(theirs.state_dict())
        if model.attention_pooling is not None and source.attention_pooling is not None:
            model.attention_pooling.load_state_dict(source.attention_pooling.state_dict())
        if axes is not None:
            last_linear(model).weight.copy_(torch.from_numpy(axes))
    modules = replace(
        teacher.modules,
        sentence=sentence,
        encoder_folder="",
        max_seq_length=max_length,
        truncate_dim=None if axes is not None else teacher.modules.truncate_dim,
    )
    described = f"layers {', '.join(map(str, recipe.layers))} of {count}"
    if units:
        described += f", {config.intermediate_size} of {teacher.config.intermediate_size} inner units"
    return Student(model, tokenizer.with_max_length(max_length), modules, teacher.family, described)


def _copy_encoder(
    source: TransformerEncoder,
    target: TransformerEncoder,
    layers: Sequence[int],
    pruned: Pruned | None,
    units: Sequence[Tensor],
) -> None:
    weights = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("layers.")}
    if pruned is not None:
        weights["embeddings.tokens.weight"] = weights["embeddings.tokens.weight"][
            torch.from_numpy(pruned.kept)
        ]
    if target.embeddings.positions is not None:
        kept = target.embeddings.positions.num_embeddings
        weights["embeddings.positions.weight"] = weights["embeddings.positions.weight"][:kept]
    places = target.config.max_position_embeddings
    for new, old in enumerate(layers):
        layer = source.layer(old).state_dict()
        layer |= {name: mixtures[:, :places] for name, mixtures in layer.items() if ".low_rank_" in name}
        for name, tensor in (narrowed(layer, units[new]) if units else layer).items():
            weights[f"layers.{new}.{name}"] = tensor
    target.load_state_dict(weights, strict=True)


def _num_positions(config: EncoderConfig, max_length: int) -> int:
    """Leave out the positions that no text of the training reaches: what stands there would be the teacher's, unfit."""
    if not config.has_position_table:
        return config.max_position_embeddings
    least = config.attention_rank if config.attention == "low_rank" else 1
    return min(config.max_position_embeddings, max(least, max_length + config.position_offset))


def _fresh(
    recipe: StudentRecipe, teacher: ModelFolder, tokenizer: Tokenizer, width: int, max_length: int
) -> Student:
    config = recipe.model.config(vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.special_id("pad"))
    check_length(max_length, config.max_tokens)
    dense: tuple[DenseConfig, ...] = ()
    if config.hidden_size != width:
        dense = (
            DenseConfig(
                in_features=config.hidden_size, out_features=width, bias=False, activation="identity"
            ),
        )
    sentence = SentenceConfig(dense=dense, normalize=teacher.modules.sentence.normalize)
    modules = replace(
        teacher.modules,
        sentence=sentence,
        encoder_folder="",
        dense_folders=(),
        max_seq_length=max_length,
        truncate_dim=None if width < teacher.embedding_size else teacher.modules.truncate_dim,
    )
    model = SentenceEncoder(TransformerEncoder(config), sentence)
    described = f"fresh, {config.num_hidden_layers} layers of {config.hidden_size}"
    return Student(model, tokenizer.with_max_length(max_length), modules, family_of(config), described)


def _static(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    width: int,
    axes: Floats | None,
    embed: Callable[[Sequence[str]], Floats],
) -> Student:
    """Start each token at the teacher's vector of its own text, longer the rarer it is, which is most of the way.

    By Zipf's law a token's rank stands for its frequency: it weighs log(1 + rank).
    Source: Tulkens and van Dongen 2024, Model2Vec, https://github.com/MinishLab/model2vec
    """
    plain = without_template(tokenizer)
    names = [
        tokenizer.backend.decode([number], skip_special_tokens=False)
        for number in range(tokenizer.vocab_size)
    ]
    vectors = embed([name if name.strip() else "." for name in names])
    if axes is not None:
        vectors = vectors @ axes.T
    ranks = np.empty(len(names))
    ranks[np.argsort(-count_tokens(plain, texts), kind="stable")] = np.arange(len(names))
    weights = np.log1p(ranks + 1)
    model = StaticEncoder(tokenizer.vocab_size, width)
    with torch.no_grad():
        weighted = np.asarray(vectors, np.float32) * (weights / weights.mean())[:, None]
        model.tokens.weight.copy_(torch.from_numpy(weighted.astype(np.float32)))
    modules = SentenceModules(sentence=SentenceConfig(normalize=True))
    return Student(model, plain, modules, None, "static, mean of token vectors")


def check_length(max_length: int, limit: int) -> None:
    """Refuse texts that are longer than the student's positions reach.

    Raises:
        TrainingError: they are.
    """
    if max_length > limit:
        raise TrainingError(
            f"data.max_length is {max_length}; the student's positions end at {limit} tokens. Lower it"
        )


def last_linear(model: SentenceEncoder) -> nn.Linear:
    """Return the matrix of a model's last dense layer."""
    dense = model.dense[-1]
    linear = dense[0] if isinstance(dense, nn.Sequential) else dense
    assert isinstance(linear, nn.Linear)
    return linear

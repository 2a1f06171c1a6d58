"""What a contrastive run starts from: a dense model with the recipe's head, or a multi-vector one, new or trained further."""

from __future__ import annotations

from pathlib import Path

from embedkit.checkpoint.folder import ModelFolder, read_model_folder
from embedkit.checkpoint.multi_vector import is_multi_vector, read_multi_vector_folder
from embedkit.checkpoint.multi_vector_weights import load_multi_vector
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.errors import TrainingError
from embedkit.model.sentence import SentenceEncoder
from embedkit.models import find_model
from embedkit.training.contrastive.head import with_head
from embedkit.training.contrastive.recipe import ContrastiveRecipe, MultiVectorRecipe, PromptRecipe
from embedkit.training.contrastive.tokens import TokenTexts, check_tokens, with_tokens


def load_start(
    model: str | Path, recipe: ContrastiveRecipe
) -> tuple[ModelFolder, SentenceEncoder, TokenTexts | None]:
    """Load a model with its head; where that gives each token a vector, also how texts are read.

    Raises:
        CheckpointError: the model cannot be read.
        TrainingError: the recipe does not fit it.
    """
    if is_multi_vector(find_model(model)):
        _check_own(model, recipe)
        made = read_multi_vector_folder(model, max_seq_length=recipe.data.max_length)
        encoder = load_multi_vector(made)
    elif recipe.multi_vector is not None:
        folder = read_model_folder(model)
        made, encoder = with_tokens(folder, load_sentence_encoder(folder), recipe)
    else:
        folder = read_model_folder(model)
        return *with_head(folder, load_sentence_encoder(folder), recipe), None
    check_tokens(made, recipe)
    return made.encoder, encoder, TokenTexts(made)


def _check_own(model: str | Path, recipe: ContrastiveRecipe) -> None:
    """Refuse settings that a multi-vector model's folder has decided already."""
    set_anew = recipe.multi_vector not in (None, MultiVectorRecipe())
    if set_anew or recipe.prompts != PromptRecipe():
        raise TrainingError(
            f"{model}: this is a multi-vector model, which is trained further as it is, and the recipe sets "
            f"{'multi_vector' if set_anew else 'prompts'}. Leave that out, or begin with a dense model"
        )

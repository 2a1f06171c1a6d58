"""Multi-vector models in contrastive training: how their texts become tokens, and tokens become rows that losses compare by MaxSim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedkit.checkpoint.folder import ModelFolder
from embedkit.checkpoint.multi_vector import MultiVectorFolder, with_markers
from embedkit.checkpoint.multi_vector_modules import PUNCTUATION, MultiVectorModules, QueryExpansion
from embedkit.errors import CheckpointError, TrainingError
from embedkit.model.config import DenseConfig, SentenceConfig
from embedkit.model.filling import fill_up
from embedkit.model.late_interaction import MaxSimilarity
from embedkit.model.sentence import SentenceEncoder
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.batching import micro_batches
from embedkit.training.contrastive.recipe import (
    ContrastiveRecipe,
    HeadRecipe,
    MultiVectorRecipe,
    PromptRecipe,
)
from embedkit.training.engine.ranks import Ranks, autocast
from embedkit.types import TextRole

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
ROLES: tuple[TextRole, ...] = ("query", "document")  # of texts of group 0, and of group 1
SEARCHED_TEXTS = 256  # documents whose token vectors are in memory together


def with_tokens(
    folder: ModelFolder, model: SentenceEncoder, recipe: ContrastiveRecipe
) -> tuple[MultiVectorFolder, SentenceEncoder]:
    """Put a fresh projection of token vectors on the encoder of a dense model, and the recipe's markers into its tokenizer.

    Raises:
        TrainingError: a marker is not in the vocabulary, or the lengths do not fit the encoder.
    """
    wanted = recipe.multi_vector or MultiVectorRecipe()
    layer = DenseConfig(
        in_features=folder.config.hidden_size,
        out_features=wanted.dimension,
        bias=False,
        activation="identity",
    )
    markers = tuple(marker for marker in (wanted.query_marker, wanted.document_marker) if marker)
    if len(markers) == 1 or len(set(markers)) < len(markers):
        raise TrainingError(
            f"multi_vector.query_marker is {wanted.query_marker!r} and document_marker {wanted.document_marker!r}; "
            "they must be two tokens, or both empty"
        )
    try:
        tokenizer = with_markers(folder.tokenizer, markers, folder.path)
    except CheckpointError as exc:
        raise TrainingError(
            f"{exc.message}. Or set multi_vector.query_marker and document_marker to tokens that are, or both to ''"
        ) from exc
    prompts = {
        role: f"{marker} {text}" if marker else text
        for role, marker, text in (
            ("query", wanted.query_marker, recipe.prompts.first),
            ("document", wanted.document_marker, recipe.prompts.second),
        )
    }
    expansion = (
        QueryExpansion(length=wanted.query_tokens, attend=wanted.attend) if wanted.query_tokens else None
    )
    modules = MultiVectorModules(
        layers=(layer,),
        prompts=prompts,
        document_length=recipe.data.max_length or wanted.document_length,
        max_seq_length=folder.tokenizer.max_length,
        expansion=expansion,
        skiplist=PUNCTUATION if wanted.skip_punctuation else (),
    )
    made = MultiVectorFolder(path=folder.path, encoder=replace(folder, tokenizer=tokenizer), modules=modules)
    if wanted.query_tokens > folder.config.max_tokens:
        raise TrainingError(
            f"multi_vector.query_tokens is {wanted.query_tokens}; the encoder reads {folder.config.max_tokens}. Set fewer"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        fresh = SentenceEncoder(model.encoder, SentenceConfig(dense=(layer,), normalize=True))
    return made, fresh.train(model.training)


def check_tokens(folder: MultiVectorFolder, recipe: ContrastiveRecipe) -> None:
    """Refuse settings that are of models with one vector a text, and encoders that leave no token unattended.

    Raises:
        TrainingError: there are some.
    """
    single = {
        "head": recipe.head != HeadRecipe(),
        "loss.similarity": recipe.loss.similarity is not None,
        "loss.matryoshka": bool(recipe.loss.matryoshka),
        "loss.adaptive_layers": recipe.loss.adaptive_layers,
        "loss.aspect_diversity": recipe.loss.aspect_diversity > 0,
    }
    if wrong := [name for name, is_set in single.items() if is_set]:
        raise TrainingError(
            f"{wrong[0]} is of models that give a text one vector, and this one gives each token one. Leave it out"
        )
    config, expansion = folder.encoder.config, folder.modules.expansion
    if config.routed is not None:
        raise TrainingError(
            f"{folder.path}: its encoder has {config.routed}, with which no multi-vector model is trained. Take another"
        )
    if expansion is not None and not expansion.attend and config.why_no_keys is not None:
        raise TrainingError(
            f"{folder.path}: its encoder has {config.why_no_keys}, with which queries are not filled up with tokens that no other attends "
            "to. Set multi_vector.attend=true, or multi_vector.query_tokens=0"
        )


class TokenModule(nn.Module):
    """A multi-vector model whose forward takes packed tokens, with what the losses train besides it."""

    def __init__(self, model: SentenceEncoder, objectives: Sequence[nn.Module]) -> None:
        super().__init__()
        self.model = model
        self.objectives = nn.ModuleList(objectives)

    def forward(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        num_keys: Sequence[int] | None,
        kept: Tensor,
        places: Tensor,
        width: int,
    ) -> Tensor:
        """Encode B packed sequences of N tokens, and lay the vectors of the K that count into rows.

        Shapes:
            input_ids: (N,); kept: (K,) their numbers among the N; places: (K,) where each goes among B·width
            returns: (B, width·E), zeros where there is none
        """
        count = len(lengths)
        ids, filled, _ = fill_up(input_ids, lengths, max_tokens=self.model.encoder.config.max_tokens)
        keys = None if num_keys is None else [*num_keys, *filled[count:]]
        hidden = self.model.encoder.forward_packed(ids, filled, num_keys=keys)
        vectors = self.model.head(hidden[kept])  # (K, E)
        rows = vectors.new_zeros(count * width, vectors.shape[1]).index_copy(0, places, vectors)
        return rows.view(count, -1)


@dataclass(frozen=True)
class TokenTexts:
    """How a multi-vector model in training reads texts of both groups."""

    folder: MultiVectorFolder

    @property
    def similarity(self) -> MaxSimilarity:
        return MaxSimilarity(self.folder.dimension)

    @property
    def prompts(self) -> PromptRecipe:
        """What stands before texts, markers included."""
        modules = self.folder.modules
        return PromptRecipe(first=modules.prompt("query"), second=modules.prompt("document"))

    def encode(self, texts: Sequence[str], groups: Ints) -> TokenBatch:
        """Make tokens of texts with their prompts, queries filled up: U sequences in the order of the texts."""
        parts, rows = [], []
        for group, role in enumerate(ROLES):
            chosen = np.flatnonzero(groups == group)
            batch = self.folder.tokenizer(role).encode([texts[row] for row in chosen.tolist()])
            parts.append(self.folder.filled_up(batch) if role == "query" else batch)
            rows.append(chosen)
        joined = TokenBatch.joined(parts)
        keys = [part.lengths if part.num_keys is None else part.num_keys for part in parts]
        whole = all(part.num_keys is None for part in parts)
        joined = replace(joined, num_keys=None if whole else np.concatenate(keys))
        return joined.take(np.argsort(np.concatenate(rows), kind="stable"))

    def width(self, batch: TokenBatch, groups: Ints) -> int:
        """Return the most vectors that a text of a batch has."""
        return int(self._counts(batch, groups)[1].max(initial=1))

    def forward(
        self, module: nn.Module, batch: TokenBatch, groups: Ints, ranks: Ranks, *, width: int
    ) -> Tensor:
        """Encode a batch as it is, in the run's precision: -> (B, width·E) float32, on the device."""
        kept, counts = self._counts(batch, groups)
        position = np.arange(len(kept)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = np.repeat(np.arange(len(batch)) * width, counts) + position
        ids, chosen, to = (
            torch.from_numpy(array).to(ranks.device) for array in (batch.input_ids, kept, places)
        )
        keys = None if batch.num_keys is None else batch.num_keys.tolist()
        with autocast(ranks):
            rows: Tensor = module(ids, batch.lengths.tolist(), keys, chosen, to, width)
        return rows if rows.dtype == torch.float64 else rows.float()

    def _counts(self, batch: TokenBatch, groups: Ints) -> tuple[Ints, Ints]:
        """Return the numbers of the tokens that get a vector, and how many each text has: (K,), (B,)."""
        roles = np.repeat(groups, batch.lengths)
        keep = np.zeros(len(batch.input_ids), dtype=np.bool_)
        for group, role in enumerate(ROLES):
            keep |= (roles == group) & self.folder.counted(batch, role)
        ends = np.concatenate(([0], np.cumsum(keep)))
        stops = np.cumsum(batch.lengths)
        return np.flatnonzero(keep), ends[stops] - ends[stops - batch.lengths]

    @torch.no_grad()
    def search(
        self,
        module: nn.Module,
        ranks: Ranks,
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        *,
        k: int,
        budget: int,
    ) -> dict[str, dict[str, float]]:
        """Find the `k` documents of each query that score highest by MaxSim, exactly, as the finished model would: a run as in TREC."""
        was_training = module.training
        module.eval()
        asked = self._embedded(module, ranks, list(queries.values()), 0, budget)
        texts, doc_ids = list(documents.values()), list(documents)
        scores = []
        for start in range(0, len(texts), SEARCHED_TEXTS):
            found = self._embedded(module, ranks, texts[start : start + SEARCHED_TEXTS], 1, budget)
            scores.append(self.similarity.matrix(asked, found).cpu().numpy())
        module.train(was_training)
        table: Floats = np.concatenate(scores, axis=1)
        count = min(k, len(doc_ids))
        best = np.argpartition(-table, count - 1, axis=1)[:, :count]
        return {
            query_id: {doc_ids[column]: float(row[column]) for column in columns}
            for query_id, row, columns in zip(queries, table, best.tolist(), strict=True)
        }

    def _embedded(
        self, module: nn.Module, ranks: Ranks, texts: Sequence[str], group: int, budget: int
    ) -> Tensor:
        prompt = (self.prompts.first, self.prompts.second)[group]
        groups = np.full(len(texts), group, dtype=np.int64)
        batch = self.encode([prompt + text for text in texts], groups)
        width = self.width(batch, groups)
        out: Tensor | None = None
        for rows in micro_batches(batch.lengths, budget):
            part = self.forward(module, batch.take(rows), groups[rows], ranks, width=width)
            out = part.new_zeros(len(texts), part.shape[1]) if out is None else out
            out[torch.from_numpy(rows).to(part.device)] = part
        return cast("Tensor", out)

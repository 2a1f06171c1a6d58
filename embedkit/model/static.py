"""The static encoder: a table of token vectors and their mean, with no layer between; thousands of texts a second."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StaticEncoder(nn.Module):
    """Mean of the vectors of a text's tokens, whatever their order, normalized where asked for.

    A text without tokens becomes the zero vector.

    Source: the shallow models of Mikolov et al. 2013, https://arxiv.org/abs/1301.3781, and Pennington et al. 2014 (GloVe), as
        sentence vectors by their mean (Wieting et al. 2016, https://arxiv.org/abs/1511.08198, section 3).
    """

    def __init__(self, num_tokens: int, embedding_size: int, *, normalize: bool = True) -> None:
        super().__init__()
        self.tokens = nn.EmbeddingBag(num_tokens, embedding_size, mode="mean")
        self.normalize = normalize

    @property
    def embedding_size(self) -> int:
        return self.tokens.embedding_dim

    def forward_packed(
        self,
        input_ids: Tensor,
        lengths: Sequence[int],
        token_type_ids: Tensor | None = None,
        *,
        skip: int = 0,
    ) -> Tensor:
        """Encode packed sequences, as a `SentenceEncoder` does; token types have no part in it.

        Shapes:
            input_ids: (N,) of B sequences
            returns: (B, E)
        Raises:
            ValueError: the lengths do not add up to N, or tokens are to be left out of the mean.
        """
        if sum(lengths) != input_ids.shape[0]:
            raise ValueError(f"lengths add up to {sum(lengths)}; input_ids has {input_ids.shape[0]} tokens")
        if skip:
            raise ValueError(f"skip is {skip}; a static encoder takes the mean of all tokens")
        sizes = torch.tensor([0, *lengths[:-1]], device=input_ids.device)
        means: Tensor = self.tokens(input_ids, sizes.cumsum(0))
        return F.normalize(means.float(), dim=-1).to(means.dtype) if self.normalize else means

"""Losses whose negatives are the other rows of the batch: InfoNCE, its symmetric form, SimCSE, and false negatives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from embedkit.training.losses.shapes import Compare, check_bool, check_positive, check_shape


def info_nce(
    queries: Tensor,
    documents: Tensor,
    *,
    temperature: float | Tensor,
    symmetric: bool = False,
    excluded: Tensor | None = None,
    similarity: Compare | None = None,
) -> Tensor:
    """Cross-entropy of each query against every document in the batch; also known as multiple negatives ranking.

    Row i of `documents` is the positive of query i; rows from B on are extra (hard) negatives of all queries.
    `symmetric` takes the mean with the other direction: each positive against every query. A learned
    `temperature` is a tensor of no dimensions, kept above zero by its owner (for example as the exp of a
    parameter). `excluded` marks the pairs to leave out of the sums, see `false_negatives`; to exclude a
    positive makes the loss infinite. `similarity` compares all queries with all documents, in place of the product.

    Shapes:
        queries: (B, E) unit length
        documents: (B * (1 + N), E), or any N >= B rows, unit length
        excluded: (B, N) bool, True for a pair to leave out
        returns: () mean over queries, in nats
    Raises:
        ValueError: there are fewer documents than queries, widths differ, or the temperature is not above 0.
    Source: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, eq. 4; in-batch negatives as in Henderson
        et al. 2017, https://arxiv.org/abs/1705.00652, multiple negatives; both directions as in Radford et al. 2021,
        https://arxiv.org/abs/2103.00020, figure 3.
    """
    check_shape("info_nce: queries", queries, ("B", "E"), "one embedding a row")
    num_queries, width = queries.shape
    check_shape("info_nce: documents", documents, ("N", width), f"rows as wide as the queries' {width}")
    if len(documents) < num_queries:
        raise ValueError(
            f"info_nce: {len(documents)} documents for {num_queries} queries; row i of documents is the positive "
            f"of query i, so at least {num_queries} rows are needed"
        )
    if isinstance(temperature, Tensor):
        check_shape("info_nce: temperature", temperature, (), "a learned temperature is one number")
    else:
        check_positive("info_nce: temperature", temperature)
    compared = queries @ documents.T if similarity is None else similarity(queries, documents)
    logits = compared / temperature  # (B, N)
    if excluded is not None:
        check_shape("info_nce: excluded", excluded, tuple(logits.shape), "queries by documents")
        check_bool("info_nce: excluded", excluded, "a pair to leave out")
        logits = logits.masked_fill(excluded, -torch.inf)
    positives = torch.arange(num_queries, device=logits.device)
    loss = F.cross_entropy(logits, positives)
    if symmetric:
        loss = (loss + F.cross_entropy(logits[:, :num_queries].T, positives)) / 2
    return loss


def false_negatives(similarities: Tensor, *, margin: float = 0.0, relative: bool = False) -> Tensor:
    """Mark the in-batch documents that look at least as right as a query's own positive.

    With the similarities of a guide model this is GISTEmbed; with the trained model's own (detached) ones it is
    a filter by margin. A document is marked where its similarity exceeds that of the positive minus `margin`,
    or, if `relative`, minus `margin` times the positive's size. Positives are never marked.

    Shapes:
        similarities: (B, N), N >= B; the positive of row i is column i
        returns: (B, N) bool, to hand to `info_nce` as `excluded`
    Raises:
        ValueError: there are fewer columns than rows.
    Source: Solatorio 2024, https://arxiv.org/abs/2402.16829, section 3; margins as in Moreira et al. 2024,
        https://arxiv.org/abs/2407.15831, positive-aware mining.
    """
    check_shape("false_negatives: similarities", similarities, ("B", "N"), "queries by documents")
    rows, columns = similarities.shape
    if columns < rows:
        raise ValueError(
            f"false_negatives: similarities of {rows} queries to {columns} documents; column i is the positive of "
            f"query i, so at least {rows} columns are needed"
        )
    positive = similarities.detach().diagonal().unsqueeze(1)  # (B, 1)
    threshold = positive - margin * (positive.abs() if relative else 1.0)
    marked = similarities.detach() > threshold
    marked.diagonal().fill_(False)
    return marked


def simcse(first: Tensor, second: Tensor, *, temperature: float | Tensor = 0.05) -> Tensor:
    """InfoNCE between two encodings of the same texts that differ by their dropout alone (unsupervised SimCSE).

    Shapes:
        first, second: (B, E) unit length; row i of both is the same text
        returns: () mean over texts, in nats
    Raises:
        ValueError: the shapes differ.
    Source: Gao et al. 2021, https://arxiv.org/abs/2104.08821, eq. 4; the temperature 0.05 is theirs.
    """
    check_shape("simcse: second", second, tuple(first.shape), "the same texts as first, encoded again")
    return info_nce(first, second, temperature=temperature)

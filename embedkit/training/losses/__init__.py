"""Every training loss, in one place: pure functions of tensors that return one number.

| data | losses |
|---|---|
| pairs, pairs + negatives | `info_nce` (with `false_negatives`), `triplet` |
| text alone | `simcse`, `token_cross_entropy` (TSDAE) |
| pair + class | `pair_classification` |
| pair + score | `cosine_regression`, `cosent`, `angle` |
| pair + alike or not | `contrastive`, `online_contrastive` |
| labelled texts | `batch_all_triplet`, `batch_hard_triplet`, `batch_semi_hard_triplet` |
| text + teacher vector | `embedding_mse`, `cosine_distance`, `similarity_distillation` |
| candidates + teacher scores | `margin_mse`, `kl_of_margins`, `kl_distillation` |
| reranker scores + labels | `binary_cross_entropy`, `score_mse`, `class_cross_entropy`, `softmax_cross_entropy` |
| lists of reranker scores | `ranknet`, `listnet`, `listmle`, `lambda_loss` |
| any of these, nested | `matryoshka`, `adaptive_layer` |
| scores of routers | `load_balance`, `router_z`, `clear_selection` |

`embedkit.training.loss_table` says which training uses which of them, and how.
Call them outside autocast with float32 (or float64) tensors: in bfloat16 a cosine has two or three digits, which a
temperature of 0.05 turns into errors of a tenth of a nat.
"""

from embedkit.training.losses.denoising import token_cross_entropy
from embedkit.training.losses.distillation import (
    cosine_distance,
    embedding_mse,
    kl_distillation,
    kl_of_margins,
    margin_mse,
    similarity_distillation,
)
from embedkit.training.losses.in_batch import false_negatives, info_nce, simcse
from embedkit.training.losses.nested import EmbeddingLoss, adaptive_layer, matryoshka
from embedkit.training.losses.pairs import (
    angle,
    contrastive,
    cosent,
    cosine_regression,
    online_contrastive,
    pair_classification,
)
from embedkit.training.losses.ranking import (
    binary_cross_entropy,
    class_cross_entropy,
    lambda_loss,
    listmle,
    listnet,
    ranknet,
    score_mse,
    softmax_cross_entropy,
)
from embedkit.training.losses.routing import clear_selection, load_balance, router_z
from embedkit.training.losses.triplet import (
    batch_all_triplet,
    batch_hard_triplet,
    batch_semi_hard_triplet,
    triplet,
)

__all__ = [
    "EmbeddingLoss",
    "adaptive_layer",
    "angle",
    "batch_all_triplet",
    "batch_hard_triplet",
    "batch_semi_hard_triplet",
    "binary_cross_entropy",
    "class_cross_entropy",
    "clear_selection",
    "contrastive",
    "cosent",
    "cosine_distance",
    "cosine_regression",
    "embedding_mse",
    "false_negatives",
    "info_nce",
    "kl_distillation",
    "kl_of_margins",
    "lambda_loss",
    "listmle",
    "listnet",
    "load_balance",
    "margin_mse",
    "matryoshka",
    "online_contrastive",
    "pair_classification",
    "ranknet",
    "router_z",
    "score_mse",
    "simcse",
    "similarity_distillation",
    "softmax_cross_entropy",
    "token_cross_entropy",
    "triplet",
]

"""Every loss that training can be asked for, a row each.

Recipes, the choice of a loss by the data, the losses that help and messages list, and the manual's tables are derived from these rows
(a test compares the last): to add a loss is to write its function in `embedkit.training.losses` and a row here.
"""

from __future__ import annotations

from functools import partial
from math import inf

from embedkit.training.loss import Journey, Loss, Range, Setting

ABOVE_ZERO = Range("above 0", lambda number: number > 0)
FINITE_ABOVE_ZERO = Range("a finite number above 0", lambda number: 0 < number < inf)
SHARE = Range("above 0 and below 1", lambda number: 0 < number < 1)

TEMPERATURE, SCORE_SCALE = Setting("temperature", ABOVE_ZERO), Setting("score_scale", ABOVE_ZERO)
MARGIN, SOFT_MARGIN = Setting("margin", ABOVE_ZERO), Setting("soft_margin")
# What the table says of a loss that compares vectors by whatever similarity the recipe names, not by cosine or in its own way alone.
SIMILARITY = Setting("similarity")
FALSE_NEGATIVES = (Setting("false_negatives"), Setting("false_negative_margin"), Setting("guide"))
IN_BATCH = (TEMPERATURE, Setting("learn_temperature"), Setting("symmetric"), *FALSE_NEGATIVES, SIMILARITY)
# Cosine distances: the margin of a triplet is ours to choose, that of the contrastive losses is sentence-transformers'.
TRIPLET_MARGIN, PAIR_MARGIN = 0.2, 0.5


encoder_loss = partial(Loss, journey="contrastive")
reranker_loss = partial(Loss, journey="reranker")
student_loss = partial(Loss, journey="distill", takes="vectors", learns_from=("texts",))
LISTS = ("binary", "graded", "teacher")

# The order is that in which they are listed; what is taken by default comes first for each kind of data.
LOSSES: tuple[Loss, ...] = (
    encoder_loss(
        name="info_nce",
        takes="documents",
        learns_from=("triplets", "pairs"),
        default_for={
            "pairs": "pairs: each positive is to stand out among those of the other rows",
            "triplets": "pairs with negatives: the positive is to stand out among them and the other rows'",
        },
        settings=IN_BATCH,
    ),
    encoder_loss(
        name="triplet",
        takes="triplets",
        learns_from=("triplets",),
        instead="info_nce",
        settings=(MARGIN, SOFT_MARGIN, SIMILARITY),
        margin=TRIPLET_MARGIN,
    ),
    encoder_loss(
        name="cosent",
        takes="scores",
        learns_from=("scored",),
        default_for={"scored": "pairs with a score: cosines are to have the order of the scores"},
        settings=(TEMPERATURE, SIMILARITY),
        keywords={"scale": "similarity_scale"},
    ),
    encoder_loss(
        name="angle",
        takes="scores",
        learns_from=("scored",),
        settings=(TEMPERATURE,),
        keywords={"scale": "similarity_scale"},
    ),
    encoder_loss(
        name="cosine_regression",
        takes="unit scores",
        learns_from=("scored",),
        instead="cosent",
        settings=(Setting("score_range"),),
    ),
    encoder_loss(
        name="contrastive",
        takes="alike",
        learns_from=("alike",),
        instead="pair_classification",
        settings=(MARGIN,),
        margin=PAIR_MARGIN,
    ),
    encoder_loss(
        name="online_contrastive",
        takes="alike",
        learns_from=("alike",),
        default_for={"alike": "pairs labelled 1 or 0: the first are to be near, the others far"},
        instead="pair_classification",
        settings=(MARGIN,),
        margin=PAIR_MARGIN,
    ),
    encoder_loss(
        name="pair_classification",
        takes="classes",
        learns_from=("classified", "alike"),
        default_for={"classified": "pairs with a class: it is to be told from both vectors"},
        nested=False,
    ),
    encoder_loss(
        name="batch_hard_triplet",
        takes="labels",
        learns_from=("labelled",),
        default_for={"labelled": "labelled texts: those of one label are to be nearer than others"},
        settings=(MARGIN, SOFT_MARGIN),
        margin=TRIPLET_MARGIN,
    ),
    encoder_loss(
        name="batch_all_triplet",
        takes="labels",
        learns_from=("labelled",),
        settings=(MARGIN,),
        margin=TRIPLET_MARGIN,
    ),
    encoder_loss(
        name="batch_semi_hard_triplet",
        takes="labels",
        learns_from=("labelled",),
        settings=(MARGIN,),
        margin=TRIPLET_MARGIN,
    ),
    encoder_loss(
        name="simcse",
        function_name="info_nce",
        takes="documents",
        learns_from=("texts",),
        default_for={"texts": "texts alone: each is to be recognized through another dropout"},
        settings=IN_BATCH,
    ),
    encoder_loss(
        name="tsdae",
        function_name="token_cross_entropy",
        takes="whole texts",
        learns_from=("texts",),
        settings=(Setting("delete_ratio", SHARE),),
        nested=False,
    ),
    encoder_loss(
        name="embedding_mse",
        takes="vectors",
        learns_from=("vectors",),
        default_for={"vectors": "texts with vectors: they are to be imitated"},
        nested=False,
    ),
    encoder_loss(
        name="margin_mse",
        takes="margins",
        learns_from=("distilled",),
        default_for={"distilled": "triplets with a teacher's margins: they are to be imitated"},
        instead="kl_distillation",
        settings=(SCORE_SCALE, SIMILARITY),
        even=True,
    ),
    encoder_loss(
        name="kl_distillation",
        function_name="kl_of_margins",
        takes="margins",
        learns_from=("distilled",),
        settings=(SCORE_SCALE, SIMILARITY),
    ),
    reranker_loss(
        name="bce",
        function_name="binary_cross_entropy",
        takes="single scores",
        learns_from=("binary", "graded"),
        instead="mse",
        settings=(Setting("positive_weight", FINITE_ABOVE_ZERO),),
        keywords={"positive_weight": "positive_weight"},
        mean_over="candidates",
        labels=(0, 1),
        activation="sigmoid",
    ),
    reranker_loss(
        name="softmax",
        function_name="softmax_cross_entropy",
        takes="one positive",
        learns_from=("binary",),
        default_for={"binary": "the relevant text is to stand out among the others"},
    ),
    reranker_loss(
        name="margin_mse",
        takes="margins",
        learns_from=("teacher",),
        default_for={"teacher": "the teacher's margins are to be imitated"},
        mean_over="negatives",
    ),
    reranker_loss(
        name="kl",
        function_name="kl_distillation",
        takes="lists",
        learns_from=("teacher",),
        settings=(Setting("temperature", FINITE_ABOVE_ZERO),),
        keywords={"temperature": "temperature"},
    ),
    reranker_loss(name="ranknet", takes="lists", learns_from=LISTS, mean_over="couples"),
    reranker_loss(name="listnet", takes="lists", learns_from=LISTS),
    reranker_loss(name="listmle", takes="lists", learns_from=LISTS),
    reranker_loss(
        name="lambda",
        function_name="lambda_loss",
        takes="lists",
        learns_from=("binary", "graded"),
        default_for={"graded": "the order by grade is to be right, at the top most of all"},
        instead="ranknet",
        mean_over="couples",
        labels=(0, inf),
    ),
    reranker_loss(
        name="mse",
        function_name="score_mse",
        takes="single scores",
        learns_from=LISTS,
        mean_over="candidates",
    ),
    reranker_loss(
        name="classes",
        function_name="class_cross_entropy",
        takes="class logits",
        learns_from=("class",),
        default_for={"class": "the class is to be told from both texts"},
        mean_over="candidates",
    ),
    student_loss(
        name="cosine",
        function_name="cosine_distance",
        default_for={"texts": "vectors that are compared by cosine"},
    ),
    student_loss(name="mse", function_name="embedding_mse"),
)


def losses_of(journey: Journey) -> tuple[Loss, ...]:
    return tuple(loss for loss in LOSSES if loss.journey == journey)


def names(journey: Journey) -> tuple[str, ...]:
    return tuple(loss.name for loss in losses_of(journey))


def find_loss(journey: Journey, name: str) -> Loss:
    """Return the loss of a name, which a recipe has checked already."""
    (found,) = (loss for loss in losses_of(journey) if loss.name == name)
    return found


def fitting(journey: Journey, data: str) -> tuple[Loss, ...]:
    """Return the losses that can learn from some data, the default first."""
    found = [loss for loss in losses_of(journey) if data in loss.learns_from]
    return tuple(sorted(found, key=lambda loss: data not in loss.default_for))


def check_settings(journey: Journey, recipe: object) -> None:
    """Hold the numbers that losses read of a recipe against their ranges; None is the loss's own.

    Raises:
        ValueError: one is out of range.
    """
    for setting in dict.fromkeys(setting for loss in losses_of(journey) for setting in loss.settings):
        value = getattr(recipe, setting.key)
        if setting.range is not None and value is not None and not setting.range.holds(value):
            raise ValueError(f"{setting.key} is {value}; it must be {setting.range.says}")

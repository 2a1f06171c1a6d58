"""A student that was distilled before, to go on with: its weights, and the teacher's vectors turned to where its own lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.errors import TrainingError
from embedkit.model.config import DenseConfig
from embedkit.model.sentence import SentenceEncoder
from embedkit.training.distillation.student import Student, check_length, last_linear

Floats = NDArray[np.float32]
ALIGNED_TEXTS = 4096  # texts whose vectors the turn is found from


def turned(student: Student, axes: Floats) -> Student:
    """Give a student a last layer that turns its vectors: axes (E', E), orthonormal rows."""
    dense = DenseConfig(in_features=axes.shape[1], out_features=len(axes), bias=False, activation="identity")
    sentence = replace(student.modules.sentence, dense=(*student.modules.sentence.dense, dense))
    assert isinstance(student.model, SentenceEncoder)
    model = SentenceEncoder(student.model.encoder, sentence)
    with torch.no_grad():
        for ours, theirs in zip(model.dense, student.model.dense, strict=False):
            ours.load_state_dict(theirs.state_dict())
        last_linear(model).weight.copy_(torch.from_numpy(axes))
    modules = replace(student.modules, sentence=sentence, truncate_dim=None)
    return replace(student, model=model.train(), modules=modules, described=f"{student.described}, turned")


def load_student(path: str | Path, *, max_length: int, dropout: float) -> Student:
    """Load a student of before, its texts cut to `max_length` tokens.

    Raises:
        CheckpointError: the folder holds no model with layers that can be loaded.
        TrainingError: its positions end before `max_length`.
    """
    folder = read_model_folder(path)
    config = replace(folder.config, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    model = load_sentence_encoder(replace(folder, config=config)).train()
    check_length(max_length, config.max_tokens)
    modules = replace(folder.modules, encoder_folder="", max_seq_length=max_length)
    tokenizer = folder.tokenizer.with_max_length(max_length)
    return Student(model, tokenizer, modules, folder.family, f"{path}, {config.num_hidden_layers} layers")


def nearest_turn(wanted: Floats, given: Floats) -> Floats:
    """Find the turn that brings given vectors nearest to the wanted ones: (N, E'), (N, E) -> (E', E), orthonormal rows or columns.

    Source: Schönemann 1966, A generalized solution of the orthogonal Procrustes problem, https://doi.org/10.1007/BF02289451
    """
    left, _, right = np.linalg.svd(wanted.astype(np.float64).T @ given, full_matrices=False)
    return np.ascontiguousarray(left @ right, dtype=np.float32)


def aligning_axes(student: Floats, teacher: Floats) -> Floats | None:
    """Find the turn that brings the teacher's vectors nearest to the student's: (N, E'), (N, E) -> (E', E), orthonormal rows.

    None where the student's lie nearest to the teacher's as they are, but for what N texts leave uncertain: it was never turned.

    Raises:
        TrainingError: the student's vectors are longer than the teacher's, or fewer than its dimensions.
    Source: Schönemann 1966, A generalized solution of the orthogonal Procrustes problem, https://doi.org/10.1007/BF02289451
    """
    count, width = student.shape
    if width > teacher.shape[1]:
        raise TrainingError(
            f"the student gives vectors of {width} dimensions, the teacher of {teacher.shape[1]}; a student has at most as many as "
            "its teacher. Is it this teacher's student?"
        )
    if count < width:
        raise TrainingError(
            f"{count} texts are too few to align vectors of {width} dimensions; give at least {width} texts"
        )
    axes = nearest_turn(student, teacher)
    if width == teacher.shape[1]:
        as_they_are, turned = (float(np.sum(student * wanted)) for wanted in (teacher, teacher @ axes.T))
        # A turn always fits its own sample best; one that gains a hundredth or less is the sample's noise.
        if as_they_are >= 0.99 * turned:
            return None
    return axes

"""Where the students begin and end: turned to the teacher's axes, mixed with their start, cut down to a smaller one."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from data import DEVICE, Texts
from model import Student, embed, fresh_model
from progress import say
from teacher import Teacher
from vocabulary import Ints

from embedkit.model.layers import EncoderLayer
from embedkit.training.distillation.student_folder import nearest_turn

ALIGNED = 20_000  # texts


@torch.no_grad()
def align(student: Student, texts: Texts, teacher: Teacher, tokens: int) -> None:
    """Turn a student's vectors to where the teacher's lie along its axes, as near as a rotation brings them.

    Source: Schönemann 1966, https://doi.org/10.1007/BF02289451
    """
    rows = np.sort(np.random.default_rng(1).permutation(texts.num_train)[:ALIGNED])
    given = embed(student, texts, rows, tokens)
    wanted = F.normalize(teacher.of(rows) @ teacher.axes.T, dim=1)
    turn = torch.from_numpy(nearest_turn(wanted.cpu().numpy(), given.cpu().numpy())).to(DEVICE)
    say("turned; mean cosine to the teacher:", round((given @ turn.T * wanted).sum(1).mean().item(), 4))
    student.turn.weight.copy_(turn @ student.turn.weight)


@torch.no_grad()
def mixed(trained: Student, start: Student, share: float) -> Student:
    """Average the weights: `share` of the trained ones and the rest of those that it started from.

    Source: Wortsman et al. 2022, WiSE-FT, https://arxiv.org/abs/2109.01903, eq. 2.
    """
    result = copy.deepcopy(trained)
    for ours, before in zip(result.parameters(), start.parameters(), strict=True):
        ours.lerp_(before, 1 - share)
    return result


@torch.no_grad()
def smaller(student: Student, kept: Ints, rows: Ints, *, layers: Sequence[int], inner: int) -> Student:
    """Copy some layers, of each feed-forward part the `inner` units that weigh most, and the kept rows of the token table.

    A unit weighs the product of the lengths of its row of the first matrix and its column of the second. `kept` and `rows` are
    `vocabulary.keep_tokens` and `vocabulary.first_pieces`.
    """
    encoder = student.model.encoder
    config = replace(
        encoder.config, vocab_size=len(kept), num_hidden_layers=len(layers), intermediate_size=inner
    )
    model = fresh_model(config)
    result = Student(model, rows=torch.from_numpy(rows)).to(DEVICE)
    table = encoder.embeddings.tokens.weight[torch.from_numpy(kept).to(DEVICE)]
    embeddings = encoder.embeddings.state_dict() | {"tokens.weight": table}
    model.encoder.embeddings.load_state_dict(embeddings)
    for number, source in enumerate(layers):
        _copy_layer(encoder.layer(source), model.encoder.layer(number), inner)
    result.turn.load_state_dict(student.turn.state_dict())
    return result.eval()


def _copy_layer(source: EncoderLayer, target: EncoderLayer, inner: int) -> None:
    up, down = source.mlp.up, source.mlp.down
    weight = up.weight.norm(dim=1) * down.weight.norm(dim=0)
    units = weight.topk(inner).indices.sort().values
    state = source.state_dict() | {
        "mlp.up.weight": up.weight[units],
        "mlp.up.bias": up.bias[units],
        "mlp.down.weight": down.weight[:, units],
    }
    target.load_state_dict(state)

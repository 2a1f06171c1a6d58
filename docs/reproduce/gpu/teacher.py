"""The teacher's vectors of all texts, and the axes that a student's dimensions are turned to: computed once, kept in a file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import CUDA, DEVICE, Special, Texts, mixed_precision
from evaluation import Results, measure
from progress import rounded, say
from safetensors.torch import load_file, save_file
from torch import Tensor

from embedkit.checkpoint.folder import ModelFolder, read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.errors import TrainingError
from embedkit.model.sentence import SentenceEncoder
from embedkit.training.distillation.student import principal_axes

SAMPLE = 100_000  # texts that the axes are found from
FILE = "teacher.safetensors"


@dataclass(frozen=True)
class Teacher:
    """vectors (N + M, E) fp16 of all texts; axes (D, E), orthonormal rows; tokens (V, E), what each token is by itself."""

    vectors: Tensor
    axes: Tensor
    tokens: Tensor

    @classmethod
    def load(cls, state: Path) -> Teacher:
        return cls(**{name: tensor.to(DEVICE) for name, tensor in load_file(state / FILE).items()})

    def of(self, numbers: np.ndarray) -> Tensor:
        """Return the vectors of some texts in fp32: (…) -> (…, E)."""
        return self.vectors[torch.from_numpy(numbers.astype(np.int64)).to(DEVICE)].float()


def compute(state: Path, *, teacher: str, start: str, tokens: int) -> Results:
    """Write the teacher's vectors into `state`; return how well they do on the dev sets, whole and along the axes."""
    student, folder = read_model_folder(start), read_model_folder(teacher)
    texts = Texts(state / "texts.npz", Special.of(student))
    model = load_sentence_encoder(folder).to(DEVICE)
    ids = teacher_ids(student, folder)
    vectors = text_vectors(model, texts, ids, Special.of(folder), tokens)
    # On the host: the decomposition is done once, in double precision.
    chosen = np.sort(np.random.default_rng(0).permutation(texts.num_train)[:SAMPLE])
    sample = vectors[torch.from_numpy(chosen).to(DEVICE)].float().cpu().numpy()
    axes = torch.from_numpy(principal_axes(sample, student.config.hidden_size)).to(DEVICE)
    say(
        "share of the squared length that the axes keep:",
        round(float(((sample @ axes.cpu().numpy().T) ** 2).sum() / (sample**2).sum()), 4),
    )
    kept = {"vectors": vectors, "axes": axes, "tokens": token_vectors(model, ids, Special.of(folder))}
    save_file({name: each.cpu().contiguous() for name, each in kept.items()}, state / FILE)
    dev = vectors[texts.num_train :].float()
    results = {"teacher": measure(dev, texts), "teacher, along the axes": measure(dev @ axes.T, texts)}
    for name, result in results.items():
        say(name, rounded(result))
    return results


def teacher_ids(student: ModelFolder, teacher: ModelFolder) -> Tensor:
    """Say which id of the teacher each token of the student is: (V,). MPNet's are BERT's and 4.

    Raises:
        TrainingError: the teacher does not know a token of the student's.
    """
    known = teacher.tokenizer.backend.get_vocab()
    names = sorted(student.tokenizer.backend.get_vocab().items(), key=lambda item: item[1])
    missing = [name for name, _ in names if name not in known]
    if missing:
        raise TrainingError(
            f"{teacher.path}: {len(missing)} tokens of {student.path} are not in its vocabulary, among them {missing[0]!r}; the texts "
            "are prepared as the student's tokens. Take a teacher with the vocabulary of BERT, such as all-mpnet-base-v2"
        )
    return torch.tensor([known[name] for name, _ in names], device=DEVICE)


@torch.inference_mode()
def text_vectors(model: SentenceEncoder, texts: Texts, ids: Tensor, special: Special, tokens: int) -> Tensor:
    """Compute unit vectors of all texts, (N + M, E) fp16, in batches of texts of one length: no padding."""
    order = texts.lens.argsort(kind="stable")
    lens = texts.lens[order]
    width = model.config.embedding_size(model.encoder.config.hidden_size)
    out = torch.empty(len(order), width, dtype=torch.float16, device=DEVICE)
    start = done = 0
    reported = time.time()
    while start < len(order):
        length = int(lens[start])
        end = min(int(lens.searchsorted(length, "right")), start + max(1, tokens // (length + 2)))
        rows = torch.from_numpy(order[start:end]).to(DEVICE)
        at = texts.starts[rows][:, None] + torch.arange(length, device=DEVICE)  # (B, T)
        out[rows] = _between(model, ids[texts.flat[at].long()], special).half()
        done += (end - start) * (length + 2)
        start = end
        if time.time() - reported > 15:
            say(f"teacher: {start:,} of {len(order):,} texts, {done / 1e6:.1f} M tokens")
            reported = time.time()
    if CUDA:
        torch.cuda.synchronize()
    say(f"teacher: {done / 1e6:.1f} M tokens")
    return out


@torch.inference_mode()
def token_vectors(model: SentenceEncoder, ids: Tensor, special: Special, window: int = 2048) -> Tensor:
    """Compute the vector of each token as a text by itself: (V,) -> (V, E)."""
    parts = [
        _between(model, ids[start : start + window, None], special) for start in range(0, len(ids), window)
    ]
    return torch.cat(parts)


def _between(model: SentenceEncoder, ids: Tensor, special: Special) -> Tensor:
    """Compute unit vectors of sequences of one length, with the special tokens around them: (B, T) -> (B, E)."""
    padded = F.pad(F.pad(ids, (1, 0), value=special.cls), (0, 1), value=special.sep)
    with mixed_precision():
        return F.normalize(model(padded).float(), dim=1)

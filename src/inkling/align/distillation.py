"""Learning from a teacher's distribution.

Letters in shapes: N places, V vocabulary, K likeliest tokens of the teacher.
"""

from __future__ import annotations

import torch
from torch import Tensor


def top_of(logits: Tensor, count: int, temperature: float) -> tuple[Tensor, Tensor]:
    """The teacher's likeliest tokens, (N, V) -> ids (N, K) and log-probabilities (N, K) in the whole vocabulary."""
    table = (logits.float() / temperature).log_softmax(-1)
    values, ids = table.topk(min(count, table.shape[-1]), dim=-1)
    return ids, values


def distillation(logits: Tensor, ids: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """KL(teacher ‖ student) at each place, (N, V), (N, K), (N, K) -> (N), times the temperature squared.

    Hinton et al. 2015, arXiv 1503.02531. Tokens beyond the teacher's likeliest are one token that stands for the rest,
    so that the divergence is that of two distributions and zero only where they agree on all of it.
    """
    student = (logits.float() / temperature).log_softmax(-1)
    known = student.gather(-1, ids)
    inside = (teacher.exp() * (teacher - known)).sum(-1)
    if ids.shape[-1] < logits.shape[-1]:
        rest_teacher, rest_student = _rest(teacher), _rest(known)
        inside = inside + rest_teacher.exp() * (rest_teacher - rest_student)
    return inside * temperature**2


def _rest(log_probs: Tensor) -> Tensor:
    """Log-probability of all other tokens together."""
    return torch.log1p(-log_probs.exp().sum(-1).clamp(max=1 - 1e-6))

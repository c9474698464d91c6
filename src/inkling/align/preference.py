"""Losses of preference learning, from log-probabilities of whole answers.

Letters in shapes: B pairs, or answers.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PreferenceLoss = Literal["sigmoid", "hinge", "ipo", "robust"]


def dpo(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    kind: PreferenceLoss = "sigmoid",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Direct preference optimization, (B) -> (B).

    With d the policy's log-ratio of the two answers minus the reference's:

    | kind | loss | source |
    | --- | --- | --- |
    | sigmoid | -log σ(βd) | Rafailov et al. 2023, arXiv 2305.18290 |
    | sigmoid, smoothed | -(1-ε) log σ(βd) - ε log σ(-βd) | cDPO, Mitchell 2023 |
    | robust | the same, unbiased: (… - …) / (1-2ε) | Chowdhury et al. 2024, arXiv 2403.00409 |
    | hinge | max(0, 1 - βd) | SLiC, Zhao et al. 2023, arXiv 2305.10425 |
    | ipo | (d - 1/2β)² | Azar et al. 2023, arXiv 2310.12036 |

    Args:
        chosen: Log-probability of each better answer; the sum over its tokens, or for length-normalised losses their
            mean. All four in the same way.
        beta: How far the policy may go from the reference: less lets it go further.
        label_smoothing: ε, the share of pairs that are believed to be the wrong way round.
    """
    difference = (chosen - rejected) - (reference_chosen - reference_rejected)
    match kind:
        case "sigmoid":
            right, wrong = -F.logsigmoid(beta * difference), -F.logsigmoid(-beta * difference)
            return (1 - label_smoothing) * right + label_smoothing * wrong
        case "robust":
            right, wrong = -F.logsigmoid(beta * difference), -F.logsigmoid(-beta * difference)
            return ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing)
        case "hinge":
            return torch.relu(1 - beta * difference)
        case "ipo":
            return (difference - 1 / (2 * beta)) ** 2


def orpo(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """The odds-ratio term that is added to the supervised loss, (B) -> (B): -β log σ(log odds ratio).

    Hong et al. 2024, arXiv 2403.07691.

    Args:
        chosen: Mean log-probability of the tokens of each better answer.
    """
    log_odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    return -beta * F.logsigmoid(log_odds)


def simpo(chosen: Tensor, rejected: Tensor, *, beta: float, margin: float, label_smoothing: float = 0.0) -> Tensor:
    """Preference learning without a reference, (B) -> (B): -log σ(β(chosen - rejected) - margin).

    Meng et al. 2024, arXiv 2405.14734; the margin is their γ.

    Args:
        chosen: Mean log-probability of the tokens of each better answer.
    """
    difference = beta * (chosen - rejected) - margin
    return -(1 - label_smoothing) * F.logsigmoid(difference) - label_smoothing * F.logsigmoid(-difference)


def kto(log_ratio: Tensor, is_good: Tensor, divergence: Tensor, *, beta: float, bad_weight: float = 1.0) -> Tensor:
    """Learning from single answers that were found good or bad, (B) -> (B).

    Ethayarajh et al. 2024, arXiv 2402.01306: 1 - σ(β(r - z)) for good ones and 1 - σ(β(z - r)) for bad ones.

    Args:
        log_ratio: r, log-probability of each answer minus the reference's.
        is_good: Of each answer.
        divergence: z, how far policy and reference are apart, a scalar without gradient.
        bad_weight: What bad answers count beside good ones.
    """
    good = 1 - torch.sigmoid(beta * (log_ratio - divergence))
    bad = 1 - torch.sigmoid(beta * (divergence - log_ratio))
    return torch.where(is_good, good, bad_weight * bad)


def bradley_terry(chosen: Tensor, rejected: Tensor, *, centering: float = 0.0) -> Tensor:
    """The loss of a reward model, (B) -> (B): -log σ(chosen - rejected), from the rewards of both answers.

    Bradley and Terry 1952. `centering` times the square of the rewards' sum keeps them around zero (Eisenstein et al.
    2023, arXiv 2312.09244).
    """
    return -F.logsigmoid(chosen - rejected) + centering * (chosen + rejected) ** 2


def _log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, exact near both ends (Mächler 2012)."""
    return torch.where(x > -0.6931471805599453, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))

"""Advantages and losses of reinforcement learning from rewards of whole answers.

Letters in shapes: B answers, T tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Mean = Literal["tokens", "answers", "constant"]
"""How the losses of tokens become one: over all tokens of the step (DAPO), over each answer and then over answers
(GRPO as it was written), or over answers and a constant length (Dr. GRPO)."""

_LEAST_SPREAD = 1e-4


def group_advantages(rewards: Tensor, group_size: int, *, by_spread: bool) -> Tensor:
    """How much better each answer is than the others to its prompt, (B) -> (B): GRPO, Shao et al. 2024, 2402.03300.

    Args:
        rewards: Answers to the same prompt stand together.
        by_spread: Divide by the standard deviation of the group (n - 1 in the denominator), which gives prompts with
            little difference more weight; Liu et al. 2025 (Dr. GRPO, arXiv 2503.20783) leave it out.
    """
    groups = rewards.view(-1, group_size)
    advantages = groups - groups.mean(dim=1, keepdim=True)
    if by_spread:
        advantages = advantages / (groups.std(dim=1, keepdim=True) + _LEAST_SPREAD)
    return advantages.flatten()


def leave_one_out_advantages(rewards: Tensor, group_size: int) -> Tensor:
    """The reward of each answer minus the mean of the others to its prompt, (B) -> (B).

    RLOO, Ahmadian et al. 2024, arXiv 2402.14740.
    """
    groups = rewards.view(-1, group_size)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (group_size - 1)
    return (groups - others).flatten()


def generalised_advantages(rewards: Tensor, values: Tensor, *, discount: float, decay: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns of the tokens of one answer, (T), (T) -> (T), (T).

    GAE, Schulman et al. 2015, arXiv 1506.02438; `decay` is their λ. After the last token nothing follows.
    """
    advantages = torch.zeros_like(rewards)
    following_value, running = 0.0, 0.0
    for place in range(len(rewards) - 1, -1, -1):
        error = float(rewards[place]) + discount * following_value - float(values[place])
        running = error + discount * decay * running
        advantages[place] = running
        following_value = float(values[place])
    return advantages, advantages + values


def clipped_policy_loss(log_ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """The loss of each token, any shape -> same: PPO's clipped objective, Schulman et al. 2017, arXiv 1707.06347.

    Args:
        log_ratio: Log-probability of the token now minus that when it was drawn.
        clip_high: More than `clip_low` lets unlikely tokens grow (DAPO's clip-higher, Yu et al. 2025, 2503.14476).
    """
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def divergence(log_probs: Tensor, reference: Tensor) -> Tensor:
    """How far each token's distribution is from the reference's, from the drawn token alone, never negative.

    Schulman's third estimator of KL(policy ‖ reference) (2020, joschu.net/blog/kl-approx.html). Its own gradient is not
    that of the divergence once tokens are not drawn from the policy as it is; see `corrected_divergence`.
    """
    difference = reference - log_probs
    return difference.exp() - difference - 1


def corrected_divergence(log_probs: Tensor, reference: Tensor, log_ratio: Tensor) -> Tensor:
    """The divergence, each token weighed by how much likelier it has become since it was drawn.

    The gradient is then that of KL(policy ‖ reference), also at the first step on a batch (DeepSeek-V3.2, 2512.02556).
    """
    return log_ratio.exp() * divergence(log_probs, reference)


def mean_over_tokens(
    losses: Tensor, lengths: Tensor, owners: Tensor, *, kind: Mean, num_tokens: float, num_answers: float, longest: int
) -> Tensor:
    """The losses of tokens as one number, a scalar: the share of this part in the loss of a step.

    Args:
        losses: (T) of all tokens of the answers.
        lengths: (B) tokens of each answer.
        owners: (T) the answer that each token belongs to.
        num_tokens: Of all answers of the step, those of other parts included.
        num_answers: The same for answers.
        longest: The constant length.
    """
    match kind:
        case "tokens":
            return losses.sum() / num_tokens
        case "answers":
            return (losses / lengths[owners]).sum() / num_answers
        case "constant":
            return losses.sum() / (num_answers * longest)


def clipped_value_loss(values: Tensor, before: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """The loss of each token's value, which moves no further than `clip` from what it was when the answer was drawn.

    The larger of both squared errors, halved, as in PPO's first implementation (Huang et al. 2022, the 37 details).
    """
    near = before + (values - before).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near - returns) ** 2)


def whitened(values: Tensor) -> Tensor:
    """The same with mean 0 and standard deviation 1."""
    return (values - values.mean()) / (values.std() + 1e-8) if len(values) > 1 else values - values.mean()


def next_coefficient(coefficient: float, divergence: float, target: float, *, rate: float = 0.1) -> float:
    """The weight of the divergence in the next step, so that it stays near the target.

    Ziegler et al. 2019, arXiv 1909.08593, section 2.2: at most `rate` up or down in a step, by a fifth of the error.
    """
    error = min(max(divergence / target - 1, -0.2), 0.2)
    return coefficient * (1 + rate * error)

"""Answers that a model gives, and what they are worth: what reinforcement learning, and judging, start from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from inkling.align import policy
from inkling.config import Field, Section
from inkling.models import LanguageModel
from inkling.train.sequences import Sampling
from inkling.train.stage import without_learning


class RolloutSettings(Section):
    """Reinforcement learning: what is sampled, how it is rewarded, and how much the model may change for it."""

    rewards: list[str] = Field([])
    """By name (see docs/tuning.md) or FILE.py:FUNCTION, each with =WEIGHT behind where it is not 1. In other methods
    than grpo, rloo and ppo: what answers to validation prompts get, by which the best step is chosen."""
    group_size: int = Field(8, ge=2)
    """Answers to each prompt; ppo takes as many."""
    max_tokens: int = Field(64, ge=1)
    """Of an answer."""
    temperature: float = Field(1.0, gt=0)
    """Of sampling, and of the distribution that learns."""
    top_k: int = Field(0, ge=0)
    """Sample from the likeliest tokens only; 0: from all. The distribution that learns is the same."""
    updates: int = Field(1, ge=1)
    """Steps that learn from the same answers."""
    clip_low: float = Field(0.2, gt=0, lt=1)
    """By how much a token may become less likely in such a step before it no longer counts."""
    clip_high: float = Field(0.28, gt=0)
    """The same for likelier; more than clip-low keeps the model curious."""
    mean: policy.Mean = "tokens"
    """How tokens' losses become one: over all tokens; over answers' means; over answers and a constant length."""
    by_spread: bool = True
    """grpo: divide by the spread of each group's rewards."""
    kl: float = Field(0.0, ge=0)
    """Weight of the divergence from the model at the start."""
    kl_target: float | None = Field(None, gt=0)
    """Raise and lower that weight so that the divergence per token stays near this."""
    learn_truncated: bool = True
    """Learn from answers that did not end in time, too."""
    eval_prompts: int = Field(100, ge=1)
    """Validation prompts that are answered at each evaluation, without chance."""
    discount: float = Field(1.0, gt=0, le=1)
    """ppo: of rewards one token later."""
    decay: float = Field(0.95, ge=0, le=1)
    """ppo: λ of generalised advantages."""
    value_weight: float = Field(0.5, gt=0)
    """ppo: weight of the loss of values."""
    accept_hackable: bool = False
    """Go on although answers that answer nothing get a good part of the rewards."""


@dataclass(frozen=True)
class Prompt:
    """What is answered.

    Attributes:
        ids: Its tokens, up to where the answer begins.
        text: What was asked, for rewards.
        fields: Of its row, for rewards.
    """

    ids: list[int]
    text: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Rollout:
    """An answer that the model wrote.

    Attributes:
        token_ids: The token that ended it included.
        is_finished: Whether it ended by itself.
    """

    token_ids: list[int]
    text: str
    is_finished: bool


class RolloutFn(Protocol):
    """Answers to prompts."""

    def __call__(
        self,
        model: LanguageModel,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        max_tokens: int,
        seeds: Sequence[int],
        pictures: Sequence[Sequence[np.ndarray]] = (),
    ) -> list[Rollout]:
        """An answer to each prompt, drawn with its seed; `pictures` are those that each prompt holds, if any do."""


RewardFn = Callable[[Sequence[Prompt], Sequence[str]], dict[str, list[float]]]
"""(prompts, answers) → the weighted reward of each answer by each function."""


def judged_answers(
    model: LanguageModel, prompts: Sequence[Prompt], max_tokens: int, *, rollout_fn: RolloutFn, reward_fn: RewardFn
) -> dict[str, float]:
    """The mean rewards of the likeliest answers, their length in tokens, and the share that did not end in time."""
    with without_learning(model):
        seeds = [0] * len(prompts)
        rollouts = rollout_fn(model, [one.ids for one in prompts], Sampling(temperature=0.0), max_tokens, seeds)
    parts = reward_fn(prompts, [one.text for one in rollouts])
    count = len(rollouts)
    each = {f"val_reward/{name}": sum(values) / count for name, values in parts.items()} if len(parts) > 1 else {}
    return {
        "val_reward": sum(sum(values) for values in parts.values()) / count,
        **each,
        "val_length": sum(len(one.token_ids) for one in rollouts) / count,
        "val_truncated": sum(not one.is_finished for one in rollouts) / count,
    }


_NO_SIGNAL = 0.9


def diagnosis(steps: Sequence[Mapping[str, float]], max_tokens: int) -> list[str]:
    """Why little is learnt, in plain words; nothing where all is well.

    Args:
        steps: Of each of the last steps, the mean reward, and the shares of groups without signal and of cut answers.
    """
    mean = {name: sum(one[name] for one in steps) / len(steps) for name in ("reward", "no_signal", "truncated")}
    found = []
    if mean["no_signal"] > _NO_SIGNAL and mean["reward"] <= 0.05:
        found.append(
            f"in {mean['no_signal']:.0%} of the groups all answers got the same, and nearly none got anything: the "
            "model finds no good answer by itself. Tune it by sft first, take easier prompts, give partial credit"
        )
    elif mean["no_signal"] > _NO_SIGNAL:
        found.append(
            f"in {mean['no_signal']:.0%} of the groups all answers got the same: there is little left to learn "
            "from these prompts. Take harder ones, or raise --rl.temperature"
        )
    if mean["truncated"] > 0.5:
        found.append(
            f"{mean['truncated']:.0%} of the answers did not end within {max_tokens} tokens: raise "
            "--rl.max-tokens, or tune the model by sft first, so that it learns to end"
        )
    return found

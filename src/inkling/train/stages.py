"""The stage of each method of tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer
from inkling.train.distill import DistillStage
from inkling.train.preferences import FeedbackStage, PreferenceStage
from inkling.train.reinforce import ReinforceStage
from inkling.train.reward_model import RewardModelStage
from inkling.train.rollouts import RewardFn, RolloutFn
from inkling.train.sft import SupervisedStage
from inkling.train.stage import Setting, Stage
from inkling.train.tune_settings import TuneSettings


def build_stage(
    settings: TuneSettings,
    setting: Setting,
    train: Sequence[Any],
    validation: Sequence[Any],
    *,
    tokenizer: Tokenizer,
    teacher_fn: Callable[[], LanguageModel],
    store: Path,
    rollout_fn: RolloutFn,
    reward_fn: RewardFn | None,
) -> Stage:
    """The method at work on items: those of `methods.items_of`, or prompts.

    Args:
        teacher_fn: Opens who is learnt from.
        store: File of what the teacher thinks, for stored logits.
    """
    match settings.method:
        case "sft":
            return SupervisedStage(train, validation, setting, [len(one) for one in tokenizer.token_bytes])
        case "dpo" | "orpo" | "simpo":
            return PreferenceStage(train, validation, setting, settings.preference, settings.method)
        case "reward":
            return RewardModelStage(train, validation, setting, settings.reward)
        case "distill":
            return DistillStage(train, validation, setting, settings.distill, teacher_fn(), store)
        case "kto":
            pairs = [pair for pair, _ in train], [pair for pair, _ in validation]
            flags = [flag for _, flag in train], [flag for _, flag in validation]
            return FeedbackStage(*pairs, setting, settings.preference, flags)
        case "grpo" | "rloo" | "ppo":
            assert reward_fn is not None
            return ReinforceStage(
                train, validation, setting, settings.rl, settings.method, rollout_fn=rollout_fn, reward_fn=reward_fn
            )

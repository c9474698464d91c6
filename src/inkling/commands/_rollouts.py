"""What reinforcement learning is given from rooms that it does not know: answers by the engine, and their rewards."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import numpy as np
import torch

from inkling import peft, rewards
from inkling.errors import ConfigError, TrainingError
from inkling.infer.blocks import BLOCK
from inkling.infer.completing import Completing
from inkling.infer.engine import Engine, EngineLimits
from inkling.infer.sampling import SamplingParams
from inkling.models import LanguageModel
from inkling.quantize._modules import PackedMatrix
from inkling.tokenizer import Tokenizer
from inkling.train.rollouts import Prompt, RewardFn, Rollout, RolloutFn
from inkling.train.sequences import Sampling

_MAX_SEQUENCES = 256
_STEP_TOKENS = 2048
_MAX_PROBED = 4


@contextmanager
def ready_to_answer(model: LanguageModel) -> Iterator[None]:
    """The weights as the compiled step wants them, for the time of the block; then they are what they were.

    The adapter that is trained, if one is, is in them, and they are in autocast's precision where it is on: an answer
    is drawn as it is learnt, and bf16 takes a quarter of the time of fp32 in AMX tiles. Beside packed matrices an
    adapter stays by itself, and all as it is.
    """
    kind = model.device.type
    is_packed = any(isinstance(module, PackedMatrix) for module in model.modules())
    is_rounded = torch.is_autocast_enabled(kind) and not is_packed
    kept = [(one, one.data) for one in model.parameters()] if is_rounded else []
    with peft.merged(model) if peft.is_in_use(model) and not is_packed else nullcontext():
        try:
            for one, weights in kept:
                one.data = weights.to(torch.get_autocast_dtype(kind))
            with torch.autocast(kind, enabled=False):
                yield
        finally:
            for one, weights in kept:
                one.data = weights


def rollout_fn(tokenizer: Tokenizer) -> RolloutFn:
    """Answers by the engine, side by side, each what it would be alone."""

    def answer(
        model: LanguageModel,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        max_tokens: int,
        seeds: Sequence[int],
        pictures: Sequence[Sequence[np.ndarray]] = (),
    ) -> list[Rollout]:
        at_once = min(_MAX_SEQUENCES, len(prompts))
        blocks = sum(sorted(-(-(len(ids) + max_tokens) // BLOCK) + 1 for ids in prompts)[-at_once:])
        with ready_to_answer(model):
            limits = EngineLimits(max_sequences=at_once, max_step_tokens=_STEP_TOKENS, num_blocks=blocks)
            engine = Engine(model, tokenizer, limits)
            answers = []
            for ids, seed, shown in itertools.zip_longest(prompts, seeds, pictures, fillvalue=()):
                params = SamplingParams(
                    max_tokens=max_tokens, temperature=sampling.temperature, top_k=sampling.top_k, seed=seed
                )
                answers.append(Completing(model, tokenizer, ids, params, pictures=shown))
            for _, group in itertools.groupby(answers, key=lambda one: (one.prompt_ids, one.salt)):
                first, *siblings = group
                engine.add(first, siblings)
            while not engine.is_idle:
                engine.step()
        failure = next((one.failure for one in answers if one.failure), None)
        if failure is not None:
            raise TrainingError(failure)
        return [Rollout(one.token_ids, one.text, one.finish_reason == "stop") for one in answers]

    return answer


def reward_fn(names: Sequence[str]) -> RewardFn:
    """The weighted rewards of answers, by name. Raises ConfigError for a reward that is not there."""
    loaded = [rewards.load(name) for name in names]

    def worth(prompts: Sequence[Prompt], answers: Sequence[str]) -> dict[str, list[float]]:
        rows, texts = [one.fields for one in prompts], [one.text for one in prompts]
        return {one.name: [one.weight * value for value in one(texts, answers, rows)] for one in loaded}

    return worth


def check_rewards(names: Sequence[str], prompts: Sequence[Prompt], places: Sequence[str], *, accept: bool) -> None:
    """See, before a run, that rows have what rewards need, and that no answer without an answer is rewarded.

    Raises ConfigError and DataError.
    """
    loaded = [rewards.load(name) for name in names]
    for place, prompt in zip(places, prompts, strict=True):
        for one in loaded:
            one.check_row(place, prompt.fields)
    some = prompts[:_MAX_PROBED]
    fooled = rewards.fooled_by(loaded, [one.text for one in some], [one.fields for one in some])
    if fooled and not accept:
        hacks = ", ".join(f"{name} ({value:.2g})" for name, value in fooled.items())
        raise ConfigError(
            f"the rewards give much to answers that answer nothing: {hacks}. The model would learn these: mend "
            "them, or add --rl.accept-hackable"
        )

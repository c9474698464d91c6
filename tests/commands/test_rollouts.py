"""Answers for reinforcement learning: by the weights as they are learnt, which are afterwards what they were."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint, peft
from inkling.commands._rollouts import rollout_fn
from inkling.peft import AdapterSettings
from inkling.tokenizer import Tokenizer
from inkling.train.precision import PrecisionName, autocast
from inkling.train.sequences import Sampling

PROMPTS = [[0, 20, 30, 40 + number // 3] for number in range(12)]
SEEDS = range(12)


@pytest.mark.parametrize(
    ("model_type", "has_adapter"), [("qwen3", False), ("qwen3", True), ("gpt2", False), ("speedrun", False)]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_answers_are_drawn_in_the_precision_that_is_learnt_in(
    small_tokenizer: Tokenizer, tmp_path: Path, model_type: str, precision: PrecisionName, has_adapter: bool
) -> None:
    folder = random_checkpoint(tmp_path, {"model_type": model_type, **SMALL_SHAPE}, small_tokenizer)
    model, other = (checkpoint.load_model(folder)[0].eval() for _ in range(2))
    if has_adapter:
        peft.attach(model, AdapterSettings(rank=4), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            for one in peft.adapter_weights(model).values():
                one.add_(0.1)
        other.load_state_dict(peft.merged_weights(model))
    before = copy.deepcopy(model.state_dict())
    answer = rollout_fn(small_tokenizer)
    with autocast(torch.device("cpu"), precision):
        found = answer(model, PROMPTS, Sampling(), 20, SEEDS)
    wanted = answer(other.bfloat16() if precision == "bf16" else other, PROMPTS, Sampling(), 20, SEEDS)
    assert [one.token_ids for one in found] == [one.token_ids for one in wanted]
    assert len({tuple(one.token_ids) for one in found}) > 6
    for name, weights in model.state_dict().items():
        assert weights.dtype == torch.float32
        assert torch.equal(weights, before[name])

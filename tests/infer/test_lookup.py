"""Guesses change how long a text takes, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SMALL_SHAPE, random_checkpoint, words
from inkling import checkpoint
from inkling.infer.completing import Completing
from inkling.infer.engine import Engine, EngineLimits
from inkling.infer.lookup import Lookup
from inkling.infer.sampling import SamplingParams
from inkling.tokenizer import Tokenizer


@settings(derandomize=True, deadline=None)
@given(ids=st.lists(st.integers(0, 3), max_size=60), count=st.integers(0, 5))
def test_what_followed_the_same_three_tokens_the_last_time(ids: list[int], count: int) -> None:
    places = [place for place in range(3, len(ids)) if ids[place - 3 : place] == ids[-3:]]
    wanted = ids[places[-1] : places[-1] + count] if places and len(ids) >= 3 else []
    assert Lookup(ids).guess(count) == wanted


def test_bad_guesses_stop_for_a_while() -> None:
    lookup = Lookup([1, 2, 3] * 5)
    for _ in range(40):
        assert lookup.guess(4) or lookup._pause
        if not lookup._pause:
            lookup.learn(4, 0)
    assert not lookup.guess(4)
    for token_id in [1, 2, 3] * 11:
        lookup.add(token_id)
    assert lookup.guess(4)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_the_text_is_the_same_with_guesses(
    name: str, temperature: float, small_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = random_checkpoint(tmp_path / name, {"model_type": name, **SMALL_SHAPE}, small_tokenizer)
    model, _ = checkpoint.load_model(folder)
    with torch.no_grad():
        model.head_weight.mul_(8)  # surer of itself, so that it repeats itself
    found = []
    for max_guesses in (0, 4):
        engine = Engine(model, small_tokenizer, EngineLimits(max_guesses=max_guesses))
        if engine.native is None:
            pytest.skip(engine.why_not_native)
        ids = [small_tokenizer.eot_id, *small_tokenizer.encode(words(1, 20) * 3)]
        params = SamplingParams(max_tokens=40, temperature=temperature, seed=1, ignore_eos=True, stop=["zzzz"])
        one = Completing(model, small_tokenizer, ids, params, num_top=2)
        engine.add(one)
        num_steps = 0
        while not engine.is_idle:
            engine.step()
            num_steps += 1
        found.append((one, num_steps))
    (plain, plain_steps), (guessed, steps) = found
    assert plain.token_ids == guessed.token_ids
    assert plain.logprobs == guessed.logprobs  # to the bit
    assert plain.text == guessed.text
    if temperature == 0:
        assert guessed.num_guessed_right > 0
        assert steps == plain_steps - guessed.num_guessed_right

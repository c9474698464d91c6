"""Each step from logits to a token, against `transformers` and against closed formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from inkling.errors import ModelError
from inkling.infer.sampling import Draw, SamplingParams, distribution, exponentials, next_token, next_tokens, penalise

V = 50

same_every_time = settings(derandomize=True, deadline=None)


def random_logits(seed: int) -> Tensor:
    return 3 * torch.randn(V, generator=torch.Generator().manual_seed(seed))


@same_every_time
@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.1, 5),
    top_k=st.integers(1, V + 5),
    top_p=st.floats(0.05, 0.99),
    min_p=st.floats(0.001, 0.9),
)
def test_distribution_is_that_of_transformers(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = random_logits(seed)
    theirs = LogitsProcessorList(
        [
            TemperatureLogitsWarper(temperature),
            TopKLogitsWarper(top_k),
            TopPLogitsWarper(top_p),
            MinPLogitsWarper(min_p),
        ]
    )
    expected = theirs(torch.zeros(1, 1, dtype=torch.long), logits[None].clone())[0].softmax(0)
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    torch.testing.assert_close(distribution(logits, params), expected, rtol=1e-4, atol=1e-6)


@same_every_time
@given(seed=st.integers(0, 10_000), penalty=st.floats(0.2, 5), seen=st.lists(st.integers(0, V - 1), max_size=20))
def test_repetition_penalty_is_that_of_transformers(seed: int, penalty: float, seen: list[int]) -> None:
    logits, half = random_logits(seed), len(seen) // 2
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen], dtype=torch.long), logits[None].clone())
    ours = penalise(logits, SamplingParams(repetition_penalty=penalty), seen[:half], seen[half:])
    torch.testing.assert_close(ours, expected[0])


@same_every_time
@given(
    seed=st.integers(0, 10_000),
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
    written=st.lists(st.integers(0, V - 1), max_size=20),
)
def test_presence_and_frequency_follow_their_formula(
    seed: int, presence: float, frequency: float, written: list[int]
) -> None:
    logits = random_logits(seed)
    ours = penalise(logits, SamplingParams(presence_penalty=presence, frequency_penalty=frequency), [1, 2, 3], written)
    for token in range(V):
        count = written.count(token)
        expected = logits[token].item() - presence * (count > 0) - frequency * count
        assert ours[token].item() == pytest.approx(expected, abs=1e-5)


def test_temperature_zero_takes_the_likeliest_after_penalties() -> None:
    logits = torch.tensor([0.0, 2.0, 1.9])
    greedy = SamplingParams(temperature=0, top_k=2)
    assert next_token(logits, Draw(greedy, [], [], 0)) == 1
    wary = SamplingParams(temperature=0, frequency_penalty=0.2)
    assert next_token(logits, Draw(wary, [], [1], 0)) == 2


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0])
    params, num_draws = SamplingParams(temperature=1.5), 20_000
    rows = [Draw(params, [], [0] * (number % 20), number // 20) for number in range(num_draws)]
    draws = torch.tensor(next_tokens(logits.expand(num_draws, 4), rows))
    observed = torch.bincount(draws, minlength=4) / num_draws
    expected = (logits / 1.5).softmax(0)
    four_sigma = 4 * math.sqrt(0.25 / num_draws)
    assert (observed - expected).abs().max() < four_sigma


def test_times_of_the_race_are_exponential_and_independent() -> None:
    times = exponentials(list(range(50)) * 20, [place for place in range(20) for _ in range(50)], 300).double()
    count = times.numel()
    for bound in (1e-4, 0.01, 0.1, 1.0, 3.0, 7.0):  # the distribution function, within four standard deviations
        share, expected = (times < bound).double().mean().item(), 1 - math.exp(-bound)
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / count))
    ranks = times.exp().reciprocal() - 0.5  # uniform, mean 0
    for one, other in [(ranks[:, :-1], ranks[:, 1:]), (ranks[:-1], ranks[1:]), (ranks[:-50], ranks[50:])]:
        assert abs((one * other).mean().item() * 12) < 4 / math.sqrt(one.numel())


def test_a_row_does_not_depend_on_the_others() -> None:
    logits = torch.stack([random_logits(seed) for seed in range(8)])
    settings_of = [{}, {"top_k": 5}, {"temperature": 0}, {"repetition_penalty": 1.3}, {"top_p": 0.5}] * 2
    draws = [Draw(SamplingParams(**given), [1, 2], [3] * n, n) for n, given in enumerate(settings_of[:8])]
    together = next_tokens(logits, draws)
    assert together == [next_token(row, draw) for row, draw in zip(logits, draws, strict=True)]


@pytest.mark.parametrize("temperature", [1e-30, 1e-6, 100.0])
def test_extreme_temperatures_stay_finite(temperature: float) -> None:
    probabilities = distribution(1000 * random_logits(0), SamplingParams(temperature=temperature))
    assert probabilities.isfinite().all()
    assert probabilities.sum().item() == pytest.approx(1)


@same_every_time
@given(seed=st.integers(0, 1000), top_p=st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_that_reaches_it(seed: int, top_p: float) -> None:
    logits = random_logits(seed)
    plain = logits.softmax(0)
    kept = distribution(logits, SamplingParams(temperature=1, top_p=top_p)) > 0
    assert plain[kept].sum() >= top_p - 1e-5
    assert plain[kept].sum() - plain[kept].min() < top_p + 1e-5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_diverged_model_is_an_error(bad: float, temperature: float) -> None:
    logits = random_logits(0)
    logits[7] = bad
    with pytest.raises(ModelError, match="diverged"):
        next_token(logits, Draw(SamplingParams(temperature=temperature), [], [], 0))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", 1.5),
        ("repetition_penalty", 5e-324),
        ("max_tokens", 0),
        ("seed", -1),
        ("temprature", 1.0),
    ],
)
def test_a_value_out_of_range_names_its_field(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        SamplingParams(**{name: value})

"""Sequences as micro-batches: however they are laid out, the numbers are the same."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint
from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer
from inkling.train.branching import can_branch, lay_out_branching, num_computed, num_shared
from inkling.train.preferences import FeedbackStage, PreferenceSettings, PreferenceStage, ReferencedStage
from inkling.train.reinforce import ReinforceStage
from inkling.train.reward_model import RewardModelStage, RewardSettings, read_at_the_end
from inkling.train.rollouts import Prompt, Rollout, RolloutSettings
from inkling.train.sequences import (
    Order,
    Sampling,
    TokenBudget,
    Tokens,
    by_sequence,
    in_micro_batches,
    lay_out,
    packing_pays,
    token_logprobs,
)
from inkling.train.sft import SupervisedStage
from inkling.train.stage import Setting, Stage
from inkling.train.world import ALONE, World

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["qwen3", "gpt2"])
def model(
    request: pytest.FixtureRequest, small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    values = {"model_type": request.param, **SMALL_SHAPE, "max_position_embeddings": 64}
    folder = random_checkpoint(tmp_path_factory.mktemp("model"), values, small_tokenizer)
    return checkpoint.load_model(folder)[0]


def sequences(count: int, vocabulary: int = 200) -> list[Tokens]:
    """Of all lengths, a middle part not learnt in some."""
    generator = torch.Generator().manual_seed(5)
    found = []
    for number in range(count):
        length = 4 + 7 * number % 23
        ids = [0, *torch.randint(3, vocabulary, (length,), generator=generator).tolist()]
        learnt = [place > 2 and not (number % 3 == 0 and place == 5) for place in range(len(ids))]
        found.append(Tokens(ids, learnt))
    return found


def setting(tokens: int, *, pack: bool, share: bool = False, batch_size: int = 6) -> Setting:
    return Setting(batch_size, TokenBudget(tokens, lambda left: None), 64, pack, seed=3, device=CPU, share=share)


def loss_and_gradients(stage: Stage, model: LanguageModel, step: int = 0) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    total = 0.0
    for batch in stage.micro_batches(step):
        loss = stage.loss(model, batch) / stage.size(step)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return total, found


def test_log_probabilities_are_those_of_each_text_alone(model: LanguageModel) -> None:
    texts = sequences(7)
    for pack in (False, True):
        batch = lay_out(texts, context=64, pack=pack, device=CPU)
        found = torch.split(token_logprobs(model, batch), batch.lengths.tolist())
        sums = by_sequence(token_logprobs(model, batch), batch)
        for one, values, total in zip(texts, found, sums, strict=True):
            table = model(torch.tensor([one.ids]))[0, :-1].log_softmax(-1)
            expected = table.gather(1, torch.tensor(one.ids[1:])[:, None])[:, 0][torch.tensor(one.is_learnt[1:])]
            torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
            assert total.item() == pytest.approx(expected.sum().item(), rel=1e-4)
    assert len(lay_out(texts, context=64, pack=True, device=CPU).input_ids) < len(texts)


def test_log_probabilities_of_a_sampling_distribution(model: LanguageModel) -> None:
    texts = sequences(3)
    batch = lay_out(texts, context=64, pack=False, device=CPU)
    found = token_logprobs(model, batch, Sampling(temperature=0.7, top_k=9))
    logits = torch.cat([model(torch.tensor([one.ids]))[0, :-1][torch.tensor(one.is_learnt[1:])] for one in texts]) / 0.7
    least = logits.topk(9).values[:, -1:]
    table = torch.where(logits < least, float("-inf"), logits).log_softmax(-1)
    ids = [token for one in texts for token, learnt in zip(one.ids, one.is_learnt, strict=True) if learnt]
    torch.testing.assert_close(found, table.gather(1, torch.tensor(ids)[:, None])[:, 0], rtol=1e-4, atol=1e-4)


def pairs(count: int) -> list[list[Tokens]]:
    """Two answers to each prompt; some begin alike, one is the beginning of the other, one prompt is nothing."""
    generator = torch.Generator().manual_seed(6)

    def drawn(length: int) -> list[int]:
        return torch.randint(3, 200, (length,), generator=generator).tolist()

    found = []
    for number in range(count):
        prompt, answer = [0, *drawn(number % 3 * 9)], drawn(2 + 5 * number % 7)
        other = [*answer[: number % 4], *drawn(1 + 3 * number % 8)] if number % 5 else answer[:1]
        found.append([Tokens([*prompt, *one], [False] * len(prompt) + [True] * len(one)) for one in (answer, other)])
    return found


def answering(one: Setting) -> ReinforceStage:
    """Rewards of six answers to each of five prompts, drawn by their seeds."""
    prompts = [Prompt([0, *[5 + number] * (3 * number)], "", {}) for number in range(5)]
    answers = [Rollout([7 + at % 6, *range(9, 10 + at % 5)], str(at % 7), is_finished=at % 4 > 0) for at in range(30)]
    settings = RolloutSettings(rewards=["x"], group_size=6, max_tokens=12, learn_truncated=False, kl=0.1, updates=2)
    return ReinforceStage(
        prompts,
        prompts,
        one,
        settings,
        "grpo",
        rollout_fn=lambda model, asked, sampling, most, seeds: [answers[seed % 30] for seed in seeds],
        reward_fn=lambda asked, texts: {"x": [float(text) for text in texts]},
    )


STAGES: dict[str, Any] = {
    "sft": lambda one: SupervisedStage(sequences(12), sequences(3), one, [1] * 500),
    **{
        method: lambda one, method=method: PreferenceStage(pairs(12), [], one, PreferenceSettings(), method)
        for method in ("dpo", "orpo", "simpo")
    },
    "kto": lambda one: FeedbackStage(pairs(12), [], one, PreferenceSettings(), ([True, False] * 6, [])),
    "reward": lambda one: RewardModelStage(
        [[read_at_the_end(answer, 0) for answer in pair] for pair in pairs(12)], [], one, RewardSettings(centering=0.1)
    ),
    "grpo": answering,
}


@pytest.mark.parametrize("name", STAGES)
def test_however_they_are_laid_out_the_loss_is_the_same(model: LanguageModel, name: str) -> None:
    results = []
    ways = [(10_000, {}), (10_000, {"pack": True}), (60, {}), (1, {}), (64, {"pack": True})]
    if name != "sft":
        ways += [(10_000, {"share": True}), (60, {"share": True}), (1, {"share": True})]
    for tokens, way in ways:
        stage = STAGES[name](setting(tokens, **{"pack": False, **way}, batch_size=5 if name == "grpo" else 6))
        stage.begin(model)
        if isinstance(stage, RewardModelStage):
            torch.nn.init.normal_(model.value_head.weight, generator=torch.Generator().manual_seed(1))  # type: ignore
        if isinstance(stage, ReferencedStage):
            with torch.no_grad():  # or the margin is zero
                for values in stage._reference.values():
                    values.sub_(torch.arange(values.numel()).view_as(values) / 3)
        results.append(loss_and_gradients(stage, model, step=1))
        assert (len(list(stage.micro_batches(1))) > 1) == (tokens < 100)
    loss, gradients = results[0]
    assert len(gradients) > 10
    for other, others in results[1:]:
        assert other == pytest.approx(loss, rel=1e-5, abs=1e-6)
        for key, gradient in gradients.items():
            torch.testing.assert_close(others[key], gradient, rtol=1e-3, atol=1e-5)


class Half(World):
    """One of two processes, which are threads here."""

    def __init__(self, rank: int, given: list[Any], meeting: threading.Barrier) -> None:
        super().__init__(rank, 2, rank, 2)
        self.__dict__.update(given=given, meeting=meeting)

    def sum_(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            self.__dict__["given"][self.rank] = tensor.clone()
            self.__dict__["meeting"].wait()
            tensor.copy_(sum(self.__dict__["given"]))
            self.__dict__["meeting"].wait()


@pytest.mark.parametrize("name", STAGES)
def test_two_processes_compute_the_step_of_one(model: LanguageModel, name: str) -> None:
    given, meeting = [None, None], threading.Barrier(2, timeout=30)

    def computed(world: World) -> tuple[float, dict[str, torch.Tensor], dict[str, float]]:
        stage = STAGES[name](replace(setting(60, pack=False, batch_size=4), world=world, share=name != "sft"))
        own = copy.deepcopy(model)
        stage.begin(own)
        with torch.no_grad():  # or neither margin nor divergence is anything
            for parameter in own.parameters():
                parameter.mul_(1.02)
        return (*loss_and_gradients(stage, own, step=1), stage.task().measure_fn())

    loss, gradients, measured = computed(ALONE)
    with ThreadPoolExecutor(2) as pool:
        halves = list(pool.map(computed, [Half(rank, given, meeting) for rank in range(2)]))
    assert sum(half[0] for half in halves) == pytest.approx(loss, rel=1e-5, abs=1e-6)
    for key, gradient in gradients.items():
        torch.testing.assert_close(sum(half[1][key] for half in halves), gradient, rtol=1e-3, atol=1e-5)
    for half in halves:
        assert half[2] == pytest.approx(measured, rel=1e-4, abs=1e-6)


def test_a_shared_beginning_is_computed_once(model: LanguageModel) -> None:
    same = [Tokens([0, *range(3, 23), last, 30, 31], [False] * 21 + [True] * 3) for last in (40, 41, 42)]
    assert num_shared(same) == 21
    assert num_computed(same) == 21 + 3 * 2
    assert lay_out_branching([same], CPU).input_ids.shape == (1, 27)
    assert can_branch([same])
    assert not can_branch([[one] for one in same])  # of no use


def test_micro_batches_hold_everything_once() -> None:
    items = [[one, other] for one, other in zip(sequences(30)[0::2], sequences(30)[1::2], strict=True)]
    for tokens in (1, 100, 400):
        groups = in_micro_batches(items, tokens, context=64, pack=False)
        assert sorted(number for group in groups for number in group) == list(range(15))
        sizes = [sum(2 * max(len(x.ids) for n in group for x in items[n]) for _ in group) for group in groups]
        assert all(size <= tokens or len(group) == 1 for size, group in zip(sizes, groups, strict=True))
    short, long = Tokens([0] * 5, [True] * 5), Tokens([0] * 60, [True] * 60)
    assert packing_pays([short] * 30 + [long], 16)
    assert not packing_pays([short] * 16 + [long] * 16, 16)


def test_an_order_shows_each_item_once_an_epoch() -> None:
    order = Order(10, 4, seed=1)
    steps = [order.items(step) for step in range(5)]
    assert Counter(number for step in steps for number in step) == dict.fromkeys(range(10), 2)
    assert sorted([*steps[0], *steps[1], *steps[2][:2]]) == list(range(10))
    assert [Order(10, 4, seed=1).items(step) for step in (3, 1, 4)] == [steps[3], steps[1], steps[4]]
    assert Order(10, 4, seed=2).items(0) != steps[0]

"""Sequences as micro-batches: however they are laid out, the numbers are the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint
from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer
from inkling.train.preferences import PreferenceSettings, PreferenceStage
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


def setting(tokens: int, *, pack: bool, batch_size: int = 6) -> Setting:
    return Setting(batch_size, TokenBudget(tokens, lambda left: None), 64, pack, seed=3, device=CPU)


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


STAGES: dict[str, Any] = {
    "sft": lambda one: SupervisedStage(sequences(12), sequences(3), one, [1] * 500),
    **{
        method: lambda one, method=method: PreferenceStage(
            list(zip(sequences(24)[0::2], sequences(24)[1::2], strict=True)), [], one, PreferenceSettings(), method
        )
        for method in ("dpo", "orpo", "simpo")
    },
}


@pytest.mark.parametrize("name", STAGES)
def test_packed_padded_and_cut_up_are_the_same(model: LanguageModel, name: str) -> None:
    results = []
    for tokens, pack in [(10_000, False), (10_000, True), (60, False), (1, False), (64, True)]:
        stage = STAGES[name](setting(tokens, pack=pack))
        if isinstance(stage, PreferenceStage):
            stage.begin(model)
            with torch.no_grad():  # or the margin is zero
                for values in stage._reference.values():
                    values.sub_(torch.arange(values.numel()).view_as(values) / 3)
        results.append(loss_and_gradients(stage, model, step=1))
        assert (len(list(stage.micro_batches(1))) > 1) == (tokens < 100)
    loss, gradients = results[0]
    assert len(gradients) > 10
    for other, others in results[1:]:
        assert other == pytest.approx(loss, rel=1e-5)
        for key, gradient in gradients.items():
            torch.testing.assert_close(others[key], gradient, rtol=1e-3, atol=1e-5)


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

"""The divergence from the start beside torch's own of whole distributions, computed answer by answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.distributions import Categorical
from torch.distributions import kl_divergence as of_distributions

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint
from inkling.models import LanguageModel
from inkling.tokenizer import Tokenizer
from inkling.train import divergence
from inkling.train.preferences import PreferenceSettings, PreferenceStage
from inkling.train.sequences import TokenBudget, Tokens
from inkling.train.sft import SupervisedStage
from inkling.train.stage import Setting

ANSWERS = [
    Tokens([1, 5, 7, 9, 11], [False, False, True, True, True]),
    Tokens([1, 6, 2, 8], [False, True, False, True]),
    Tokens([1, 5, 7, 3, 4, 5, 6, 7], [False] * 3 + [True] * 5),
]


@pytest.fixture
def both(small_tokenizer: Tokenizer, tmp_path: Path) -> tuple[LanguageModel, LanguageModel]:
    """A model, and the same after it has moved."""
    folder = random_checkpoint(tmp_path / "model", {"model_type": "llama", **SMALL_SHAPE}, small_tokenizer, spread=0.1)
    start, moved = (checkpoint.load_model(folder)[0] for _ in range(2))
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.mul_(1.3)
    return start, moved


def expected(start: LanguageModel, moved: LanguageModel, limit: int) -> float:
    """The mean over learnt places, each answer by itself: of ten all, or every third, which are four."""
    found = []
    with torch.no_grad():
        for answer in ANSWERS:
            ids = torch.tensor([answer.ids[:-1]])
            theirs, ours = (Categorical(logits=model(ids)[0].double()) for model in (start, moved))
            learnt = torch.tensor(answer.is_learnt[1:])
            found.append(of_distributions(ours, theirs)[learnt])
    return float(torch.cat(found)[:: 3 if limit == 4 else 1].mean())


@pytest.mark.parametrize(("budget", "layout"), [(10_000, "pad"), (6, "pad"), (10_000, "pack"), (10_000, "share")])
@pytest.mark.parametrize("limit", [4, 1000])
def test_equals_that_of_whole_distributions(
    both: tuple[LanguageModel, LanguageModel], monkeypatch: pytest.MonkeyPatch, budget: int, layout: str, limit: int
) -> None:
    monkeypatch.setattr(divergence, "MAX_PLACES", limit)
    start, moved = both
    device = torch.device("cpu")
    tokens = TokenBudget(budget, lambda left: None)
    setting = Setting(2, tokens, 64, pack=layout == "pack", seed=1, device=device, share=layout == "share")
    stage = SupervisedStage([], [], setting, [1] * 100)
    before, after = (divergence.next_token_log_probs(stage, model, ANSWERS) for model in both)
    assert divergence.kl_divergence(before, before) == 0
    assert divergence.kl_divergence(after, before) == pytest.approx(expected(start, moved, limit), rel=1e-4)
    assert expected(start, moved, limit) > 0.001


def test_a_run_that_began_before_its_start_was_kept_goes_on_without(
    both: tuple[LanguageModel, LanguageModel],
) -> None:
    setting = Setting(1, TokenBudget(100, lambda left: None), 64, pack=False, seed=1, device=torch.device("cpu"))
    pairs = [ANSWERS[:2]]
    stage = PreferenceStage(pairs, pairs, setting, PreferenceSettings(), "dpo")
    stage.begin(both[0])
    task = stage.task()
    assert stage.evaluate(both[1])["val_kl"] > 0
    task.restore_fn({name: tensor for name, tensor in task.state_fn().items() if name != "next_token"})
    assert "val_kl" not in stage.evaluate(both[1])

"""Losses and advantages beside closed forms and published figures, and `trl` where it is installed."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from inkling.align import distillation, policy, preference

CHOSEN, REJECTED = torch.tensor([-0.5, -10, -1]).double(), torch.tensor([-0.1, -30, -21]).double()
REFERENCE = torch.tensor([-0.5, -10.1, -0.1]).double(), torch.tensor([-0.1, -20.1, -0.1]).double()
MEAN_CHOSEN, MEAN_REJECTED = torch.tensor([-1.2, -0.8, -2]).double(), torch.tensor([-1.5, -2.2, -1.9]).double()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.69314718, 0.31326169, 0.12692801]),
        ({"label_smoothing": 0.1}, [0.69314718, 0.41326169, 0.32692801]),
        ({"kind": "robust", "label_smoothing": 0.1}, [0.69314718, 0.18826169, -0.12307199]),
        ({"kind": "hinge"}, [1, 0, 0]),
        ({"kind": "ipo"}, [25, 25, 225]),
    ],
    ids=str,
)
def test_dpo(options: dict[str, object], expected: list[float]) -> None:
    """Figures that torchtune and the paper's own code give too."""
    found = preference.dpo(CHOSEN, REJECTED, *REFERENCE, beta=0.1, **options)  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx(expected, abs=1e-8)


def test_preferences_without_reference() -> None:
    simpo = preference.simpo(MEAN_CHOSEN, MEAN_REJECTED, beta=2.0, margin=0.5)
    assert simpo.tolist() == pytest.approx([0.64439671, 0.09554546, 1.10318608], abs=1e-8)
    orpo = preference.orpo(MEAN_CHOSEN, MEAN_REJECTED, beta=0.1)
    assert orpo.tolist() == pytest.approx([0.05106518, 0.01421201, 0.07531447], abs=1e-8)
    near = preference.orpo(torch.tensor([-1e-9, -80.0]).double(), torch.tensor([-80.0, -1e-9]).double(), beta=1.0)
    assert near.isfinite().all()


def test_kto() -> None:
    good, bad = CHOSEN - REFERENCE[0], REJECTED - REFERENCE[1]
    both = torch.cat([good, bad])
    found = preference.kto(both, torch.tensor([True] * 3 + [False] * 3), torch.tensor(0.5), beta=0.1, bad_weight=2.0)
    assert found[:3].tolist() == pytest.approx([0.51249740, 0.50999866, 0.53494295], abs=1e-8)
    assert (found[3:] / 2).tolist() == pytest.approx([0.48750260, 0.26115000, 0.10526939], abs=1e-8)


def test_rewards_of_pairs() -> None:
    found = preference.bradley_terry(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]), centering=0.5)
    assert found.tolist() == pytest.approx([math.log1p(math.exp(-1)) + 0.5, math.log(2)])


def test_advantages() -> None:
    rewards = torch.tensor([1, 0, 0, 1, 1, 0, 0, 0], dtype=torch.float64)
    by_spread = policy.group_advantages(rewards, 8, by_spread=True)
    assert [by_spread[0].item(), by_spread[1].item()] == pytest.approx([1.2073815, -0.7244288], abs=1e-7)
    plain = policy.group_advantages(rewards, 8, by_spread=False)
    assert [plain[0].item(), plain[1].item()] == pytest.approx([0.625, -0.375])
    loo = policy.leave_one_out_advantages(rewards, 8)
    assert [loo[0].item(), loo[1].item()] == pytest.approx([0.7142857, -0.4285714], abs=1e-7)
    two = policy.group_advantages(torch.cat([rewards, rewards * 0 + 5]), 8, by_spread=True)
    assert two[:8].tolist() == by_spread.tolist()
    assert not two[8:].any()  # nothing to learn where all answers are as good


def test_generalised_advantages_are_the_sums_that_the_paper_has() -> None:
    random = torch.Generator().manual_seed(1)
    rewards, values = torch.randn(2, 9, generator=random, dtype=torch.float64)
    discount, decay = 0.97, 0.9
    following = torch.cat([values[1:], torch.zeros(1)])
    errors = rewards + discount * following - values
    expected = [sum((discount * decay) ** (j - i) * errors[j].item() for j in range(i, 9)) for i in range(9)]
    found, returns = policy.generalised_advantages(rewards, values, discount=discount, decay=decay)
    assert found.tolist() == pytest.approx(expected)
    assert (returns - values).tolist() == pytest.approx(expected)
    whole, _ = policy.generalised_advantages(rewards, torch.zeros(9), discount=1.0, decay=1.0)
    assert whole[0].item() == pytest.approx(rewards.sum().item())


def test_the_clipped_loss() -> None:
    ratios = torch.tensor([0.5, 0.9, 1.1, 1.5, 0.5, 1.5])
    advantages = torch.tensor([1.0, 1, 1, 1, -1, -1])
    found = policy.clipped_policy_loss(ratios.log(), advantages, clip_low=0.2, clip_high=0.28)
    assert found.tolist() == pytest.approx([-0.5, -0.9, -1.1, -1.28, 0.8, 1.5])


def test_divergence_and_its_gradient() -> None:
    """Over all tokens, weighed by their probabilities, it is the divergence; corrected, its gradient is that too."""
    random = torch.Generator().manual_seed(2)
    logits, reference = torch.randn(2, 11, generator=random, dtype=torch.float64)
    logits.requires_grad_(True)
    log_probs, table = logits.log_softmax(0), reference.log_softmax(0)
    exact = (log_probs.exp() * (log_probs - table)).sum()
    (wanted,) = torch.autograd.grad(exact, logits, retain_graph=True)
    drawn = log_probs.detach().exp()
    each = policy.divergence(log_probs, table)
    assert (each >= 0).all()
    assert (drawn * each).sum().item() == pytest.approx(exact.item())
    corrected = (drawn * policy.corrected_divergence(log_probs, table, log_probs - log_probs.detach())).sum()
    (found,) = torch.autograd.grad(corrected, logits)
    torch.testing.assert_close(found, wanted)


def test_means_over_tokens() -> None:
    losses, owners = torch.tensor([1.0, 2, 3, 10]), torch.tensor([0, 0, 0, 1])
    lengths = torch.tensor([3, 1])
    common = {"num_tokens": 4.0, "num_answers": 2.0, "longest": 8}
    found = {
        kind: policy.mean_over_tokens(losses, lengths, owners, kind=kind, **common).item()  # type: ignore[arg-type]
        for kind in ("tokens", "answers", "constant")
    }
    assert found == {"tokens": 4.0, "answers": 6.0, "constant": 1.0}


def test_values() -> None:
    found = policy.clipped_value_loss(
        torch.tensor([1.0, 5.0]), torch.tensor([0.0, 0.0]), torch.tensor([1.0, 5.0]), clip=0.5
    )
    assert found.tolist() == pytest.approx([0.125, 10.125])
    assert policy.whitened(torch.tensor([1.0, 2, 3])).tolist() == pytest.approx([-1, 0, 1])
    assert policy.next_coefficient(1.0, 10.0, 1.0) == pytest.approx(1.02)
    assert policy.next_coefficient(1.0, 0.95, 1.0) == pytest.approx(0.995)


def test_distillation_is_the_divergence() -> None:
    random = torch.Generator().manual_seed(3)
    student, teacher = torch.randn(2, 4, 7, generator=random, dtype=torch.float64)
    ids, top = distillation.top_of(teacher, 7, 2.0)
    wanted = torch.nn.functional.kl_div(
        (student / 2).log_softmax(-1), (teacher / 2).log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    torch.testing.assert_close(
        distillation.distillation(student, ids, top, temperature=2.0).double(), 4 * wanted, rtol=1e-5, atol=1e-6
    )
    some_ids, some = distillation.top_of(teacher, 3, 1.0)
    assert (distillation.distillation(student, some_ids, some, temperature=1.0) >= 0).all()
    same = distillation.distillation(teacher, some_ids, some, temperature=1.0)
    assert same.tolist() == pytest.approx([0] * 4, abs=1e-6)


# ---------------------------------------------------------------- beside trl


def test_beside_trl() -> None:
    cpo = pytest.importorskip("trl.experimental.cpo")
    orpo = pytest.importorskip("trl.experimental.orpo")
    settings = {"label_smoothing": 0.0, "accelerator": SimpleNamespace(device="cpu")}
    simpo = SimpleNamespace(beta=2.0, loss_type="simpo", simpo_gamma=0.5, alpha=0.0, **settings)
    theirs, *_ = cpo.CPOTrainer.cpo_loss(simpo, MEAN_CHOSEN, MEAN_REJECTED)
    ours = preference.simpo(MEAN_CHOSEN, MEAN_REJECTED, beta=2.0, margin=0.5)
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=0)
    odds, *_ = orpo.ORPOTrainer.odds_ratio_loss(SimpleNamespace(beta=0.1, **settings), MEAN_CHOSEN, MEAN_REJECTED)
    torch.testing.assert_close(preference.orpo(MEAN_CHOSEN, MEAN_REJECTED, beta=0.1), -odds.double(), rtol=1e-6, atol=0)

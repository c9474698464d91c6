"""Chunked cross-entropy beside torch's own over all logits: loss and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from inkling.train import cross_entropy


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("softcap", [None, 1.5])
def test_loss_and_gradients_are_those_of_all_logits_at_once(
    monkeypatch: pytest.MonkeyPatch, rows: int, bf16: bool, softcap: float | None
) -> None:
    def logits_of(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        logits = F.linear(hidden, weight).float()
        return logits if softcap is None else softcap * torch.tanh(logits / softcap)

    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 16), torch.randn(40, 16) * 0.3
    targets = torch.randint(0, 40, (50,))
    targets[::5] = -100
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", rows * 4 * 40)
    results = []
    for chunked in (False, True):
        inputs = [tensor.clone().requires_grad_() for tensor in (hidden, weight)]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            if chunked:
                loss = cross_entropy.summed_cross_entropy(*inputs, targets, softcap)
            else:
                loss = F.cross_entropy(logits_of(*inputs), targets, reduction="sum")
        (3 * loss).backward()
        results.append([loss.detach(), *(tensor.grad for tensor in inputs)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2 if bf16 else 1e-4, atol=2e-2 if bf16 else 1e-5)
    with torch.no_grad():
        again = cross_entropy.summed_cross_entropy(hidden, weight, targets, softcap)
    torch.testing.assert_close(again, F.cross_entropy(logits_of(hidden, weight), targets, reduction="sum"))


def test_all_targets_ignored_is_no_loss_and_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", 100)
    hidden, weight = torch.randn(9, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    cross_entropy.summed_cross_entropy(hidden, weight, torch.full((9,), -100)).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    assert not hidden.grad.any()
    assert not weight.grad.any()

"""What is timed is what is chosen among, and what does not run here is left out."""

from __future__ import annotations

import pytest
import torch

from inkling import models
from inkling.errors import ConfigError
from inkling.models import attention_kernel
from inkling.train.loop import MicroBatch
from inkling.train.pretrain import next_token_loss
from inkling.train.probe import Choices, Probe


def a_probe() -> Probe:
    model = models.load("qwen3").Model(models.load("qwen3").Config.from_dict({
        "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "head_dim": 8, "intermediate_size": 32,
    }))  # fmt: skip
    model.init_weights(torch.Generator().manual_seed(0))
    ids = torch.randint(32, (4, 16), generator=torch.Generator().manual_seed(0))
    return Probe(model, next_token_loss, MicroBatch(ids, ids))


def test_attention_is_timed_and_chosen() -> None:
    subject = a_probe()
    chosen, reason = subject.choose(Choices("fp32", 1, 4), free={"attention"}, expected_tokens=0)
    assert {choices.attention for choices in subject.measured} == {"auto", "explicit"}  # auto is sdpa in fp32
    assert chosen.tokens_per_s == max(subject.measured.values()) or chosen.attention == "auto"
    assert "attention explicit" in reason
    subject = a_probe()
    subject.choose(Choices("bf16", 1, 4), free={"attention"}, expected_tokens=0)
    assert {choices.attention for choices in subject.measured} == {"auto", "sdpa"}  # auto is explicit here


def test_precisions_are_compared_at_half_a_micro_batch_where_its_size_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole one in fp32 would need more memory than the run that follows."""

    def seconds(self: Probe, loss_fn: object, batch: MicroBatch, precision: str) -> float:
        return batch.input_ids.numel() * (2e-6 if precision == "fp32" else 1e-6)

    monkeypatch.setattr(Probe, "_pass", seconds)
    for free, sizes in (({"precision", "micro_batch"}, [2, 2, 4]), ({"precision"}, [4, 4])):
        subject = a_probe()
        chosen, _ = subject.choose(Choices("fp32", 1, 4), free=free, expected_tokens=0)
        assert [choices.micro_batch for choices in subject.measured] == sizes
        assert (chosen.precision, chosen.micro_batch) == ("bf16", 4)
        assert [choices.precision for choices in subject.measured][:2] == ["fp32", "bf16"]


@pytest.mark.parametrize("kernel", models.ON_CUDA)
def test_a_kernel_of_other_devices_is_refused_where_it_is_asked_for(kernel: models.AttentionKernel) -> None:
    with pytest.raises(ConfigError, match=f"machine.attention {kernel} is for CUDA"):
        a_probe().choose(Choices("fp32", 1, 4, kernel), free=set(), expected_tokens=0)


def test_a_kernel_that_fails_is_left_out() -> None:
    def loss(model: torch.nn.Module, batch: MicroBatch) -> torch.Tensor:
        if models.kernel_for(torch.empty(0), 16) == "explicit":
            raise RuntimeError("no such kernel here")
        return next_token_loss(model, batch)

    subject = a_probe()
    subject.loss_fn = loss
    chosen, _ = subject.choose(Choices("fp32", 1, 4), free={"attention"}, expected_tokens=0)
    assert chosen.attention == "auto"
    with attention_kernel("explicit"), pytest.raises(RuntimeError):
        loss(subject.model, subject.batch)

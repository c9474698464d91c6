"""Optimizers against references, and their state through a file-shaped round trip."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from inkling import optim
from inkling.optim import adamw, muon
from inkling.optim._groups import Group, parameter_groups
from inkling.optim._state import flatten_state, restore_state


class Toy(nn.Module):
    """Matrices of two shapes, an embedding, a head, gains."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.wide = nn.ModuleList(nn.Linear(8, 12, bias=False) for _ in range(3))
        self.tall = nn.Linear(12, 8)
        self.lm_head = nn.Linear(8, 11, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for layer in self.wide:
            x = x + self.tall(torch.tanh(layer(x)))
        out: Tensor = self.lm_head(x)
        return out


def steps(model: Toy, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(0, 11, (4, 7), generator=generator)
        loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_roles() -> None:
    groups = {group.role: len(group.parameters) for group in parameter_groups(Toy())}
    assert groups == {"matrices": 4, "embeddings": 1, "head": 1, "vectors": 1}


def test_heads_are_known_wherever_they_stand() -> None:
    decoder, values = Toy(), nn.Linear(8, 1, bias=False)
    seeing = nn.ModuleDict({"language_model": decoder, "value_head": values})
    (heads,) = (group.parameters for group in parameter_groups(seeing) if group.role == "head")
    assert [id(one) for one in heads] == [id(decoder.lm_head.weight), id(values.weight)]


def test_adamw_is_torchs_with_decay_on_matrices_only() -> None:
    ours, theirs = Toy(), Toy()
    theirs.load_state_dict(ours.state_dict())
    config = adamw.Config(lr=0.01, beta2=0.95, weight_decay=0.3)
    matrices = [p for n, p in theirs.named_parameters() if p.ndim == 2 and ("wide" in n or "tall" in n)]
    others = [p for p in theirs.parameters() if all(p is not m for m in matrices)]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": others, "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.95),
        foreach=False,
    )
    steps(ours, adamw.build(parameter_groups(ours), config), 0, 5)
    steps(theirs, reference, 0, 5)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, theirs.get_parameter(name), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8), (128, 320)])
def test_orthogonalisation_brings_all_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(muon.orthogonalize(matrices))
    assert values.min() > 0.85
    assert values.max() < 1.15


def test_orthogonalisation_keeps_the_singular_directions() -> None:
    matrix = torch.randn(1, 12, 20, generator=torch.Generator().manual_seed(2))
    u, _, vt = torch.linalg.svd(matrix[0], full_matrices=False)
    torch.testing.assert_close(muon.orthogonalize(matrix)[0], u @ vt, atol=0.08, rtol=0)


def reference_muon(model: Toy, config: muon.Config, num_steps: int) -> None:
    """Muon written once more, matrix by matrix, with the loop spelled out."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and ("wide" in n or "tall" in n)]
    others = {
        config.embedding_lr: [model.embed.weight],
        config.head_lr: [model.lm_head.weight],
        config.vector_lr: [model.tall.bias],
    }
    adam = torch.optim.Adam(
        [{"params": params, "lr": lr} for lr, params in others.items()],
        betas=(config.beta1, config.beta2),
        eps=config.eps,
    )
    buffers = [torch.zeros_like(p) for p in matrices]

    class Both:
        step_number = 0

        def zero_grad(self) -> None:
            model.zero_grad()

        @torch.no_grad()
        def step(self) -> None:
            momentum = 0.85 + min(self.step_number / config.momentum_warmup, 1) * (config.momentum - 0.85)
            for p, buffer in zip(matrices, buffers, strict=True):
                buffer.copy_(momentum * buffer + (1 - momentum) * p.grad)
                x = (1 - momentum) * p.grad + momentum * buffer
                x = x / (1.01 * x.norm() + 1e-7)
                for a, b, c in muon.POLAR_EXPRESS:
                    gram = x @ x.T
                    x = a * x + b * gram @ x + c * gram @ gram @ x
                p.mul_(1 - config.lr * config.weight_decay).sub_(config.lr * max(1, p.shape[0] / p.shape[1]) ** 0.5 * x)
            adam.step()
            self.step_number += 1

    steps(model, Both(), 0, num_steps)  # type: ignore[arg-type]


def test_muon_equals_the_plain_way() -> None:
    ours, theirs = Toy(), Toy()
    theirs.load_state_dict(ours.state_dict())
    config = muon.Config(momentum_warmup=3, weight_decay=0.1)
    steps(ours, muon.build(parameter_groups(ours), config), 0, 5)
    reference_muon(theirs, config, 5)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter, theirs.get_parameter(name), atol=2e-5, rtol=1e-4)


def test_muon_takes_a_convolution_for_the_matrix_that_it_is() -> None:
    whole = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(3))
    ours, theirs = nn.Parameter(whole.clone()), nn.Parameter(whole.flatten(1).clone())
    for parameter in (ours, theirs):
        parameter.grad = torch.linspace(-1, 2, parameter.numel()).sin().view_as(parameter)
        muon.build([Group("matrices", [parameter])], muon.Config()).step()
    assert torch.equal(ours.flatten(1), theirs)
    assert not torch.equal(ours, whole)


@pytest.mark.parametrize("name", optim.names())
def test_state_survives_a_round_trip_exactly(name: str) -> None:
    module = optim.load(name)
    whole = Toy()
    halves = copy.deepcopy(whole)
    steps(whole, module.build(parameter_groups(whole), module.Config()), 0, 6)

    first = module.build(parameter_groups(halves), module.Config())
    steps(halves, first, 0, 3)
    stored = {key: value.clone() for key, value in flatten_state(first, halves).items()}
    second = module.build(parameter_groups(halves), module.Config())
    restore_state(second, halves, stored)
    steps(halves, second, 3, 6)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, halves.state_dict()[key]), key


@pytest.mark.parametrize("name", optim.names())
def test_every_optimizer_learns_and_names_its_rates(name: str) -> None:
    module = optim.load(name)
    model = Toy()
    optimizer = module.build(parameter_groups(model), module.Config())
    assert all(group["base_lr"] > 0 for group in optimizer.param_groups)
    ids = torch.arange(7)[None] % 11

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())

    before = loss().item()
    for _ in range(60):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.5 * before


@pytest.mark.parametrize(
    ("width", "tokens", "share"), [(128, 768, 0.69), (256, 768, 1.39), (256, 8192, 0.13), (512, 65536, 0.03)]
)
def test_cost_of_muon_for_four_square_and_two_wide_matrices(width: int, tokens: int, share: float) -> None:
    matrices = [(width, width)] * 4 + [(width, 4 * width)] * 2
    assert muon.flops_share(matrices, tokens) == pytest.approx(share, abs=0.006)


def test_an_unknown_optimizer_is_named_with_the_nearest() -> None:
    from inkling.errors import ConfigError

    with pytest.raises(ConfigError, match="did you mean 'muon'"):
        optim.load("moun")

"""Mixtures of experts: the grouped products, the losses of routers, and what is logged of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from inkling import models
from inkling.models._experts import Mixture, Router, Routing, load_balancing_loss, router_z_loss
from inkling.models._grouped import grouped_product
from inkling.models._layers import SwiGLU


def random_mixture(num_experts: int, top_k: int) -> Mixture:
    torch.manual_seed(0)
    mixture = Mixture(Router(16, num_experts, top_k, normalise=True), [SwiGLU(16, 24) for _ in range(num_experts)])
    torch.nn.init.normal_(mixture.gate.weight)
    return mixture


def plainly(mixture: Mixture, x: Tensor) -> Tensor:
    """Each token on its own, as the paper says it."""
    outputs = []
    for token in x.flatten(0, 1):
        probabilities = (mixture.gate.weight @ token).softmax(0)
        best = probabilities.argsort(descending=True)[: mixture.gate.top_k]
        shares = probabilities[best] / probabilities[best].sum()
        outputs.append(sum(share * mixture.experts[int(n)](token) for share, n in zip(shares, best, strict=True)))
    return torch.stack(outputs).view_as(x)


@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 1), (4, 2), (32, 3), (3, 3)])
@pytest.mark.parametrize("way", ["_together", "_one_by_one", "_everyone"])
def test_all_ways_of_asking_experts_say_the_same(num_experts: int, top_k: int, way: str) -> None:
    mixture, x = random_mixture(num_experts, top_k), torch.randn(2, 9, 16, requires_grad=True)
    asked: Callable[[Tensor, Routing], Tensor] = getattr(mixture, way)
    tokens = x.flatten(0, 1)
    found, wanted = asked(tokens, mixture.gate.route(tokens)).view_as(x), plainly(mixture, x)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    inputs = [x, *mixture.parameters()]
    gradients = [
        torch.autograd.grad((output * torch.arange(16)).sum(), inputs, allow_unused=True) for output in (found, wanted)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(
            torch.zeros(1) if one is None else one,  # an expert that nobody was sent to
            torch.zeros_like(one if one is not None else torch.zeros(1)) if other is None else other,
            rtol=1e-4,
            atol=1e-4,
        )


def test_slots_that_nobody_was_sent_to_weigh_nothing() -> None:
    mixture, tokens = random_mixture(3, 2), torch.randn(600, 16, requires_grad=True)
    routing = mixture.gate.route(tokens)
    assert (routing.counts() % 64).any()  # so that experts are filled up
    inputs = [tokens, *mixture.parameters()]
    found, wanted = mixture._together(tokens, routing), mixture._everyone(tokens, routing)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(output.square().sum(), inputs, retain_graph=True) for output in (found, wanted)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_grouped_product_is_many_products_and_so_is_its_gradient() -> None:
    torch.manual_seed(1)
    rows = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    matrices = [torch.randn(3, 5, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    ends = torch.tensor([4, 4, 9, 11])
    found = grouped_product(rows, matrices, ends, False)
    parts = rows.tensor_split(ends[:-1])
    torch.testing.assert_close(
        found, torch.cat([part @ matrix.T for part, matrix in zip(parts, matrices, strict=True)])
    )
    assert torch.autograd.gradcheck(lambda r, *m: grouped_product(r, list(m), ends, False), (rows, *matrices))


def test_the_losses_of_a_router_are_those_of_transformers_and_of_the_paper() -> None:
    torch.manual_seed(2)
    logits = torch.randn(40, 6)
    weights, chosen = logits.softmax(-1).topk(2)
    routing = Routing(logits, chosen, weights)
    theirs = load_balancing_loss_func((logits,), num_experts=6, top_k=2)
    torch.testing.assert_close(load_balancing_loss(routing), torch.as_tensor(theirs))
    torch.testing.assert_close(router_z_loss(routing), (logits.exp().sum(-1).log() ** 2).mean())
    even = Routing(torch.zeros(6, 6), torch.arange(12).view(6, 2) % 6, torch.full((6, 2), 0.5))
    assert load_balancing_loss(even).item() == pytest.approx(2.0)


def test_biases_move_against_the_load_and_weigh_nothing() -> None:
    torch.manual_seed(3)
    router = Router(8, 4, 2, normalise=True, is_biased=True)
    torch.nn.init.normal_(router.weight)
    x, bias = torch.randn(50, 8), router.e_score_correction_bias
    assert bias is not None
    before = router.route(x)
    bias += torch.tensor([5.0, 0.0, 0.0, 0.0])
    after = router.route(x)
    assert after.counts()[0] == 50
    probabilities = after.logits.softmax(-1)
    wanted = probabilities.gather(1, after.chosen)
    torch.testing.assert_close(after.weights, wanted / wanted.sum(-1, keepdim=True))
    torch.testing.assert_close(before.logits, after.logits)
    bias.zero_()
    router.load = torch.tensor([9.0, 1.0, 5.0, 5.0])
    router.balance(0.25)
    torch.testing.assert_close(bias.detach(), torch.tensor([-0.25, 0.25, 0.0, 0.0]))
    assert router.load is None


@pytest.mark.parametrize("arch", ["mixtral", "qwen3_moe", "deepseek_v2", "deepseek_v3"])
def test_biases_even_out_a_lopsided_router(arch: str) -> None:
    shape = {
        **models.load(arch).SIZES["0.8m"],
        "model_type": arch,
        "router_aux_loss_coef": 0,
        "router_bias_rate": 0.004,
    }
    model = models.from_config(shape).train()
    model.init_weights(torch.Generator().manual_seed(0))
    routers = [module for module in model.modules() if isinstance(module, Router)]
    direction = torch.randn(128, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for router in routers:
            router.weight.add_(torch.linspace(-0.3, 0.3, len(router.weight))[:, None] * direction)
    ids = torch.randint(0, 259, (2, 128), generator=torch.Generator().manual_seed(1))
    loads = []
    for _ in range(120):
        model.hidden(ids)
        loads.append(model.measurements()["expert_load_max"])
        model.after_step(lambda tensors: None)
    assert loads[0] > 2
    assert sum(loads[-10:]) / 10 < 1.4
    names = dict(model.named_parameters())
    assert all(router.e_score_correction_bias is not None for router in routers)
    assert all(not parameter.requires_grad for name, parameter in names.items() if name.endswith("correction_bias"))


def test_a_router_that_is_held_still_keeps_its_biases() -> None:
    shape = {**models.load("deepseek_v3").SIZES["0.8m"], "model_type": "deepseek_v3"}
    model = models.from_config(shape).train()
    model.init_weights(torch.Generator().manual_seed(0))
    model.requires_grad_(False)
    router = next(module for module in model.modules() if isinstance(module, Router))
    router.load = torch.arange(8.0)
    model.after_step(lambda tensors: None)
    assert router.e_score_correction_bias is not None
    assert not router.e_score_correction_bias.any()


def test_what_is_wanted_of_routers_is_in_the_gradient_and_not_in_the_loss() -> None:
    from inkling.train.loop import MicroBatch
    from inkling.train.pretrain import next_token_loss

    gradients, losses = [], []
    for weight in (0.0, 10.0):
        shape = {**models.load("mixtral").SIZES["0.8m"], "model_type": "mixtral", "router_aux_loss_coef": weight}
        model = models.from_config(shape)
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
        ids = torch.randint(0, 259, (2, 33), generator=torch.Generator().manual_seed(1))
        loss = next_token_loss(model, MicroBatch(ids[:, :-1], ids[:, 1:]))
        loss.backward()
        gate = model.get_parameter("model.layers.0.block_sparse_moe.gate.weight").grad
        assert gate is not None
        gradients.append(gate)
        losses.append(loss.item())
        measured = model.measurements()
        assert measured["expert_load_min"] <= 1 <= measured["expert_load_max"] <= 8
        model.eval()
        assert next_token_loss(model, MicroBatch(ids[:, :-1], ids[:, 1:])).item() == loss.item()
    assert losses[0] == losses[1]
    assert not torch.allclose(gradients[0], gradients[1])


def test_loads_are_counted_over_micro_batches_compiled_or_not() -> None:
    shape = {**models.load("deepseek_v3").SIZES["0.8m"], "model_type": "deepseek_v3"}
    model = models.from_config(shape).train()
    model.init_weights(torch.Generator().manual_seed(0))
    ids = torch.randint(0, 259, (4, 32), generator=torch.Generator().manual_seed(1))
    routers = [module for module in model.modules() if isinstance(module, Router)]
    found = []
    for run in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        for half in ids.split(2):
            run(half)
        found.append(torch.stack([router.load for router in routers if router.load is not None]))
        summed: list[Tensor] = []
        model.after_step(summed.extend)
        assert len(summed) == len(routers)
        with torch.no_grad():
            for router in routers:
                router.get_parameter("e_score_correction_bias").zero_()
    assert torch.equal(found[0], found[1])
    assert (found[0].sum(dim=1) == 2 * ids.numel()).all()

"""The figures of a model that does not exist yet, against the model that does."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from conftest import TEXT_ARCHITECTURES
from inkling import models
from inkling.models import KVCache, LanguageModel

ARCHITECTURE_SIZES = [(name, size) for name in TEXT_ARCHITECTURES for size in models.load(name).SIZES]


def build(name: str, **changes: int) -> LanguageModel:
    architecture = models.load(name)
    return architecture.Model(architecture.Config.from_dict({**architecture.SIZES["0.8m"], **changes}))


@pytest.mark.parametrize(("name", "size"), ARCHITECTURE_SIZES)
def test_a_size_has_about_the_parameters_of_its_name(name: str, size: str) -> None:
    architecture = models.load(name)
    number, unit = re.fullmatch(r"([\d.]+)([mb])", size).groups()  # type: ignore[union-attr]
    promised = float(number) * {"m": 1e6, "b": 1e9}[unit]
    exact = models.num_parameters(architecture.Config.from_dict(architecture.SIZES[size]))
    assert abs(exact / promised - 1) < 0.1


@pytest.mark.parametrize("name", TEXT_ARCHITECTURES)
def test_all_architectures_have_the_same_named_sizes(name: str) -> None:
    assert list(models.load(name).SIZES) == list(models.load("qwen3").SIZES)


@pytest.mark.parametrize("name", TEXT_ARCHITECTURES)
def test_parameters_are_those_of_the_real_model(name: str) -> None:
    model = build(name)
    assert models.num_parameters(model.config) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_a_mixture_costs_what_a_dense_model_of_its_active_width_does(name: str) -> None:
    dense = {"mixtral": "llama", "qwen3_moe": "qwen3"}[name]
    width = {"mixtral": "intermediate_size", "qwen3_moe": "moe_intermediate_size"}[name]
    mixture = build(name, **{width: 48})
    shape = {**models.load(name).SIZES["0.8m"], "intermediate_size": 96}
    plain = models.load(dense).Model(models.load(dense).Config.from_dict(shape))
    routers = 6 * sum(p.numel() for n, p in mixture.named_parameters() if n.endswith("gate.weight"))
    assert models.cost(mixture).training_flops == models.cost(plain).training_flops + routers


def test_parameters_of_a_llama_by_hand() -> None:
    C, M, L, V, heads, kv, D = 64, 96, 3, 50, 4, 2, 20
    config = models.load("llama").Config.from_dict(
        {
            "vocab_size": V,
            "hidden_size": C,
            "intermediate_size": M,
            "num_hidden_layers": L,
            "num_attention_heads": heads,
            "num_key_value_heads": kv,
            "head_dim": D,
        }
    )
    block = 2 * C * heads * D + 2 * C * kv * D + 3 * C * M + 2 * C
    assert models.num_parameters(config) == L * block + 2 * V * C + C


def test_gpt2_small_is_gpt2_small() -> None:
    architecture = models.load("gpt2")
    assert models.num_parameters(architecture.Config.from_dict(architecture.SIZES["124m"])) == 124_439_808


@pytest.mark.parametrize("name", TEXT_ARCHITECTURES)
def test_operations_are_those_that_torch_counts(name: str) -> None:
    T = 64
    model = build(name, max_position_embeddings=T)
    input_ids = torch.zeros(1, T, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        F.cross_entropy(model(input_ids).flatten(0, 1), input_ids.flatten()).backward()
    if model.idle_parameters():
        pytest.skip("torch does not count the products of experts")
    # The plain kernel also computes the half of the scores that the causal mask hides.
    config = model.config
    attention = 3 * 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * T
    expected = models.cost(model).training_flops + attention / 2
    assert counter.get_total_flops() / T == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", TEXT_ARCHITECTURES)
def test_activations_are_at_most_a_fifth_above_what_autograd_keeps(name: str) -> None:
    model, T = build(name), 200
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    input_ids = torch.zeros(1, T, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        F.cross_entropy(model(input_ids).flatten(0, 1), input_ids.flatten())
    measured = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in parameters)
    promised = models.cost(models.without_memory(model.config)).activation_bytes
    assert measured / T <= promised <= 1.2 * measured / T


@pytest.mark.parametrize("name", TEXT_ARCHITECTURES)
def test_memory_to_run_is_weights_and_cache(name: str) -> None:
    model = build(name)
    cache = KVCache(model.config, 1, model.config.max_position_embeddings)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    figures = models.cost(model)
    assert figures.running_bytes == weights + sum(x.nbytes for x in (*cache.keys, *cache.values))
    assert figures.training_bytes(10) - figures.training_bytes(0) == 10 * figures.activation_bytes

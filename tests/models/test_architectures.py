"""What every architecture promises, checked for each public file in `inkling/models`."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import TEXT_ARCHITECTURES
from inkling import models
from inkling.models import Branches, Int8KVCache, KVCache, LanguageModel

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "gpt2": [{}, {"activation_function": "gelu"}],
    "llama": [
        {},
        {"rope_scaling": {"rope_type": "linear", "factor": 3.0}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 10}},
        {
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 30,
            }
        },
        {"tie_word_embeddings": True, "num_key_value_heads": 2},
        {"attention_bias": True, "head_dim": 12},
    ],
    "qwen3": [{}, {"tie_word_embeddings": True, "num_key_value_heads": 2}, {"rope_theta": 500.0, "head_dim": 20}],
    "mistral": [{}, {"sliding_window": 6}, {"sliding_window": 9, "num_key_value_heads": 2}],
    "gemma2": [{}, {"sliding_window": 6}, {"query_pre_attn_scalar": 20.0, "final_logit_softcapping": None}],
    "mixtral": [{}, {"num_experts": 3, "num_key_value_heads": 2}, {"sliding_window": 7}],
    "qwen3_moe": [
        {"moe_intermediate_size": 24},
        {"moe_intermediate_size": 24, "norm_topk_prob": True, "num_experts_per_tok": 3},
        {"moe_intermediate_size": 24, "decoder_sparse_step": 2},
    ],
    "deepseek_v2": [
        {"first_k_dense_replace": 2},
        {"num_experts": 4, "q_lora_rank": 12, "kv_lora_rank": 14, "v_head_dim": 10, "qk_rope_head_dim": 6},
        {
            "first_k_dense_replace": 1,
            "n_shared_experts": 2,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 10,
                "mscale": 0.7,
                "mscale_all_dim": 0.9,
            },
        },
    ],
    "deepseek_v3": [
        {"num_experts": 4},
        {"num_experts": 3, "q_lora_rank": 12, "v_head_dim": 12, "norm_topk_prob": False, "routed_scaling_factor": 2.5},
    ],
    "workbench": [
        {},
        {"positions": "alibi", "num_key_value_heads": 2},
        {"positions": "sinusoidal", "activation": "gelu", "norm": "layernorm"},
        {"positions": "learned", "activation": "relu2", "norm_place": "post"},
        {"positions": "none", "norm": "layernorm", "norm_place": "post"},
    ],
    "speedrun": [
        {},
        {"conv_kernel": 1},
        {"conv_kernel": 7, "num_key_value_heads": 2},
        {"value_embeddings": True, "num_key_value_heads": 2},
    ],
}
OURS_ALONE = {"speedrun", "workbench"}


def cases() -> list[Any]:
    """Every architecture in its plain form, and in the variants that it has."""
    return [
        pytest.param(
            {"model_type": name, **SHAPE, **variant},
            id="-".join([name, *variant, *(value for value in variant.values() if isinstance(value, str))]),
        )
        for name in TEXT_ARCHITECTURES
        for variant in VARIANTS.get(name, [{}])
    ]


@pytest.fixture(params=cases())
def model(request: pytest.FixtureRequest) -> LanguageModel:
    """A model with all weights random: freshly drawn ones have zero matrices, which would hide mistakes."""
    model = models.from_config(request.param)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2, generator=generator)
    return model.eval()


def random_ids(rows: int, length: int) -> Tensor:
    return torch.randint(0, SHAPE["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(3))


def test_shapes(model: LanguageModel) -> None:
    input_ids = random_ids(3, 11)
    assert model.hidden(input_ids).shape == (3, 11, 32)
    assert model(input_ids).shape == (3, 11, 61)
    assert model.head_weight.shape == (61, 32)


@torch.no_grad()
def test_later_tokens_move_no_earlier_logits(model: LanguageModel) -> None:
    input_ids = random_ids(2, 20)
    changed = input_ids.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 61
    before, after = model(input_ids), model(changed)
    if model.idle_parameters():  # how many tokens an expert has changes how its products are rounded
        torch.testing.assert_close(before[:, :12], after[:, :12], rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(before[:, :12], after[:, :12])
    assert (before[:, 12:] != after[:, 12:]).any(dim=-1).all()


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[1] * 20, [13, *[1] * 7], [5, 9, 6], [20]], ids=["ones", "prompt", "chunks", "all"])
def test_cached_logits_equal_uncached(model: LanguageModel, chunks: list[int]) -> None:
    input_ids = random_ids(2, 20)
    cache = KVCache(model.config, 2, 20)
    cached = torch.cat([model(part, cache=cache) for part in input_ids.split(chunks, dim=1)], dim=1)
    torch.testing.assert_close(cached, model(input_ids), rtol=1e-5, atol=2e-5)
    assert cache.length == 20


@torch.no_grad()
def test_a_cache_in_8_bits_moves_logits_little(model: LanguageModel) -> None:
    input_ids = random_ids(2, 20)
    packed, full = Int8KVCache(model.config, 2, 20), KVCache(model.config, 2, 20)
    chunks = input_ids.split([12, *[1] * 8], dim=1)
    logits = [torch.cat([model(part, cache=cache) for part in chunks], dim=1) for cache in (packed, full)]
    difference = (logits[0] - logits[1]).abs()
    assert 0 < difference.mean() < 0.02 * logits[1].std()
    assert packed.keys[0].dtype == torch.int8
    packed.keep([1])
    model(input_ids[1:, :1], cache=Int8KVCache(model.config, 1, 1))


@torch.no_grad()
def test_prompts_of_different_lengths_share_a_cache(model: LanguageModel) -> None:
    input_ids, lengths = random_ids(3, 18), [12, 5, 9]
    longest = max(lengths)
    cache = KVCache(model.config, 3, longest + 6, padding=[longest - length for length in lengths])
    prompts = torch.stack([F.pad(row[:n], (longest - n, 0)) for row, n in zip(input_ids, lengths, strict=True)])
    parts = [model(prompts, cache=cache)[:, -1:]]
    for step in range(6):
        tokens = torch.stack([row[n + step : n + step + 1] for row, n in zip(input_ids, lengths, strict=True)])
        parts.append(model(tokens, cache=cache))
    together = torch.cat(parts, dim=1)
    for row, n in enumerate(lengths):
        alone = model(input_ids[row : row + 1, : n + 6])[0, n - 1 :]
        torch.testing.assert_close(together[row], alone, rtol=1e-5, atol=5e-5)


@torch.no_grad()
def test_packed_documents_equal_separate_ones(model: LanguageModel) -> None:
    input_ids = random_ids(2, 24)
    borders = [[0, 7, 8, 24], [0, 15, 24]]
    segment_ids = torch.zeros_like(input_ids)
    for row, starts in enumerate(borders):
        for start in starts[1:-1]:
            segment_ids[row, start:] += 1
    packed = model(input_ids, segment_ids=segment_ids)
    for row, starts in enumerate(borders):
        for start, stop in itertools.pairwise(starts):
            alone = model(input_ids[row : row + 1, start:stop])[0]
            torch.testing.assert_close(packed[row, start:stop], alone, rtol=1e-5, atol=1e-5)


def test_branches_are_whole_texts(model: LanguageModel) -> None:
    """Outputs and gradients of texts that begin alike, their beginnings computed once, are those of each by itself."""
    texts, beginnings, branches = random_ids(5, 20), [9, 1, 4], [(0, 11), (0, 3), (1, 8), (0, 1), (1, 2)]
    wholes = [torch.cat((texts[n][: beginnings[n]], texts[at][20 - size :])) for at, (n, size) in enumerate(branches)]
    wholes.append(texts[2][:4])  # nothing follows the last beginning
    stems = torch.cat([texts[number][:size] for number, size in enumerate(beginnings)])
    rests = torch.cat([texts[at][20 - size :] for at, (_, size) in enumerate(branches)])
    row = model.hidden(torch.cat((stems, rests))[None], cache=Branches(beginnings, branches))[0]
    stem_rows = torch.split(row[: len(stems)], beginnings)
    rest_rows = torch.split(row[len(stems) :], [size for _, size in branches])
    found = [torch.cat((stem_rows[n], rest)) for (n, _), rest in zip(branches, rest_rows, strict=True)]
    expected = [model.hidden(whole[None])[0] for whole in wholes]
    for one, other in zip([*found, stem_rows[2]], expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)

    def gradients(outputs: list[Tensor]) -> dict[str, Tensor]:
        model.zero_grad()
        sum((model.logits(one).log_softmax(-1)[:, 3] * (2 + at)).sum() for at, one in enumerate(outputs)).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    ours = gradients([*found, stem_rows[2]])
    for name, gradient in gradients(expected).items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5 * float(1 + gradient.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True])
def test_bf16_attention_on_the_cpu_stays_near_fp32(model: LanguageModel, packed: bool) -> None:
    input_ids = random_ids(2, 24)
    segment_ids = torch.arange(24).expand(2, 24) // 9 if packed else None
    exact = model(input_ids, segment_ids=segment_ids)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(input_ids, segment_ids=segment_ids)
    allowed = 0.2 if model.idle_parameters() else 0.02  # a router whose scores are nearly equal may choose otherwise
    assert (rounded.float() - exact).norm() < allowed * exact.norm()


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_every_parameter_gets_a_finite_gradient(model: LanguageModel, precision: torch.dtype) -> None:
    input_ids = random_ids(8, 16)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        loss = F.cross_entropy(model(input_ids).flatten(0, 1).float(), input_ids.roll(-1, 1).flatten())
    loss.backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("packed", [False, True])
def test_training_compiles_as_one_graph(model: LanguageModel, packed: bool) -> None:
    input_ids = random_ids(2, 16)
    segment_ids = torch.arange(16).expand(2, 16) // 5 if packed else None
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(input_ids, segment_ids=segment_ids), model(input_ids, segment_ids=segment_ids))


def test_dropout_acts_in_training_only(model: LanguageModel) -> None:
    dropping = models.from_config({**model.config.to_dict()}, dropout=0.5)
    dropping.load_state_dict(model.state_dict())
    input_ids = random_ids(1, 8)
    assert torch.equal(dropping.eval()(input_ids), model(input_ids))
    assert not torch.equal(dropping.train()(input_ids), dropping(input_ids))


def test_weights_survive_safetensors_bit_for_bit(model: LanguageModel, tmp_path: Path) -> None:
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    copy = models.from_config(json.loads(json.dumps(model.config.to_dict())))
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"))
    input_ids = random_ids(2, 9)
    assert torch.equal(copy.eval()(input_ids), model(input_ids))


@torch.no_grad()
def test_transformers_opens_it_and_computes_the_same(model: LanguageModel, tmp_path: Path) -> None:
    if model.config.model_type in OURS_ALONE:
        pytest.skip("no other program has this architecture")
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert type(theirs).__name__ == model.config.architecture
    input_ids = random_ids(3, 33)
    torch.testing.assert_close(model(input_ids), theirs.eval()(input_ids).logits, rtol=2e-5, atol=2e-5)


@torch.no_grad()
def test_a_config_that_transformers_wrote_is_read_back(model: LanguageModel, tmp_path: Path) -> None:
    if model.config.model_type in OURS_ALONE:
        pytest.skip("no other program has this architecture")
    config_class = type(transformers.AutoConfig.for_model(model.config.model_type))
    config_class.from_dict(model.config.to_dict()).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert type(model.config).from_dict(written) == model.config


def test_fresh_weights_depend_on_the_seed_alone(model: LanguageModel) -> None:
    def draw(seed: int) -> dict[str, Tensor]:
        model.init_weights(torch.Generator().manual_seed(seed))
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}

    first, _, again, other = draw(5), torch.rand(10), draw(5), draw(6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@torch.no_grad()
@pytest.mark.parametrize("name", TEXT_ARCHITECTURES)
@pytest.mark.parametrize("size", ["0.8m", "10m"])
def test_the_first_loss_is_that_of_guessing(name: str, size: str) -> None:
    architecture = models.load(name)
    model = architecture.Model(architecture.Config.from_dict(architecture.SIZES[size]))
    model.init_weights(torch.Generator().manual_seed(0))
    V = model.config.vocab_size
    input_ids = torch.randint(0, V, (4, 65))
    loss = F.cross_entropy(model(input_ids[:, :-1]).flatten(0, 1), input_ids[:, 1:].flatten())
    assert abs(loss.item() - math.log(V)) < 0.15

"""Reading foreign `config.json` files: what is computed is read exactly, what is not is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from inkling import models
from inkling.errors import ModelError

LLAMA = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GPT2 = {"model_type": "gpt2", "vocab_size": 100, "n_embd": 64, "n_layer": 2, "n_head": 4}


def read(values: dict[str, Any]) -> models.ModelConfig:
    return models.load(values["model_type"]).Config.from_dict(values)


def test_names_are_the_public_files() -> None:
    assert models.names() == [
        "deepseek_v2",
        "deepseek_v3",
        "gemma2",
        "gpt2",
        "llama",
        "llava",
        "mistral",
        "mixtral",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "speedrun",
        "workbench",
    ]


def test_an_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean 'llama'"):
        models.load("lama")
    with pytest.raises(ModelError, match="gpt2, llama, llava, mistral, mixtral, qwen2, qwen3"):
        models.from_config({"model_type": "rwkv7"})
    with pytest.raises(ModelError):
        models.load("_layers")


def test_a_config_without_an_architecture_is_refused() -> None:
    with pytest.raises(ModelError, match="model_type"):
        models.from_config({"vocab_size": 100})


_SAID = {"rope_parameters": "rope_scaling", "layer_types": "sliding_attention"}


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (LLAMA, {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),  # needs the original context
        (LLAMA, {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}),
        (LLAMA, {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}),
        (LLAMA, {"layer_types": ["sliding_attention"]}),
        ({**LLAMA, "model_type": "mixtral"}, {"router_jitter_noise": 0.1}),
        ({**LLAMA, "model_type": "mixtral"}, {"num_experts_per_tok": 9}),
        ({**LLAMA, "model_type": "gemma2"}, {"use_bidirectional_attention": True}),
        (LLAMA, {"hidden_act": "relu"}),
        (LLAMA, {"mlp_bias": True}),
        (LLAMA, {"quantization_config": {"quant_method": "gptq"}}),
        ({**LLAMA, "model_type": "qwen3"}, {"use_sliding_window": True}),
        (GPT2, {"activation_function": "relu"}),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}),
        (GPT2, {"tie_word_embeddings": False}),
    ],
    ids=lambda value: ",".join(value),
)
def test_a_feature_that_changes_the_computation_is_refused_by_name(
    base: dict[str, Any], change: dict[str, Any]
) -> None:
    read(base)
    with pytest.raises(ModelError, match=_SAID.get(next(iter(change)), next(iter(change)))):
        read({**base, **change})


@pytest.mark.parametrize(
    ("base", "change", "message"),
    [
        (LLAMA, {"hidden_size": None}, "hidden_size is missing"),
        (LLAMA, {"num_key_value_heads": 3}, "num_attention_heads 4 must be a multiple of num_key_value_heads 3"),
        (LLAMA, {"head_dim": 7}, "head_dim: .* multiple of 2"),
        (LLAMA, {"num_hidden_layers": 0}, "num_hidden_layers"),
        (LLAMA, {"rope_theta": "big"}, "rope_theta"),
        (GPT2, {"n_head": 5}, "hidden_size 64 must be num_attention_heads × head_dim"),
        (GPT2, {"num_key_value_heads": 2}, "as many key-value heads"),
    ],
)
def test_an_impossible_shape_is_explained(base: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        read({**base, **change})
    assert "\n" not in str(error.value)


def test_bookkeeping_is_passed_over() -> None:
    extra = {"bos_token_id": 1, "use_cache": False, "transformers_version": "4.0", "attention_dropout": 0.1}
    assert read({**LLAMA, **extra}) == read(LLAMA)


def test_missing_keys_get_their_customary_values() -> None:
    config = read(LLAMA)
    assert (config.num_key_value_heads, config.head_dim) == (4, 16)
    assert read(GPT2).intermediate_size == 256


def test_the_rotary_base_is_read_in_both_spellings() -> None:
    new = {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 123.0}}
    assert read(new) == read({**LLAMA, "rope_theta": 123.0})


def test_gpt2_takes_the_general_names_and_writes_its_own() -> None:
    general = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 77}
    config = read({"model_type": "gpt2", "vocab_size": 100, **general})
    assert config == read({**GPT2, "n_positions": 77})
    written = config.to_dict()
    assert (written["n_embd"], written["n_layer"], written["n_head"], written["n_positions"]) == (64, 2, 4, 77)
    assert not general.keys() & written.keys()


def test_a_general_name_changes_a_named_size() -> None:
    size = models.load("gpt2").SIZES["0.8m"]
    config = models.load("gpt2").Config.from_dict({**size, "max_position_embeddings": 64, "num_hidden_layers": 3})
    assert (config.max_position_embeddings, config.num_hidden_layers) == (64, 3)

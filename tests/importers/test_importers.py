"""Models of others, as transformers, GGUF, nanoGPT and litgpt store them, compared with what transformers computes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import gguf
from conftest import random_checkpoint
from inkling import checkpoint, cli, export, importers, models
from inkling.errors import InklingError, ModelError
from inkling.gguf import layout, types
from inkling.gguf.reader import GGUFFile
from inkling.importers import ImportedModel
from inkling.tokenizer import Tokenizer

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*bos_token_id.*", "ignore:.*eos_token_id.*")


def theirs(kind: str, vocab_size: int, **more: Any) -> Any:
    """A transformers model with random weights and biases."""
    torch.manual_seed(0)
    if kind == "gpt2":
        shape = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
    else:
        shape = SHAPE
    config = transformers.AutoConfig.for_model(kind, vocab_size=vocab_size, **{**shape, **more})
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.2)
    return model.eval()


def folder_of(model: Any, tokenizer: Tokenizer, folder: Path, **how: Any) -> Path:
    model.save_pretrained(folder, **how)
    tokenizer.save(folder)
    return folder


@torch.inference_mode()
def check_logits(imported: ImportedModel, wanted: Any) -> None:
    model = models.load(imported.config.model_type).Model(imported.config)
    model.load_state_dict(imported.weights)
    ids = torch.randint(0, imported.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model.eval()(ids), wanted(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {}),
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "attention_bias": True}),
    ("mistral", {"sliding_window": None}),
    ("mistral", {"sliding_window": 9}),
    ("mixtral", {"num_local_experts": 4}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 32}),
    ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}),
    ("gemma2", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 9}),
]


@pytest.mark.parametrize(("kind", "more"), KINDS, ids=str)
def test_hugging_face_folders(
    kind: str, more: dict[str, Any], small_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = theirs(kind, small_tokenizer.vocab_size + 2, **more)
    folder = folder_of(model, small_tokenizer, tmp_path / "model")
    name, imported = importers.read(folder)
    assert name == "hf"
    check_logits(imported, model)

    # through a run and out again, each tensor is the same bit for bit
    capsys.readouterr()  # of transformers, while it saved
    assert cli.main(["import", str(folder), "-o", str(tmp_path / "run"), "--json", "--no-verify"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "hf"
    assert cli.main(["export", str(tmp_path / "run"), "hf", "-o", str(tmp_path / "out"), "--no-verify"]) == 0
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert checkpoint.read_run(tmp_path / "run").status == "imported"
    assert cli.main(["generate", str(tmp_path / "run"), "--prompt", "the cat", "--max-tokens", "3"]) == 0


def test_weights_in_several_files_and_bf16(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = theirs("llama", small_tokenizer.vocab_size).to(torch.bfloat16)
    folder = folder_of(model, small_tokenizer, tmp_path / "model", max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    _, imported = importers.read(folder)
    # Not model.float(): transformers' rotary tables would stay rounded to bf16.
    check_logits(imported, transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())


def test_an_old_gpt2_file_with_bare_names_and_buffers(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = theirs("gpt2", small_tokenizer.vocab_size)
    folder = folder_of(model, small_tokenizer, tmp_path / "model")
    weights = {name.removeprefix("transformer."): t for name, t in load_file(folder / "model.safetensors").items()}
    weights["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
    checkpoint.save_weights(folder, weights)
    check_logits(importers.read(folder)[1], model)


@pytest.mark.parametrize("model_type", sorted(layout.LAYOUTS))
def test_to_gguf_and_back_is_the_same_bit_for_bit(model_type: str, small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    values = {"model_type": model_type, "norm_topk_prob": True, "num_experts": 4, "sliding_window": None}
    values |= {"gemma2": {"sliding_window": 40}, "deepseek_v2": {"norm_topk_prob": False}}.get(model_type, {})
    first = checkpoint.open_model(random_checkpoint(tmp_path / "run", values, small_tokenizer))
    target = export.load("gguf")
    target.write(first, tmp_path / "model.gguf", "f32")
    _, imported = importers.read(tmp_path / "model.gguf")
    weights = dict(first.tensors(first.shapes))
    # Llama and mistral are one architecture there.
    assert imported.config == first.config or model_type == "mistral"
    assert imported.weights.keys() == weights.keys()
    if model_type != "gemma2":  # whose gains are 1 + weight in GGUF, which rounds the weight's last bits
        assert all(torch.equal(imported.weights[name], weights[name]) for name in weights)
    assert imported.tokenizer.sha256 == small_tokenizer.sha256

    # and out of that again: the file's own bytes
    model = models.without_memory(imported.config)
    checkpoint.save_model(tmp_path / "again", model, imported.tokenizer, imported.weights)
    target.write(checkpoint.open_model(tmp_path / "again"), tmp_path / "again.gguf", "f32")
    before, after = GGUFFile(tmp_path / "model.gguf"), GGUFFile(tmp_path / "again.gguf")
    assert before.tensors.keys() == after.tensors.keys()
    assert all(np.array_equal(before.array(name), after.array(name)) for name in before.tensors)


@pytest.mark.parametrize("kind", types.FILE_TYPES)
def test_packed_gguf_files_come_in_unpacked(kind: str, small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    values = {"model_type": "qwen3_moe", "hidden_size": 256, "moe_intermediate_size": 256, "norm_topk_prob": True}
    values |= {"num_hidden_layers": 1, "num_experts": 2}
    stored = checkpoint.open_model(random_checkpoint(tmp_path / "run", values, small_tokenizer))
    export.load("gguf").write(stored, tmp_path / "model.gguf", kind)
    _, imported = importers.read(tmp_path / "model.gguf")
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    down = theirs["blk.0.ffn_down_exps.weight"]
    unpacked = gguf.dequantize(down.data, down.tensor_type)  # (E, C, I)
    for expert in range(2):
        found = imported.weights[f"model.layers.0.mlp.experts.{expert}.down_proj.weight"].numpy()
        np.testing.assert_array_equal(found, unpacked[expert])
    assert bool(imported.notes) == (kind not in ("f32", "f16", "bf16"))


@pytest.mark.parametrize("bias", [True, False])
def test_nanogpt(bias: bool, small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = theirs("gpt2", small_tokenizer.vocab_size + 5, activation_function="gelu")
    if not bias:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
    state = {}
    for name, tensor in model.state_dict().items():
        turned = any(part in name for part in ("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        if bias or not name.endswith("bias"):
            state[f"_orig_mod.{name}"] = tensor.T.contiguous() if turned else tensor
    shape = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 64, "bias": bias, "dropout": 0.0}
    shape["vocab_size"] = small_tokenizer.vocab_size + 5
    torch.save({"model": state, "model_args": shape, "iter_num": 3}, tmp_path / "ckpt.pt")
    name, imported = importers.read(tmp_path / "ckpt.pt", small_tokenizer)
    assert name == "nanogpt"
    check_logits(imported, model)
    with pytest.raises(ModelError, match="does not hold its tokenizer"):
        importers.read(tmp_path / "ckpt.pt")


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_litgpt(kind: str, small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = theirs(kind, small_tokenizer.vocab_size, head_dim=16)
    names = {
        "model.embed_tokens": "transformer.wte",
        "model.norm": "transformer.ln_f",
        "model.layers.": "transformer.h.",
        "input_layernorm": "norm_1",
        "post_attention_layernorm": "norm_2",
        "self_attn.o_proj": "attn.proj",
        "self_attn.q_norm": "attn.norm_q",
        "self_attn.k_norm": "attn.norm_k",
        "gate_proj": "fc_1",
        "up_proj": "fc_2",
        "mlp.down_proj": "mlp.proj",
    }
    state = {}
    for name, tensor in model.state_dict().items():
        for ours, litgpt in names.items():
            name = name.replace(ours, litgpt)
        state[name] = tensor
    for layer in range(2):
        parts = [state.pop(f"transformer.h.{layer}.self_attn.{role}_proj.weight") for role in "qkv"]
        state[f"transformer.h.{layer}.attn.qkv.weight"] = torch.cat(parts)
    folder = tmp_path / "litgpt"
    folder.mkdir()
    torch.save({"model": state}, folder / "lit_model.pth")
    shape = {
        "n_layer": 2,
        "n_head": 4,
        "n_query_groups": 2,
        "n_embd": 64,
        "head_size": 16,
        "intermediate_size": 96,
        "padded_vocab_size": small_tokenizer.vocab_size,
        "block_size": 64,
        "norm_eps": 1e-6,
        "norm_class_name": "RMSNorm",
        "mlp_class_name": "LLaMAMLP",
        "norm_qk": kind == "qwen3",
        "rotary_percentage": 1.0,
        "parallel_residual": False,
        "bias": False,
    }
    (folder / "model_config.yaml").write_text(yaml.safe_dump(shape))
    small_tokenizer.save(folder)
    name, imported = importers.read(folder)
    assert name == "litgpt"
    check_logits(imported, model)
    (folder / "model_config.yaml").write_text(yaml.safe_dump({**shape, "rotary_percentage": 0.25}))
    with pytest.raises(ModelError, match=r"rotary_percentage=0\.25"):
        importers.read(folder)


# ---------------------------------------------------------------- what is refused


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_runs_nothing(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    witness = tmp_path / "was-here"
    torch.save({"model": Evil(witness), "model_args": {}}, tmp_path / "ckpt.pt")
    with pytest.raises(ModelError, match="could run code"):
        importers.read(tmp_path / "ckpt.pt", small_tokenizer)
    folder = folder_of(theirs("llama", small_tokenizer.vocab_size), small_tokenizer, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(witness)))
    with pytest.raises(ModelError, match="pickle"):
        importers.read(folder)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, "asks for code of its own"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "rope_scaling.rope_type"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "needs original_max_position_embeddings"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "mamba"}, "there is no architecture 'mamba'"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "sliding_attention"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"num_hidden_layers": 4000}, "tensors cannot be 4,000 layers"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"vocab_size": 10**12}, "vocab_size"),
        ({"vocab_size": 5}, "the tokenizer has"),
    ],
    ids=str,
)
def test_what_cannot_be_mapped_is_named(
    changes: dict[str, Any], what: str, small_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(theirs("llama", small_tokenizer.vocab_size), small_tokenizer, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    capsys.readouterr()  # of transformers, while it saved
    assert cli.main(["import", str(folder), "-o", str(tmp_path / "run")]) == 1
    message = capsys.readouterr().err
    assert what in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_index_cannot_name_files_elsewhere(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = folder_of(theirs("llama", small_tokenizer.vocab_size), small_tokenizer, tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "secret.safetensors")
    index = {"weight_map": {"model.norm.weight": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="refused"):
        importers.read(folder)


@pytest.mark.parametrize(
    "lie",
    [
        {"data_offsets": [0, 1 << 40]},
        {"data_offsets": [1 << 62, 1 << 63]},
        {"data_offsets": [8, 4]},
        {"data_offsets": [-8, 8]},
        {"shape": [1 << 40, 1 << 40]},
        {"shape": [-64]},
        {"shape": []},
        {"shape": "64"},
        {"dtype": "F64"},
        {"dtype": "U8"},
        {"dtype": "evil"},
        {"dtype": None},
        None,
    ],
    ids=str,
)
def test_safetensors_that_lie_are_refused(
    lie: dict[str, Any] | None, small_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = random_checkpoint(tmp_path / "model", {"model_type": "llama"}, small_tokenizer) / "model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if lie is None:
        header["model.norm.weight"] = [header["model.norm.weight"]] * 3
    else:
        header["model.norm.weight"] |= lie
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(ModelError):
        importers.read(tmp_path / "model")
    for claimed in (0, 1 << 20, 1 << 40, 1 << 63):
        path.write_bytes(claimed.to_bytes(8, "little") + content[8:])
        with pytest.raises(ModelError):
            importers.read(tmp_path / "model")


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 400), value=st.integers(0, 255), end=st.integers(0, 2000) | st.none())
def test_damaged_safetensors_are_refused(
    place: int, value: int, end: int | None, small_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    if not folder.exists():
        random_checkpoint(folder, {"model_type": "llama"}, small_tokenizer)
        (folder / "whole").write_bytes((folder / "model.safetensors").read_bytes())
    content = bytearray((folder / "whole").read_bytes())
    content[place] = value
    (folder / "model.safetensors").write_bytes(content[:end])
    try:
        _, imported = importers.read(folder)
    except InklingError:
        return
    assert all(tensor.dtype == torch.float32 for tensor in imported.weights.values())


def test_the_source_is_never_touched(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    folder = random_checkpoint(tmp_path / "model", {"model_type": "llama"}, small_tokenizer)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*")}
    for path in before:
        path.chmod(0o444)
    for out, status in (("run", 0), ("model", 1)):
        assert cli.main(["import", str(folder), "-o", str(tmp_path / out), "--no-verify"]) == status
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*")} == before


def test_a_run_that_is_there_stays(
    small_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(theirs("llama", small_tokenizer.vocab_size), small_tokenizer, tmp_path / "model")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("1")
    assert cli.main(["import", str(folder), "-o", str(tmp_path / "run")]) == 1
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious"]

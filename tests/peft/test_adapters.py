"""Adapters beside `peft`'s: the same numbers, the same files; and what must hold whoever made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint, importers, peft
from inkling.errors import CheckpointError, ModelError
from inkling.models import LanguageModel
from inkling.peft import AdapterSettings
from inkling.quantize import Quantization, default_formats, nf4, quantize_model
from inkling.tensor_files import checksum
from inkling.tokenizer import Tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # in peft

IDS = torch.tensor([[5, 9, 3, 100, 7, 7, 31], [1, 2, 3, 4, 5, 6, 7]])
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stable": {"rank_stabilised": True},
    "dora": {"dora": True},
    "some": {"targets": ["q_proj", "down_proj"]},
}


def model_of(tokenizer: Tokenizer, folder: Path, model_type: str = "qwen3") -> LanguageModel:
    path = random_checkpoint(folder / model_type, {"model_type": model_type, **SMALL_SHAPE}, tokenizer)
    return checkpoint.load_model(path)[0]


def randomise(model: nn.Module) -> None:
    """Adapters that do something."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, tensor in peft.adapter_weights(model).items():
            if not name.endswith("magnitude"):
                tensor.normal_(0, 0.2, generator=generator)
            else:
                tensor.mul_(1.2)


@pytest.mark.parametrize("model_type", ["qwen3", "gpt2", "llama"])
@pytest.mark.parametrize("way", WAYS)
def test_beside_peft(small_tokenizer: Tokenizer, tmp_path: Path, model_type: str, way: str) -> None:
    theirs = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    options = dict(WAYS[way])
    if model_type == "gpt2" and "targets" in options:
        options["targets"] = ["c_attn", "c_fc"]
    settings = AdapterSettings(rank=4, alpha=8, **options)
    model = model_of(small_tokenizer, tmp_path, model_type)
    before = model(IDS)
    peft.attach(model, settings, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(IDS), before, rtol=0, atol=0 if way != "dora" else 1e-5)
    randomise(model)
    ours = model(IDS)
    assert (ours - before).abs().max() > 0.01

    folder = tmp_path / "adapter"
    weights = peft.adapter_weights(model)
    base = str(tmp_path / model_type)
    peft.write_adapter(folder, weights, settings, base=base, base_sha256="", turned=model_type == "gpt2")
    loaded = theirs.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    torch.testing.assert_close(loaded(IDS).logits, ours, rtol=1e-5, atol=1e-5)
    merged = loaded.merge_and_unload()
    found = peft.merged_weights(model)
    for name, tensor in merged.state_dict().items():
        if name in found:
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)

    # and back: one that peft saved
    again = theirs.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    again.save_pretrained(tmp_path / "theirs")
    stored = peft.read_adapter(tmp_path / "theirs")
    fresh = model_of(small_tokenizer, tmp_path / "again", model_type)
    peft.attach_stored(fresh, stored.settings, stored.weights, name="x")
    torch.testing.assert_close(fresh(IDS), before)
    peft.select(fresh, "x")
    torch.testing.assert_close(fresh(IDS), ours, rtol=1e-6, atol=1e-6)


def test_gradients_beside_peft(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    model = model_of(small_tokenizer, tmp_path)
    settings = AdapterSettings(rank=3, alpha=6, dora=True)
    peft.attach(model, settings, generator=torch.Generator().manual_seed(1))
    randomise(model)
    folder = tmp_path / "adapter"
    peft.write_adapter(folder, peft.adapter_weights(model), settings, base="", base_sha256="")
    loaded = theirs.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "qwen3"), folder, is_trainable=True
    )
    weights = torch.randn(2, 7, model.config.vocab_size, generator=torch.Generator().manual_seed(2))
    (model(IDS) * weights).sum().backward()  # type: ignore[no-untyped-call]
    (loaded(IDS).logits * weights).sum().backward()
    expected = {
        name.removeprefix("base_model.model.").replace(".default", "").replace(".weight", ""): p.grad
        for name, p in loaded.named_parameters()
        if p.grad is not None
    }
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(found) == len(expected) > 20
    for name, gradient in found.items():
        key = name.replace("adapters.default.", "")
        key = key.replace(".A", ".lora_A").replace(".B", ".lora_B").replace(".magnitude", ".lora_magnitude_vector")
        torch.testing.assert_close(gradient, expected[key], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", ["qwen3", "gpt2"])
@pytest.mark.parametrize("way", ["plain", "dora"])
def test_merged_is_adapted(small_tokenizer: Tokenizer, tmp_path: Path, model_type: str, way: str) -> None:
    model = model_of(small_tokenizer, tmp_path, model_type)
    names = model.state_dict().keys()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    peft.attach(model, AdapterSettings(rank=4, **WAYS[way]))
    randomise(model)
    adapted = model(IDS)
    with peft.merged(model):
        torch.testing.assert_close(model(IDS), adapted, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in names)
    torch.testing.assert_close(model(IDS), adapted, rtol=0, atol=0)
    fresh = model_of(small_tokenizer, tmp_path / "fresh", model_type)
    found = peft.merged_weights(model)
    assert found.keys() == names
    fresh.load_state_dict(found)
    torch.testing.assert_close(fresh(IDS), adapted, rtol=1e-4, atol=1e-4)
    with peft.disabled(model):
        fresh.load_state_dict(before)
        torch.testing.assert_close(model(IDS), fresh(IDS), rtol=0, atol=0)


def test_an_adapter_is_imported_with_its_base(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = model_of(small_tokenizer, tmp_path)
    settings = AdapterSettings(rank=4, dora=True)
    peft.attach(model, settings)
    randomise(model)
    base, folder = tmp_path / "qwen3", tmp_path / "adapter"
    found = checksum(base / "model.safetensors")
    peft.write_adapter(folder, peft.adapter_weights(model), settings, base=str(base), base_sha256=found)
    kind, imported = importers.read(folder)
    assert kind == "peft"
    fresh = model_of(small_tokenizer, tmp_path / "fresh")
    fresh.load_state_dict(imported.weights)
    torch.testing.assert_close(fresh(IDS), model(IDS), rtol=1e-4, atol=1e-4)
    peft.write_adapter(folder, peft.adapter_weights(model), settings, base=str(base), base_sha256="other")
    with pytest.raises(ModelError, match="its weights are others"):
        importers.read(folder)
    peft.write_adapter(folder, peft.adapter_weights(model), settings, base="owner/name", base_sha256="")
    with pytest.raises(ModelError, match="not a folder here"):
        importers.read(folder)


def test_rows_have_their_own_adapters(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = model_of(small_tokenizer, tmp_path)
    plain = model(IDS)
    for number, name in enumerate(("one", "two")):
        settings = AdapterSettings(rank=2 + number, dora=number == 1)
        peft.attach(model, settings, name=name, generator=torch.Generator().manual_seed(number))
        with torch.no_grad():
            for tensor in peft.adapter_weights(model, name).values():
                tensor.add_(0.05)
    assert peft.adapter_names(model) == ["one", "two"]
    alone = {}
    for name in ("one", "two"):
        peft.select(model, name)
        alone[name] = model(IDS)
    assert (alone["one"] - alone["two"]).abs().max() > 0.01
    rows = torch.arange(IDS.numel()).view_as(IDS)
    peft.select(model, [("one", rows[0]), ("two", rows[1])])
    mixed = model(IDS)
    torch.testing.assert_close(mixed[0], alone["one"][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mixed[1], alone["two"][1], rtol=1e-5, atol=1e-5)
    peft.select(model, [("two", rows[1])])
    torch.testing.assert_close(model(IDS)[0], plain[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["int4", "int8", "nf4"])
def test_beside_packed_matrices(small_tokenizer: Tokenizer, tmp_path: Path, kind: str) -> None:
    """Gradients pass the packed matrix; merged, it is the unpacked one with the adapter."""
    model = model_of(small_tokenizer, tmp_path)
    quantize_model(model, Quantization(default_formats(model, kind, 32), 32))
    peft.attach(model, AdapterSettings(rank=4))
    randomise(model)
    model(IDS).square().mean().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.any() for p in model.parameters() if p.requires_grad)
    fresh = model_of(small_tokenizer, tmp_path / "fresh")
    fresh.load_state_dict(peft.merged_weights(model))
    torch.testing.assert_close(fresh(IDS), model(IDS), rtol=0.05, atol=0.05)


def test_nf4_has_the_levels_of_the_paper() -> None:
    expected = [-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0]
    expected += [0.0795803, 0.1609302, 0.24611230, 0.33791524, 0.44070983, 0.5626170, 0.72295684, 1.0]
    assert nf4.levels().tolist() == pytest.approx(expected, abs=2e-6)
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    again = nf4.Matrix.quantize(weight, 64)
    assert (again.dequantize(torch.float32) - weight).square().mean().sqrt() < 0.1
    ids = torch.tensor([3, 0])
    assert torch.equal(again.rows(ids), again.dequantize(torch.float32)[ids])
    exact = nf4.levels().repeat(4, 4) * 2.0
    assert torch.equal(nf4.Matrix.quantize(exact, 64).dequantize(torch.float32), exact)


def test_what_cannot_be_used_is_named(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = model_of(small_tokenizer, tmp_path)
    with pytest.raises(ModelError, match=r"no matrix 'q_pro' in the model.*q_proj"):
        peft.attach(model, AdapterSettings(targets=["q_pro"]))
    peft.attach(model, AdapterSettings(rank=2))
    folder = tmp_path / "adapter"
    peft.write_adapter(folder, peft.adapter_weights(model), AdapterSettings(rank=2), base="b", base_sha256="s")
    stored = peft.read_adapter(folder)
    assert (stored.base, stored.base_sha256, stored.settings.rank) == ("b", "s", 2)
    other = model_of(small_tokenizer, tmp_path / "other", "gpt2")
    with pytest.raises(ModelError, match="which this model does not have"):
        peft.attach_stored(other, stored.settings, stored.weights, name="x")
    with pytest.raises(ModelError, match="does not fit this model"):
        peft.attach_stored(
            model_of(small_tokenizer, tmp_path / "third"), AdapterSettings(rank=3), stored.weights, name="x"
        )
    config = (folder / "adapter_config.json").read_text()
    for old, new, reason in [
        ('"LORA"', '"IA3"', "IA3"),
        ('"none"', '"all"', "bias"),
        ('"r": 2', '"r": 0', "greater than"),
        ("{", "{{", "is no adapter"),
    ]:
        (folder / "adapter_config.json").write_text(config.replace(old, new, 1))
        with pytest.raises(CheckpointError, match=reason):
            peft.read_adapter(folder)
    with pytest.raises(CheckpointError, match="no adapter"):
        peft.read_adapter(tmp_path)

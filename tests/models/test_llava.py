"""Models that see, beside transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from inkling import models
from inkling.errors import ModelError
from inkling.models import KVCache, SeeingModel

TEXT = {
    "vocab_size": 70,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}


@pytest.fixture(params=["qwen3", "llama", "gemma2", "mixtral"])
def model(request: pytest.FixtureRequest) -> SeeingModel:
    text = {"model_type": request.param, **TEXT}
    config = {"model_type": "llava", "text_config": text, "vision_config": VISION, "image_token_index": 69}
    model = models.from_config(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = "norm" in name and name.endswith("weight") and request.param != "gemma2"
            parameter.normal_(1.0 if gain else 0.0, 0.15, generator=generator)
    assert isinstance(model, SeeingModel)
    return model.eval()


def text_with_pictures() -> torch.Tensor:
    ids = torch.randint(0, 69, (2, 50), generator=torch.Generator().manual_seed(1))
    ids[0, 3:19], ids[1, 20:36] = 69, 69
    return ids


@torch.no_grad()
def test_transformers_sees_the_same(model: SeeingModel, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(model.config.to_dict()))
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs, report = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    ids = text_with_pictures()
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    wanted = theirs.eval()(input_ids=ids, pixel_values=pixels).logits
    found = model.logits(model.hidden(ids, seen=model.see(pixels)))
    torch.testing.assert_close(found, wanted, rtol=3e-5, atol=3e-5)
    theirs.config.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert models.read_config(written) == model.config


@torch.no_grad()
def test_pictures_belong_to_their_places(model: SeeingModel) -> None:
    ids, pixels = text_with_pictures(), torch.rand(2, 3, 16, 16) * 2 - 1
    seen = model.see(pixels)
    together = model.hidden(ids, seen=seen)
    for row in range(2):
        alone = model.hidden(ids[row : row + 1], seen=model.see(pixels[row : row + 1]))
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-4)
    other = model.hidden(ids, seen=model.see(pixels.flip(0)))
    assert torch.equal(other[0, :3], together[0, :3])  # nothing before a picture knows of it
    assert not torch.allclose(other[0, 30:], together[0, 30:])
    cache = KVCache(model.config, 2, 50)
    parts = [model.hidden(part, cache=cache, seen=seen if n == 0 else None) for n, part in enumerate(ids.split(40, 1))]
    torch.testing.assert_close(torch.cat(parts, dim=1), together, rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_eyes(model: SeeingModel) -> None:
    model.logits(
        model.hidden(text_with_pictures(), seen=model.see(torch.rand(2, 3, 16, 16)))
    ).square().mean().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert {name for name in without if "experts" not in name} == {
        "vision_tower.vision_model.post_layernorm.weight",
        "vision_tower.vision_model.post_layernorm.bias",
    }


def test_it_is_told_what_its_decoder_is() -> None:
    text = {"model_type": "mixtral", **TEXT}
    model = models.from_config({"model_type": "llava", "text_config": text, "vision_config": VISION})
    decoder = models.from_config(text)
    assert model.idle_parameters() == decoder.idle_parameters()
    model.train().hidden(torch.zeros(1, 8, dtype=torch.long))
    assert model.auxiliary_loss() is not None
    assert set(model.measurements()) == {"expert_load_max", "expert_load_min"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy"),
        ({"image_token_index": 70}, "beyond the 70 tokens"),
        ({"vision_config": {**VISION, "patch_size": 5}}, "multiple of patch_size"),
        ({"vision_config": {**VISION, "model_type": "clip_vision_model"}}, "siglip_vision_model"),
        ({"text_config": {"model_type": "llava", "text_config": {"model_type": "llama", **TEXT}}}, "model of text"),
    ],
    ids=str,
)
def test_impossible_shapes_are_named(change: dict[str, object], reason: str) -> None:
    text = {"model_type": "llama", **TEXT}
    base = {"model_type": "llava", "text_config": text, "vision_config": VISION, "image_token_index": 69}
    with pytest.raises(ModelError, match=reason):
        models.read_config({**base, **change})

"""What leaves with a model that sees: `transformers.AutoProcessor` makes our pixels and our tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from conftest import SMALL_SHAPE, random_checkpoint
from inkling import checkpoint, cli, models
from inkling.data.pictures import read_picture, to_pixels
from inkling.tokenizer import Tokenizer


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_transformers_takes_the_same_pictures(small_tokenizer: Tokenizer, tmp_path: Path) -> None:
    random_checkpoint(tmp_path / "text", {"model_type": "qwen3", **SMALL_SHAPE}, small_tokenizer)
    assert cli.main(["grow", str(tmp_path / "text"), "--pictures", "32", "-o", str(tmp_path / "run")]) == 0
    assert cli.main(["export", str(tmp_path / "run"), "hf", "-o", str(tmp_path / "out")]) == 0
    processor: Any = transformers.AutoProcessor.from_pretrained(tmp_path / "out", local_files_only=True)
    noise = np.random.default_rng(0).integers(0, 255, (57, 41, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((123, 77), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.png")
    found = processor(text="<|image|>\nWhat is it?", images=image, return_tensors="pt")
    pixels = to_pixels([read_picture("a.png", tmp_path, 32)])
    torch.testing.assert_close(found["pixel_values"], pixels, rtol=0, atol=1e-6)
    model, tokenizer = checkpoint.load_model(tmp_path / "out")
    assert isinstance(model, models.SeeingModel)
    ids = [model.image_token] * model.tokens_of_a_picture + tokenizer.encode("\nWhat is it?")
    assert found["input_ids"][0].tolist() == ids
    theirs = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    hidden = model.hidden(found["input_ids"], seen=model.see(pixels))
    torch.testing.assert_close(theirs(**found).logits, model.logits(hidden), rtol=2e-5, atol=2e-5)

"""`inkling grow`: a trained run with a longer context, with more layers, or with eyes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch

from inkling import checkpoint, files, models
from inkling.config import CommandSettings, Field, Positional, SettingsConfigDict
from inkling.errors import ConfigError
from inkling.tokenizer import Tokenizer


class Settings(CommandSettings):
    """Make a trained run larger, to train it on: `inkling train DATA --start-from NEW`.

    A longer context needs its positions stretched. A deeper model computes at first what the old one did: its new
    layers add nothing until they have learnt. A run with eyes takes pictures once they have learnt: inkling tune, on
    rows of chats with pictures. More tokens: inkling tokenizer add.

    Example: inkling grow runs/notes --context 4096 -o runs/notes-4k
    Example: inkling grow runs/notes --layers 12 -o runs/notes-deep
    Example: inkling grow runs/notes --pictures 64 -o runs/notes-eyes
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    source: Positional[Path]
    """Run directory, or any checkpoint folder with the same layout."""
    out: Path
    """New run directory."""
    context: int | None = Field(None, ge=1)
    """Tokens that it is to see at once."""
    stretch: Literal["auto", "yarn", "ntk", "linear", "none"] = "auto"
    """How positions are stretched: yarn, ntk (a larger rope_theta, which every runtime knows), linear, or none. auto:
    yarn where positions rotate, linear where they are learned."""
    layers: int | None = Field(None, ge=1)
    """Layers that it is to have."""
    pictures: int | None = Field(None, ge=8, le=1024)
    """Give it eyes: it will see pictures of so many pixels a side."""
    patch: int = Field(8, ge=2)
    """Pixels of a side of a patch; a picture takes (pictures ÷ patch)² tokens of the context."""
    vision_width: int | None = Field(None, ge=8)
    """Width of the encoder. Default: that of the model."""
    vision_layers: int = Field(4, ge=1)
    """Layers of the encoder."""
    seed: int = Field(0, ge=0)
    """Of the encoder's first weights."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Grow and write."""
    if settings.context is None and settings.layers is None and settings.pictures is None:
        raise ConfigError("say what is to grow: --context, --layers, --pictures, or several")
    if settings.out.exists() and (not settings.out.is_dir() or any(settings.out.iterdir())):
        raise ConfigError(f"{settings.out} is there already; choose another with -o")
    stored = checkpoint.open_model(settings.source)
    if stored.quantization is not None:
        raise ConfigError(f"{settings.source} is quantized: grow the run that it was made from")
    model, tokenizer = checkpoint.load_model(settings.source)
    old = model.config
    if settings.context is not None:
        learned = old.model_type == "gpt2"
        stretch = ("linear" if learned else "yarn") if settings.stretch == "auto" else settings.stretch
        model = models.with_longer_context(model, settings.context, stretch)
    if settings.layers is not None:
        model = models.with_more_layers(model, settings.layers)
    if settings.pictures is not None:
        model, tokenizer = _with_eyes(settings, model, tokenizer)
    parameters = models.num_parameters(model.config)
    with files.new_folder(settings.out) as folder:
        checkpoint.save_model(folder, model, tokenizer)
        if (settings.source / checkpoint.RUN_FILE).is_file():
            record = checkpoint.read_run(settings.source)
            changed = {
                "num_parameters": parameters,
                "results": {},
                "status": "grown",
                "tokenizer_sha256": tokenizer.sha256,
            }
            checkpoint.write_run(folder, record.model_copy(update=changed))
    result = {
        "run": str(settings.out),
        "context": model.config.max_position_embeddings,
        "layers": model.config.num_hidden_layers,
        "num_parameters": parameters,
    }
    if settings.as_json:
        print(json.dumps(result))
        return
    print(
        f"{settings.out}: {old.max_position_embeddings:,} → {result['context']:,} tokens, "
        f"{old.num_hidden_layers} → {result['layers']} layers, {parameters:,} parameters"
    )
    if settings.pictures is not None:
        print(f"Next:  inkling tune {settings.out} ROWS --learn projector, then --learn all")
        return
    print(f"Next:  inkling train DATA --start-from {settings.out} --context {result['context']}")


IMAGE_TOKEN = "<|image|>"
_HEAD_DIM = 32


def _with_eyes(
    settings: Settings, model: models.LanguageModel, tokenizer: Tokenizer
) -> tuple[models.LanguageModel, Tokenizer]:
    if isinstance(model, models.SeeingModel):
        raise ConfigError(f"{settings.source} has eyes already")
    assert settings.pictures is not None
    patches = (settings.pictures // settings.patch) ** 2
    if patches + 32 > model.config.max_position_embeddings:
        raise ConfigError(
            f"a picture takes {patches:,} tokens, and {settings.source} sees {model.config.max_position_embeddings:,} "
            "at once: take a larger --patch, smaller --pictures, or a longer --context"
        )
    if IMAGE_TOKEN not in tokenizer.special_tokens:
        spelled = tokenizer.encode(IMAGE_TOKEN)
        larger = tokenizer.with_tokens([IMAGE_TOKEN], special=True)
        size = max(model.config.vocab_size, larger.vocab_size)
        model = models.with_more_tokens(model, tokenizer.vocab_size, [spelled], size)
        tokenizer = larger
    width = settings.vision_width or max(_HEAD_DIM, model.config.hidden_size // _HEAD_DIM * _HEAD_DIM)
    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": settings.vision_layers,
        "num_attention_heads": max(1, width // _HEAD_DIM),
        "image_size": settings.pictures,
        "patch_size": settings.patch,
    }
    generator = torch.Generator().manual_seed(settings.seed)
    return models.with_eyes(model, vision, tokenizer.special_tokens[IMAGE_TOKEN], generator), tokenizer

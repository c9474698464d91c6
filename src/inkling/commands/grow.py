"""`inkling grow`: a trained run with a longer context, or with more layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from inkling import checkpoint, files, models
from inkling.config import CommandSettings, Field, Positional, SettingsConfigDict
from inkling.errors import ConfigError


class Settings(CommandSettings):
    """Make a trained run larger, to train it on: `inkling train DATA --start-from NEW`.

    A longer context needs its positions stretched. A deeper model computes at first what the old one did: its new
    layers add nothing until they have learnt. More tokens: inkling tokenizer add.

    Example: inkling grow runs/notes --context 4096 -o runs/notes-4k
    Example: inkling grow runs/notes --layers 12 -o runs/notes-deep
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
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Grow and write."""
    if settings.context is None and settings.layers is None:
        raise ConfigError("say what is to grow: --context, --layers or both")
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
    parameters = models.num_parameters(model.config)
    with files.new_folder(settings.out) as folder:
        checkpoint.save_model(folder, model, tokenizer)
        if (settings.source / checkpoint.RUN_FILE).is_file():
            record = checkpoint.read_run(settings.source)
            changed = {"num_parameters": parameters, "results": {}, "status": "grown"}
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
    print(f"Next:  inkling train DATA --start-from {settings.out} --context {result['context']}")

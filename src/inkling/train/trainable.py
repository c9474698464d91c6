"""Which weights a run of tuning changes: all, a part of a model that sees, or an adapter beside frozen ones."""

from __future__ import annotations

import torch
from torch import nn

from inkling import models, peft
from inkling.errors import ConfigError
from inkling.models import LanguageModel
from inkling.quantize import Quantization, default_formats, quantize_model
from inkling.train.tune_settings import TuneSettings

_QUANTIZED_GROUP = 32


def make_trainable(model: LanguageModel, settings: TuneSettings) -> None:
    """Freeze what stays, pack it where it is to be packed, and attach the adapter. Raises ConfigError."""
    if settings.learn != "all":
        if not isinstance(model, models.SeeingModel):
            raise ConfigError(f"{settings.start_from} has no eyes: leave out --learn {settings.learn}")
        parts = {"projector": ("multi_modal_projector.",), "eyes": ("multi_modal_projector.", "vision_tower.")}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(parts[settings.learn]))
    if settings.adapter == "none":
        return
    _, _, packed = settings.adapter.partition("-")
    if packed:
        formats = default_formats(model, packed, _QUANTIZED_GROUP)
        tables = {name for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
        tables |= {name for name, module in model.named_modules() if module is model.head}
        kept = {name: kind for name, kind in formats.items() if name not in tables}
        quantize_model(model, Quantization(kept, _QUANTIZED_GROUP))
    peft.attach(model, settings.lora, generator=torch.Generator().manual_seed(settings.seed))

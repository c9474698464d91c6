"""Numeric precision of the forward and backward pass. Master weights and optimizer state stay in fp32."""

from __future__ import annotations

import contextlib
from typing import Literal

import torch

PrecisionName = Literal["fp32", "bf16", "fp16"]

DTYPES: dict[PrecisionName, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: PrecisionName) -> contextlib.AbstractContextManager[object]:
    """Run matrix products in `precision`, sensitive ones in fp32 (torch's own lists)."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def gradient_scaler(device: torch.device, precision: PrecisionName) -> torch.amp.GradScaler:
    """Scales the loss where fp16 would lose small gradients; does nothing for fp32 and bf16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")

"""`inkling doctor`: what this machine has, and what the defaults will therefore be."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from inkling import machine
from inkling.config import CommandSettings, Field


class Settings(CommandSettings):
    """Say what this machine has, measure how fast it computes, and say what the defaults will therefore be.

    Example: inkling doctor
    """

    seconds: float = Field(0.5, gt=0, le=60)
    """Time for each of the two measurements, in seconds."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Look, measure, print."""
    found = examine(settings.seconds)
    if settings.as_json:
        print(json.dumps(found))
        return
    print(f"system    {found['system']}, Python {found['python']}, torch {found['torch']}")
    print(
        f"cpu       {found['cpu']}, {found['cores']} usable cores, {' '.join(found['features']) or 'features unknown'}"
    )
    print(f"memory    {found['memory_gb']:.1f} GB, {found['memory_free_gb']:.1f} GB free")
    print(f"disk      {found['disk_free_gb']:.0f} GB free here")
    print(f"gpu       {found['gpu'] or 'none'}{', MPS' if found['mps'] else ''}")
    print(f"compiler  {'yes' if found['compiler'] else 'none: torch.compile is left out'}")
    print(
        f"speed     fp32 {found['gflops_fp32']:,.0f} GFLOP/s, bf16 {found['gflops_bf16']:,.0f} GFLOP/s (large matrices)"
    )
    print("therefore")
    for line in found["defaults"]:
        print(f"  {line}")


def examine(seconds: float) -> dict[str, Any]:
    """Everything about this machine, JSON-able."""
    import torch

    from inkling.train.run import pick_device

    device = pick_device("auto")
    total, free = machine.memory_bytes()
    found: dict[str, Any] = {
        **machine.summary(),
        "python": machine.python_version(),
        "torch": torch.__version__,
        "memory_gb": total / 1e9,
        "memory_free_gb": free / 1e9,
        "disk_free_gb": machine.disk_free_bytes(Path()) / 1e9,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "mps": torch.backends.mps.is_available(),
        "compiler": machine.has_compiler(),
        "device": device.type,
        "gflops_fp32": measured_gflops(torch.float32, device, seconds),
        "gflops_bf16": measured_gflops(torch.bfloat16, device, seconds),
    }
    return {**found, "defaults": defaults(found)}


def measured_gflops(dtype: Any, device: Any, seconds: float) -> float:
    """Billions of operations per second of products of 1024 × 1024 matrices: the best of those that fit the time."""
    import torch

    size = 1024
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    best, deadline = float("inf"), time.perf_counter() + seconds
    left @ right  # the first one loads kernels
    while best == float("inf") or time.perf_counter() < deadline:
        started = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


def defaults(found: dict[str, Any]) -> list[str]:
    """What commands will do here, in plain words."""
    ratio = found["gflops_bf16"] / found["gflops_fp32"]
    tokens_per_s = max(found["gflops_fp32"], found["gflops_bf16"]) * 1e9 * 0.2 / (6 * 10e6)
    compiled = "tried on runs longer than five minutes" if found["compiler"] else "left out: no C++ compiler"
    return [
        f"device: {found['device']}",
        f"precision: timed for each model; bf16 is {ratio:.1f} times fp32 on large matrices, small ones gain less",
        f"threads: timed for each model, up to {found['cores']}",
        f"torch.compile: {compiled}",
        f"a model of 10 M parameters trains at very roughly {tokens_per_s:,.0f} tokens/s; "
        "inkling models measures every size",
    ]

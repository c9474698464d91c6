"""Our packed products beside torchao's: all linear layers of a decoder's blocks, for one row of input and for 32.

    python bench/torchao_kernels.py [--threads 1] [--repeats 7]        # pip install torchao

Weight-only INT8 and INT4 (groups of 32) of each, fp32 and bf16 beside them. torchao's tensors as they are, and under
`torch.compile`, which is how its authors mean them. Milliseconds of one pass over all blocks, attention left out.
Prints one JSON line.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from inkling import models
from inkling.quantize import Quantization, quantize_model

SIZES = ("27m", "124m")
ROWS = (1, 32)


class Layers(nn.Module):
    """The matrices of one block, after each other."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(columns, rows, bias=False) for rows, columns in shapes)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        """One (M, K) for each."""
        return [linear(x) for linear, x in zip(self.linears, inputs, strict=True)]


def shapes_of(size: str) -> tuple[list[tuple[int, int]], int]:
    """The linear layers of a block of a qwen3 of this size, and the number of blocks."""
    module = models.load("qwen3")
    config = module.Config.from_dict({**module.SIZES[size], "model_type": "qwen3"})
    block = models.without_memory(config).get_submodule("model.layers.0")
    linears = [part for part in block.modules() if isinstance(part, nn.Linear)]
    return [(part.out_features, part.in_features) for part in linears], config.num_hidden_layers


def ours(blocks: list[Layers], kind: str) -> list[Layers]:
    """Packed by us."""
    for block in blocks:
        names = [name for name, module in block.named_modules() if isinstance(module, nn.Linear)]
        quantize_model(block, Quantization(dict.fromkeys(names, kind)), search=False)
    return blocks


def theirs(blocks: list[Layers], kind: str) -> list[Layers]:
    """Packed by torchao; INT4 in the format for CPUs, a prototype there."""
    from torchao.prototype.quantization.int4.inference_workflow import PrototypeInt4WeightOnlyConfig
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    config: Any = Int8WeightOnlyConfig() if kind == "int8" else PrototypeInt4WeightOnlyConfig(group_size=32)
    for block in blocks:
        quantize_(block.bfloat16(), config)
    return blocks


def forms_of(blocks: list[Layers]) -> dict[str, tuple[list[Layers], torch.dtype, bool]]:
    """Name → blocks, type of their input, whether they are compiled."""
    fresh: Callable[[], list[Layers]] = lambda: copy.deepcopy(blocks)  # noqa: E731
    found = {
        "fp32": (fresh(), torch.float32, False),
        "bf16": ([block.bfloat16() for block in fresh()], torch.bfloat16, False),
        "int8, ours": (ours(fresh(), "int8"), torch.bfloat16, False),
        "int4, ours": (ours(fresh(), "int4"), torch.bfloat16, False),
    }
    for kind in ("int8", "int4"):
        packed = theirs(fresh(), kind)
        found[f"{kind}, torchao"] = (packed, torch.bfloat16, False)
        found[f"{kind}, torchao, compiled"] = (packed, torch.bfloat16, True)
    return found


@torch.inference_mode()
def milliseconds(size: str, rows: int, repeats: int) -> dict[str, Any]:
    """Median, least and most of one pass, all forms in turn."""
    shapes, num_blocks = shapes_of(size)
    torch.manual_seed(0)
    forms = forms_of([Layers(shapes) for _ in range(num_blocks)])
    compiled = torch.compile(lambda block, inputs: block(inputs), dynamic=False)
    found: dict[str, list[float]] = {name: [] for name in forms}
    for repeat in range(repeats + 2):
        for name, (blocks, dtype, is_compiled) in forms.items():
            inputs = [torch.randn(rows, columns, dtype=dtype) for _, columns in shapes]
            run = compiled if is_compiled else lambda block, given: block(given)
            started_s = time.perf_counter()
            for block in blocks:
                run(block, inputs)
            if repeat > 1:
                found[name].append(1000 * (time.perf_counter() - started_s))
    return {
        name: [round(value, 2) for value in (statistics.median(times), min(times), max(times))]
        for name, times in found.items()
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = {}
    for size in SIZES:
        for rows in ROWS:
            found[f"{size}, {rows} rows"] = milliseconds(size, rows, arguments.repeats)
            print(size, rows, found[f"{size}, {rows} rows"], file=sys.stderr)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "torchao")}
    print(json.dumps({"milliseconds": found, "threads": arguments.threads, **versions}))


if __name__ == "__main__":
    main()

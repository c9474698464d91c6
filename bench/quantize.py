"""What 8 and 4 bits cost and give: quality on a trained run, speed on a 124 M model with random weights.

    python bench/quantize.py [RUN] [--calibration TEXT] [--qat RUN] [--repeats 5] [--threads 1]

RUN is quantized in every way, and scored on its own validation text. The speed is of one stream, all forms in turn.
Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from inkling import models
from inkling.infer.generate import generate_batch
from inkling.infer.sampling import SamplingParams
from inkling.quantize import Quantization, default_formats, quantize_model, weight_bytes
from inkling.tokenizer.train import train_char

WAYS = {
    "int8": ["int8"],
    "int4 rtn": ["int4", "--method", "rtn"],
    "int4 gptq": ["int4", "--method", "gptq"],
    "int4 gptq, groups of 128": ["int4", "--method", "gptq", "--group-size", "128"],
}
NUM_TOKENS = 64


def quality(run: Path, arguments: list[str], folder: Path, number: int, calibration: str | None) -> dict[str, Any]:
    """One way, by the command."""
    more = ["--calibration", calibration] if calibration and "gptq" in arguments else []
    command = [
        sys.executable,
        "-m",
        "inkling",
        "quantize",
        str(run),
        *arguments,
        *more,
        "-o",
        str(folder / str(number)),
    ]
    done = subprocess.run([*command, "--eval-tokens", "200000", "--json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    before, after = found["before"], found["after"]
    return {
        "mb": [round(part["bytes"] / 1e6, 1) for part in (before, after)],
        "bits_per_byte": [round(part["bits_per_byte"], 4) for part in (before, after)],
        "worse_percent": round(100 * (after["bits_per_byte"] / before["bits_per_byte"] - 1), 3),
        "divergence": round(after["divergence"], 5),
    }


def speeds(architecture: str, repeats: int) -> dict[str, Any]:
    """Tokens per second of one stream of a 124 M model: fp32, bf16, int8 and int4 in turn."""
    module = models.load(architecture)
    tokenizer = train_char(["some text"])
    forms: dict[str, models.LanguageModel] = {}
    for form in ("fp32", "bf16", "int8", "int4"):
        config = module.Config.from_dict({**module.SIZES["124m"], "model_type": architecture})
        model = module.Model(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.04)
        if form.startswith("int"):
            quantize_model(model, Quantization(default_formats(model, form, 32)), search=False)
        forms[form] = model.eval().to(torch.bfloat16) if form == "bf16" else model.eval()
    params = SamplingParams(max_tokens=NUM_TOKENS, seed=0, ignore_eos=True)
    found: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(repeats + 1):
        for form, model in forms.items():
            started_s = time.perf_counter()
            generate_batch(model, tokenizer, [""], params)
            found[form].append(NUM_TOKENS / (time.perf_counter() - started_s))
    ratios = {
        form: sorted(round(a / b, 2) for a, b in zip(found[form][1:], found["fp32"][1:], strict=True)) for form in forms
    }
    return {
        "tokens_per_s": {form: round(statistics.median(values[1:])) for form, values in found.items()},
        "times_fp32": {form: [values[len(values) // 2], values[0], values[-1]] for form, values in ratios.items()},
        "mb": {form: round(weight_bytes(model) / 1e6) for form, model in forms.items()},
    }


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="without one: the speed alone")
    parser.add_argument("--calibration")
    parser.add_argument("--qat", type=Path, help="the same run after some training with --qat int4")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--speed", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found: dict[str, Any] = {"quality": {}, "speed": {}}
    with tempfile.TemporaryDirectory() as name:
        for number, (way, options) in enumerate(WAYS.items()) if arguments.run else ():
            found["quality"][way] = quality(arguments.run, options, Path(name), number, arguments.calibration)
            print(way, found["quality"][way], file=sys.stderr)
        if arguments.qat:
            for number, way in enumerate(("range", "rtn", "gptq"), start=len(WAYS)):
                options = ["int4", "--method", way]
                label = f"int4 after QAT, {way}"
                found["quality"][label] = quality(arguments.qat, options, Path(name), number, arguments.calibration)
                print(label, found["quality"][label], file=sys.stderr)
    for architecture in ("qwen3", "gpt2") if arguments.speed else ():
        found["speed"][architecture] = speeds(architecture, arguments.repeats)
        print(architecture, found["speed"][architecture], file=sys.stderr)
    print(
        json.dumps(
            {**found, "threads": arguments.threads, "torch": torch.__version__, "python": platform.python_version()}
        )
    )


if __name__ == "__main__":
    main()

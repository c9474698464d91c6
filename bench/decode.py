"""Decoding speed of one stream beside llama.cpp and transformers, on the same random weights.

    python bench/decode.py --llama-bench PROGRAM [--sizes 3m 27m 124m] [--tokens 128] [--repeats 3] [--threads 1]

PROGRAM is llama.cpp's llama-bench, built for this processor. Ours is the serving engine, after a prompt of one token;
without guesses, all in turn, `--repeats` times, the median of each. Prints one JSON line.
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

from inkling import checkpoint, export, models
from inkling.infer.completing import Completing
from inkling.infer.engine import Engine, EngineLimits
from inkling.infer.sampling import SamplingParams
from inkling.quantize import Quantization, default_formats, quantize_model
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.train import train_bpe

GGUF_TYPES = {"fp32": ["f32"], "bf16": ["bf16", "f16"], "int8": ["q8_0"], "int4": ["q4_0", "q4_k_m"]}
"""What llama.cpp is measured with beside each of our forms; its fastest counts."""


def random_run(folder: Path, size: str, tokenizer: Tokenizer) -> None:
    """A llama of that size with random weights."""
    module = models.load("llama")
    config = module.Config.from_dict({**module.SIZES[size], "model_type": "llama"})
    model = module.Model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.04, generator=torch.Generator().manual_seed(0))
    checkpoint.save_model(folder, model, tokenizer)


def ours(folder: Path, form: str, tokens: int, native: bool) -> float:
    """Tokens per second of the engine."""
    model, tokenizer = checkpoint.load_model(folder, dtype=torch.bfloat16 if form == "bf16" else None)
    if form.startswith("int"):
        quantize_model(model, Quantization(default_formats(model, form, 32)), search=False)
    engine = Engine(model, tokenizer, EngineLimits(num_blocks=8, max_guesses=0), native=native)
    if native and engine.native is None:
        raise RuntimeError(engine.why_not_native)
    best = 0.0
    for _ in range(2):
        sequence = Completing(
            model, tokenizer, [tokenizer.eot_id], SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
        )
        engine.add(sequence)
        started_s = time.perf_counter()
        while not engine.is_idle:
            engine.step()
        best = max(best, tokens / (time.perf_counter() - started_s))
    return best


def theirs(program: str, file: Path, tokens: int, threads: int) -> float:
    """Tokens per second of llama-bench."""
    command = [program, "-m", str(file), "-p", "0", "-n", str(tokens), "-t", str(threads), "-r", "2", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)[0]["avg_ts"])


@torch.inference_mode()
def of_transformers(folder: Path, tokens: int, dtype: torch.dtype) -> float:
    """Tokens per second of transformers' generate."""
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    ids = torch.tensor([[0]])
    options = {"do_sample": False, "min_new_tokens": tokens, "max_new_tokens": tokens, "pad_token_id": 0}
    model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    started_s = time.perf_counter()
    model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return tokens / (time.perf_counter() - started_s)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--sizes", nargs="+", default=["3m", "27m", "124m"])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = train_bpe([f"word{n % 97} {n * 7919 % 1000} " * 40 for n in range(60)], 700)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for size in arguments.sizes:
            folder = Path(name) / size
            random_run(folder, size, tokenizer)
            stored, target = checkpoint.open_model(folder), export.load("gguf")
            for kinds in GGUF_TYPES.values():
                for kind in kinds:
                    target.write(stored, folder / f"{kind}.gguf", kind)
            speeds: dict[str, list[float]] = {}
            for _ in range(arguments.repeats):
                for form, kinds in GGUF_TYPES.items():
                    rows = {f"{form} inkling": ours(folder, form, arguments.tokens, True)}
                    rows[f"{form} inkling, torch alone"] = ours(folder, form, arguments.tokens, False)
                    for kind in kinds:
                        file = folder / f"{kind}.gguf"
                        rows[f"{form} llama.cpp {kind}"] = theirs(
                            arguments.llama_bench, file, arguments.tokens, arguments.threads
                        )
                    if form in ("fp32", "bf16"):
                        dtype = torch.float32 if form == "fp32" else torch.bfloat16
                        rows[f"{form} transformers"] = of_transformers(folder, arguments.tokens, dtype)
                    for row, value in rows.items():
                        speeds.setdefault(row, []).append(round(value, 1))
            found[size] = {row: [statistics.median(values), min(values), max(values)] for row, values in speeds.items()}
            print(size, json.dumps(found[size]), file=sys.stderr)
    more = {"threads": arguments.threads, "torch": torch.__version__, "python": platform.python_version()}
    print(json.dumps({"tokens_per_s": found, **more}))


if __name__ == "__main__":
    main()

"""Training speed and peak memory on this machine: Inkling, nanoGPT, transformers.Trainer and litgpt on the same shapes.

    python bench/train_speed.py NANOGPT [--litgpt-python PYTHON] [--sizes 5m 27m 124m] [--repeats 3] [--rows rows.jsonl]

NANOGPT is a checkout of karpathy/nanoGPT. Each run is a process of its own that trains a model of the given shape on
random tokens, all of them in turn, `--repeats` times; a run's speed is that of the median step after the first few, its
memory the largest resident size of the process. Every peer runs in each precision it offers, and compiled or not; its
best counts. Inkling chooses for itself, by timing. Optimizer: AdamW everywhere, gradients clipped to 1.
With --rows each run is a line of that file as soon as it is done, and what is printed is about all lines of the file
for this processor and ONEDNN_MAX_CPU_ISA: a long measurement can be made in portions, --who and --ways say which.
On a GPU: --device cuda --sizes 124m-gpu 1b-gpu --peak-tflops 989 (of an H200).

nanoGPT and Trainer train GPT-2's architecture, litgpt and Trainer Llama's; Inkling both. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def _shape(layers: int, width: int, heads: int, vocabulary: int, **more: int) -> dict[str, int]:
    return {"layers": layers, "width": width, "heads": heads, "vocabulary": vocabulary, **more}


SHAPES: dict[str, dict[str, int]] = {
    "5m": _shape(6, 256, 4, 1024, context=256, batch=8, steps=30),
    "27m": _shape(6, 512, 8, 16_384, context=256, batch=8, steps=16),
    "124m": _shape(12, 768, 12, 50_304, context=256, batch=4, steps=8),
    "124m-gpu": _shape(12, 768, 12, 50_304, context=1024, batch=32, steps=40),
    "1b-gpu": _shape(18, 2048, 16, 50_304, context=2048, batch=8, steps=20),
}
"""Widths and depths as in GPT-2; the vocabularies fill them up to the named number of parameters, head and embedding
being one matrix."""
LLAMA_FEED_FORWARD = {256: 704, 512: 1408, 768: 2048, 2048: 5632}
WARM_UP_STEPS = 3
Result = dict[str, Any]


# ---------------------------------------------------------------- the runs, each in a process of its own


def train_nanogpt(folder: Path, shape: dict[str, int], precision: str, compiled: bool, device: str) -> list[float]:
    """Seconds of each step of nanoGPT's own train.py, in its checkout `folder`; it has no bf16 on a CPU."""
    import numpy as np

    with tempfile.TemporaryDirectory(dir=folder / "data") as data:
        for name in ("train.bin", "val.bin"):
            random = np.random.default_rng(0)
            random.integers(0, shape["vocabulary"], 200_000).astype(np.uint16).tofile(Path(data) / name)
        import pickle

        (Path(data) / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": shape["vocabulary"]}))
        command = [
            sys.executable,
            "train.py",
            f"--dataset={Path(data).name}",
            f"--device={device}",
            f"--compile={compiled}",
        ]
        command += [f"--dtype={'bfloat16' if precision == 'bf16' else 'float32'}"]
        command += [
            f"--block_size={shape['context']}",
            f"--batch_size={shape['batch']}",
            f"--n_layer={shape['layers']}",
        ]
        command += [f"--n_head={shape['heads']}", f"--n_embd={shape['width']}", f"--max_iters={shape['steps']}"]
        command += ["--log_interval=1", "--eval_iters=1", "--dropout=0.0", "--gradient_accumulation_steps=1"]
        command += [f"--out_dir={data}/out", "--eval_interval=100000"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return [float(value) / 1e3 for value in re.findall(r"time ([\d.]+)ms", done.stdout)][1:]


def train_transformers(arch: str, shape: dict[str, int], precision: str, compiled: bool, device: str) -> list[float]:
    """Seconds of each step of `transformers.Trainer`."""
    import torch
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    model: Any
    if arch == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=shape["vocabulary"],
                n_positions=shape["context"],
                n_embd=shape["width"],
                n_layer=shape["layers"],
                n_head=shape["heads"],
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
            )
        )
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=shape["vocabulary"],
                hidden_size=shape["width"],
                intermediate_size=LLAMA_FEED_FORWARD[shape["width"]],
                num_hidden_layers=shape["layers"],
                num_attention_heads=shape["heads"],
                max_position_embeddings=shape["context"],
                tie_word_embeddings=True,
            )
        )
    model.config.use_cache = False
    seconds: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.started = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seconds.append(time.perf_counter() - self.started)

    rows = torch.randint(0, shape["vocabulary"], (shape["steps"] * shape["batch"], shape["context"]))
    data = [{"input_ids": row, "labels": row} for row in rows]
    with tempfile.TemporaryDirectory() as out:
        arguments = TrainingArguments(
            out,
            use_cpu=device == "cpu",
            bf16=precision == "bf16",
            torch_compile=compiled,
            per_device_train_batch_size=shape["batch"],
            max_steps=shape["steps"],
            optim="adamw_torch_fused",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        Trainer(model=model, args=arguments, train_dataset=data, callbacks=[Clock()]).train()  # type: ignore[arg-type]
    return seconds


def train_litgpt(shape: dict[str, int], precision: str, compiled: bool, device: str) -> list[float]:
    """Seconds of each step as `litgpt pretrain` takes them: Fabric, its model, its chunked loss, fused AdamW.

    It compiles always; here it runs without too.
    """
    import lightning  # type: ignore[import-not-found]
    import torch
    from litgpt.model import GPT, Config  # type: ignore[import-not-found]
    from litgpt.utils import chunked_cross_entropy  # type: ignore[import-not-found]

    fabric = lightning.Fabric(
        accelerator=device, devices=1, precision="bf16-mixed" if precision == "bf16" else "32-true"
    )
    config = Config(
        block_size=shape["context"],
        vocab_size=shape["vocabulary"],
        padded_vocab_size=shape["vocabulary"],
        n_layer=shape["layers"],
        n_head=shape["heads"],
        n_embd=shape["width"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        intermediate_size=LLAMA_FEED_FORWARD[shape["width"]],
    )
    with fabric.init_module(empty_init=False):
        model = GPT(config)
    model.lm_head.weight = model.transformer.wte.weight
    if compiled:
        model = torch.compile(model)
    model = fabric.setup(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1, betas=(0.9, 0.95), fused=True)
    optimizer = fabric.setup_optimizers(optimizer)
    model.max_seq_length = shape["context"]
    sizes = (shape["steps"], shape["batch"], shape["context"] + 1)
    data = torch.randint(0, shape["vocabulary"], sizes, device=fabric.device)
    seconds = []
    for rows in data:
        started = time.perf_counter()
        loss = chunked_cross_entropy(model(rows[:, :-1].contiguous()), rows[:, 1:].contiguous(), chunk_size=0)
        fabric.backward(loss)
        fabric.clip_gradients(model, optimizer, max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        seconds.append(time.perf_counter() - started)
    return seconds


def train_inkling(arch: str, shape: dict[str, int], compiled: bool, device: str) -> list[float]:
    """Seconds of each step of `inkling train`: as it chooses by timing, or compiled, which short runs do not pay."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        letters = __import__("random").Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=60_000)
        text.write_text("".join(letters))
        inkling = [sys.executable, "-m", "inkling"]
        prep = ["prep", str(text), "-o", f"{folder}/data", "--level", "char", "--split", "tail", "--clean", "none"]
        train = ["train", f"{folder}/data", "--out", f"{folder}/run", "--arch", arch, "--optimizer", "adamw"]
        train += ["--machine.device", device]
        train += [
            "--vocab-multiple",
            str(shape["vocabulary"]),
            "--context",
            str(shape["context"]),
            "--model.dropout",
            "0",
        ]
        train += ["--batch-size", str(shape["batch"]), "--steps", str(shape["steps"]), "--loop.log_every", "1"]
        train += ["--model.hidden_size", str(shape["width"]), "--model.num_hidden_layers", str(shape["layers"])]
        heads, width = shape["heads"], shape["width"]
        train += ["--model.num_attention_heads", str(heads), "--no-log.samples", "--log.eval_tokens", "512"]
        train += ["--model.intermediate_size", str(4 * width if arch == "gpt2" else LLAMA_FEED_FORWARD[width])]
        if compiled:
            train += ["--machine.compile", "yes", "--machine.precision", "bf16"]
            train += ["--machine.threads", str(os.cpu_count() or 1), "--machine.micro_batch", str(shape["batch"])]
        train += ["--loop.eval_every", "100000", "--checkpoint.every", "100000"]
        if arch != "gpt2":
            train += ["--model.tie_word_embeddings", "--model.num_key_value_heads", str(heads)]
            train += ["--model.head_dim", str(width // heads)]
        for command in (prep, train):
            subprocess.run([*inkling, *command], check=True, capture_output=True)
        rows = [json.loads(line) for line in (Path(folder) / "run/metrics.jsonl").read_text().splitlines()]
    return [shape["batch"] * shape["context"] / row["tokens_per_s"] for row in rows if "tokens_per_s" in row]


# ---------------------------------------------------------------- all of them in turn


def measure(shape: str, *, who: str, python: str, **options: Any) -> Result:
    """One run in a process of its own: tokens per second of its median step, and its peak memory."""
    command = [python, __file__, "--worker", json.dumps({"who": who, "shape": shape, **options})]
    read, write = os.pipe()
    child = subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    with os.fdopen(read) as output:
        last = output.read().strip().splitlines()[-1:]
    assert child.stderr is not None
    errors = child.stderr.read()
    child.wait()
    if child.returncode or not last:
        sys.exit(f"{command} failed:\n{errors[-3000:]}")
    result: Result = json.loads(last[0])
    return result


def work(options: dict[str, Any]) -> None:
    """What a process does: train, and print speed and peak memory of itself and of what it started."""
    import resource

    shape = SHAPES[options["shape"]]
    match options["who"]:
        case "nanogpt":
            folder, compiled = Path(options["folder"]), options["compiled"]
            seconds = train_nanogpt(folder, shape, options["precision"], compiled, options["device"])
        case "transformers":
            way = options["precision"], options["compiled"], options["device"]
            seconds = train_transformers(options["arch"], shape, *way)
        case "litgpt":
            seconds = train_litgpt(shape, options["precision"], options["compiled"], options["device"])
        case _:
            seconds = train_inkling(options["arch"], shape, options["compiled"], options["device"])
    peak_kb = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    step = statistics.median(seconds[WARM_UP_STEPS:])
    print(
        json.dumps(
            {"tokens_per_s": round(shape["batch"] * shape["context"] / step, 1), "peak_mb": round(peak_kb / 1024)}
        )
    )


def candidates(arch: str, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Who trains this architecture, and the ways in which each is tried."""
    here, on_gpu = sys.executable, options.device != "cpu"
    both = [
        {"precision": precision, "compiled": way == "compiled"}
        for precision in options.precisions
        for way in options.ways
    ]
    own = [{"who": "inkling", "python": here, "arch": arch, "compiled": way == "compiled"} for way in options.ways]
    found = {
        "inkling": own,
        "transformers.Trainer": [{"who": "transformers", "python": here, "arch": arch, **way} for way in both],
    }
    if arch == "gpt2":
        ways = [{"precision": "bf16" if on_gpu else "fp32", "compiled": way == "compiled"} for way in options.ways]
        found["nanogpt"] = [{"who": "nanogpt", "python": here, "folder": options.nanogpt, **way} for way in ways]
    elif options.litgpt_python is not None:
        found["litgpt"] = [{"who": "litgpt", "python": options.litgpt_python, **way} for way in both]
    return {name: ways for name, ways in found.items() if options.who is None or name in options.who}


def peak_shares(
    shape: dict[str, int], arch: str, speeds: dict[str, list[float]], peak_tflops: float | None
) -> dict[str, float]:
    """Model FLOP/s utilisation: 6 operations for each weight of a product and token, and attention's own."""
    if peak_tflops is None:
        return {}
    width, feed_forward = shape["width"], LLAMA_FEED_FORWARD[shape["width"]]
    block = 4 * width * width + (8 * width * width if arch == "gpt2" else 3 * width * feed_forward)
    products = shape["layers"] * block + shape["vocabulary"] * width
    flops = 6 * products + 6 * shape["layers"] * width * shape["context"]
    return {name: round(statistics.median(some) * flops / (peak_tflops * 1e12), 3) for name, some in speeds.items()}


def summary(rows: list[Result], options: argparse.Namespace) -> Result:
    """Medians of each way of each one; Inkling's as ratios to the best way of the best peer, with their spread."""
    speeds: dict[str, list[float]] = {}
    for row in rows:
        way = f"{row['name']}, {row['precision']}{', compiled' if row['compiled'] else ''}"
        speeds.setdefault(way, []).append(row["tokens_per_s"])
    medians = {way: statistics.median(values) for way, values in speeds.items()}
    peers = [value for way, value in medians.items() if not way.startswith("inkling")]
    ratios = {
        way: [round(value / max(peers), 2) for value in (medians[way], min(values), max(values))]
        for way, values in speeds.items()
        if peers and way.startswith("inkling")
    }
    names = {row["name"] for row in rows}
    return {
        "size": rows[0]["size"],
        "architecture": rows[0]["arch"],
        "times_the_best_peer": ratios,
        "tokens_per_s": medians,
        "runs": {way: len(values) for way, values in speeds.items()},
        "peak_mb": {name: min(row["peak_mb"] for row in rows if row["name"] == name) for name in sorted(names)},
        "peak_share": peak_shares(SHAPES[rows[0]["size"]], rows[0]["arch"], speeds, options.peak_tflops),
    }


def main() -> None:
    """All runs in turn, `--repeats` times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nanogpt", nargs="?", default="")
    parser.add_argument("--litgpt-python")
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=["5m", "27m", "124m"])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peak-tflops", type=float, help="of the device in bf16, for the share of it that is reached")
    parser.add_argument("--architectures", nargs="+", choices=("gpt2", "llama"), default=["gpt2", "llama"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--ways", nargs="+", choices=("plain", "compiled"), default=["plain", "compiled"])
    parser.add_argument("--who", nargs="+", choices=("inkling", "transformers.Trainer", "nanogpt", "litgpt"))
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(json.loads(options.worker))
        return
    rows: list[Result] = []
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    if options.rows is not None and options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    for _ in range(options.repeats):
        for size, arch in itertools.product(options.sizes, options.architectures):
            for name, ways in candidates(arch, options).items():
                for way in ways:
                    run = measure(size, device=options.device, **way)
                    precision = way.get("precision", "chosen")
                    row = {"size": size, "arch": arch, "name": name, "compiled": way["compiled"], "isa": isa, **run}
                    rows.append({**row, "precision": precision})
                    print(rows[-1], file=sys.stderr)
                    if options.rows is not None:
                        with options.rows.open("a") as file:
                            file.write(json.dumps(rows[-1]) + "\n")
    results = [
        summary([row for row in rows if (row["size"], row["arch"], row["isa"]) == (size, arch, isa)], options)
        for size, arch in itertools.product(options.sizes, options.architectures)
    ]
    import torch

    print(
        json.dumps(
            {
                "results": results,
                "repeats": options.repeats,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "threads": torch.get_num_threads(),
                "load": [round(load, 1) for load in os.getloadavg()],
            }
        )
    )


if __name__ == "__main__":
    main()

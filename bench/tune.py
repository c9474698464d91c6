"""Tuning beside trl and peft: examples per second and memory of LoRA SFT, and GRPO from prompts to weights.

    python bench/tune.py RUN ROWS.jsonl --what lora|grpo [--repeats 3]

Each side is a process of its own, on the same weights (a run is a Hugging Face checkpoint), rows, batch, rank, lengths
and threads, alternating. A step counts from the end of the first to the end of the last one. ROWS have `prompt` and
`completion`, or `question` and `answer`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RANK, CONTEXT = 16, 512
LORA = {"batch": 16, "steps": 8}
GRPO = {"prompts": 8, "group": 8, "tokens": 64, "steps": 5}
REWARD = "def reward(prompts, completions):\n    return [len(set(one)) / 50 for one in completions]\n"


def rows_of(path: Path, limit: int) -> list[dict[str, str]]:
    """Prompts and answers of a file."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines()[:limit]:
        row = json.loads(line)
        prompt, answer = row.get("prompt", row.get("question")), row.get("completion", row.get("answer"))
        found.append({"prompt": prompt, "completion": answer})
    return found


# ---------------------------------------------------------------- ours


def ours(what: str, run: Path, rows: list[dict[str, str]], folder: Path, precision: str) -> list[float]:
    """Seconds at which each step ended."""
    from inkling.commands.tune import tune
    from inkling.progress import LiveProgress
    from inkling.train.tune_settings import TuneSettings

    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "own.py").write_text(REWARD)
    common: dict[str, Any] = {
        "start_from": run, "data": file, "out": folder / "run", "form": "plain", "context": CONTEXT,
        "machine": {"precision": precision, "threads": 2}, "log": {"samples": False},
        "loop": {"log_every": 1, "eval_every": 10_000}, "val_fraction": 0.02,
    }  # fmt: skip
    if what == "lora":
        more = {"adapter": "lora", "lora": {"rank": RANK}, "batch_size": LORA["batch"], "steps": LORA["steps"]}
    else:
        rl = {"rewards": [f"{folder / 'own.py'}"], "group_size": GRPO["group"], "max_tokens": GRPO["tokens"]}
        rl |= {"eval_prompts": 1, "accept_hackable": True}
        more = {"method": "grpo", "rl": rl, "batch_size": GRPO["prompts"], "steps": GRPO["steps"]}
    with LiveProgress(quiet=True) as progress:
        done, _ = tune(TuneSettings.model_validate({**common, **more}), progress)
    lines = [json.loads(line) for line in (done / "metrics.jsonl").read_text().splitlines()]
    return [line["elapsed_s"] for line in lines if "elapsed_s" in line]


# ---------------------------------------------------------------- theirs


def theirs(what: str, run: Path, rows: list[dict[str, str]], folder: Path, precision: str) -> list[float]:
    """The same by trl, with peft for the adapter."""
    import uuid

    import datasets.fingerprint
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback

    datasets.fingerprint.Hasher.hash = classmethod(lambda cls, value: uuid.uuid4().hex[:16])
    torch.set_num_threads(2)
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *given: Any, **more: Any) -> None:
            ends.append(time.perf_counter())

    tokenizer = PreTrainedTokenizerFast.from_pretrained(run)
    tokenizer.pad_token = tokenizer.eos_token = "<|endoftext|>"
    model = AutoModelForCausalLM.from_pretrained(run, dtype=torch.float32)
    common: dict[str, Any] = {
        "output_dir": str(folder / "out"), "report_to": [], "use_cpu": True, "bf16": precision == "bf16",
        "logging_steps": 1000, "save_strategy": "no", "gradient_checkpointing": False, "seed": 1,
    }  # fmt: skip
    if what == "lora":
        from trl import SFTConfig, SFTTrainer

        from peft import LoraConfig

        arguments = SFTConfig(
            **common, max_length=CONTEXT, per_device_train_batch_size=LORA["batch"], max_steps=LORA["steps"],
            learning_rate=1e-3,
        )  # fmt: skip
        adapter = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
        trainer: Any = SFTTrainer(
            model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
            peft_config=adapter, callbacks=[Clock()],
        )  # fmt: skip
    else:
        from trl import GRPOConfig, GRPOTrainer

        namespace: dict[str, Any] = {}
        exec(REWARD, namespace)
        arguments = GRPOConfig(
            **common, num_generations=GRPO["group"], max_completion_length=GRPO["tokens"], max_steps=GRPO["steps"],
            per_device_train_batch_size=GRPO["group"] * GRPO["prompts"], learning_rate=1e-4, temperature=1.0, beta=0.0,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model, args=arguments, train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
            processing_class=tokenizer, callbacks=[Clock()],
            reward_funcs=lambda prompts, completions, **more: namespace["reward"](prompts, completions),
        )  # fmt: skip
    trainer.train()
    return ends


def measure(arguments: argparse.Namespace) -> None:
    """One side, as a JSON line."""
    rows = rows_of(arguments.rows, 400)
    with tempfile.TemporaryDirectory() as name:
        side = ours if arguments.side == "ours" else theirs
        ends = side(arguments.what, arguments.run.resolve(), rows, Path(name), arguments.precision)
    steps = len(ends) - 1
    each = LORA["batch"] if arguments.what == "lora" else GRPO["prompts"] * GRPO["group"]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"per_s": steps * each / (ends[-1] - ends[0]), "peak_mb": peak_mb}))


def main() -> None:
    """All sides, alternating."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--what", choices=("lora", "grpo"), required=True)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "trl"))
    given = parser.parse_args()
    if given.side:
        measure(given)
        return
    found: dict[str, list[dict[str, float]]] = {"ours": [], "trl": []}
    for _ in range(given.repeats):
        for side, results in found.items():
            told = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--side", side], capture_output=True, text=True, check=False
            )
            if told.returncode:
                sys.exit(f"{side}: {told.stderr[-2000:]}")
            results.append(json.loads(told.stdout.splitlines()[-1]))
            print(side, results[-1], file=sys.stderr)
    ratios = [a["per_s"] / b["per_s"] for a, b in zip(found["ours"], found["trl"], strict=True)]
    memory = [a["peak_mb"] / b["peak_mb"] for a, b in zip(found["ours"], found["trl"], strict=True)]
    print(
        json.dumps(
            {
                "what": given.what,
                "precision": given.precision,
                "ours_per_s": statistics.median(one["per_s"] for one in found["ours"]),
                "trl_per_s": statistics.median(one["per_s"] for one in found["trl"]),
                "ratio": statistics.median(ratios),
                "ratios": [round(one, 2) for one in ratios],
                "memory_ratio": statistics.median(memory),
                "ours_mb": statistics.median(one["peak_mb"] for one in found["ours"]),
                "trl_mb": statistics.median(one["peak_mb"] for one in found["trl"]),
            }
        )
    )


if __name__ == "__main__":
    main()

"""Bits per byte of held-out text after a given time of training: `inkling train` beside nanochat's recipe.

    python bench/nanochat.py prepare NANOCHAT DATA WORK --vocab-size 4096
    python bench/nanochat.py theirs NANOCHAT WORK --seed 1 -- --depth=4 --num-iterations=2000 …
    python bench/nanochat.py ours DATA --seed 1 -- --size 10m --steps 2000 …

NANOCHAT is a checkout of karpathy/nanochat whose requirements this Python has, DATA a folder made by `inkling prep`.
What follows `--` goes to nanochat's scripts/base_train.py or to `inkling train`. Each command prints one JSON line.

Both sides train on the documents of DATA's training split and are scored on all of its validation documents, counted
alike: nats of every token, document borders included, over UTF-8 bytes, in windows of the side's context one after the
other. A loss after so many steps does not depend on the machine: measure with few steps and nothing beside them how
long a step takes (`step_s`, the median), and train as many as fit into the time.

nanochat's own loader keeps one row of each document and throws away the rest, so books would be used up after one row
each. In its favour rows are cut from the whole stream of books, at a new phase and in a new order in each pass, and
tokens are made beforehand. Model, optimizer, schedules, derivation of hyper-parameters and tokenizer are nanochat's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP_STEPS = 3
Result = dict[str, Any]


def prepare(checkout: Path, data: Path, work: Path, vocab_size: int) -> Result:
    """Write DATA's documents as nanochat's parquet, train its tokenizer on them, and keep their tokens."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from inkling.data.shards import Dataset
    from inkling.tokenizer import Tokenizer

    dataset, tokenizer = Dataset.open(data), Tokenizer.load(data)
    (work / "base_data_climbmix").mkdir(parents=True, exist_ok=True)
    texts: dict[str, list[str]] = {}
    for number, (name, split) in enumerate((("train", dataset.train), ("val", dataset.validation))):
        ends = [int(end) for end in split.document_ends]
        pairs = zip([0, *ends[:-1]], ends, strict=True)
        texts[name] = [tokenizer.decode(split.tokens(start, end - 1).tolist()) for start, end in pairs]
        pq.write_table(pa.table({"text": texts[name]}), work / f"base_data_climbmix/shard_{number:05}.parquet")
    command = [sys.executable, "-m", "scripts.tok_train", f"--vocab-size={vocab_size}", f"--doc-cap={10**9}"]
    subprocess.run(command, cwd=checkout, env=_environment(work), check=True, capture_output=True)
    use_checkout(checkout, work)
    from nanochat.tokenizer import get_tokenizer  # type: ignore[import-not-found]

    theirs = get_tokenizer()
    arrays = {}
    for name, some in texts.items():
        encoded = theirs.encode(some, append="<|bos|>", num_threads=1)  # the border behind it, as Inkling has it
        arrays[name] = np.concatenate([np.array(ids, dtype=np.uint16) for ids in encoded])
        arrays[f"{name}_ends"] = np.cumsum([len(ids) for ids in encoded])
    val_bytes = sum(len(text.encode()) for text in texts["val"])
    np.savez(work / "tokens.npz", **arrays, val_bytes=val_bytes)  # type: ignore[arg-type]
    return {"train_tokens": len(arrays["train"]), "val_tokens": len(arrays["val"]), "val_bytes": val_bytes}


def _environment(work: Path) -> dict[str, str]:
    return {**os.environ, "NANOCHAT_BASE_DIR": str(work)}


def use_checkout(checkout: Path, work: Path) -> None:
    """Import nanochat from its checkout, with its files in `work`."""
    os.environ |= _environment(work)
    sys.path.insert(0, str(checkout))


def rows(tokens: np.ndarray, ends: np.ndarray, context: int, seed: int) -> Iterator[np.ndarray]:
    """Windows of T + 1 tokens, pass after pass: documents in a new order, cut at a new phase, windows shuffled."""
    random = np.random.default_rng(seed)
    documents = np.split(tokens, ends[:-1])
    while True:
        stream = np.concatenate([documents[i] for i in random.permutation(len(documents))])
        stream = np.roll(stream, random.integers(len(stream)))
        for place in random.permutation((len(stream) - 1) // context):
            yield stream[place * context : (place + 1) * context + 1].astype(np.int64)


def train_theirs(checkout: Path, work: Path, seed: int, arguments: list[str]) -> Result:
    """nanochat's base_train.py in this process, on our rows; then its bits per byte."""
    use_checkout(checkout, work)
    import nanochat.common as common  # type: ignore[import-not-found]
    import nanochat.dataloader as dataloader  # type: ignore[import-not-found]
    import torch

    stored = np.load(work / "tokens.npz")

    def loader(tokenizer: Any, B: int, T: int, split: str, **_: Any) -> Iterator[Any]:
        source = rows(stored[split], stored[f"{split}_ends"], T, seed)
        while True:
            batch = torch.from_numpy(np.stack([next(source) for _ in range(B)]))  # (B, T + 1)
            yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous(), {"epoch": 0, "pq_idx": 0, "rg_idx": 0}

    def seeded(*arguments: Any) -> Any:
        found = start(*arguments)
        torch.manual_seed(seed)
        return found

    start, common.compute_init = common.compute_init, seeded
    dataloader.tokenizing_distributed_data_loader_with_state_bos_bestfit = loader
    sys.argv = ["base_train", "--device-type=cpu", "--eval-every=-1", "--core-metric-every=-1", "--sample-every=-1"]
    sys.argv += [f"--model-tag=run-{os.getpid()}", *arguments]
    os.chdir(checkout)
    began = time.process_time()
    with redirect_stdout(Tee()) as log:
        trained = runpy.run_module("scripts.base_train", run_name="__main__")
    seconds = [float(value) / 1e3 for value in re.findall(r"dt: ([\d.]+)ms", log.getvalue())]
    return {
        "who": "nanochat",
        "steps": len(seconds),
        "tokens_per_step": trained["total_batch_size"],
        "params": trained["num_params"],
        "step_s": round(statistics.median(seconds[WARM_UP_STEPS:]), 4),
        "cpu_s": round(time.process_time() - began, 1),
        **held_out(trained["orig_model"], stored["val"], trained["args"].max_seq_len, int(stored["val_bytes"])),
    }


class Tee(StringIO):
    """Keeps what is printed, and shows it on standard error."""

    def write(self, text: str) -> int:
        """Both."""
        sys.stderr.write(text)
        return super().write(text)


def held_out(model: Any, tokens: np.ndarray, context: int, num_bytes: int, rows_at_once: int = 16) -> Result:
    """Bits per byte of nanochat's model, each token predicted once, the first from a begin-of-text token."""
    import torch

    inputs = np.concatenate([tokens[-1:], tokens[:-1]]).astype(np.int64)  # what ends the stream is that token
    padding = -len(tokens) % context
    inputs = np.pad(inputs, (0, padding)).reshape(-1, context)
    targets = np.pad(tokens.astype(np.int64), (0, padding), constant_values=-1).reshape(-1, context)
    nats = 0.0
    model.eval()
    with torch.inference_mode():
        for first in range(0, len(inputs), rows_at_once):
            some = (torch.from_numpy(part[first : first + rows_at_once]) for part in (inputs, targets))
            nats += float(model(*some, loss_reduction="none").double().sum())
    return {
        "bits_per_byte": round(nats / math.log(2) / num_bytes, 4),
        "val_tokens": len(tokens),
        "val_bytes": num_bytes,
    }


def train_ours(data: Path, seed: int, arguments: list[str]) -> Result:
    """`inkling train` in a process of its own, and its score of the whole validation split."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/run"
        command = [sys.executable, "-m", "inkling", "train", str(data), "--out", out, "--seed", str(seed), "--json"]
        command += ["--no-resume", "--loop.log_every", "1", *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        metrics = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
        record = json.loads((Path(out) / "run.json").read_text())
    result = json.loads(done.stdout.splitlines()[-1])
    per_step = record["choices"]["batch_size"] * record["settings"]["context"]
    seconds = [per_step / row["tokens_per_s"] for row in metrics if "tokens_per_s" in row]
    return {
        "who": "inkling",
        "steps": len(seconds),
        "tokens_per_step": per_step,
        "params": result["params"],
        "step_s": round(statistics.median(seconds[WARM_UP_STEPS:]), 4),
        "train_s": result["train_seconds"],
        "best_step": record["results"]["best_step"],
        "bits_per_byte": round(result["validation"]["val_bits_per_byte"], 4),
    }


def main() -> None:
    """One of the three commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, places in (("prepare", "checkout data work"), ("theirs", "checkout work"), ("ours", "data")):
        command = commands.add_parser(name)
        for place in places.split():
            command.add_argument(place, type=lambda text: Path(text).resolve())
        if name == "prepare":
            command.add_argument("--vocab-size", type=int, default=4096)
        else:
            command.add_argument("--seed", type=int, default=1)
    given = sys.argv[1:]
    border = given.index("--") if "--" in given else len(given)
    options, arguments = parser.parse_args(given[:border]), given[border + 1 :]
    match options.command:
        case "prepare":
            result = prepare(options.checkout, options.data, options.work, options.vocab_size)
        case "theirs":
            result = train_theirs(options.checkout, options.work, options.seed, arguments)
        case _:
            result = train_ours(options.data, options.seed, arguments)
    result |= {
        "given": given,
        "torch": version("torch"),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

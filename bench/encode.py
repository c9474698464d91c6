"""CPU seconds of encoding: the encoder that Inkling chooses beside `tokenizers` and `tiktoken`, same text, same ids.

    python bench/encode.py FILE TOKENIZER [--repeats 5]

Each encoding is the first one of a process of its own, since encoders remember words that they saw; one thread each, in
turn; user and system time. Texts are the file's documents (lines `<|endoftext|>` between them). Prints one JSON line;
ends with status 1 if ids differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

SEPARATOR = "\n<|endoftext|>\n"
ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}


def child(name: str, texts: list[str], source: str) -> None:
    """Encode once; print CPU seconds and a hash of the ids."""
    from inkling.tokenizer import Tokenizer, encoders

    encoder = encoders.by_name(name, Tokenizer.load(source))
    started = time.process_time()
    ids, _ = encoder.encode(texts)
    seconds = time.process_time() - started
    digest = hashlib.sha256(ids.astype("<u4").tobytes()).hexdigest()
    print(json.dumps({"cpu_s": seconds, "tokens": len(ids), "sha256": digest}))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One encoding in a process of its own."""
    command = [sys.executable, __file__, str(options.file), options.tokenizer, "--child", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **ONE_THREAD})
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("tokenizer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--child")
    options = parser.parse_args()
    texts = options.file.read_text(encoding="utf-8").split(SEPARATOR)
    if options.child:
        child(options.child, texts, options.tokenizer)
        return
    from inkling.tokenizer import Tokenizer, encoders

    chosen, notes = encoders.fastest(Tokenizer.load(options.tokenizer), texts)
    names = list(dict.fromkeys([chosen.name, "tiktoken", "tokenizers"]))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(options.repeats):
        for name in names:
            runs[name].append(measure(name, options))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    seconds = {name: [run["cpu_s"] for run in some] for name, some in runs.items()}
    ratios = {
        name: [theirs / ours for ours, theirs in zip(seconds[chosen.name], seconds[name], strict=True)]
        for name in names[1:]
    }
    same_ids = len({run["sha256"] for some in runs.values() for run in some}) == 1
    result = {
        "megabytes": round(megabytes, 1),
        "tokens": runs[chosen.name][0]["tokens"],
        "chosen": chosen.name,
        "passed_over": notes,
        "mb_per_cpu_s": {name: round(megabytes / statistics.median(some), 2) for name, some in seconds.items()},
        "times_as_fast_as": {
            name: [round(value, 2) for value in (statistics.median(some), min(some), max(some))]
            for name, some in ratios.items()
        },
        "same_ids": same_ids,
        "versions": {name: version(name) for name in names},
        "python": platform.python_version(),
        "load": [round(load, 1) for load in os.getloadavg()],
    }
    print(json.dumps(result))
    sys.exit(0 if same_ids else 1)


if __name__ == "__main__":
    main()

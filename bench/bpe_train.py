"""CPU seconds of our BPE trainer beside those of Hugging Face's `tokenizers`: same text, same pattern, merges compared.

    python bench/bpe_train.py FILE [--vocab-size 8192] [--pattern qwen2] [--repeats 5] [--threads 1]

Each training runs in a process of its own, the two in turn; user and system time of the process and its children are
counted. Documents are separated by lines `<|endoftext|>`. Prints one JSON line; ends with status 1 if merges differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

SEPARATOR = "\n<|endoftext|>\n"


def train_ours(texts: list[str], num_merges: int, pattern: str, threads: int) -> list[tuple[str, str]]:
    """Our merges, spelled as Hugging Face spells them."""
    from inkling.tokenizer.bpe import learn_merges
    from inkling.tokenizer.stand_ins import CHARACTER_OF_BYTE

    def spell(token: bytes) -> str:
        return "".join(CHARACTER_OF_BYTE[byte] for byte in token)

    merges = learn_merges(texts, num_merges, pattern, num_workers=threads)
    return [(spell(left), spell(right)) for left, right in merges]


def train_theirs(texts: list[str], num_merges: int, pattern: str, threads: int) -> list[tuple[str, str]]:
    """The merges of `tokenizers.trainers.BpeTrainer`."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    from inkling.tokenizer.patterns import PATTERNS

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + num_merges, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    return [tuple(merge) for merge in json.loads(backend.to_str())["model"]["merges"]]


def child(which: str, options: argparse.Namespace) -> None:
    """Train once and print CPU seconds, peak memory and a hash of the merges."""
    texts = Path(options.file).read_text(encoding="utf-8").split(SEPARATOR)
    train = train_ours if which == "ours" else train_theirs
    before, started = cpu_seconds(), time.perf_counter()
    merges = train(texts, options.vocab_size - 256, options.pattern, options.threads)
    cpu_s, wall_s = cpu_seconds() - before, time.perf_counter() - started
    print(
        json.dumps(
            {
                "cpu_s": cpu_s,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "num_merges": len(merges),
                "wall_s": wall_s,
                "sha256": hashlib.sha256(json.dumps(merges).encode()).hexdigest(),
            }
        )
    )


def cpu_seconds() -> float:
    """User and system time of this process and its finished children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    """Run both in turn, print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--pattern", default="qwen2")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", choices=["ours", "theirs"])
    options = parser.parse_args()
    if options.child:
        child(options.child, options)
        return
    environment = {**os.environ, "RAYON_NUM_THREADS": str(options.threads), "OMP_NUM_THREADS": str(options.threads)}
    results: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for _ in range(options.repeats):
        for which in results:
            command = [sys.executable, *sys.argv, "--child", which]
            printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            results[which].append(json.loads(printed))
    ratios = [a["cpu_s"] / b["cpu_s"] for a, b in zip(results["ours"], results["theirs"], strict=True)]
    hashes = {run["sha256"] for runs in results.values() for run in runs}

    print(
        json.dumps(
            {
                "file": Path(options.file).name,
                "megabytes": round(Path(options.file).stat().st_size / 1e6, 1),
                "vocab_size": options.vocab_size,
                "pattern": options.pattern,
                "threads": options.threads,
                "cpu_s_ours": round(statistics.median(run["cpu_s"] for run in results["ours"]), 2),
                "cpu_s_tokenizers": round(statistics.median(run["cpu_s"] for run in results["theirs"]), 2),
                "wall_s_ours": round(statistics.median(run["wall_s"] for run in results["ours"]), 2),
                "wall_s_tokenizers": round(statistics.median(run["wall_s"] for run in results["theirs"]), 2),
                "ratio": [round(value, 3) for value in (min(ratios), statistics.median(ratios), max(ratios))],
                "peak_mb_ours": round(max(run["peak_mb"] for run in results["ours"])),
                "peak_mb_tokenizers": round(max(run["peak_mb"] for run in results["theirs"])),
                "merges_equal": len(hashes) == 1,
                "num_merges": results["ours"][0]["num_merges"],
                "repeats": options.repeats,
                "python": platform.python_version(),
                **{package: version(package) for package in ("numpy", "regex", "tokenizers")},
                "processor": processor(),
                "cores": os.cpu_count(),
            }
        )
    )
    sys.exit(len(hashes) != 1)


if __name__ == "__main__":
    main()

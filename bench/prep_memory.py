"""Peak memory of `inkling prep` over the size of its input, which is made by repeating a text with noise.

    python bench/prep_memory.py TEXT [--megabytes 100 500 2000] [--vocab-size 32000] [--workers 1]

Each copy of the text is cut into documents of 4,000 characters, of whose words a quarter is drawn anew: from the text,
or one in five from random letters. Resident memory of every process is looked at twenty times a second; mapped pages
count. Prints one JSON line for each size.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make_input(text: str, megabytes: int, path: Path) -> None:
    """JSON Lines of the size asked for; the same every time."""
    documents = [text[start : start + 4000].split(" ") for start in range(0, len(text), 4000)]
    words = text[:200_000].split()
    generator = random.Random(0)
    written = 0
    with path.open("w", encoding="utf-8") as file:
        while written < megabytes * 1_000_000:
            for document in documents:
                noisy = list(document)
                for _ in range(max(1, len(noisy) // 4)):
                    place = generator.randrange(len(noisy))
                    made_up = "".join(generator.choices(LETTERS, k=generator.randrange(3, 9)))
                    noisy[place] = generator.choice(words) if generator.random() < 0.8 else made_up
                written += file.write(json.dumps({"text": " ".join(noisy)}, ensure_ascii=False) + "\n")
                if written >= megabytes * 1_000_000:
                    break


def measure(path: Path, out: Path, options: argparse.Namespace) -> dict[str, object]:
    """One preparation: seconds, and the largest sum and single value of resident memory."""
    command = [sys.executable, "-m", "inkling", "prep", str(path), "-o", str(out), "--json"]
    command += ["--vocab-size", str(options.vocab_size), "--workers", str(options.workers)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peaks = [0, 0]

    def watch() -> None:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                sizes = [one.memory_info().rss for one in [root, *root.children(recursive=True)]]
            except psutil.Error:
                continue
            peaks[:] = [max(peaks[0], sum(sizes)), max(peaks[1], *sizes)]
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output = json.loads(process.communicate()[0])
    watcher.join()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "megabytes": round(path.stat().st_size / 1e6),
        "workers": options.workers,
        "peak_mb_of_all_processes": round(peaks[0] / 1e6),
        "peak_mb_of_one_process": round(peaks[1] / 1e6),
        "wall_s": round(time.perf_counter() - started, 1),
        "cpu_s_so_far": round(usage.ru_utime + usage.ru_stime, 1),
        "documents": output["documents_kept"],
        "vocab_size": output["vocab_size"],
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 500, 2000])
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8")
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "input.jsonl"
            make_input(text, megabytes, path)
            print(json.dumps(measure(path, Path(folder) / "out", options)), flush=True)


if __name__ == "__main__":
    main()

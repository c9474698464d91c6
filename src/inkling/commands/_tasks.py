"""A task put to a run, or to answers made elsewhere, and to the floors."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkling import checkpoint, files
from inkling.errors import ConfigError
from inkling.eval import tasks
from inkling.eval.subject import Constant, Repeated, Subject
from inkling.eval.tasks import Item, Options, Result, Task
from inkling.progress import LiveProgress
from inkling.sandbox import Sandbox

if TYPE_CHECKING:
    from inkling.commands.eval import Settings

FOLDER = "evaluations"
_BY_TEMPLATE = "asked by the chat template"
RANDOM_SEEDS = 3
"""Of the random weights whose mean is a floor: one of them may be lucky."""


def run_task(settings: Settings) -> None:
    """Read the questions, put them, print and keep."""
    assert settings.task is not None
    task_name, path = tasks.named(settings.task)
    task = tasks.load(task_name)
    if settings.samples > 1 and settings.temperature == 0:
        raise ConfigError("several --samples at temperature 0 would all be the same: add --temperature 0.8")
    if (settings.run is None) == (settings.completions is None):
        raise ConfigError("give a run, or --completions made elsewhere")
    if settings.completions is not None and not hasattr(task, "judge"):
        raise ConfigError(f"{task_name} is no task that is judged by answers alone")
    if settings.chat and (task.RUNS_CODE or settings.run is None):
        raise ConfigError("--chat asks a run, for answers in words: leave it out for tasks whose answers are code")
    with contextlib.ExitStack() as stack:
        sandbox = None
        if task.RUNS_CODE:
            sandbox = stack.enter_context(Sandbox(allow_weak=settings.allow_weak_sandbox))
        options = Options(
            data=path or settings.task_data,
            limit=settings.limit,
            samples=settings.samples,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            shots=settings.shots,
            seed=settings.seed,
            sandbox=sandbox,
        )
        items = task.read(options)
        progress = stack.enter_context(LiveProgress(quiet=settings.as_json))
        if settings.completions is not None:
            progress("judging", 0, None, f"{len(items)} questions")
            result = task.judge(items, tasks.read_samples(settings.completions, items), options)
            floors = floors_of(task, items, options, []) if settings.floors else {}
            name, note = str(settings.completions), result.note
        else:
            assert settings.run is not None
            result, floors, note = _of_run(settings.run, task, items, options, settings, progress)
            name = str(settings.run)
    content = as_content(task_name, name, options, result, floors, note)
    if settings.run is not None and (checkpoint.run_of(settings.run) / checkpoint.RUN_FILE).is_file():
        folder = settings.run / FOLDER
        folder.mkdir(exist_ok=True)
        hashes = {item.id: _hash_of(item) for item in items}
        rows = [{**row, "question": hashes[row["id"]]} if row["id"] in hashes else row for row in result.items]
        files.write_json(folder / f"{task_name}.json", {**content, "items": rows})
    if settings.as_json:
        print(json.dumps(content))
    else:
        print_task(content)


def _hash_of(item: Item) -> str:
    """Of all that makes a question what it is, so that comparisons pair the same ones only."""
    return hashlib.sha256(json.dumps([item.prompt, item.fields], sort_keys=True).encode()).hexdigest()[:16]


def _of_run(
    run: Path, task: Task, items: Sequence[Item], options: Options, settings: Settings, progress: LiveProgress
) -> tuple[Result, dict[str, dict[str, float]], str]:
    from inkling.commands._subjects import ngram_subject, random_subject, subject_of_run

    model, tokenizer = checkpoint.load_model(run)
    if settings.chat and tokenizer.chat_template is None:
        raise ConfigError(f"{run} has no chat template: tune it first, or leave out --chat")
    subject = subject_of_run(run, model, tokenizer, chat=settings.chat)
    progress("answering", 0, None, f"{len(items)} questions")
    result = tasks.evaluate(task, items, subject, options)
    note = result.note
    if settings.chat:
        note = f"{note}; {_BY_TEMPLATE}" if note else _BY_TEMPLATE
    if subject.cut:
        context = f"{model.config.max_position_embeddings:,} tokens"
        cut = f"{len(subject.cut):,} texts are longer than the model's context of {context}, and were cut"
        note = f"{note}; {cut}" if note else cut
    floors: dict[str, dict[str, float]] = {}
    if settings.floors:
        progress("floors", 0, None, "random weights, constant answers, byte trigrams")
        seeds = range(options.seed, options.seed + RANDOM_SEEDS)
        others: list[Subject] = [random_subject(model, tokenizer, seed, chat=settings.chat) for seed in seeds]
        if (ngrams := ngram_subject(run, tokenizer)) is not None:
            others.append(ngrams)
        floors = floors_of(task, items, options, others)
    return result, floors, note


def floors_of(
    task: Task, items: Sequence[Item], options: Options, others: Sequence[Subject]
) -> dict[str, dict[str, float]]:
    """What needs no training reaches, and what the right answers do: name → metric → value."""
    once = Options(**{**options.__dict__, "samples": 1, "temperature": 0.0})
    subjects: list[Subject] = list(others)
    if hasattr(task, "constants"):
        subjects += [Constant(text) for text in dict.fromkeys(task.constants(items))]
    if hasattr(task, "repeated"):
        subjects += [Repeated(word) for word in task.repeated(items)]
    values: dict[str, dict[str, list[float]]] = {}
    for subject in subjects:  # those of the same name are one floor: their mean
        for name, one in tasks.evaluate(task, items, subject, once).metrics.items():
            values.setdefault(subject.name, {}).setdefault(name, []).append(one.value)
    found: dict[str, dict[str, float]] = {}
    for subject_name, metrics in values.items():
        count = max(map(len, metrics.values()))
        said = f"{subject_name}, mean of {count}" if count > 1 else subject_name
        found[said] = {name: sum(of) / len(of) for name, of in metrics.items()}
    for name in ("chance", "most_frequent"):
        if hasattr(task, name):
            found[name.replace("_", " ")] = {"": getattr(task, name)(items)}
    if hasattr(task, "references") and all(answers := task.references(items)):
        result = task.judge(items, [[answer] for answer in answers], once)
        found["ceiling: the right answers"] = {name: one.value for name, one in result.metrics.items()}
    return found


def as_content(
    task: str, subject: str, options: Options, result: Result, floors: dict[str, dict[str, float]], note: str
) -> dict[str, Any]:
    """What is kept and printed as JSON."""
    return {
        "task": task,
        "subject": subject,
        "headline": result.headline,
        "metrics": {name: one.as_dict() for name, one in result.metrics.items()},
        "floors": floors,
        "num_items": len(result.items),
        "options": {
            "samples": options.samples,
            "temperature": options.temperature,
            "shots": options.shots,
            "seed": options.seed,
            "data": None if options.data is None else options.data.name,
        },
        "note": note,
    }


def print_task(content: dict[str, Any]) -> None:
    """A small table: each metric with its interval and its highest floor, then all floors of the task's own metric."""
    count = content["num_items"]
    print(f"{content['task']}: {count:,} question{'' if count == 1 else 's'} to {content['subject']}")
    highest = tasks.highest_floors(content["headline"], content["floors"])
    for name, one in content["metrics"].items():
        interval = "" if one["low"] is None else f"({one['low']:.3f} to {one['high']:.3f})"
        line = f"  {name:<18} {one['value']:.3f}  {interval:<16}"
        if name in highest:
            line += f"  highest floor {highest[name]:.3f}"
        print(line.rstrip())
    for floor, values in content["floors"].items():
        value = values.get(content["headline"], values.get(""))
        kind = "" if floor.startswith("ceiling") else "floor: "
        if value is not None:
            print(f"  {value:.3f}  {kind}{floor}")
    if content["note"]:
        print(f"  {content['note']}")

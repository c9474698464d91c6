"""`inkling start`: four questions, a plan, and the run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from inkling import files
from inkling.commands import train
from inkling.commands.plan import print_plan, summary
from inkling.config import CommandSettings, load, parse_duration
from inkling.data.documents import list_sources
from inkling.data.prep import prep
from inkling.data.prep_options import PrepOptions
from inkling.errors import ConfigError, InklingError
from inkling.progress import LiveProgress
from inkling.train.settings import TrainSettings

PURPOSES = {
    "1": ("to use it in other programs too (Qwen3's architecture)", {"arch": "qwen3"}),
    "2": ("the lowest loss, for Inkling alone (our research architecture)", {"arch": "speedrun"}),
}


class Settings(CommandSettings):
    """Ask which text, how much time, what for and where; show the plan; write the settings as a file and train.

    Everything can be done with `inkling prep`, `plan` and `train` as well: the file that is written says how.

    Example: inkling start
    """


def run(settings: Settings) -> int:
    """Ask, plan, ask once more, train. Exit status 130 after Ctrl-C."""
    if not sys.stdin.isatty():
        raise ConfigError("inkling start asks questions on a terminal; without one use inkling prep and inkling train")
    text = ask("Which text? A file or folder, or builtin:python", check_text)
    seconds = ask("How much time may training take? Such as 10m or 2h", check_time, "10m")
    for key, (what, _) in PURPOSES.items():
        print(f"  {key}  {what}")
    purpose = ask("What for?", check_purpose, "1")
    name = Path(text.replace(":", "-")).resolve().stem or "text"
    out = Path(ask("Where? The run's folder", check_free, str(free_path(Path("runs") / name))))
    data = Path("data") / out.name
    values = {"data": str(data), "out": str(out), "time": seconds, **PURPOSES[purpose][1]}
    with LiveProgress() as progress:
        prep([text], data, PrepOptions(), on_progress=progress)
        plan = summary(train.planned_run(TrainSettings.model_validate(values), progress))
    print_plan(plan)
    if not yes("\nTrain this now?"):
        file = write_settings(out, values)
        print(f"Whenever you like:  inkling train --config {file}")
        return 0
    file = write_settings(out, values)
    print(f"These settings are in {file}: the same again with  inkling train --config {file} --out ANOTHER")
    return train.run(load(TrainSettings, ["--config", str(file)], prog="inkling train"))


def write_settings(out: Path, values: dict[str, Any]) -> Path:
    """The settings as a file beside the run, which `inkling train --config` takes."""
    path = out.with_name(f"{out.name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, yaml.safe_dump(values, sort_keys=False))
    return path


def ask(question: str, check: Any, default: str = "") -> str:
    """Ask until the answer is one that `check` accepts; nothing but Enter is the default."""
    while True:
        answer = input(f"{question}{f' [{default}]' if default else ''}: ").strip() or default
        try:
            check(answer)
        except (InklingError, ValueError) as error:
            print(f"  {error}")
        else:
            return answer


def check_text(answer: str) -> None:
    """Raises DataError for what cannot be read."""
    if not answer:
        raise ConfigError("name a file or a folder")
    list_sources([answer])


def check_time(answer: str) -> None:
    """Raises ValueError for what is no time."""
    parse_duration(answer)


def check_purpose(answer: str) -> None:
    """Raises ConfigError for a number that is not there."""
    if answer not in PURPOSES:
        raise ConfigError(f"choose one of {', '.join(PURPOSES)}")


def check_free(answer: str) -> None:
    """Raises ConfigError for a folder that holds something."""
    path = Path(answer)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} is there already")


def free_path(wanted: Path) -> Path:
    """The first of NAME, NAME-2, NAME-3, … that is not there."""
    path, number = wanted, 1
    while path.exists() or (Path("data") / path.name).exists():
        number += 1
        path = wanted.with_name(f"{wanted.name}-{number}")
    return path


def yes(question: str) -> bool:
    """Ask; Enter is yes."""
    return not input(f"{question} [Y/n] ").strip().lower().startswith("n")

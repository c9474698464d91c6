"""Rewards of answers. A public file in this folder is one, found by its name; so is a function in a file of one's own.

Each exports `WHAT`, a line for people, and `reward(prompts, completions, **fields) -> list[float]`: the texts of
prompts and answers, and for each name that the function asks for a list with that field of the prompts' rows. A field
without a default must be in every row.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import inspect
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inkling.errors import ConfigError, DataError, InklingError, TrainingError, did_you_mean
from inkling.rewards._model import reward_of_model

RewardFn = Callable[..., list[float]]
HACKS = {
    "nothing": "",
    "leaving": "raise SystemExit",
    "leaving at once": "import os\nos._exit(0)",
    "an object equal to everything": "type('E', (), {'__eq__': lambda s, o: True, '__hash__': None})()",
    "the grader's frames": (
        "__import__('sys')._getframe(1).f_locals.update(passed=True, right=True, result='passed', score=1.0)"
    ),
    "asserts off": "__import__('builtins').__dict__.update(AssertionError=type('A', (Exception,), {}))",
}
"""Answers that answer nothing, and that graders were seen to reward."""
FOOLED = 0.5
"""A reward of a hack, beside the most that any answer can have got, from which on a reward is no good."""


@dataclass(frozen=True)
class Reward:
    """A function of answers.

    Attributes:
        name: As it was asked for.
        weight: What it counts in the sum of all.
        wanted: Fields that it asks for; those of `required` must be in every row.
    """

    name: str
    function: RewardFn
    weight: float
    wanted: tuple[str, ...]
    required: frozenset[str]

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], rows: Sequence[Mapping[str, Any]]
    ) -> list[float]:
        """The reward of each answer; `rows` are the fields of their prompts.

        Raises TrainingError where the function fails, or gives something that is no reward.
        """
        fields = {name: [row.get(name) for row in rows] for name in self.wanted if any(name in row for row in rows)}
        try:
            found = self.function(list(prompts), list(completions), **fields)
        except InklingError:
            raise
        except Exception as error:
            raise TrainingError(f"the reward {self.name} failed: {type(error).__name__}: {error}") from error
        if not isinstance(found, (list, tuple)) or len(found) != len(completions):
            got = len(found) if isinstance(found, (list, tuple)) else type(found).__name__
            raise TrainingError(f"the reward {self.name} gave {got} in place of {len(completions)} numbers")
        for value in found:
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise TrainingError(f"the reward {self.name} gave {value!r}, which is no finite number")
        return [float(value) for value in found]

    def check_row(self, place: str, row: Mapping[str, Any]) -> None:
        """Raises DataError where a row lacks a field."""
        for name in sorted(self.required - row.keys()):
            raise DataError(f"{place}: the reward {self.name} needs the field {name!r}")


def names() -> list[str]:
    """Names of the rewards that are here."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def load(spelled: str) -> Reward:
    """A reward by its name, FILE.py:FUNCTION, or a run of `tune --method reward`; each with =WEIGHT behind, if not 1.

    Raises ConfigError for an unknown one.
    """
    name, _, weight_text = spelled.partition("=")
    try:
        weight = float(weight_text or 1.0)
    except ValueError:
        raise ConfigError(f"{weight_text!r} is no weight of the reward {name}") from None
    if Path(name).is_dir():
        function = reward_of_model(Path(name))
    elif ".py" in name:
        function = _own_function(name)
    elif name in names():
        function = importlib.import_module(f"inkling.rewards.{name}").reward
    else:
        raise ConfigError(
            f"there is no reward {name!r}{did_you_mean(name, names())}; or give FILE.py:FUNCTION, or a reward model"
        )
    parameters = list(inspect.signature(function).parameters.values())[2:]
    fields = [one for one in parameters if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)]
    required = frozenset(one.name for one in fields if one.default is one.empty)
    return Reward(name, function, weight, tuple(one.name for one in fields), required)


def from_anywhere(spelled: str) -> str:
    """The same, a path in it made absolute."""
    name, separator, weight = spelled.partition("=")
    file, colon, function = name.partition(":")
    known = file.endswith(".py") or Path(file).is_dir()
    return f"{Path(file).resolve()}{colon}{function}{separator}{weight}" if known else spelled


def _own_function(name: str) -> RewardFn:
    file, _, function_name = name.partition(":")
    path = Path(file)
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or specification is None or specification.loader is None:
        raise ConfigError(f"there is no file {path} with a reward")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    function = getattr(module, function_name or "reward", None)
    if not callable(function):
        raise ConfigError(f"{path} has no function {function_name or 'reward'!r}")
    found: RewardFn = function
    return found


def fooled_by(rewards: Sequence[Reward], prompts: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The hacks that get a good part of the rewards on these prompts, and how much: the mean sum of all rewards.

    A function that runs answers in this very process lets them change Python's builtins: those are put back.
    """
    found = {}
    kept = dict(vars(builtins))
    for what, answer in HACKS.items():
        answers = [answer] * len(prompts)
        try:
            got = sum(one.weight * sum(one(prompts, answers, rows)) / len(prompts) for one in rewards)
        finally:
            vars(builtins).update(kept)
        if got >= FOOLED * sum(max(0.0, one.weight) for one in rewards):
            found[what] = got
    return found

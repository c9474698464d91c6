"""Rewards: what they give, what fools them, and functions that are no good."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from inkling import rewards
from inkling.errors import ConfigError, DataError, TrainingError
from inkling.sandbox import protection_here

needs_sandbox = pytest.mark.skipif(protection_here() == "limits", reason="this machine cannot protect itself")

ADD: dict[str, Any] = {
    "program": "def f(x):\n    return {answer}",
    "names": ["f"],
    "tests": ["assert f(1) == 2", "assert f(5) == 6", "assert f(0) == 1", "assert f(-1) == 0"],
}
WHOLE: dict[str, Any] = {"names": ["f"], "tests": ["assert f(1) == 2"]}


def of(name: str, completions: list[str], row: dict[str, Any]) -> list[float]:
    return rewards.load(name)(["?"] * len(completions), completions, [row] * len(completions))


@needs_sandbox
def test_code_is_run() -> None:
    answers = ["x + 1", "x+1 if x else 1", "2", "x -", " 1 + x\n", "max(x + 1, 0) * 1"]
    assert of("unit_tests", answers, ADD) == [1, 1, 0, 0, 1, 1]
    assert of("tests_passed", answers, ADD) == [1, 1, 0.25, 0, 1, 1]
    fenced = "Here:\n```python\ndef f(x):\n    return x + 1\n```\nDone."
    assert of("unit_tests", [fenced, "def f(x): return 2", "def f(x): return 3"], WHOLE) == [1, 1, 0]


@needs_sandbox
def test_hacks_get_nothing() -> None:
    assert rewards.fooled_by([rewards.load("unit_tests")], ["?"] * 2, [ADD, WHOLE]) == {}


def test_a_grader_that_can_be_fooled_is_found(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def by_exit(prompts, completions, tests):\n"
        "    found = []\n"
        "    for code, asserts in zip(completions, tests):\n"
        "        try:\n"
        "            exec(code + '\\n' + '\\n'.join(asserts), {})\n"
        "            found.append(1.0)\n"
        "        except SystemExit as left:\n"
        "            found.append(float(not left.code))\n"
        "        except Exception:\n"
        "            found.append(0.0)\n"
        "    return found\n"
    )
    own = rewards.load(f"{tmp_path / 'own.py'}:by_exit=2")
    assert own.weight == 2
    hacks = {name: answer for name, answer in rewards.HACKS.items() if "os._exit" not in answer}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewards, "HACKS", hacks)
        before = AssertionError
        assert rewards.fooled_by([own], ["?"], [WHOLE]) == {"leaving": 2.0}
        assert builtins.AssertionError is before  # which an answer had replaced, for all that came after


def test_answers_and_forms() -> None:
    right = {"answer": "so #### 1,200"}
    assert of("exact_answer", ["1200", "<answer> 1200.0 </answer>", "x #### $1,200.", "12", ""], right) == [
        1,
        1,
        1,
        0,
        0,
    ]
    assert of("exact_answer", ["  a  b ", "ab"], {"answer": "a b"}) == [1, 0]
    assert of("format", ["so <answer>4</answer>\n", "4", "<answer></answer>"], {}) == [1, 0, 0]
    assert of("format", ["12", "12 "], {"pattern": r"\d+"}) == [1, 0]
    assert of("length", ["x" * 10, "x" * 15, "x" * 30], {"max_length": 10}) == [1, 0.5, 0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise KeyError('no')", "failed: KeyError"),
        ("return [0.0]", "gave 1 in place of 2"),
        ("return 3", "gave int in place of 2"),
        ("return [0.0, float('nan')]", "no finite number"),
        ("return ['a', 'b']", "no finite number"),
    ],
)
def test_a_function_that_is_no_reward(tmp_path: Path, body: str, reason: str) -> None:
    (tmp_path / "own.py").write_text(f"def reward(prompts, completions):\n    {body}\n")
    with pytest.raises(TrainingError, match=reason):
        of(str(tmp_path / "own.py"), ["a", "b"], {})


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exact_answer"):
        rewards.load("exact_anser")
    with pytest.raises(ConfigError, match="no file"):
        rewards.load("nowhere.py:f")
    with pytest.raises(ConfigError, match="no weight"):
        rewards.load("format=much")
    (tmp_path / "own.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match="no function"):
        rewards.load(f"{tmp_path / 'own.py'}:f")
    with pytest.raises(DataError, match=r"rows:3: the reward exact_answer needs the field 'answer'"):
        rewards.load("exact_answer").check_row("rows:3", {"prompt": "?"})


@pytest.mark.parametrize("name", rewards.names())
def test_every_reward_says_what_it_is(name: str) -> None:
    import importlib

    assert importlib.import_module(f"inkling.rewards.{name}").WHAT
    assert rewards.load(name).weight == 1

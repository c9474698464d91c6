"""Rows of chats and preferences: each shape that people have, what is wrong with rows, and the split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inkling.data.chats import (
    Conversation,
    Judged,
    Preference,
    Question,
    as_conversations,
    as_judged,
    as_pairs,
    as_question,
    recognise,
)
from inkling.data.examples import read_examples
from inkling.data.prep import prep
from inkling.data.prep_options import PrepOptions
from inkling.errors import DataError

USER, ANSWER = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}
SYSTEM = {"role": "system", "content": "Be brief."}
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [USER, ANSWER]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}, ANSWER]},
    "sharegpt": {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
    "alpaca": {"instruction": "2 + 2?", "input": "", "output": "4"},
    "completion": {"prompt": "2 + 2?", "completion": "4"},
    "messages in both": {"prompt": [USER], "completion": [ANSWER]},
    "question": {"question": "2 + 2?", "answer": "4"},
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_every_shape_of_a_conversation(name: str) -> None:
    found = recognise(CONVERSATIONS[name], "here:1")
    assert isinstance(found, Conversation)
    assert found.messages == [USER, ANSWER]
    assert as_question(found).prompt == [USER]


def test_systems_inputs_and_tools() -> None:
    row = {"system": "Be brief.", "instruction": "Add.", "input": "2 and 2", "output": "4"}
    found = recognise(row, "here")
    assert isinstance(found, Conversation)
    assert [one["content"] for one in found.messages] == ["Be brief.", "Add.\n\n2 and 2", "4"]
    call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x": 2}'}}
    tools = [{"name": "add", "parameters": {}}]
    with_calls = {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "4"},
        ]
        + [ANSWER],
        "tools": json.dumps(tools),
    }
    found = recognise(with_calls, "here")
    assert isinstance(found, Conversation)
    assert found.messages[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"x": 2}}
    assert found.tools == [{"type": "function", "function": tools[0]}]
    shared = {
        "conversations": [
            {"from": "human", "value": "2 + 2?"},
            {"from": "function_call", "value": '{"name": "add", "arguments": {"x": 2}}'},
            {"from": "observation", "value": "4"},
            {"from": "gpt", "value": "4"},
        ]
    }
    assert recognise(shared, "here").messages == [  # type: ignore[union-attr]
        {"role": "user", "content": "2 + 2?"},
        {**found.messages[1], "content": ""},
        {"role": "tool", "content": "4"},
        ANSWER,
    ]


PREFERENCES: dict[str, dict[str, Any]] = {
    "texts": {"prompt": "2 + 2?", "chosen": "4", "rejected": "5"},
    "messages": {"prompt": [USER], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "5"}]},
    "prompt in both": {"chosen": [USER, ANSWER], "rejected": [USER, {"role": "assistant", "content": "5"}]},
    "prompt thrice": {
        "prompt": "2 + 2?",
        "chosen": [USER, ANSWER],
        "rejected": [USER, {"role": "assistant", "content": "5"}],
    },
    "ranked": {"prompt": "2 + 2?", "ranked": ["4", "5"]},
    "scores": {"prompt": "2 + 2?", "responses": ["5", "4"], "scores": [0.1, 0.9]},
    "ranks": {"prompt": "2 + 2?", "completions": ["5", "4"], "ranks": [2, 1]},
}


@pytest.mark.parametrize("name", PREFERENCES)
def test_every_shape_of_a_preference(name: str) -> None:
    found = recognise(PREFERENCES[name], "here:1")
    assert isinstance(found, Preference)
    assert found.prompt == [USER]
    assert [answer[0]["content"] for answer in found.answers] == ["4", "5"]
    assert [one.messages[-1] for one in as_conversations(found)] == [ANSWER]
    assert [one.is_good for one in as_judged(found)] == [True, False]


def test_texts_with_the_prompt_in_both() -> None:
    found = recognise({"chosen": "Human: hi Assistant: hello you", "rejected": "Human: hi Assistant: hell no"}, "here")
    assert isinstance(found, Preference)
    assert found.prompt[0]["content"] == "Human: hi Assistant: "
    assert [one[0]["content"] for one in found.answers] == ["hello you", "hell no"]


def test_rankings_are_pairs_and_feedback_has_a_label() -> None:
    ranked = recognise({"prompt": "?", "ranked": ["a", "b", "c"]}, "here")
    pairs = [[answer[0]["content"] for answer in one.answers] for one in as_pairs(ranked)]
    assert pairs == [["a", "b"], ["a", "c"], ["b", "c"]]
    for label, is_good in [(True, True), (0, False), ("bad", False)]:
        found = recognise({"prompt": "2 + 2?", "completion": "4", "label": label}, "here")
        assert isinstance(found, Judged)
        assert found.is_good is is_good
        assert len(list(as_conversations(found))) == is_good
    found = recognise({"messages": [USER, ANSWER], "thumbs_up": False}, "here")
    assert isinstance(found, Judged)
    assert (found.prompt, found.answer, found.is_good) == ([USER], [ANSWER], False)


def test_prompts_keep_what_rewards_need() -> None:
    found = recognise({"prompt": "2 + 2?", "tests": ["assert f() == 4"], "names": ["f"]}, "here")
    assert isinstance(found, Question)
    assert found.fields == {"tests": ["assert f() == 4"], "names": ["f"]}
    for wrong in (as_conversations, as_pairs, as_judged):
        with pytest.raises(DataError, match="here: "):
            list(wrong(found))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [USER]}, "does not end with an answer"),
        ({"messages": []}, "no messages"),
        ({"messages": [ANSWER, USER]}, "message 1 is of assistant, after nothing"),
        ({"messages": [USER, USER, ANSWER]}, "message 2 is of user, after user"),
        ({"messages": [USER, SYSTEM, ANSWER]}, "message 2 is of system"),
        ({"messages": [USER, {"role": "assistant", "content": "  "}]}, "without a word"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "narrator"),
        ({"messages": ["hi"]}, "list of objects"),
        ({"messages": [{"role": "user", "content": 3}, ANSWER]}, "message 1 is not text"),
        (
            {"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}]},
            "call",
        ),
        ({"prompt": "2 + 2?", "completion": ""}, "answer is empty"),
        ({"prompt": " ", "completion": "4"}, "prompt is empty"),
        ({"prompt": "?", "chosen": "4", "rejected": "4"}, "nothing to prefer"),
        ({"prompt": "?", "chosen": "4", "rejected": " "}, "answer is empty"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "nothing to prefer"),
        ({"prompt": "?", "responses": ["a", "b"]}, "neither scores nor ranks"),
        ({"prompt": "?", "responses": ["a", "b"], "scores": [1, 1]}, "different numbers"),
        ({"prompt": "?", "ranked": ["a"]}, "two answers"),
        ({"prompt": [ANSWER], "completion": "x"}, "to be answered"),
        ({"tools": "{", "messages": [USER, ANSWER]}, "tools must be"),
        ({"text": "hello"}, "its fields are text"),
        ({}, "its fields are none"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=f"^file.jsonl:7: .*{reason}"):
        recognise(row, "file.jsonl:7")


# ---------------------------------------------------------------- files


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, validation: Path | None = None, **options: Any) -> Any:
    return read_examples(path, validation, **{"val_fraction": 0.2, "skip_bad": False, **options})


def test_the_split_is_by_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {number % 40}", "completion": f"answer {number}"} for number in range(120)]
    file = write(tmp_path / "rows.jsonl", rows)
    found = read(file)
    sides = [{as_question(row).prompt[0]["content"] for row in side} for side in (found.train, found.validation)]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == 8
    assert len(found.train) + len(found.validation) == 120
    assert "120 rows of prompt and completion" in found.sentence()
    again = read(write(tmp_path / "turned.jsonl", rows[::-1]))
    assert {as_question(row).prompt[0]["content"] for row in again.validation} == sides[1]
    apart = read(file, write(tmp_path / "held.jsonl", rows[:3]))
    assert len(apart.validation) == 3
    assert len(apart.train) == 120 - 9  # their prompts are nowhere else


def test_duplicates_and_bad_rows_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{number}", "completion": "a"} for number in range(10)]
    file = write(tmp_path / "rows.jsonl", [*rows, rows[0], {"messages": [USER]}, {"nothing": 1}])
    with pytest.raises(DataError, match=r"rows.jsonl:12: .*does not end.*--skip-bad-rows"):
        read(file)
    found = read(file, skip_bad=True)
    assert (found.num_duplicates, len(found.bad)) == (1, 2)
    assert "1 duplicates left out" in found.sentence()
    assert "2 bad rows skipped" in found.sentence()
    file.write_text("{bad\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:1"):
        read(file)
    with pytest.raises(DataError, match="no rows to learn from"):
        read(file, skip_bad=True)
    with pytest.raises(DataError, match="same prompt"):
        read(write(file, rows[:1] * 1))


def test_a_prepared_folder_brings_its_split(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"what is {number} and {number * 7}?"}, ANSWER]}
        for number in range(60)
    ]
    file = write(tmp_path / "rows.jsonl", rows)
    prep([str(file)], tmp_path / "data", PrepOptions(level="char", val_fraction=0.2, near_duplicates="ignore"))
    found = read(tmp_path / "data")
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    counts = {name: split["num_rows"] for name, split in manifest["rows"].items()}
    assert (len(found.train), len(found.validation)) == (counts["train"], counts["validation"])
    text = tmp_path / "text.txt"
    text.write_text("only text " * 200)
    prep([str(text)], tmp_path / "text", PrepOptions(level="char", split="tail"))
    with pytest.raises(DataError, match="inkling train"):
        read(tmp_path / "text")

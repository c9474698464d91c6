"""Reports, comparisons and lineage of runs that were really made."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any
from xml.etree import ElementTree

import pytest

from inkling import cli
from inkling.errors import ConfigError
from inkling.report.comparison import compare, notes_of
from inkling.report.facts import facts_of
from inkling.report.lineage import lineage, note_export
from inkling.sandbox import protection_here
from inkling.tensor_files import checksum


def _story(number: int) -> str:
    """A text of few words, its own: who has read more of it knows better what comes."""
    random = Random(number)
    few = random.sample(["the ", "cat ", "sat ", "on ", "a ", "mat ", "rain ", "fell ", "and ", "we ", "read "], 4)
    return f"story {number}. " + "".join(random.choices(few, k=1500))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder and two runs, one longer than the other, evaluated."""
    folder = tmp_path_factory.mktemp("reports")
    text = folder / "text"
    text.mkdir()
    for number in range(40):
        (text / f"{number}.txt").write_text(_story(number))
    data = str(folder / "data")
    assert cli.main(["prep", str(text), "-o", data, "--vocab-size", "300", "--val-fraction", "0.3"]) == 0
    shape = ["--model.hidden-size", "32", "--model.num-hidden-layers", "1", "--model.num-attention-heads", "2"]
    for name, steps in (("short", "4"), ("long", "60")):
        run = str(folder / name)
        options = [*shape, "--steps", steps, "--batch-size", "64", "--context", "64", "--machine.compile", "no"]
        assert cli.main(["train", data, "-o", run, *options]) == 0
        assert cli.main(["eval", run, "--no-floors"]) == 0
        assert cli.main(["eval", run, "--task", "copying", "--limit", "20", "--no-floors"]) == 0
    return folder


class Page(HTMLParser):
    """What a page loads, and whether its tags are closed."""

    VOID = frozenset({"meta", "br", "line", "polyline", "circle", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_one_page_that_fetches_nothing(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(made / "long"), "-o", str(made / "report.html")]) == 0
    page = Page((made / "report.html").read_text())
    assert page.loads == []
    for part in ("Loss", "bits per byte", "copying", "Data and tokenizer", "What it took", "Where it comes from"):
        assert part in page.text
    assert "nan" not in page.text
    capsys.readouterr()
    assert cli.main(["report", str(made / "long"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["curve"]["val_bits_per_byte"]
    assert facts["evaluations"]["text"]["num_documents"] == len(facts["evaluations"]["text"]["documents"]["nats"])
    assert facts["data"]["splits"]["train"]["num_documents"] > 0


def test_a_run_in_the_making_has_a_report_too(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "<b>run"
    run.mkdir()
    for name in ("run.json", "config.json"):
        (run / name).write_bytes((made / "short" / name).read_bytes())
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0, "loss_average": 3.0}\n{"step": 2, "lo')
    assert cli.main(["report", str(run)]) == 0
    text = (run / "report.html").read_text()
    assert "<b>run" not in text
    Page(text)


def test_better_is_told_from_chance(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row.name: row for row in compare([facts_of(made / "short"), facts_of(made / "long")])}
    bits = rows["bits per byte"]
    found = bits.differences[1]
    assert found is not None
    assert bits.values[0] is not None
    assert bits.values[1] is not None
    assert found.value == pytest.approx(bits.values[1] - bits.values[0])
    assert found.value < 0
    assert found.is_significant
    same = {row.name: row for row in compare([facts_of(made / "long"), facts_of(made / "long")])}
    again = same["bits per byte"].differences[1]
    assert again is not None
    assert (again.value, again.is_significant) == (0, False)
    assert rows["copying: right"].differences[1] is not None
    page = made / "comparison.html"
    assert cli.main(["compare", str(made / "short"), str(made / "long"), "-o", str(page)]) == 0
    assert "significant" in capsys.readouterr().out
    assert Page(page.read_text()).loads == []


def test_a_plot(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, begins in (("plot.png", b"\x89PNG"), ("plot.svg", b"<?xml")):
        assert cli.main(["compare", str(made / "short"), str(made / "long"), "-o", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_bytes().startswith(begins)
    drawn = [element.attrib.get("id", "") for element in ElementTree.parse(tmp_path / "plot.svg").iter()]
    assert sum(name.startswith("axes_") for name in drawn) == 1 + 2  # the curves, bits per byte, copying
    assert cli.main(["compare", str(made / "short"), str(made / "long"), "-o", str(tmp_path / "plot.pdf")]) == 2
    assert "is to end with .html for a page, .png or .svg for a plot" in capsys.readouterr().err


def test_a_saved_baseline(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["report", str(made / "short"), "--json"]) == 0
    baseline = tmp_path / "baseline.json"
    baseline.write_text(capsys.readouterr().out)
    assert cli.main(["compare", str(baseline), str(made / "long"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == ["baseline", "long"]
    assert next(row for row in found["rows"] if row["name"] == "bits per byte")["differences"][1]["value"] < 0
    baseline.write_text("{}")
    assert cli.main(["compare", str(baseline), str(made / "long")]) == 2
    with pytest.raises(ConfigError, match="two runs"):
        compare([facts_of(made / "long")])


def test_perplexities_of_different_tokenizers_are_not_compared(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = facts_of(made / "short"), facts_of(made / "long")
    assert any(row.name == "perplexity" for row in compare([one, other]))
    for link in other["lineage"]:
        if link["kind"] == "tokenizer":
            link["sha256"] = "another"
    for facts in (one, other):  # as the code suite has it: by the model's own tokens
        estimate = {"value": 9.0, "low": None, "high": None, "count": 1}
        facts["evaluations"]["code_suite"] = {"metrics": {"snippet perplexity": estimate}, "items": []}
    names = [row.name for row in compare([one, other])]
    assert not any("perplexity" in name for name in names)
    assert "bits per byte" in names
    saved = tmp_path / "other.json"
    saved.write_text(json.dumps(other))
    capsys.readouterr()
    assert cli.main(["compare", str(made / "short"), str(saved)]) == 0
    assert "bits per byte may be compared" in capsys.readouterr().err
    page = tmp_path / "page.html"
    assert cli.main(["compare", str(made / "short"), str(saved), "-o", str(page)]) == 0
    assert "the tokenizers differ" in Page(page.read_text()).text
    assert notes_of([one, one]) == []
    other["evaluations"]["text"]["num_bytes"] += 1
    assert "bits per byte are of different texts" in notes_of([one, other])[1]


def test_only_the_same_questions_are_paired(made: Path) -> None:
    def difference(changed: bool) -> Any:
        facts = [facts_of(made / name) for name in ("short", "long")]
        if changed:  # as another --seed makes them: the same names, other questions
            for item in facts[1]["evaluations"]["copying"]["items"]:
                item["question"] += "x"
        (row,) = (row for row in compare(facts) if row.name == "copying: right")
        return row.differences[1]

    assert difference(False) is not None
    assert difference(True) is None


def test_a_single_document_has_no_interval(made: Path) -> None:
    facts = [facts_of(made / name) for name in ("short", "long")]
    for one in facts:
        text = one["evaluations"]["text"]
        text["num_documents"], text["documents"] = 1, {"nats": [text["loss"]], "num_bytes": [9]}
    (row,) = (row for row in compare(facts) if row.name == "bits per byte")
    assert row.intervals == [None, None]
    assert row.differences == [None, None]


def test_lineage_says_what_has_changed(made: Path, tmp_path: Path) -> None:
    run = made / "long"
    kinds = {link.kind: link for link in lineage(run)}
    assert set(kinds) == {"source", "data", "tokenizer", "run"}
    assert kinds["data"].check == "same"
    assert kinds["run"].sha256 == checksum(run / "model.safetensors") != ""
    target = tmp_path / "model.gguf"
    target.write_bytes(b"weights")
    note_export(run, target, "f16")
    assert lineage(run)[-1].check == "same"
    target.write_bytes(b"other weights")
    assert lineage(run)[-1].check == "changed"
    target.unlink()
    assert lineage(run)[-1].check == "missing"
    manifest = made / "data" / "manifest.json"
    content = manifest.read_text()
    manifest.write_text(content + " ")
    assert {link.kind: link for link in lineage(run)}["data"].check == "changed"
    manifest.write_text(content)
    (run / "exports.jsonl").unlink()


def test_intervals_of_a_text(made: Path) -> None:
    found = json.loads((made / "long" / "evaluations" / "text.json").read_text())
    bits = sum(found["documents"]["nats"]) / math.log(2)
    assert found["bits_per_byte"] == pytest.approx(bits / sum(found["documents"]["num_bytes"]))
    assert found["interval"]["low"] < found["bits_per_byte"] < found["interval"]["high"]
    assert sum(one["num_bytes"] for one in found["by_length"].values()) == found["num_bytes"]


def test_overlapping_windows_predict_better(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores: list[dict[str, Any]] = []
    for options in ([], ["--stride", "8"], ["--stride", "63"]):
        capsys.readouterr()
        assert cli.main(["eval", str(made / "long"), "--no-floors", "--json", *options]) == 0
        scores.append(json.loads(capsys.readouterr().out))
    assert len({score["num_tokens"] for score in scores}) == 1
    assert scores[1]["loss"] < scores[0]["loss"]
    assert cli.main(["eval", str(made / "long"), "--stride", "64"]) == 2
    assert cli.main(["eval", str(made / "long"), "--no-floors"]) == 0  # what is kept is the plain one again


def test_an_audit(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["eval", str(made / "long"), "--no-floors", "--json", "--audit"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_leaked"] == 0
    assert set(found["by_heart"]) == {"training", "validation"}


@pytest.mark.skipif(protection_here() == "limits", reason="this machine cannot protect itself")
def test_completions_made_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = {
        "task_id": "T/0",
        "prompt": "def f(x):\n",
        "entry_point": "f",
        "test": "def check(candidate):\n    assert candidate(1) == 2\n",
    }
    (tmp_path / "problems.jsonl").write_text(json.dumps(problem) + "\n")
    answers = ["    return x + 1\n", "    return 1\n"]
    rows = [json.dumps({"task_id": "T/0", "completion": text}) + "\n" for text in answers]
    (tmp_path / "answers.jsonl").write_text("".join(rows))
    options = ["--task", f"humaneval={tmp_path / 'problems.jsonl'}"]
    given = ["--completions", str(tmp_path / "answers.jsonl"), "--no-floors", "--json"]
    assert cli.main(["eval", *options, *given]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["pass@1"]["value"] == 0.5
    assert cli.main(["eval", *options]) == 2
    assert cli.main(["eval", "--task", "humanevil"]) == 2
    assert cli.main(["eval"]) == 2

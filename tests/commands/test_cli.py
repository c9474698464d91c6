"""The command line, run as people run it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import inkling
from inkling import cli
from inkling.config import load

REPOSITORY = Path(inkling.__file__).parents[2]


def test_help_is_immediate_and_imports_no_torch() -> None:
    script = (
        "import sys, time; start = time.perf_counter(); from inkling import cli; cli.main(['--help']);"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules); print(time.perf_counter() - start)"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert float(printed.splitlines()[-1]) < 0.3
    assert all(verb in printed for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_verb_explains_itself_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = cli.command_module(verb).Settings
    with pytest.raises(SystemExit) as caught:
        load(settings, ["--help"], prog=f"inkling {verb}")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert f"Example: inkling {verb}" in text
    for name, field in settings.model_fields.items():
        assert field.description, f"{verb}: {name} has no description"


def test_the_reference_in_the_documentation_is_up_to_date() -> None:
    script = REPOSITORY / "scripts" / "document_cli.py"
    subprocess.run([sys.executable, script, "--check"], check=True, capture_output=True)


def test_errors_are_one_line_and_a_status(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, status, message in [
        (["trian"], 1, "there is no verb 'trian'; did you mean 'train'?"),
        (["tokenizer"], 1, "say which: inkling tokenizer train, inkling tokenizer report"),
        (["eval", str(tmp_path / "none")], 1, "there is no run"),
        (["train"], 2, "give a data folder, or --resume"),
        (["train", str(tmp_path)], 1, "is unfinished: it has no manifest.json"),
        (["prep", str(tmp_path), "-o", str(tmp_path / "o"), "--vocab-sise", "9"], 2, "did you mean 'vocab_size'"),
    ]:
        assert cli.main(arguments) == status
        printed = capsys.readouterr()
        assert printed.out == ""
        assert message in printed.err
        assert printed.err.startswith("inkling: ")
        assert printed.err.count("\n") == 1


def test_the_row_from_text_to_text(text_folder: Path, tmp_path: Path) -> None:
    def run(*arguments: str, stdin: str = "") -> str:
        command = [sys.executable, "-m", "inkling", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, input=stdin, check=True)
        return done.stdout

    prepared = json.loads(run("prep", str(text_folder), "-o", "data/t", "--vocab-size", "300", "--json"))
    assert prepared["train"]["num_tokens"] > 1000
    small = ["--model.hidden-size", "32", "--model.num-hidden-layers", "1", "--model.num-attention-heads", "2"]
    small += ["--model.head-dim", "16", "--model.intermediate-size", "32"]
    trained = json.loads(
        run("train", "data/t", "--steps", "6", "--context", "32", "--batch-size", "4", *small, "--json")
    )
    assert trained["status"] == "finished"
    assert trained["run"] == "runs/t"

    score = json.loads(run("eval", "runs/t", "--json"))
    assert score["bits_per_byte"] == pytest.approx(trained["validation"]["val_bits_per_byte"], rel=1e-4)
    assert score["floors"].keys() == {"trigram", "xz"}
    (tmp_path / "held_out.txt").write_text("the cat sat on a mat")
    assert json.loads(run("eval", "runs/t", "--text", "held_out.txt", "--json"))["num_bytes"] == 20

    sampling = ["--max-tokens", "8", "--seed", "1"]
    first = run("generate", "runs/t", "--prompt", "the", *sampling)
    assert first.startswith("the")
    assert first == run("generate", "runs/t", "--prompt", "the", *sampling)
    assert run("generate", "runs/t", *sampling, stdin="the") == first
    (tmp_path / "prompts.txt").write_text("the\na\n")
    rows = [
        json.loads(line)
        for line in run("generate", "runs/t", "--prompts", "prompts.txt", "--json", *sampling).splitlines()
    ]
    assert [row["prompt"] for row in rows] == ["the", "a"]
    assert rows[0]["prompt"] + rows[0]["completion"] == first.rstrip("\n")
    assert "> " in run("chat", "runs/t", "--max-tokens", "4", stdin="hello\n/reset\n/quit\n")

    assert "finished" in run("runs")
    assert [json.loads(line)["run"] for line in run("runs", "--json").splitlines()] == ["runs/t"]
    report = json.loads(run("tokenizer", "report", "runs/t", str(text_folder), "--json"))
    assert report["documents_changed_by_round_trip"] == 0
    run("tokenizer", "train", str(text_folder), "-o", "tok", "--vocab-size", "290")
    assert json.loads((tmp_path / "tok" / "tokenizer.json").read_text())["model"]["type"] == "BPE"
    doctor = json.loads(run("doctor", "--seconds", "0.05", "--json"))
    assert doctor["gflops_fp32"] > 0.1


def test_readme_names_only_commands_that_exist() -> None:
    text = (REPOSITORY / "README.md").read_text()
    verbs = set(re.findall(r"^inkling (\w+)", text, re.MULTILINE))
    assert verbs <= {verb.split()[0] for verb in cli.VERBS}
    assert "pip install -e . && inkling demo" in text
    assert "pip install -e '.[dev]' && pytest" in text


def test_changelog_has_a_place_for_this_version() -> None:
    assert "## [Unreleased]" in (REPOSITORY / "CHANGELOG.md").read_text()

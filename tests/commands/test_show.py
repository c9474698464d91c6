"""Rows shown as they are learnt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inkling.commands import prep
from inkling.errors import ConfigError
from inkling.tokenizer import Tokenizer


def test_what_is_learnt_is_marked(
    small_tokenizer: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tokenizer.save(tmp_path / "tokenizer")
    rows = [
        {"messages": [{"role": "user", "content": "the cat\x1b[2J"}, {"role": "assistant", "content": "a mat"}]},
        {"prompt": "rain", "chosen": "fell", "rejected": "sat"},
        {"prompt": "rain"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paths = [str(tmp_path / "rows.jsonl")]
    prep.run(prep.Settings(paths=paths, show=3, tokenizer=str(tmp_path / "tokenizer")))
    told = capsys.readouterr().out
    plain = told.replace("│", "")
    assert "⟦a mat<|im_end|>⟧" in plain
    assert "⟦fell<|im_end|>⟧" in plain
    assert plain.count("⟦") == plain.count("⟧") == 3
    assert "0 of" in plain.splitlines()[-4] or "0 of" in plain
    assert "\x1b" not in told
    monkeypatch.setenv("FORCE_COLOR", "1")
    prep.run(prep.Settings(paths=paths, show=1, tokenizer=str(tmp_path / "tokenizer"), form="plain"))
    told = capsys.readouterr().out
    assert "\x1b[30;42m" in told
    assert "\x1b[2J" not in told
    with pytest.raises(ConfigError, match="--tokenizer"):
        prep.run(prep.Settings(paths=paths, show=1))

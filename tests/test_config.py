"""Settings: the order of the sources, and errors that name every problem and the nearest right key."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from inkling.config import CommandSettings, Duration, Field, Positional, Section, SettingsConfigDict, load
from inkling.errors import ConfigError


class Optim(Section):
    lr: float = Field(1.0, gt=0)
    """Peak learning rate."""
    name: Literal["muon", "adamw"] = "muon"
    """Which one."""
    weight_decay: float = 0.1
    """Decay of matrices."""


class Settings(CommandSettings):
    """Train it.

    Example: inkling train data/x
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})
    presets: ClassVar[dict[str, dict[str, Any]]] = {"fast": {"optim": {"lr": 2.0}, "steps": 2}}

    data: Positional[Path]
    """Data folder."""
    preset: str | None = None
    """Preset."""
    out: Path = Path("runs/x")
    """Where to."""
    steps: int | None = None
    """Steps."""
    time: Duration | None = None
    """Time."""
    resume: bool | None = None
    """Go on."""
    as_json: bool = False
    """JSON."""
    optim: Optim = Optim()


def parse(*arguments: str) -> Settings:
    return load(Settings, arguments, prog="inkling train")


def test_each_source_overrides_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("optim: {lr: 3e-0, weight_decay: 3}\n")
    assert parse("d").optim.lr == 1.0
    assert parse("d", "--preset", "fast").optim.lr == 2.0
    assert parse("d", "--preset", "fast", "--config", str(file)).optim.lr == 3.0
    monkeypatch.setenv("INKLING_OPTIM__LR", "4")
    assert parse("d", "--preset", "fast", "--config", str(file)).optim.lr == 4.0
    settings = parse("d", "--preset", "fast", "--config", str(file), "--optim.lr", "5")
    assert settings.optim == Optim(lr=5.0, weight_decay=3.0)
    assert settings.steps == 2


def test_spellings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = parse("d", "-o", "a", "--optim.weight-decay=0.5", "--no-resume", "--json", "--time", "1.5m")
    assert settings.out == Path("a")
    assert settings.optim.weight_decay == 0.5
    assert settings.resume is False
    assert settings.as_json
    assert settings.time == 90.0
    assert parse("d").resume is None


def test_all_problems_are_reported_at_once_with_the_nearest_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKLING_OPTIM__NME", "adamw")
    with pytest.raises(ConfigError) as caught:
        parse("d", "--stepz", "3", "--steps", "many", "--optim.name", "sgd", "--time", "soon")
    message = str(caught.value)
    assert "--stepz: there is no such option; did you mean 'steps'?" in message
    assert "optim.nme: there is no such setting; did you mean 'optim.name'?" in message
    assert "steps: Input should be a valid integer" in message
    assert "optim.name: Input should be 'muon' or 'adamw' (got 'sgd')" in message
    assert "time: 'soon' is not a time such as 90s, 10m or 1.5h" in message
    assert message.startswith("5 settings are wrong")


def test_an_environment_variable_that_no_command_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INKLING_STEPZ", "3")
    with pytest.raises(ConfigError, match="INKLING_STEPZ: no command has such a setting; did you mean 'steps'"):
        parse("d")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("optim: {lrr: 1}", "optim.lrr: there is no such setting; did you mean 'optim.lr'"),
        ("- a\n- b", "must hold keys and values"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_bad_settings_file(tmp_path: Path, content: str, problem: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=problem):
        parse("d", "--config", str(file))


def test_a_missing_settings_file_and_a_missing_argument(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the settings file"):
        parse("d", "--config", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="DATA"):
        parse()
    with pytest.raises(ConfigError, match="unexpected argument 'b'"):
        parse("a", "b")
    with pytest.raises(ConfigError, match="unknown preset 'fst'; did you mean 'fast'"):
        parse("d", "--preset", "fst")


def test_help_shows_defaults_and_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "Example: inkling train data/x" in text
    assert "Peak learning rate. (default: 1.0)" in text

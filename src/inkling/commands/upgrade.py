"""`inkling upgrade`: what an older Inkling wrote, in the present format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from inkling import checkpoint, files, upgrade
from inkling.config import CommandSettings, Positional
from inkling.errors import CheckpointError, ConfigError


class Settings(CommandSettings):
    """Bring a run, or a YAML file of settings, of an older Inkling to the present format.

    Older runs are understood as they are; this writes it down, and keeps the file from before beside it. Weights and
    checkpoints have not changed since the first format.

    Example: inkling upgrade runs/notes
    Example: inkling upgrade settings.yaml
    """

    source: Positional[Path]
    """Run directory, or YAML file of settings."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Read, change, keep the old one, write."""
    source = settings.source
    path = source / checkpoint.RUN_FILE if source.is_dir() else source
    done = upgrade_run(source) if source.is_dir() else upgrade_yaml(source)
    if settings.as_json:
        print(json.dumps({"file": str(path), "changes": done}))
    elif not done:
        print(f"{path}: nothing to do")
    else:
        print(f"{path}: {'; '.join(done)}. The file from before is {backup_of(path)}")


def backup_of(path: Path) -> Path:
    """Where the file from before is kept."""
    return path.with_name(f"{path.name}.before-upgrade")


def upgrade_run(run: Path) -> list[str]:
    """Write a run's record in the present format. Raises CheckpointError for what is no run."""
    checkpoint.read_run(run)
    path = run / checkpoint.RUN_FILE
    before = path.read_text(encoding="utf-8")
    content = json.loads(before)
    done = upgrade.upgrade_record(content)
    if done:
        _keep(path, before)
        checkpoint.write_run(run, checkpoint.RunRecord.model_validate(content))
    return done


def upgrade_yaml(path: Path) -> list[str]:
    """Write a settings file in the present format. Raises ConfigError for what is none."""
    try:
        before = path.read_text(encoding="utf-8")
        content: Any = yaml.safe_load(before)
    except FileNotFoundError:
        raise ConfigError(f"there is no run and no file {path}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read ({' '.join(str(error).split())[:150]})") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings")
    done = upgrade.upgrade_settings(content)
    if done:
        _keep(path, before)
        files.write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return done


def _keep(path: Path, text: str) -> None:
    if backup_of(path).exists():
        raise CheckpointError(f"{backup_of(path)} is there already: move it away first")
    files.write_text(backup_of(path), text)

"""A command in several processes of this machine that train together."""

from __future__ import annotations

import tempfile
from pathlib import Path

from inkling.train import world
from inkling.train.settings import TrainSettings
from inkling.train.tune_settings import TuneSettings


def run_in_processes(verb: str, settings: TrainSettings | TuneSettings) -> int:
    """The same command once for each device; the first bad exit status."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.yaml"
        file.write_text(settings.model_dump_json(exclude_unset=True, exclude={"config"}))  # JSON is YAML
        arguments = [verb, "--config", str(file), *(["--debug"] if settings.debug else [])]
        return world.launch(settings.devices, arguments, settings.machine.device)

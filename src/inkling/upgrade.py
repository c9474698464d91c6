"""What older versions of Inkling wrote into `run.json` and settings files, brought to what this one reads.

| format | what changed in the next one |
| --- | --- |
| 1 | `log.tensorboard` went, events being written always; a run keeps its forecast and the machine's measured peak |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FORMAT_VERSION = 2
_REMOVED_SETTINGS = {1: ("log.tensorboard",)}


def upgrade_settings(settings: dict[str, Any], version: int = 1) -> list[str]:
    """Take out, in place, what settings of a format no longer mean; what was done, a clause each."""
    done = []
    for format_version in range(version, FORMAT_VERSION):
        for key in _REMOVED_SETTINGS.get(format_version, ()):
            *sections, name = key.split(".")
            place: Any = settings
            for section in sections:
                place = place.get(section, {}) if isinstance(place, dict) else {}
            if isinstance(place, dict) and name in place:
                del place[name]
                done.append(f"the setting {key} is gone")
    return done


def _from_1(record: dict[str, Any]) -> list[str]:
    done = upgrade_settings(record.setdefault("settings", {}), 1)
    choices = record.setdefault("choices", {})
    for name in ("forecast", "peak_flops"):
        if choices and name not in choices:
            choices[name] = None
            done.append(f"{name} was not kept and stays unknown")
    return done


_STEPS: dict[int, Callable[[dict[str, Any]], list[str]]] = {1: _from_1}


def upgrade_record(record: dict[str, Any]) -> list[str]:
    """Bring the content of a `run.json`, in place, to the present format; what was done, a clause each."""
    done: list[str] = []
    while record.get("format_version") in _STEPS:
        version = record["format_version"]
        done += _STEPS[version](record)
        record["format_version"] = version + 1
        done.append(f"format {version} → {version + 1}")
    return done

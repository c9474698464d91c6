"""Timings of this machine, kept between runs: the same model need not be timed twice."""

from __future__ import annotations

from typing import Any

import torch

from inkling import machine
from inkling.train.kept import Kept
from inkling.train.probe import Choices


class ProbeCache:
    """What was timed for one question.

    Args:
        question: All that the answer depends on, beside the machine and the version of torch. JSON-able.
    """

    def __init__(self, **question: Any) -> None:
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        self._kept = Kept(
            "timings.json", [question, machine.cpu_name(), machine.usable_cores(), gpu, torch.__version__]
        )

    def read(self) -> tuple[Choices, str] | None:
        """The choices and the reason that were written for this question, or None. A damaged entry is none."""
        try:
            entry = self._kept.read()
            return Choices(**entry["choices"]), str(entry["reason"])
        except (KeyError, TypeError):
            return None

    def write(self, choices: Choices, reason: str) -> None:
        """Keep an answer."""
        self._kept.write({"choices": choices.as_dict(), "reason": reason})

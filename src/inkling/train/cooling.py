"""Holds a device's temperature by pausing between steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
import torch

from inkling.errors import ConfigError, MissingExtraError

_LOOK_EVERY_S = 1.0
_FIRST_PAUSE_S, _MAX_PAUSE_S = 0.05, 30.0
_GROWTH, _DECAY = 1.5, 0.8


class Cooler:
    """Pauses after each step, longer while the device is too warm, shorter while it is not.

    Args:
        limit: Degrees Celsius.
        temperature: Reads the device's.
        sleep: Waits so many seconds.
        clock: Seconds that pass.
    """

    def __init__(
        self,
        limit: float,
        temperature: Callable[[], float],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self.pause_s = 0.0
        self._temperature = temperature
        self._sleep = sleep
        self._clock = clock
        self._looked_s = -_LOOK_EVERY_S

    def after_step(self) -> None:
        """Pause as long as needed."""
        now = self._clock()
        if now - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now
            if self._temperature() > self.limit:
                self.pause_s = min(_MAX_PAUSE_S, max(_FIRST_PAUSE_S, _GROWTH * self.pause_s))
            else:
                self.pause_s = self.pause_s * _DECAY if self.pause_s > _FIRST_PAUSE_S else 0.0
        if self.pause_s:
            self._sleep(self.pause_s)


def thermometer(device: torch.device) -> Callable[[], float]:
    """What reads the temperature of a device in degrees Celsius: NVML for a GPU of NVIDIA, else the CPU's sensors.

    Raises ConfigError where there is no sensor, MissingExtraError where NVML's package is missing.
    """
    if device.type == "cuda":
        try:
            import pynvml  # an extra
        except ImportError:
            raise MissingExtraError("nvidia-ml-py", "cool", "--machine.cool") from None
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        return lambda: float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
    if device.type == "cpu" and _cpu_degrees():
        return lambda: max(_cpu_degrees())
    raise ConfigError(f"--machine.cool: this machine tells no temperature of its {device.type}; leave it out")


def _cpu_degrees() -> list[float]:
    sensors: dict[str, Any] = getattr(psutil, "sensors_temperatures", dict)()
    return [entry.current for entries in sensors.values() for entry in entries if entry.current is not None]

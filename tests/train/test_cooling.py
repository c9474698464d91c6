"""The cooler against a device whose temperature follows from the work and the pauses."""

from __future__ import annotations

import pytest
import torch

from inkling.errors import ConfigError, MissingExtraError
from inkling.train import cooling
from inkling.train.cooling import Cooler, thermometer


class Device:
    """Warms up by 5 degrees in a second of work, and loses a tenth of what it is above 20 degrees in any second."""

    def __init__(self) -> None:
        self.degrees, self.now = 20.0, 0.0

    def let(self, seconds: float, *, working: bool) -> None:
        for _ in range(round(seconds * 100)):
            self.degrees += (5 * working - 0.1 * (self.degrees - 20)) / 100
            self.now += 0.01


@pytest.mark.parametrize("limit", [40.0, 55.0])
def test_a_device_is_held_at_the_limit(limit: float) -> None:
    device = Device()
    cooler = Cooler(limit, lambda: device.degrees, lambda s: device.let(s, working=False), lambda: device.now)
    peak = 0.0
    while device.now < 300:
        device.let(0.2, working=True)
        peak = max(peak, device.degrees)
        cooler.after_step()
    assert limit - 4 < device.degrees < limit + 4
    assert peak < limit + 10


def test_a_cool_device_never_pauses() -> None:
    cooler = Cooler(90, lambda: 50.0, lambda seconds: pytest.fail("paused"), lambda: 0.0)
    for _ in range(10):
        cooler.after_step()


def test_without_a_sensor_it_is_an_error_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooling, "_cpu_degrees", list)
    with pytest.raises(ConfigError, match="tells no temperature of its cpu"):
        thermometer(torch.device("cpu"))
    monkeypatch.setattr(cooling, "_cpu_degrees", lambda: [40.0, 61.5])
    assert thermometer(torch.device("cpu"))() == 61.5
    with pytest.raises((MissingExtraError, ConfigError)):
        thermometer(torch.device("meta"))

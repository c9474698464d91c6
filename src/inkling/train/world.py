"""Several processes that train one model: each takes its rows of every batch, and gradients are summed over all.

The global batch, the schedule and the losses are those of one process. Processes are started by `launch`, or by
`torchrun`, which sets the same variables; they talk through NCCL on GPUs and gloo elsewhere.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from inkling import machine
from inkling.errors import ConfigError, TrainingError

_TIMEOUT = timedelta(hours=2)
"""How long a process waits for the others: an evaluation by the first one is the longest wait."""
_GRACE_S = 60.0


class PeerLostError(TrainingError):
    """Another process of the run has ended; it says why itself."""


@dataclass(frozen=True)
class World:
    """The processes of a run. The first one, `is_main`, alone writes files and shows progress.

    Attributes:
        rank: Of this process among all.
        size: Number of processes; 1 needs no other one, and nothing here does anything.
        local_rank: Of this process among those on this machine: which of its devices it takes.
        local_size: Number of processes on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes."""
        if self.size > 1:
            with _together():
                works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
                for work in works:
                    assert work is not None
                    work.wait()

    def largest(self, *values: float) -> list[float]:
        """The largest of each value over the processes: the same answer for all of them."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=_device_of_backend())
        with _together():
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return tensor.tolist()

    def from_main(self, value: Any) -> Any:
        """What the first process gave, as JSON: the other ones' `value` is not looked at."""
        if self.size == 1:
            return value
        device = _device_of_backend()
        content = json.dumps(value).encode() if self.is_main else b""
        length = torch.tensor([len(content)], device=device)
        with _together():
            dist.broadcast(length, src=0)
            data = torch.zeros(int(length.item()), dtype=torch.uint8, device=device)
            if self.is_main:
                data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            dist.broadcast(data, src=0)
        return json.loads(bytes(data.cpu().tolist()))

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            with _together():
                dist.barrier()


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError("another process of this run has ended") from error


ALONE = World()
"""One process."""


def join(device_name: str) -> World:
    """The world that the environment tells of (RANK, WORLD_SIZE, LOCAL_RANK and so on), or that of one process."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return ALONE
    world = World(
        int(os.environ["RANK"]),
        int(os.environ["WORLD_SIZE"]),
        int(os.environ.get("LOCAL_RANK", "0")),
        int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )
    if world.size == 1:
        return world
    on_gpu = device_name.startswith("cuda") or (device_name == "auto" and torch.cuda.is_available())
    if on_gpu:
        torch.cuda.set_device(world.local_rank)
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_TIMEOUT)
    return world


def is_launched() -> bool:
    """Whether this process is already one of several."""
    return "RANK" in os.environ


def launch(num_processes: int, arguments: Sequence[str], device_name: str) -> int:
    """Run `python -m inkling` with `arguments` in several processes of this machine; the first bad exit status.

    Raises ConfigError when there are fewer GPUs, or on a CPU fewer cores, than processes.
    """
    on_gpu = device_name.startswith("cuda") or (device_name == "auto" and torch.cuda.is_available())
    there = torch.cuda.device_count() if on_gpu else machine.usable_cores()
    if num_processes > there:
        what = "GPUs" if on_gpu else "cores"
        raise ConfigError(f"--devices {num_processes} needs as many {what}; here are {there}")
    shared = {
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "inkling", *arguments],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=None if rank == 0 else subprocess.DEVNULL,
        )
        for rank in range(num_processes)
    ]
    return _wait_for(processes)


def _wait_for(processes: list[subprocess.Popen[bytes]]) -> int:
    """Until all have ended. When one fails, the others, which would wait for it for ever, are stopped."""
    interrupts = 0
    while True:
        try:
            while all(process.poll() is None for process in processes):
                time.sleep(0.1)
            failed = any(process.poll() not in (None, 0) for process in processes)
            for process in processes:
                if failed and not interrupts and process.poll() is None:
                    process.terminate()
            for process in processes:
                process.wait(_GRACE_S if failed else None)
            return next((process.returncode for process in processes if process.returncode), 0)
        except KeyboardInterrupt:  # the terminal has sent it to all of them: they save and end by themselves
            interrupts += 1
            if interrupts > 1:
                for process in processes:
                    process.kill()
                raise
        except subprocess.TimeoutExpired:
            for process in processes:
                process.kill()
            raise TrainingError("one of the processes failed, and the others did not end: they were stopped") from None


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _device_of_backend() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")

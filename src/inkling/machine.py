"""What this machine has."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import psutil

_CPU_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_bf16",
    "avx_vnni",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "sve",
    "bf16",
)


def usable_cores() -> int:
    """Cores that this process may use: of the machine, of its CPU affinity and of its container's quota, the least."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _container_quota()
    return max(1, min(cores, quota)) if quota else cores


def _container_quota() -> int | None:
    """Cores that a Linux control group allows, rounded up."""
    path = Path("/sys/fs/cgroup/cpu.max")
    if not path.exists():
        return None
    quota, period = path.read_text().split()
    return None if quota == "max" else -(-int(quota) // int(period))


def memory_bytes() -> tuple[int, int]:
    """Memory that this process may use, in all and still free, container limits included."""
    memory = psutil.virtual_memory()
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    if text == "max":
        return memory.total, memory.available
    return min(memory.total, int(text)), min(memory.available, int(text))


def keep_freed_memory() -> None:
    """Let the C library keep the memory that torch gives back, and not return it to the system each time.

    Tensors of megabytes are else mapped anew for every operation, and each of their pages is handed out by the system
    when it is first written: a quarter of the time of a training step on a CPU. Does nothing but on Linux with glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_REUSED)
    library.mallopt(_M_TRIM_THRESHOLD, -1)  # never


def give_back_freed_memory() -> None:
    """Return to the system what `keep_freed_memory` kept: between parts of a run that need different memory."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST_REUSED = 1 << 30


def resident_bytes() -> int:
    """Memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def disk_free_bytes(folder: Path) -> int:
    """Free space where `folder` lies."""
    return shutil.disk_usage(folder).free


@cache
def cpu_features() -> tuple[str, ...]:
    """The vector and matrix extensions that matter here, in the spelling of /proc/cpuinfo; empty where unknown."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return ()
    lines = (line for line in path.read_text().splitlines() if line.startswith(("flags", "Features")))
    flags = set(next(lines, ":").partition(":")[2].split())
    return tuple(feature for feature in _CPU_FEATURES if feature in flags)


@cache
def cpu_name() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++", "cl"))


def others_busy() -> Callable[[], float]:
    """Begins to measure how many cores other programs keep busy; call what it returns to hear it."""

    def busy_and_ours() -> tuple[float, float]:
        times, ours = psutil.cpu_times(), time.process_time()
        idle = times.idle + getattr(times, "iowait", 0.0)
        return sum(times[:8]) - idle, ours

    began_s = time.monotonic()
    busy_before, ours_before = busy_and_ours()

    def heard() -> float:
        busy, ours = busy_and_ours()
        seconds = max(1e-3, time.monotonic() - began_s)
        return max(0.0, (busy - busy_before) - (ours - ours_before)) / seconds

    return heard


def this_process() -> dict[str, Any]:
    """What tells this process from every other one, also after its number was used again."""
    return {"host": platform.node(), "pid": os.getpid(), "since": psutil.Process().create_time()}


def is_running(process: dict[str, Any]) -> bool:
    """Whether a process that `this_process` described on this machine is still there."""
    if process.get("host") != platform.node():
        return False
    try:
        found = psutil.Process(process["pid"])
        return found.create_time() == process["since"] and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def python_version() -> str:
    """Such as 3.11.7."""
    return platform.python_version()


def summary() -> dict[str, Any]:
    """What a run's record says about its machine."""
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "features": list(cpu_features()),
        "memory_gb": round(memory_bytes()[0] / 1e9, 1),
    }

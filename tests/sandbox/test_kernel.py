"""The filter of system calls, on both processors, and Landlock as older kernels have it."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from inkling.sandbox import _kernel

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
KILLED, ALLOWED, NOT_PERMITTED, NOT_KNOWN = 0x80000000, 0x7FFF0000, 0x00050001, 0x00050026
OPEN_TO_WRITE_ANEW, TRUNCATE, CLOSE_ON_EXEC = 0o1101, 0o1000, 0o2000000


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the kernel would do: a plain interpreter of the few instructions of a filter."""
    given = struct.pack("<IIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *(arguments + (0,) * 6)[:6])
    program, place, value = _kernel.filter_for(machine), 0, 0
    while True:
        code, if_true, if_false, operand = struct.unpack("HBBI", program[place])
        place += 1
        if code == 0x06:  # return
            return int(operand)
        if code == 0x20:  # load
            value = struct.unpack_from("<I", given, operand)[0]
        elif code == 0x54:  # and
            value &= operand
        else:
            place += if_true if {0x15: value == operand, 0x35: value >= operand}[code] else if_false


def libseccomp_numbers(machine: str, names: list[str]) -> dict[str, int]:
    """What another project has; names that it does not know, or that the processor has not, are left out."""
    found = ctypes.util.find_library("seccomp")
    if found is None:
        pytest.skip("libseccomp is not installed")
    library = ctypes.CDLL(found)
    library.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    numbers = {name: library.seccomp_syscall_resolve_name_arch(ARCHITECTURES[machine], name.encode()) for name in names}
    return {name: number for name, number in numbers.items() if number >= 0}


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_numbers_are_those_of_libseccomp(machine: str) -> None:
    column = list(ARCHITECTURES).index(machine)
    ours = {name: numbers[column] for name, numbers in _kernel.DENIED.items()}
    ours |= {name: both[column] for name, both in _kernel.REFUSED_WITH.items()}
    theirs = libseccomp_numbers(machine, list(ours))
    assert len(theirs) > 100
    new = {"fchmodat2", "setxattrat", "removexattrat", "mount_setattr", "memfd_secret", "quotactl_fd"}
    new |= {"process_mrelease"}
    assert {name: number for name, number in ours.items() if number is not None and name not in new} == {
        name: number for name, number in theirs.items() if name not in new
    }


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_is_denied_and_what_is_not(machine: str) -> None:
    column = list(ARCHITECTURES).index(machine)
    denied = {numbers[column] for numbers in _kernel.DENIED.values()} - {None}
    for number in range(600):
        wanted = NOT_PERMITTED if number in denied else NOT_KNOWN if number == 435 or number >= 467 else ALLOWED
        assert verdict(machine, number) == wanted, number
    assert verdict(machine, 0, architecture=0x40000003) == KILLED  # 32 bits, whose numbers differ
    assert verdict(machine, 0x40000000) == KILLED


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_is_denied_for_its_arguments(machine: str) -> None:
    column = list(ARCHITECTURES).index(machine)
    fcntl, openat = _kernel.REFUSED_WITH["fcntl"][column], _kernel.REFUSED_WITH["openat"][column]
    assert fcntl is not None
    assert openat is not None
    assert [verdict(machine, fcntl, 3, what) for what in (8, 15, 3, 4)] == [NOT_PERMITTED] * 2 + [ALLOWED] * 2
    for flags, wanted in [
        (TRUNCATE, NOT_PERMITTED),
        (TRUNCATE | 3 | CLOSE_ON_EXEC, NOT_PERMITTED),
        (OPEN_TO_WRITE_ANEW, ALLOWED),
        (TRUNCATE | 2, ALLOWED),
        (CLOSE_ON_EXEC, ALLOWED),
    ]:
        assert verdict(machine, openat, 0, 0, flags) == wanted
        assert verdict(machine, openat, 0, 0, flags | 1 << 40) == wanted  # the kernel takes the lower half


_TRIES = """
import os, sys
from inkling.sandbox import _kernel
_kernel.landlock_version = lambda: {version}
_kernel.give_up_files([{folder!r}], [{own!r}])
_kernel.give_up_calls()
for attempt in (
    lambda: os.truncate({victim!r}, 0), lambda: os.open({victim!r}, os.O_RDONLY | os.O_TRUNC),
    lambda: os.open({victim!r}, 3 | os.O_TRUNC), lambda: open({victim!r}, "w"),
):
    try:
        attempt()
    except OSError:
        continue
    sys.exit("escaped")
open({own!r} + "/mine", "w").write("x")
open({own!r} + "/mine", "w").truncate(5)
assert open({victim!r}).read() == "precious"
"""


@pytest.mark.skipif(_kernel.landlock_version() < 3 or not _kernel.has_seccomp(), reason="no Landlock of version 3")
@pytest.mark.parametrize("version", [1, 2, 3])
def test_older_versions_of_landlock_protect_files_too(version: int, tmp_path: Path) -> None:
    """Up to version 2 (Linux 6.1) Landlock does not look at truncation, not even of files that may only be read."""
    victim, own = tmp_path / "victim", tmp_path / "own"
    victim.write_text("precious")
    own.mkdir()
    code = _TRIES.format(version=version, folder=str(tmp_path), own=str(own), victim=str(victim))
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert victim.read_text() == "precious"

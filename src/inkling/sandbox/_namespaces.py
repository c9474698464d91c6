"""Where a kernel has no Landlock: a view of the file system of one's own, with nothing in it but what is allowed.

User and mount namespaces (https://man7.org/linux/man-pages/man7/user_namespaces.7.html), Linux 5.12. Standard library
only. As a program, it succeeds where this machine lets people make them.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

_NEW_USERS, _NEW_MOUNTS = 0x10000000, 0x00020000
_BIND, _RECURSIVE, _PRIVATE, _NO_PROGRAMS = 1 << 12, 1 << 14, 1 << 18, 0b1110  # no set-user-id, devices, programs
_MOUNT_SETATTR, _PIVOT_ROOT = 442, {"x86_64": 155, "aarch64": 41}
_READ_ONLY, _HERE, _ALL_BELOW, _DETACH = 1, -100, 0x8000, 2
_CAPABILITIES = struct.pack("Ii", 0x20080522, 0)


def leave_files(readable: Iterable[str], writable: str) -> None:
    """Leave this process, for good, these files and folders to read, and one folder to write in, where it now is.

    The process must have one thread. Raises OSError where the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    _checked(libc.unshare(_NEW_USERS | _NEW_MOUNTS))
    for name, content in [("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")]:
        Path("/proc/self", name).write_text(content, encoding="ascii")
    _checked(libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None))
    # Handles, since what is mounted at `root` next may hide some of them.
    handles = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in [*readable, writable] if Path(path).exists()}
    root = str(Path(writable).parent)
    _checked(libc.mount(b"tmpfs", root.encode(), b"tmpfs", _NO_PROGRAMS, b"size=1m"))
    for path, handle in sorted(handles.items()):
        place, source = Path(root + path), f"/proc/self/fd/{handle}"
        if not place.exists():  # else it is inside another one
            if Path(source).is_dir():
                place.mkdir(parents=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
        _checked(libc.mount(source.encode(), str(place).encode(), None, _BIND | _RECURSIVE, None))
        if path != writable:
            _make_read_only(libc, str(place), _ALL_BELOW)
        os.close(handle)
    os.chdir(root)
    _checked(libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."))
    _checked(libc.umount2(b".", _DETACH))  # the old root, which lies upon the new one
    _make_read_only(libc, "/", 0)
    os.chdir(writable)
    _checked(libc.capset(_CAPABILITIES, bytes(24)))


def _make_read_only(libc: ctypes.CDLL, path: str, below: int) -> None:
    attributes = struct.pack("QQQQ", _READ_ONLY, 0, 0, 0)
    number, place, size = ctypes.c_long(_MOUNT_SETATTR), ctypes.c_char_p(path.encode()), ctypes.c_size_t(32)
    _checked(libc.syscall(number, ctypes.c_int(_HERE), place, ctypes.c_uint(below), attributes, size))


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        if os.fork() == 0:
            try:
                Path(folder, "work").mkdir()
                leave_files(["/usr"], f"{folder}/work")
                os._exit(0)
            except OSError:
                os._exit(1)
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))

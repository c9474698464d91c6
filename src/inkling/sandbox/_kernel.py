"""What Linux offers a process to give up its rights for good: Landlock for files, seccomp for system calls.

Landlock: https://docs.kernel.org/userspace-api/landlock.html. Seccomp: https://docs.kernel.org/userspace-api/seccomp_filter.html.
Standard library only: a process of its own imports this before it runs anything that was generated.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import stat
import struct
import sys
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PARENT_DEATH_SIGNAL, _NO_NEW_PRIVILEGES, _SET_SECCOMP = 1, 38, 22

# Rights over files; the number of them that a kernel knows grows with Landlock's version.
_READ_FILE = 1 << 2
_READ = _READ_FILE | (1 << 3)  # files and folders
_RIGHTS_OF_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_MAKE_SPECIAL = (1 << 6) | (1 << 9) | (1 << 11)  # devices and sockets
_EXECUTE, _IOCTL = 1 << 0, 1 << 15
_TCP, _SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals

DENIED: dict[str, tuple[int | None, int | None]] = {
    # to others, and new processes
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "fork": (57, None),
    "vfork": (58, None), "clone": (56, 220), "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129),
    "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "kcmp": (312, 272), "setpriority": (141, 140), "sched_setscheduler": (144, 119),
    "sched_setattr": (314, 274), "sched_setparam": (142, 118), "ioprio_set": (251, 30), "migrate_pages": (256, 238),
    "move_pages": (279, 239), "setsid": (112, 157), "setpgid": (109, 154), "sched_setaffinity": (203, 122),
    "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "semop": (65, 193), "semtimedop": (220, 192),
    "semctl": (66, 191), "mq_unlink": (241, 181),
    # memory that no limit counts, and limits themselves
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "setrlimit": (160, 164),
    "prlimit64": (302, 261),
    # what Landlock leaves open: owners, modes, times and attributes of files, and what happens in folders; before
    # version 3 also to empty them, and the flags of `openat2` cannot be looked at
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None),
    "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None),
    "utimensat": (280, 88), "futimesat": (261, None), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "setxattrat": (463, 463), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "removexattrat": (466, 466), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "inotify_add_watch": (254, 27), "truncate": (76, 45), "openat2": (437, 437),
    # the machine
    "mount": (165, 40), "umount2": (166, 39), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "open_tree": (428, 428), "mount_setattr": (442, 442),
    "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "prctl": (157, 167), "personality": (135, 92),
    "syslog": (103, 116), "iopl": (172, None), "ioperm": (173, None), "vhangup": (153, 58), "sethostname": (170, 161),
    "setdomainname": (171, 162), "modify_ldt": (154, None), "fanotify_init": (300, 262), "lookup_dcookie": (212, 18),
}  # fmt: skip
"""System calls that are refused, with their numbers on x86-64 and on ARM (64 bits)."""
_TRUNCATE, _READ_AND_WRITE = 0o1000, 3
REFUSED_WITH: dict[str, tuple[int | None, int | None, int, int, tuple[int, ...]]] = {
    # whom a signal goes to when a pipe is ready: Landlock looks at it from version 6 on
    "fcntl": (72, 25, 1, 0xFFFFFFFF, (8, 15)),  # F_SETOWN, F_SETOWN_EX
    # to empty a file that is not opened to be written in: Landlock looks at it from version 3 on
    "open": (2, None, 1, _TRUNCATE | _READ_AND_WRITE, (_TRUNCATE, _TRUNCATE | _READ_AND_WRITE)),
    "openat": (257, 56, 2, _TRUNCATE | _READ_AND_WRITE, (_TRUNCATE, _TRUNCATE | _READ_AND_WRITE)),
}
"""Those that are refused for an argument: their numbers, its place, which of its bits count, and their bad values."""
_CLONE3 = 435  # answered with "not known", so that the C library takes clone
_LAST_KNOWN = 467  # newer ones are not known either

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000
_LOAD, _AND, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # where they stand in what a filter is given
_KILL, _ALLOW, _ERROR = 0x80000000, 0x7FFF0000, 0x00050000
_NOT_PERMITTED, _NOT_KNOWN = 1, 38


def landlock_version() -> int:
    """Landlock's version; 0: there is none."""
    if _libc is None:
        return 0
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def has_seccomp() -> bool:
    """Whether system calls of this processor can be filtered."""
    return _libc is not None and platform.machine() in _ARCHITECTURES and os.access("/proc/sys/kernel/seccomp", os.F_OK)


def die_with_parent() -> None:
    """Let the kernel end this process when the one that forked it ends."""
    assert _libc is not None
    _libc.prctl(_PARENT_DEATH_SIGNAL, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)


def give_up_files(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Leave this process, for good, these folders and what is in them. Nothing can be executed.

    Raises OSError where the kernel refuses.
    """
    version = landlock_version()
    rights = _RIGHTS_OF_VERSION[min(version, max(_RIGHTS_OF_VERSION))]
    handled = struct.pack("QQQ", rights, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    _no_new_privileges()
    ruleset = _checked(_CREATE_RULESET, ctypes.c_char_p(handled), ctypes.c_size_t(size), ctypes.c_uint32(0))
    allowed = [(path, _READ) for path in readable]
    allowed += [(path, rights & ~(_EXECUTE | _MAKE_SPECIAL | _IOCTL)) for path in writable]
    for path, access in allowed:
        try:
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        is_folder = stat.S_ISDIR(os.fstat(folder).st_mode)
        rule = struct.pack("=Qi", access if is_folder else access & _READ_FILE, folder)
        _checked(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(1), ctypes.c_char_p(rule), ctypes.c_uint32(0))
        os.close(folder)
    _checked(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    os.close(ruleset)


def filter_for(machine: str) -> list[bytes]:
    """The instructions (classic BPF) that refuse system calls on a processor, `x86_64` or `aarch64`."""
    column, architecture = _ARCHITECTURES[machine]
    program = [_instruction(_LOAD, _ARCHITECTURE), _instruction(_IF_EQUAL, architecture, 1, 0)]
    program += [_instruction(_RETURN, _KILL), _instruction(_LOAD, _NUMBER)]
    program += [_instruction(_IF_AT_LEAST, _X32, 0, 1), _instruction(_RETURN, _KILL)]
    program += [_instruction(_IF_AT_LEAST, _LAST_KNOWN, 0, 1), _instruction(_RETURN, _ERROR | _NOT_KNOWN)]
    program += [_instruction(_IF_EQUAL, _CLONE3, 0, 1), _instruction(_RETURN, _ERROR | _NOT_KNOWN)]
    for numbers in DENIED.values():
        if (number := numbers[column]) is not None:
            program += [_instruction(_IF_EQUAL, number, 0, 1), _instruction(_RETURN, _ERROR | _NOT_PERMITTED)]
    for *both, place, bits, values in REFUSED_WITH.values():
        if (number := both[column]) is None:
            continue
        looks = [_instruction(_LOAD, _ARGUMENTS + 8 * place), _instruction(_AND, bits)]
        for value in values:
            looks += [_instruction(_IF_EQUAL, value, 0, 1), _instruction(_RETURN, _ERROR | _NOT_PERMITTED)]
        looks += [_instruction(_LOAD, _NUMBER)]
        program += [_instruction(_IF_EQUAL, number, 0, len(looks)), *looks]
    return [*program, _instruction(_RETURN, _ALLOW)]


def give_up_calls() -> None:
    """Let system calls fail in this process from now on: `DENIED`, `REFUSED_WITH`, and what is not known here.

    Raises OSError where the kernel refuses.
    """
    program = filter_for(platform.machine())
    content = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(content)))
    _no_new_privileges()
    assert _libc is not None
    if _libc.prctl(_SET_SECCOMP, ctypes.c_ulong(2), ctypes.c_ulong(ctypes.addressof(header)), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp refuses the filter")


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _no_new_privileges() -> None:
    assert _libc is not None
    if _libc.prctl(_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _checked(number: int, *arguments: object) -> int:
    assert _libc is not None
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result

"""Runs generated code where it can do no harm, and tests it where it cannot cheat.

A candidate's process knows only which of its functions is called, and with what; the tests run in another one, which
gets plain values back and alone knows what is expected. Both have given up all rights over files (but an own empty
folder) and all dangerous system calls. This contains accidents and code that games its grader; against an attacker with
a hole in the kernel, use a virtual machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import shutil
import site
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from inkling.errors import ConfigError
from inkling.sandbox import _kernel

Job = TypeVar("Job")
Found = TypeVar("Found")
Protection = Literal["landlock+seccomp", "namespaces+seccomp", "limits"]
Ending = Literal["finished", "failed", "time", "memory", "output", "disk", "killed"]
_HEADER = struct.Struct("!I")
_MAX_STATUS = 1 << 24
_MAX_RESULT = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Of one process.

    Attributes:
        cpu_s: Processor time, which a busy machine does not shorten. One right solution of MBPP takes 3.6 s of a
            shared core.
        wall_s: Time in all.
        disk_bytes: Of all files in its folder together.
        output_bytes: Of what it prints.
    """

    cpu_s: float = 10.0
    wall_s: float = 20.0
    memory_bytes: int = 512 << 20
    disk_bytes: int = 4 << 20
    files: int = 100
    output_bytes: int = 1 << 16


@dataclass(frozen=True)
class Trial:
    """Code and what it is tested for.

    Attributes:
        code: What was generated.
        names: Functions of it that the tests call.
        tests: Python that asserts; each text is tried by itself.
        setup: Runs before the tests, beside them; the names above are not defined in it.
        together: Run code and tests in one process, where values that are not plain go back and forth. Code that knows
            it is tested could cheat there, so that such a verdict is weak.
    """

    code: str
    names: Sequence[str]
    tests: Sequence[str]
    setup: str = ""
    together: bool = False


@dataclass(frozen=True)
class Verdict:
    """How code did in its tests.

    Attributes:
        passed: Assertions that held.
        failed: Those that did not.
        is_whole: Whether the tests came to their end.
        ending: Of the code's own process.
        errors: The first few, in short.
        is_weak: Whether code and tests were in one process.
    """

    passed: int
    failed: int
    is_whole: bool
    ending: Ending
    errors: tuple[str, ...] = ()
    output: str = ""
    seconds: float = 0.0
    is_weak: bool = False

    @property
    def is_right(self) -> bool:
        """Whether all assertions held, at least one."""
        return self.is_whole and self.failed == 0 and self.passed > 0

    @property
    def share(self) -> float:
        """Of the assertions, those that held."""
        return self.passed / max(1, self.passed + self.failed)


@dataclass(frozen=True)
class Ran:
    """How a program ended."""

    ending: Ending
    output: str
    seconds: float


def _program(name: str) -> list[str]:
    """Starts a file of this folder in an interpreter that takes nothing from around it."""
    return [sys.executable, "-s", "-P", "-m", f"inkling.sandbox.{name}"]


def protection_here() -> Protection:
    """The best protection that this machine has."""
    if _kernel.landlock_version() > 0 and _kernel.has_seccomp():
        return "landlock+seccomp"
    if (
        _kernel.has_seccomp()
        and subprocess.run(_program("_namespaces"), capture_output=True, check=False).returncode == 0
    ):
        return "namespaces+seccomp"
    return "limits"


@dataclass
class _Pair:
    """The two processes that a worker has, started when first needed."""

    candidates: _Zygote
    tests: _Zygote

    def close(self) -> None:
        """End both."""
        self.candidates.close()
        self.tests.close()


class Sandbox:
    """Runs and tests code, several pieces at once. Use it in a `with` statement.

    Args:
        workers: Pieces at once. Default: as many as there are processors.
        allow_weak: Go on where the machine can only limit time and memory.

    Attributes:
        protection: What it has; to be told beside every result.

    Raises:
        ConfigError: The machine has no protection.
    """

    def __init__(self, limits: Limits | None = None, *, workers: int | None = None, allow_weak: bool = False) -> None:
        self.limits = limits or Limits()
        self.protection: Protection = protection_here()
        if os.name != "posix":
            raise ConfigError("generated code is run on Linux only (in WSL on Windows)")
        if self.protection == "limits" and not allow_weak:
            raise ConfigError(
                "this machine offers neither Landlock (Linux 5.13) nor user namespaces (5.12), so generated code could "
                "read and delete your files: run it elsewhere, or, in inkling eval, add --allow-weak-sandbox"
            )
        self._workers = workers or len(os.sched_getaffinity(0))
        self._folder = Path(tempfile.mkdtemp(prefix="inkling-sandbox-"))
        self._pairs: queue.SimpleQueue[_Pair] = queue.SimpleQueue()
        self._zygotes: list[_Zygote] = []
        for number in range(self._workers):
            folders = [self._folder / f"{number}-{role}" for role in ("candidate", "tests")]
            pair = _Pair(*(_Zygote(folder, self.protection) for folder in folders))
            self._zygotes += [pair.candidates, pair.tests]
            self._pairs.put(pair)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes, and take the work folders away."""
        for _ in range(self._workers):
            self._pairs.get().close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._workers = 0

    def run(self, program: str) -> Ran:
        """Run a program to its end."""
        with self._pair() as pair:
            status = pair.candidates.start({"role": "program", "code": program}, [], self.limits)()
            return Ran(status["ending"], status["output"], status["seconds"])

    def test(self, one: Trial) -> Verdict:
        """Run code against its tests."""
        if one.together:
            return self._test_together(one)
        with self._pair() as pair:
            return self._test(pair, one)

    def test_all(self, many: Iterable[Trial]) -> Iterator[Verdict]:
        """Many, side by side, in their order."""
        return self._side_by_side(self.test, many)

    def run_all(self, programs: Iterable[str]) -> Iterator[Ran]:
        """Many programs, side by side, in their order."""
        return self._side_by_side(self.run, programs)

    def _side_by_side(self, function: Callable[[Job], Found], jobs: Iterable[Job]) -> Iterator[Found]:
        with ThreadPoolExecutor(self._workers) as threads:
            try:
                yield from threads.map(function, jobs)
            except BaseException:  # Ctrl-C, say: nobody waits for what still runs
                for zygote in self._zygotes:
                    zygote.kill()
                raise

    @contextlib.contextmanager
    def _pair(self) -> Iterator[_Pair]:
        pair = self._pairs.get()
        try:
            yield pair
        except BaseException:  # what was going on is not waited for, so that its end must not be taken for another's
            pair.close()
            raise
        finally:
            self._pairs.put(pair)

    def _test_together(self, one: Trial) -> Verdict:
        passed, errors, ran = 0, [], None
        for test in one.tests:
            word = secrets.token_hex(8)  # without it, `os._exit(0)` would be as good as an answer
            ran = self.run(f"{one.code}\n{one.setup}\n{test}\nprint({word!r})")
            if ran.ending == "finished" and ran.output.strip().endswith(word):
                passed += 1
            else:
                errors.append((ran.output.strip().splitlines() or [ran.ending])[-1][:300])
        ending, seconds = (ran.ending, ran.seconds) if ran else ("finished", 0.0)
        return Verdict(passed, len(errors), True, ending, tuple(errors[:3]), "", seconds, is_weak=True)

    def _test(self, pair: _Pair, one: Trial) -> Verdict:
        calls, answers, result = os.pipe(), os.pipe(), os.pipe()
        candidate = pair.candidates.start({"role": "candidate", "code": one.code}, [calls[0], answers[1]], self.limits)
        job = {"role": "tests", "setup": one.setup, "names": list(one.names), "tests": list(one.tests)}
        tests = pair.tests.start(job, [answers[0], calls[1], result[1]], self.limits)
        for fd in (*calls, *answers, result[1]):
            os.close(fd)
        try:
            counts = _read_result(result[0])
        finally:
            os.close(result[0])
        of_tests, of_candidate = tests(), candidate()
        if counts is None:
            why = of_tests["output"].strip().splitlines()[-1:] or [f"the tests ended: {of_tests['ending']}"]
            counts = {"passed": 0, "failed": 0, "is_whole": False, "errors": [why[-1][:300]]}
        # A candidate that waits for another call is not to blame when the tests take too long.
        is_slow = of_tests["ending"] == "time" and of_candidate["ending"] == "finished"
        ending: Ending = "time" if is_slow else of_candidate["ending"]
        return Verdict(
            counts["passed"],
            counts["failed"],
            counts["is_whole"],
            ending,
            tuple(counts["errors"]),
            of_candidate["output"],
            max(of_candidate["seconds"], of_tests["seconds"]),
        )


def _read_result(fd: int) -> dict[str, Any] | None:
    """What the tests' process says of itself; None when it ended without a word."""
    content = b""
    while len(content) < _MAX_RESULT and (piece := os.read(fd, 1 << 16)):
        content += piece
    try:
        found = json.loads(content[_HEADER.size :])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@dataclass
class _Zygote:
    """A warm interpreter of one role, and its work folder."""

    folder: Path
    protection: Protection
    _process: subprocess.Popen[bytes] | None = None
    _control: socket.socket | None = None
    _readable: list[str] = field(default_factory=list)

    def start(self, job: dict[str, Any], fds: list[int], limits: Limits) -> Any:
        """Begin a job with some file descriptors; the function that comes back waits for its end."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        text = json.dumps({**job, **self._limits(limits)}).encode()
        control = self._started(limits)
        try:
            # The header goes with the descriptors, by itself, so that the two cannot be parted.
            socket.send_fds(control, [_HEADER.pack(len(text))], fds)
            control.sendall(text)
        except OSError:
            self.close()
            return lambda: {"ending": "killed", "output": "", "seconds": 0.0}
        return self._wait

    def _limits(self, limits: Limits) -> dict[str, Any]:
        return {
            "limits": {**limits.__dict__, "folder": str(self.folder)},
            "readable": self._readable_folders(),
            "protection": self.protection,
        }

    def _wait(self) -> dict[str, Any]:
        assert self._control is not None
        found = self._receive(_HEADER.size)
        status = None
        if found is not None:
            (length,) = _HEADER.unpack(found)
            status = self._receive(length) if length <= _MAX_STATUS else None
        if status is None:  # it was killed, for lack of memory perhaps; the next job gets a new one
            self.close()
            return {"ending": "killed", "output": "", "seconds": 0.0}
        result: dict[str, Any] = json.loads(status)
        return result

    def _receive(self, count: int) -> bytes | None:
        assert self._control is not None
        content = b""
        while len(content) < count:
            try:
                piece = self._control.recv(count - len(content))
            except OSError:
                return None
            if not piece:
                return None
            content += piece
        return content

    def _readable_folders(self) -> list[str]:
        """Where the interpreter and its packages lie."""
        if not self._readable:
            own = [sys.prefix, sys.base_prefix, sys.exec_prefix, *site.getsitepackages()]
            self._readable = sorted({*own, "/usr", "/lib", "/lib64", "/dev/null", "/dev/urandom"})
        return self._readable

    def _started(self, limits: Limits) -> socket.socket:
        if self._process is not None and self._control is not None and self._process.poll() is None:
            return self._control
        self.close()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*_program("_zygote"), str(theirs.fileno()), json.dumps(self._limits(limits))],
                pass_fds=[theirs.fileno()],
                env={"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"},
                cwd=self.folder.parent,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._control = ours
        status = self._wait()
        if status["ending"] != "finished":
            self.close()
            why = (status["output"].strip().splitlines() or ["its process ended"])[-1]
            raise ConfigError(f"the sandbox does not work on this machine ({self.protection}): {why[:300]}")
        return ours

    def kill(self) -> None:
        """End the process at once, and with it what it started; whoever waits for a job is told that it was killed."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the process, and what it started."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = self._control = None

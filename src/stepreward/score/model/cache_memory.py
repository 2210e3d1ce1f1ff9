"""How much memory a cache may take: so many bytes, or a share of what is free."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stepreward.core.errors import InputError
from stepreward.core.optional import Deferred

if TYPE_CHECKING:
    import torch
else:
    # Command-line flags read sizes also where torch is not installed.
    torch = Deferred("torch")

CAP = 16 << 30
"""Most bytes that `auto` takes."""
_UNKNOWN = 4 << 30
"""Free bytes where the operating system does not say."""
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)(b?)")
_MEMINFO = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class CacheSize:
    """So many bytes, or by itself: half of what is free on a CUDA device, a quarter of free RAM, `CAP` at most."""

    nbytes: int | None = None
    """None for `auto`."""
    parts: int = 1
    """Caches that share it."""

    def on(self, device: torch.device) -> int:
        """Bytes of one cache on a device, as much as is free there now."""
        if self.nbytes is not None:
            return self.nbytes // self.parts
        share = 0.5 if device.type == "cuda" else 0.25
        return max(1, min(CAP, int(share * free_bytes(device))) // self.parts)


NO_CACHE = CacheSize(0)


def cache_size(given: int | str | CacheSize) -> CacheSize:
    """A size as people write it: bytes, `auto`, or a number with a unit, such as 512MiB or 1.5GB.

    A unit without an i, such as GB, is of powers of ten; G alone is GiB. 0 is no cache.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(given, CacheSize):
        return given
    text = str(given).strip().lower()
    if text == "auto":
        return CacheSize()
    found = _SIZE.fullmatch(text)
    if found is None or (found[3] and not found[2]):
        raise InputError(f"a size of memory cannot be {given!r}", remedy="write it like 2GiB or 512MiB, auto, or 0")
    number, unit, binary, letter = found.groups()
    return CacheSize(int(float(number) * (1000 if letter and not binary else 1024) ** _POWERS[unit]))


def free_bytes(device: torch.device) -> int:
    """Bytes that are free on a CUDA device, what torch keeps for later included, or else in RAM."""
    if device.type == "cuda":
        # What torch has reserved and does not use counts as taken for the driver, and is free for us.
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return min(_available(), _left_to_container())


def _available() -> int:
    """RAM that programs may have without swapping."""
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(encoding="ascii"))
        if found is not None:
            return int(found[1]) << 10
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN


def _left_to_container() -> int:
    """What a control group leaves, files that it could drop counted as free; no bound where there is none."""
    try:
        most, used = (int((_CONTAINER / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        dropped = re.search(
            r"^inactive_file (\d+)", (_CONTAINER / "memory.stat").read_text(encoding="ascii"), re.MULTILINE
        )
        return max(0, most - used + (int(dropped[1]) if dropped else 0))
    except (OSError, ValueError):  # "max" is no number: there is no bound
        return 1 << 62

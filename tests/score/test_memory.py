"""Sizes of memory as people write them, and what `auto` makes of what is free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stepreward.core.errors import InputError
from stepreward.score.model import cache_memory as memory
from stepreward.score.model.cache_memory import CAP, NO_CACHE, CacheSize, cache_size, free_bytes

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (4096, 4096), ("4096", 4096), ("0", 0), ("2GiB", 2 * 1024**3), ("2 gib", 2 * 1024**3), ("2G", 2 * 1024**3),
        ("2GB", 2 * 10**9), ("1.5MiB", 1_572_864), ("512k", 524_288), ("7b", 7), ("1TiB", 1024**4), ("auto", None),
    ],
)  # fmt: skip
def test_a_size_is_read_as_people_write_it(text: int | str, expected: int | None) -> None:
    assert cache_size(text) == CacheSize(expected)


@pytest.mark.parametrize("text", ["", "GiB", "2 GiB more", "-1", "2XB", "2iB", "half", "nan", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"a size of memory cannot be .*; write it like 2GiB"):
        cache_size(text)


def test_auto_is_a_share_of_what_is_free_under_a_cap_and_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"cpu": 8 << 30, "cuda": 20 << 30}
    monkeypatch.setattr(memory, "free_bytes", lambda device: free[device.type])
    assert (CacheSize().on(CPU), CacheSize().on(CUDA)) == (2 << 30, 10 << 30)
    assert CacheSize(parts=2).on(CUDA) == 5 << 30
    free |= {"cuda": 80 << 30}
    assert CacheSize().on(CUDA) == CAP == 16 << 30
    assert CacheSize(100, parts=3).on(CPU) == 33
    assert NO_CACHE.on(CPU) == 0


def test_free_memory_is_read_where_the_machine_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "meminfo"
    monkeypatch.setattr(memory, "_MEMINFO", info)
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    assert free_bytes(CPU) > 0, "half of all RAM where nothing tells"
    info.write_text("MemTotal:  9000 kB\nMemAvailable:    6000 kB\n")
    assert free_bytes(CPU) == 6000 * 1024
    # A container's own limit is smaller: 4 MB less 3 MB used, of which 1 MB are files that it could drop.
    (tmp_path / "memory.max").write_text("4000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1000000\nactive_file 5\n")
    assert free_bytes(CPU) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(CPU) == 6000 * 1024


def test_free_memory_of_a_card_counts_what_torch_keeps_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 400)
    assert free_bytes(CUDA) == 1300

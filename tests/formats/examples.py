"""Rows made by hand in the layout of each public format, a file of JSON lines a format in `examples/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepreward.core.types import Trajectory
from stepreward.formats.registry import by_name

FOLDER = Path(__file__).parent / "examples"
EXAMPLES: dict[str, list[dict[str, Any]]] = {
    path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for path in sorted(FOLDER.glob("*.jsonl"))
}


def items(name: str, at: int = 0, **options: Any) -> list[Any]:
    return list(by_name(name).read(EXAMPLES[name][at], at + 1, **options))


def one(name: str, at: int = 0, **options: Any) -> Any:
    (item,) = items(name, at, **options)
    return item


def texts(item: Trajectory) -> list[str]:
    return [step.text for step in item.steps]

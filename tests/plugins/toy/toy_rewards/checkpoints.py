"""A checkpoint that reads as another one does."""

from __future__ import annotations

from dataclasses import replace

from stepreward.score.checkpoints.table import by_name

ROWS = (replace(by_name("Qwen/Qwen2.5-Math-PRM-7B"), names=("toy/prm",), source="an example of a plug-in"),)

"""A checkpoint that reads as another one does, and a verifier that writes as another one does."""

from __future__ import annotations

from dataclasses import replace

from stepreward.score.checkpoints.known_checkpoints import by_name, judge_by_name

ROWS = (
    replace(by_name("Qwen/Qwen2.5-Math-PRM-7B"), names=("toy/prm",), source="an example of a plug-in"),
    replace(judge_by_name("launch/ThinkPRM-1.5B"), names=("toy/writes",), source="an example of a plug-in"),
)

"""The guide to evaluation harnesses, carried out as it is written: its files, its commands, the built-in policy."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai")
pytest.importorskip("lm_eval")
from inspect_ai.log import read_eval_log

from stepreward.policies.model_sources import resolve
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "evaluation-harnesses.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
POLICY = str(resolve("builtin:arithmetic"))
HERE = {
    "--model hf/Qwen/Qwen2.5-0.5B-Instruct": f"--model hf/builtin -M model_path={POLICY} -M device=cpu --max-tokens 64",
    "pretrained=Qwen/Qwen2.5-0.5B-Instruct": f"pretrained={POLICY} --device cpu",
}
"""What the page's model is here."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the page, and a model where `make demo` leaves one."""
    for name, text in FILE.findall(PAGE):
        (tmp_path / name).write_text(text)
    model = StepRewardModel.from_backbone(resolve("builtin:arithmetic"), EncoderRecord())
    model.save_pretrained(tmp_path / "runs" / "demo" / "model")
    return tmp_path


def carry_out(command: str, folder: Path) -> str:
    for theirs, ours in HERE.items():
        command = command.replace(theirs, ours)
    program, *words = shlex.split(command)
    modules = {"inspect": "inspect_ai", "lm_eval": "lm_eval"}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", modules[program], *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_inspect_evaluates_and_scores_again(folder: Path) -> None:
    first, again = (command for command in COMMANDS if command.startswith("inspect"))
    carry_out(first, folder)
    (log,) = (folder / "logs").glob("*.eval")
    results = read_eval_log(log).results
    assert results is not None
    found = {(score.name, score.reducer) for score in results.scores}
    reducers = ("mean", "stepreward/best_of_n", "stepreward/weighted_vote")
    assert found == {(name, reducer) for name in ("step_scores", "with_step_scores") for reducer in reducers}
    carry_out(again.replace("LOG.eval", str(log)), folder)
    told = read_eval_log(log)
    assert told.samples is not None
    scores = told.samples[0].scores
    assert scores is not None
    assert scores["step_scores1"].value == scores["step_scores"].value, "found by its entry point, with equal scores"


def test_the_harness_evaluates(folder: Path) -> None:
    (command,) = (command for command in COMMANDS if command.startswith("lm_eval"))
    table = carry_out(command, folder)
    for name in ("one-sample", "best-of-4", "weighted-vote", "steps"):
        assert f"|{name}" in table.replace(" ", ""), table
    (samples,) = (folder / "out").rglob("samples_additions_steps_*.jsonl")
    ((first, *_),) = json.loads(samples.read_text())["filtered_resps"]
    assert json.loads(first)["step_scores"]

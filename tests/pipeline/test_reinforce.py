"""Learning curves by step credit: a real training of a few updates, resumed; the arithmetic of its summary."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stepreward.cli.app import app
from stepreward.core.errors import InputError, ModelError, StoreError
from stepreward.pipeline.learning import Curve, ReinforceSettings, build_page, summarise, tokens_to
from stepreward.policies.model_sources import resolve
from stepreward.report.page import render
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.model.step_reward_model import StepRewardModel

pytest.importorskip("trl")
from stepreward.pipeline.reinforce import reinforce

SMALL = ReinforceSettings(
    credits=("rloo", "step-rloo"), seeds=1, steps=2, problems=2, generations=2, evaluate_every=1, held_out=4, samples=2
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    StepRewardModel.from_backbone(resolve("builtin:arithmetic"), EncoderRecord()).save_pretrained(folder)
    return str(folder)


def test_trainings_are_measured_kept_and_not_done_again(model: str, tmp_path: Path) -> None:
    settings = replace(SMALL, model=model)
    seen: list[str] = []
    summary = reinforce(tmp_path, settings, lambda *now: seen.append(now[3]))
    assert seen == ["rloo, seed 0", "step-rloo, seed 0", ""]
    for name in settings.credits:
        curve = json.loads((tmp_path / f"{name}-0.json").read_text())
        assert len(curve["accuracy"]) == len(curve["length"]) == len(curve["score"]) == 3
        assert curve["tokens"][0] == 0 < curve["tokens"][1] < curve["tokens"][2]
        # The first point is the untrained policy's: the same for every credit.
        assert curve["accuracy"][0] == summary["credits"]["rloo"]["accuracy"][0]["value"]
    assert json.loads((tmp_path / "reinforce.json").read_text()) == summary
    assert "Learning curves" in (tmp_path / "reinforce.html").read_text()

    seen.clear()
    assert reinforce(tmp_path, settings, lambda *now: seen.append(now[3])) == summary
    assert seen == [""]
    (tmp_path / "step-rloo-0.json").unlink()
    again = reinforce(tmp_path, settings)
    assert again == summary, "the same seed gave another training"

    with pytest.raises(StoreError, match="learning_rate"):
        reinforce(tmp_path, replace(settings, learning_rate=0.1))


def test_a_sum_of_credits_is_named_on_the_command_line(tmp_path: Path) -> None:
    both = "rloo + 0*step-rloo(outcome_weight=0)"
    small = "--seeds 1 --steps 2 --problems 2 --generations 2 --evaluate-every 1 --held-out 4 --samples 2 --rollouts 1"
    done = CliRunner().invoke(
        app, ["rl", "--credit", "rloo", "--credit", both, *shlex.split(small), "--out", str(tmp_path), "--json"]
    )
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)["credits"]
    # Rollouts for the term that counts nothing change no weight of the policy.
    assert made[both]["accuracy"] == made["rloo"]["accuracy"]
    assert made[both]["objective"] == "none"
    assert sorted(one.name[:4] for one in tmp_path.glob("rloo*.json")) == ["rloo", "rloo"]


def test_groups_may_be_trees(tmp_path: Path) -> None:
    small = (
        "--seeds 1 --steps 1 --problems 2 --generations 4 --evaluate-every 1 --held-out 4 --samples 1 --max-tokens 48"
    )
    line = f"rl --trees tree-grpo --credit tree-grpo --credit rloo {small} --out {tmp_path / 'rl'} --json"
    made = json.loads(CliRunner().invoke(app, shlex.split(line), catch_exceptions=False).stdout)
    # Both credits begin with the same policy and so with the same trees.
    assert made["credits"]["tree-grpo"]["tokens"] == made["credits"]["rloo"]["tokens"]
    with pytest.raises(InputError, match="a group of 2 is wanted; choose num_generations"):
        reinforce(tmp_path / "more", replace(SMALL, credits=("treerl",), trees="treerl"))
    with pytest.raises(InputError, match="needs root, for which there is no source"):
        reinforce(tmp_path / "none", replace(SMALL, credits=("tree-grpo",)))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("learn", ["outcomes", "pairs", "one-pair"])
def test_a_verifier_learns_beside_the_policy_from_its_folder_anew(learn: Any, tmp_path: Path) -> None:
    record = EncoderRecord(PerStep(prompt_format="{prompt}\nReference: {reference}\n"))
    StepRewardModel.from_backbone(resolve("builtin:arithmetic"), record).save_pretrained(tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    settings = replace(
        SMALL, credits=("step-rloo", "pure"), model=str(tmp_path / "model"), learn=learn, reward_learning_rate=1e-2,
        steps=1, generations=4, samples=4,
    )  # fmt: skip
    reinforce(tmp_path / "out", settings)
    made = [json.loads((tmp_path / "out" / f"{name}-0.json").read_text()) for name in settings.credits]
    for curve in made:
        assert len(curve["judged"]) == 2
        assert all(0 <= one <= 1 for one in curve["judged"])
        assert abs(curve["score"][0] - curve["score"][1]) > 1e-3, "its scores move with its weights"
    assert made[0]["score"][0] == made[1]["score"][0], "each training starts from the folder"
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert "right verdicts of the reward model" in (tmp_path / "out" / "reinforce.html").read_text()
    with pytest.raises(StoreError, match="learn"):
        reinforce(tmp_path / "out", replace(settings, learn="nothing"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"credits": ("rloo",)}, "credit 'rloo' reads no step rewards, so that no reward model learns beside it"),
        ({"credits": ("step-rloo",), "model": "tool"}, "cannot learn by pairs"),
    ],
)
def test_what_cannot_learn_is_refused(model: str, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        reinforce(tmp_path / "out", replace(SMALL, **{"model": model, "learn": "pairs", **change}))
    assert not (tmp_path / "out").exists()


def test_a_credit_that_reads_step_rewards_needs_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'step-rloo' reads step rewards; pass --rollouts, or --model"):
        reinforce(tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [{"model": "nowhere"}, {"policy": "builtin:none"}])
def test_a_refused_training_leaves_its_folder_to_the_next(model: str, tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ModelError):
        reinforce(tmp_path, replace(SMALL, **{"model": model, **wrong}))
    assert not list(tmp_path.iterdir())


def curves(final: dict[str, list[float]]) -> list[Curve]:
    return [
        Curve(name, seed, [0, 100, 200], [0.2, 0.3, end], [3.0, 3.0, 4.0], [], ["padding"] if name == "b" else [])
        for name, ends in final.items()
        for seed, end in enumerate(ends)
    ]


def test_the_summary_holds_means_differences_and_tokens() -> None:
    settings = ReinforceSettings(credits=("a", "b"), seeds=2)
    made = curves({"a": [0.4, 0.6], "b": [0.5, 0.9]})
    # Names of no registered credit: only what the curves say is looked at.
    summary = summarise(made, settings, objectives={"a": "outcome", "b": "none"})
    assert summary["target"] == pytest.approx(0.5)
    b = summary["credits"]["b"]
    assert b["accuracy"][-1]["value"] == pytest.approx(0.7)
    assert b["versus_first"]["value"] == pytest.approx(0.2)
    assert b["tokens_to_first"] == [pytest.approx(200), pytest.approx(100 + 100 * 0.2 / 0.6)]
    assert b["tokens"] == [0, 100, 200]
    assert b["score"] == []
    assert b["alarms"] == ["padding"]
    page = render(build_page(summary))
    assert "167 (2 of 2)" in page
    assert "padding" in page


@pytest.mark.parametrize(
    ("accuracy", "tokens"), [(0.1, 0), (0.2, 0), (0.25, 50), (0.3, 100), (0.4, 150), (0.5, 200), (0.51, None)]
)
def test_tokens_to_an_accuracy(accuracy: float, tokens: float | None) -> None:
    found = tokens_to(Curve("a", 0, [0, 100, 200], [0.2, 0.3, 0.5]), accuracy)
    assert found == (tokens if tokens is None else pytest.approx(tokens))


def test_a_curve_that_falls_first_is_met_where_it_first_rises_to_the_accuracy() -> None:
    assert tokens_to(Curve("a", 0, [0, 10, 20, 30], [0.3, 0.1, 0.5, 0.2]), 0.4) == pytest.approx(10 + 10 * 0.75)
    assert np.isfinite(tokens_to(Curve("a", 0, [0, 10], [0.3, 0.3]), 0.3) or 0)


def test_rollouts_of_the_policy_stand_in_for_a_model(tmp_path: Path) -> None:
    line = f"rl --rollouts 2 --credit vsrm --credit vineppo --out {tmp_path / 'rl'} --json --seeds 1 --steps 1"
    small = "--problems 2 --generations 2 --evaluate-every 1 --held-out 2 --samples 1 --max-tokens 48 --on-alarm stop"
    done = CliRunner().invoke(app, shlex.split(f"{line} {small}"), catch_exceptions=False)
    summary = json.loads(done.stdout)
    assert summary["credits"].keys() == {"vsrm", "vineppo"}
    with pytest.raises(InputError, match=r"'vsrm' reads step rewards; pass --rollouts, or --model"):
        reinforce(tmp_path / "other", replace(SMALL, credits=("vsrm",)))
    with pytest.raises(InputError, match="needs values, for which there is no source"):
        reinforce(tmp_path / "more", replace(SMALL, credits=("vineppo",)))


def test_an_agent_is_rewarded_by_a_reward_model_and_by_rollouts_of_forks(tmp_path: Path) -> None:
    small = "--world tools --seeds 1 --steps 1 --problems 2 --generations 2 --evaluate-every 1 --held-out 3 --samples 1"
    made = {}
    for name, how in {"model": "--model check:shop", "forks": "--rollouts 2"}.items():
        asked = "--credit rloo --credit pure" if name == "model" else "--credit rloo --credit vineppo"
        line = f"rl {small} {how} {asked} --out {tmp_path / name} --json"
        done = CliRunner().invoke(app, shlex.split(line), catch_exceptions=False)
        made[name] = json.loads(done.stdout)
    both = [one["credits"] for one in made.values()]
    settings = made["model"]["settings"]
    assert (settings["policy"], settings["max_tokens"]) == ("builtin:shop", 400)
    # The same agent plays the same episodes, whoever rewards them: only rollouts cost tokens more.
    tokens = [one[name]["tokens"][-1] for one, name in zip(both, ("pure", "vineppo"), strict=True)]
    assert both[0]["rloo"]["tokens"] == both[1]["rloo"]["tokens"] == [0, tokens[0]]
    assert tokens[0] < tokens[1]
    assert both[0]["rloo"]["accuracy"] == both[1]["rloo"]["accuracy"]
    assert 2 <= both[0]["rloo"]["length"][0]["value"] <= 12
    # The held-out score of exact truth is a share of right actions.
    assert 0 < both[0]["pure"]["score"][0]["value"] <= 1
    assert "in the shop" in (tmp_path / "model" / "reinforce.html").read_text()
    with pytest.raises(InputError, match="--trees is for --world arithmetic"):
        reinforce(tmp_path / "no", replace(SMALL, world="tools", trees="treerl"))

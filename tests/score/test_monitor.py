"""Monitors: the numbers they read, what is fitted, and that a watched run gets the verdicts of its log."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from tests.score.agent_runs import made_runs

import stepreward
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.measure.false_alarms import AlarmBound
from stepreward.core.measure.step_usage import tokens_of
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.segment.tool_calls import calling_step
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.score.monitor.monitor_fit import fitted, sides
from stepreward.score.monitor.run_monitor import Monitor
from stepreward.score.monitor.statistic import Statistic, chosen, learned
from stepreward.score.monitor.turn_signals import SIGNALS, AgentTurn, TurnSignals, agent_turns, signals_of
from stepreward.score.monitor.watched_runs import watched_runs

TASK = Problem("p", "Find the key.")


def observed(text: str, **meta: object) -> Step:
    return Step(text, "observation", "tool", meta=meta)


RUN = (
    observed("ignored: before the first action"),
    Step("open drawer", logprobs=(-1.0, -3.0)), observed("Error: it is locked"),
    Step("open drawer", logprobs=(-0.5,)), observed("it is locked", is_error=True),
    Step("Sorry, I look under the mat"), observed("a key"), observed("and dust"),
    calling_step("", [{"name": "take", "arguments": {"what": "key"}}]), observed("a key\nand dust"),
)  # fmt: skip


def test_signals_are_those_counted_by_hand() -> None:
    turns = agent_turns(RUN)
    assert [(turn.place, turn.ends) for turn in turns] == [(1, 3), (3, 5), (5, 8), (8, 10)]
    assert [len(turn.answers) for turn in turns] == [1, 1, 2, 1]
    got = signals_of(turns, [0.9, np.nan, 0.4, 0.6])
    rows = {name: got[:, i].tolist() for i, name in enumerate(SIGNALS)}
    assert rows["turn"] == [1, 2, 3, 4]
    assert rows["repeats"] == [0, 1, 0, 0]
    assert rows["repeated"] == [0, 1 / 2, 1 / 3, 1 / 4]
    assert rows["error"] == [1, 1, 0, 0]
    assert rows["errors"] == [1, 1, 2 / 3, 1 / 2]
    assert rows["error_streak"] == [1, 2, 0, 0]
    assert rows["regrets"] == [0, 0, 1 / 3, 1 / 4]
    assert rows["calls"] == [0, 0, 0, 1 / 4]
    # The last answer says what the third did, in one piece.
    assert rows["same_observation"] == [0, 0, 0, 1 / 4]
    assert rows["overlap"] == [0, 1, 0, 0]
    assert rows["action_length"][0] == pytest.approx(np.log(1 + len("open drawer")))
    assert rows["mean_action_length"][1] == pytest.approx(np.log(12))
    assert rows["observation_length"][2] == pytest.approx(np.log(1 + len("a key\nand dust")))
    assert rows["surprise"][:2] == [2, 0.5]
    assert np.isnan(rows["surprise"][2:]).all()
    assert rows["mean_surprise"] == [2, 1.25, 1.25, 1.25]
    assert rows["min_score"] == [0.9, 0.9, 0.4, 0.4]
    assert rows["mean_score"] == pytest.approx([0.9, 0.9, 0.65, 1.9 / 3])


@pytest.mark.parametrize("run", made_runs(4, 3), ids=lambda run: f"{run.problem.id}-{len(run)}")
def test_no_signal_reads_what_comes_later(run: Trajectory) -> None:
    turns = agent_turns(run.steps)
    whole = signals_of(turns, [0.5] * len(turns))
    for length in range(1, len(turns)):
        part = agent_turns(run.steps[: turns[length - 1].ends])
        np.testing.assert_array_equal(signals_of(part, [0.5] * length), whole[:length])


def test_a_long_run_takes_no_more_memory() -> None:
    signals = TurnSignals()
    for at in range(2000):
        signals.after(AgentTurn(Step(f"action {at}"), (observed(f"answer {at}"),)))
    kept = [len(recent._kept) for recent in (signals._actions, signals._answers)]
    assert kept == [512, 512]
    assert sum(map(sys.getsizeof, vars(signals).values())) < 10_000
    # Of what was seen last it still knows.
    row = signals.after(AgentTurn(Step("action 1990")))
    assert row[[*SIGNALS].index("repeats")] == 1
    assert signals.after(AgentTurn(Step("action 3")))[[*SIGNALS].index("repeats")] == 0


def test_tokens_are_counted_where_they_are_recorded() -> None:
    assert tokens_of(Step("a", tokens=(1, 2, 3))) == 3
    assert tokens_of(Step("a", logprobs=(-1.0,))) == 1
    assert tokens_of(Step("a", meta={"usage": {"prompt_tokens": 9, "completion_tokens": 7}})) == 7
    assert np.isnan(tokens_of(Step("a")))
    steps = (Step("ab", tokens=(1,)), observed("x"), Step("cdef", tokens=(2, 3)), observed("y"))
    one = Trajectory(TASK, steps, 1.0)
    assert watched_runs([one]).unit == "tokens"
    assert watched_runs([one]).spent.tolist() == [1]
    assert watched_runs([one]).total.tolist() == [3]
    other = Trajectory(TASK, (Step("ab", tokens=(1,)), Step("cdef")), 0.0)
    both = watched_runs([one, other])
    assert (both.unit, both.total.tolist()) == ("characters", [6, 6])


def test_runs_are_good_whole_or_before_their_first_error() -> None:
    steps = tuple(step for at in range(4) for step in (Step(f"a{at}"), observed(f"o{at}")))
    won, lost = Trajectory(TASK, steps, 1.0, first_error=-1), Trajectory(TASK, steps, 0.5, first_error=4)
    unknown = Trajectory(TASK, steps)
    runs = watched_runs([won, lost, unknown])
    assert (runs.good.tolist(), runs.bad.tolist(), runs.left_out) == ([True, False], [False, True], 1)
    # Four turns each; after the last there is nothing to stop.
    assert runs.fine.tolist() == [True] * 3 + [False] * 3
    assert watched_runs([won, lost], success=0.5).good.all()
    runs = watched_runs([won, lost], good="before-error")
    assert (runs.good.tolist(), runs.bad.tolist()) == ([True, True], [False, True])
    # Step 4 is the third action: an alarm after two turns would be false.
    assert runs.fine.tolist() == [True] * 3 + [True, True, False]


def test_what_cannot_be_fitted_is_refused_with_a_remedy() -> None:
    with pytest.raises(InputError, match="no run has an outcome; grade"):
        watched_runs([Trajectory(TASK, (Step("a"),))])
    with pytest.raises(InputError, match="no run has a first error"):
        watched_runs([Trajectory(TASK, (Step("a"),), 1.0)], good="before-error")
    with pytest.raises(InputError, match="no run has the step column 'score'; there is none"):
        fitted(made_runs(8), column="score")
    with pytest.raises(InputError, match="good must be"):
        watched_runs(made_runs(2), good="luck")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="min-score reads a step column"):
        fitted(made_runs(8), reads="min-score")
    with pytest.raises(UnknownNameError, match="statistic"):
        fitted(made_runs(8), reads="tarot")  # type: ignore[arg-type]
    good = [run for run in made_runs(20) if run.outcome == 1]
    with pytest.raises(InputError, match="are good"):
        fitted(good)
    with pytest.raises(InputError, match="alpha <= warn"):
        fitted(made_runs(20), alpha=0.3, warn=0.2)


def test_the_learned_statistic_is_the_penalised_likelihood_s_optimum() -> None:
    runs = watched_runs(made_runs(30, 1))
    made = learned(runs, strength=0.5)
    at = [[*SIGNALS].index(name) for name in made.names]
    x = (runs.signals[:, at] - np.array(made.centre)) / np.array(made.scale)
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(x.std(axis=0), 1)
    assert "score" not in made.names, "nothing was scored"
    wrong = ~runs.fine
    weight = np.repeat(1 / np.maximum(np.diff(runs.offsets), 1), np.diff(runs.offsets))

    def loss(theta: np.ndarray) -> float:
        z = x @ theta[:-1] + theta[-1]
        return float(theta[:-1] @ theta[:-1] / 2 + 0.5 * weight @ (np.logaddexp(0, z) - wrong * z))

    found = minimize(loss, np.zeros(x.shape[1] + 1))
    np.testing.assert_allclose([*made.weight, made.shift], found.x, atol=2e-3)
    np.testing.assert_array_equal(made.values(runs.signals)[7:8], made.values(runs.signals[7:8]))
    np.testing.assert_allclose(made.values(runs.signals), x @ np.array(made.weight) + made.shift, atol=1e-9)


def test_a_signal_that_is_not_measured_counts_as_its_centre() -> None:
    made = Statistic(("turn", "score"), (1.0, 0.5), (1.0, 0.5), (2.0, -1.0), 0.25)
    row = np.full((3, len(SIGNALS)), np.nan)
    row[0, 0], row[1, 0], row[1, [*SIGNALS].index("score")] = 3.0, 3.0, 1.0
    np.testing.assert_array_equal(made.values(row), [4.25, 3.25, np.nan])
    assert Statistic.from_json(json.loads(json.dumps(made.to_json()))) == made
    with pytest.raises(InputError, match="no signal is called 'mood'"):
        Statistic(("mood",), (0.0,), (1.0,), (1.0,))
    with pytest.raises(InputError, match="scale that is not 0"):
        Statistic(("turn",), (0.0,), (0.0,), (1.0,))


def test_no_problem_is_fitted_on_and_calibrated_on() -> None:
    runs = watched_runs(made_runs(40))
    fit, held = sides(runs, "features", 0.5, stepreward.Key.seed(1))
    assert not set(runs.problem[fit]) & set(runs.problem[held])
    assert (fit | held).all()
    fit, held = sides(runs, "turn", 0.5, stepreward.Key.seed(1))
    assert held.all()
    assert not fit.any()


@pytest.mark.parametrize("guarantee", ["p-value", "e-value", "confidence"])
@pytest.mark.parametrize("reads", ["features", "turn", "min-score"])
def test_a_watched_run_gets_the_verdicts_of_its_log(reads: str, guarantee: str, tmp_path: Path) -> None:
    column = "score" if reads == "min-score" else ""
    past, runs = made_runs(60, 2, score=bool(column)), made_runs(20, 9, score=bool(column))
    made = fitted(past, reads=reads, column=column, guarantee=guarantee)  # type: ignore[arg-type]
    made.save(tmp_path)
    again = stepreward.Monitor.load(tmp_path)
    actions = set()
    for run in runs:
        turns = agent_turns(run.steps)
        scores = run.column("score")[[turn.place for turn in turns]]
        values = made.statistic.values(signals_of(turns, scores))
        highest = np.maximum.accumulate(values)
        watches = [one.watch() for one in (made, again)]
        for at, turn in enumerate(turns):
            given = {"score": float(scores[at])} if column else {}
            first, second = (one.after_turn(turn.action, *turn.answers, **given) for one in watches)  # type: ignore[arg-type]
            assert first == second
            assert first.statistic == pytest.approx(values[at])
            stop, warn = (bool(made.bound.alarming(highest[at], rate, guarantee)) for rate in (0.1, 0.25))  # type: ignore[arg-type]
            assert first.action == ("stop" if stop else "warn" if warn else "continue")
            actions.add(first.action)
        assert first.turn == len(turns)
    assert {"continue", "stop"} <= actions
    assert again.knows(past[0].problem)
    assert not again.knows(Problem("new", "Do something else."))


class Brevity:
    """Scores an action by its length and the number of steps before it."""

    name, batch_size = "brevity", 8

    def score_many(self, questions: list[Score]) -> list[Scored]:
        return [
            Scored(np.array([1 / (len(s.text) + i) if s.kind == "action" else np.nan for i, s in enumerate(q.steps)]))
            for q in questions
        ]


def test_a_scorer_is_asked_after_each_turn() -> None:
    scored = stepreward.score(made_runs(40), Brevity())
    made = fitted(scored, reads="last-score", column="score")
    run = scored[0]
    watch = made.watch(run.problem, Brevity())
    for turn in agent_turns(run.steps):
        verdict = watch.after_turn(turn.action, *turn.answers)
        assert verdict.statistic == pytest.approx(-run.column("score")[turn.place])
    with pytest.raises(InputError, match="reads the scores 'score'"):
        made.watch().after_turn("look")
    with pytest.raises(InputError, match="needs an action"):
        made.watch().after_turn(observed("nothing"), score=0.5)
    # Several actions in one call are a turn each.
    assert made.watch().after_turn("a", "b", score=[0.1, 0.9]).turn == 2


def test_chat_messages_are_the_steps_of_a_log() -> None:
    messages = [
        {"role": "user", "content": "Find the key."},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "open", "arguments": '{"what": "drawer"}'}}]},
        {"role": "tool", "tool_call_id": "1", "content": "Error: locked"},
        {"role": "assistant", "content": [{"type": "text", "text": "I give up."}]},
    ]  # fmt: skip
    (log,) = stepreward.read(written(messages))
    made = fitted(made_runs(40))
    by_messages, by_steps = made.watch(), made.watch()
    assert by_messages.after_turn(*messages[1:3]) == by_steps.after_turn(*log.steps[:2])
    assert by_messages.after_turn(messages[3]) == by_steps.after_turn(log.steps[2])
    with pytest.raises(InputError, match="a role and text"):
        made.watch().after_turn({"content": "who?"})


def written(messages: list[dict[str, object]]) -> Path:
    Path("log.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    return Path("log.jsonl")


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_other_rates_are_read_off_the_same_runs() -> None:
    made = fitted(made_runs(60))
    assert made.at(0.3).warn == 0.3
    strict = fitted(made_runs(4), reads="turn")
    assert not strict.can_stop
    assert strict.watch().after_turn("look").action == "continue"
    assert strict.at(0.4).can_stop


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": "other"}, "expected the schema"),
        ({"bound": {"maxima": [1.0]}}, "wrong values"),
        ({"alpha": "much"}, "wrong values"),
        ({"statistic": {"names": ["turn"]}}, "saved statistic"),
        ({"guarantee": "luck"}, "guarantee"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_a_broken_file_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    path = fitted(made_runs(20)).save(tmp_path / "monitor")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=said):
        Monitor.load(path.parent)


def test_runs_that_were_never_looked_at_are_kept_in_the_file(tmp_path: Path) -> None:
    monitor = Monitor(chosen("turn"), AlarmBound([-np.inf, 2.0, 3.0], [0, 1, 1]), 0.4, 0.5)
    monitor.save(tmp_path)
    assert Monitor.load(tmp_path).bound.maxima.tolist() == [-np.inf, 2, 3]

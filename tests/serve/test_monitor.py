"""The monitor over HTTP: verdicts for runs elsewhere, and for conversations that the gateway answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

import stepreward
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Scored
from stepreward.core.types import Step, Trajectory
from stepreward.score.monitor.run_monitor import Monitor
from stepreward.score.monitor.turn_signals import AgentTurn, TurnSignals, agent_turns
from stepreward.serve.launch import require_search
from stepreward.serve.requests.http_errors import ApiError
from stepreward.serve.service import OnStop, Served
from stepreward.serve.watching.watched_sessions import Sessions, WatchedSession
from tests.forked import COMMAND, begun
from tests.score.agent_runs import made_runs
from tests.serve.running import Digits, LastDigit, SaysAll, first_line, serving

TASK = {"role": "user", "content": "three digits, please"}


@pytest.fixture(scope="module")
def monitor() -> Monitor:
    return stepreward.fit_monitor(made_runs(80), alpha=0.2)


@pytest.fixture(scope="module")
def server(monitor: Monitor) -> Iterator[str]:
    with serving(Served(monitor=monitor)) as url:
        yield url


def body_of(steps: tuple[Step, ...] | list[Step]) -> list[Any]:
    return [step.text if step.kind == "action" else {"text": step.text, "kind": "observation", "role": "tool"}
            for step in steps]  # fmt: skip


def chat_of(run: Trajectory) -> list[dict[str, Any]]:
    """A run as a conversation, without the line's end that a message gets as a step."""
    return [TASK, *({"role": step.role, "content": step.text.removesuffix("\n")} for step in run.steps)]


def stopped_run(monitor: Monitor) -> Trajectory:
    """A run that ends in an answer of the world, and that the monitor stops."""
    loop = (Step("look at the wall\n"), Step("Error: nothing there\n", "observation", "tool"))
    run = Trajectory(stepreward.Problem("loop", "Look."), loop * 12)
    assert monitor.watch().after_turn(*run.steps).action == "stop"
    return run


def test_each_turn_gets_the_verdict_of_python(server: str, monitor: Monitor) -> None:
    actions = set()
    for run in made_runs(12, 5):
        watch, session = monitor.watch(), None
        for turn in agent_turns(run.steps):
            body = {"steps": body_of([turn.action, *turn.answers])} | ({"session": session} if session else {})
            got = httpx.post(f"{server}/v1/monitor", json=body).raise_for_status().json()
            assert session in (None, got["session"])
            session = got.pop("session")
            expected = watch.after_turn(turn.action, *turn.answers).to_json()
            assert got == {"object": "verdict", **expected, "alpha": 0.2, "warn": 0.25}
            actions.add(got["action"])
    assert {"continue", "stop"} <= actions


def test_all_turns_at_once_are_the_turns_one_by_one(server: str, monitor: Monitor) -> None:
    run = stopped_run(monitor)
    whole = httpx.post(f"{server}/v1/monitor", json={"steps": body_of(run.steps)}).json()
    chat = httpx.post(f"{server}/v1/monitor", json={"messages": chat_of(run)}).json()
    assert whole.pop("session") != chat.pop("session")
    assert whole == chat
    assert (whole["action"], whole["turn"]) == ("stop", 12)


def test_it_says_what_it_is_and_counts(server: str, monitor: Monitor) -> None:
    told = httpx.get(f"{server}/v1/monitor").json()
    assert (told["alpha"], told["guarantee"], told["can_stop"]) == (0.2, "p-value", True)
    assert told["about"]["runs"] == 160
    httpx.post(f"{server}/v1/monitor", json={"steps": body_of(stopped_run(monitor).steps)})
    counted = httpx.get(f"{server}/metrics").text
    assert 'stepreward_verdicts_total{action="stop"}' in counted
    assert "stepreward_runs_watched" in counted


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "one of steps and messages"),
        ({"steps": ["a"], "messages": [TASK]}, "one of steps and messages"),
        ({"messages": [TASK]}, "a turn needs an action"),
        ({"steps": [{"text": "x", "kind": "observation"}]}, "a turn needs an action"),
        ({"steps": ["a", "b"], "scores": [0.5]}, "a score for each action"),
        ({"steps": ["a"], "session": "x", "problem": "y"}, "leave the problem out"),
        ({"steps": ["a"], "sesion": "x"}, "did you mean session"),
    ],
)
def test_what_is_no_turn_is_refused(server: str, body: dict[str, Any], said: str) -> None:
    answer = httpx.post(f"{server}/v1/monitor", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_a_run_that_is_not_kept_is_404(server: str) -> None:
    answer = httpx.post(f"{server}/v1/monitor", json={"steps": ["a"], "session": "run-unknown"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "gone")


def test_a_server_without_a_monitor_says_so() -> None:
    with serving(Served(scorer=LastDigit())) as url:
        answer = httpx.post(f"{url}/v1/monitor", json={"steps": ["a"]})
        assert answer.status_code == 404
        assert "--monitor" in answer.json()["error"]["message"]


def test_many_turns_of_one_run_at_once_are_all_counted(server: str) -> None:
    first = httpx.post(f"{server}/v1/monitor", json={"steps": ["look"]}).json()["session"]
    with ThreadPoolExecutor(8) as pool:
        bodies = [{"steps": [f"look {i}"], "session": first} for i in range(24)]
        made = list(pool.map(lambda body: httpx.post(f"{server}/v1/monitor", json=body).json()["turn"], bodies))
    assert sorted(made) == list(range(2, 26))


def test_runs_are_kept_within_a_limit_of_memory(monitor: Monitor) -> None:
    sessions, made = Sessions(most=40_000), []
    for number in range(6):
        session = WatchedSession(monitor.watch())
        session.watcher.after_turn(*(f"look at {number} {at}" for at in range(8)))
        made.append(sessions.put(session))
        sessions.get(made[0])  # the first goes on, so that it is not the oldest
    assert 1 < len(sessions) < 6
    assert sessions.size <= 40_000
    sessions.get(made[0])
    with pytest.raises(ApiError, match="not kept"):
        sessions.get(made[1])
    # One that grows beyond all room stays, alone.
    sessions.get(made[0]).steps = (Step("x" * 100_000),)
    sessions.count(made[0])
    assert len(sessions) == 1
    sessions.count("run-gone")


def test_the_counted_bytes_are_no_less_than_those_taken() -> None:
    signals = TurnSignals()
    for at in range(700):
        words = " ".join(f"w{at}_{i}" * 9 for i in range(600 if at > 690 else 3))
        signals.after(AgentTurn(Step(words), (Step(f"answer {at}", "observation"),)))
    taken = sum(sys.getsizeof(one) for kept in (signals._actions, signals._answers) for one in kept._kept)
    taken += sum(sys.getsizeof(kept._kept) for kept in (signals._actions, signals._answers))
    taken += sys.getsizeof(signals._before) + sum(map(sys.getsizeof, signals._before))
    assert taken / 2 < taken <= signals.size < 3 * taken


def test_a_model_of_the_server_scores_what_is_watched() -> None:
    runs = stepreward.score(made_runs(60), LastDigits())
    made = stepreward.fit_monitor(runs, reads="min-score", column="score", alpha=0.2)
    with serving(Served(scorer=LastDigits(), monitor=made)) as url:
        for run in runs[:4]:
            watch, session = made.watch(), None
            for turn in agent_turns(run.steps):
                body = {"steps": body_of([turn.action, *turn.answers])}
                body |= {"session": session} if session else {"problem": "Look."}
                got = httpx.post(f"{url}/v1/monitor", json=body).raise_for_status().json()
                session = got["session"]
                expected = watch.after_turn(turn.action, score=float(run.column("score")[turn.place]))
                assert got["statistic"] == pytest.approx(expected.statistic)
                assert got["action"] == expected.action
    with serving(Served(monitor=made)) as url:
        answer = httpx.post(f"{url}/v1/monitor", json={"steps": ["a"]})
        assert answer.status_code == 400
        assert "reads the scores" in answer.json()["error"]["message"]
        assert httpx.post(f"{url}/v1/monitor", json={"steps": ["a"], "scores": [0.5]}).status_code == 200
    with pytest.raises(InputError, match="pass --model too"):
        require_search(Served(Digits(), monitor=made), set())


class LastDigits(LastDigit):
    """A step is worth a tenth of the digit that it ends in, a half where it ends in none; it reads the steps before."""

    def score_many(self, questions: Any) -> list[Any]:
        def worth(text: str) -> float:
            return int(text.strip()[-1]) / 10 if text.strip()[-1].isdigit() else 0.5

        return [
            Scored(np.array([worth(s.text) / (1 + i) if s.kind == "action" else np.nan for i, s in enumerate(q.steps)]))
            for q in questions
        ]


@pytest.fixture(scope="module", params=["tell", "answer", "refuse"])
def gateway(request: pytest.FixtureRequest, monitor: Monitor) -> Iterator[tuple[OnStop, Digits, openai.OpenAI]]:
    policy = Digits()
    served = Served(policy, LastDigit(), grader=SaysAll(), name="d", method="majority", settings={"n": 1},
                    monitor=monitor, on_stop=request.param)  # fmt: skip
    with serving(served) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield request.param, policy, client


Gateway = tuple[OnStop, Digits, openai.OpenAI]


def test_a_conversation_that_goes_well_is_answered_and_says_so(gateway: Gateway) -> None:
    _, _, client = gateway
    raw = client.chat.completions.with_raw_response.create(model="d", messages=[TASK])  # type: ignore[list-item]
    assert "x-stepreward-monitor" not in raw.headers, "nothing was done yet"
    chat: Any = [
        TASK,
        {"role": "assistant", "content": "page 1"},
        {"role": "user", "content": "go on"},
    ]
    raw = client.chat.completions.with_raw_response.create(model="d", messages=chat)
    assert raw.headers["x-stepreward-monitor"] == "continue"
    told = (raw.parse().model_extra or {})["stepreward"]
    assert told["monitor"]["turn"] == 1
    assert told["method"] == "majority"


def test_a_conversation_that_is_lost_is_told_answered_or_refused(gateway: Gateway, monitor: Monitor) -> None:
    on_stop, policy, client = gateway
    chat: Any = chat_of(stopped_run(monitor))
    asked = len(policy.asked)
    if on_stop == "refuse":
        with pytest.raises(openai.PermissionDeniedError) as refused:
            client.chat.completions.create(model="d", messages=chat)
        assert refused.value.code == "stopped_by_monitor"
        assert len(policy.asked) == asked, "no model was asked"
        return
    raw = client.chat.completions.with_raw_response.create(model="d", messages=chat)
    assert raw.headers["x-stepreward-monitor"] == "stop"
    made = raw.parse()
    told = (made.model_extra or {})["stepreward"]
    assert told["monitor"]["action"] == "stop"
    assert told["monitor"]["turn"] == 12
    assert made.choices[0].finish_reason == "stop"
    assert made.usage is not None
    said = str(made.choices[0].message.content)
    if on_stop == "answer":
        assert said.startswith("The monitor stopped this run after turn 12: at most 20.0% of the runs that succeed")
        assert (made.usage.total_tokens, told["stopped"], len(policy.asked)) == (0, "monitor", asked)
        assert not made.choices[0].message.tool_calls, "a loop of tools ends here"
    else:
        assert "monitor" not in said
        assert len(policy.asked) > asked
    chunks = list(client.chat.completions.create(model="d", messages=chat, stream=True, seed=1))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert (text == said) == (on_stop == "answer")
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert (chunks[-1].model_extra or {})["stepreward"]["monitor"]["action"] == "stop"


def test_the_command_serves_a_monitor_alone(monitor: Monitor, tmp_path: Path) -> None:
    monitor.save(tmp_path / "monitor")
    (tmp_path / "program.py").write_text(COMMAND.format(before=""))
    words = ["serve", "--monitor", "monitor", "--port", "0"]
    process = begun(tmp_path / "program.py", tmp_path, tmp_path / "log", words=words)
    url = first_line(process, tmp_path / "log").split()[-1]
    got = httpx.post(f"{url}/v1/monitor", json={"steps": ["look at page 1"]}).json()
    assert (got["action"], got["turn"]) == ("continue", 1)
    process.kill()
    process.join()

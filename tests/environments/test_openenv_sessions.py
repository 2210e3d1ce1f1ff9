"""OpenEnv's session protocol, spoken with a stand-in of the server of openenv 0.10.0."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

import stepreward
from stepreward.core.errors import EpisodeError, InputError
from stepreward.core.runtime.acts import Act
from stepreward.core.segment.tool_calls import calling_step
from stepreward.core.types import Problem, Step
from stepreward.environments.by_address import environment_at
from stepreward.environments.episode_pool import EpisodePool
from stepreward.environments.openenv_sessions import OpenEnvEpisode, OpenEnvServer
from stepreward.testing import TabularPolicy
from tests.cli.running import invoke
from tests.environments.episodes import require_resumes, shown_along

SCHEMA = {
    "action": {
        "type": "object", "additionalProperties": False, "required": ["add"], "title": "CountAction",
        "properties": {
            "metadata": {"type": "object"}, "add": {"type": "integer", "minimum": -3, "maximum": 3},
            "why": {"type": "string"},
        },
    }
}  # fmt: skip


class Counter:
    """Counts from the seed's last digit to ten; over at ten, or after six actions."""

    def __init__(self) -> None:
        self.value = self.turns = 0

    def told(self, message: dict[str, Any]) -> dict[str, Any]:
        data = message.get("data", {})
        if message["type"] == "reset":
            self.value, self.turns = int(data.get("seed") or 0) % 10, 0
            return self.seen(None)
        if data.get("add") == 3 and self.value == 3:
            return {"type": "error", "data": {"message": "three and three", "code": "EXECUTION_ERROR"}}
        if data.get("add") == 0:
            return {"type": "error", "data": {"message": "add must not be 0", "code": "VALIDATION_ERROR"}}
        self.value, self.turns = self.value + data["add"], self.turns + 1
        return self.seen(float(self.value == 10))

    def seen(self, reward: float | None) -> dict[str, Any]:
        over = self.value == 10 or self.turns == 6
        shown = {"observation": {"value": self.value, "metadata": {}}, "reward": reward, "done": over}
        return {"type": "observation", "data": shown}


class _Counting:
    """What a server counts of its sessions."""

    def __init__(self) -> None:
        self.open = self.most = 0
        self.messages: list[str] = []

    def session(self, connection: ServerConnection) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        counter = Counter()
        try:
            for text in connection:
                message = json.loads(text)
                if message["type"] == "close":
                    return
                self.messages.append(message["type"])
                if message.get("data", {}).get("why") == "gone":
                    return
                answer = json.dumps(counter.told(message))
                connection.send([answer[:1], answer[1:]])
        finally:
            self.open -= 1


def schema(connection: ServerConnection, request: Request) -> Response | None:
    """The route beside the sessions."""
    if request.path != "/schema":
        return None if request.path == "/ws" else connection.respond(404, "")
    body = json.dumps(SCHEMA).encode()
    return Response(200, "OK", Headers({"Content-Length": str(len(body)), "Connection": "close"}), body)


@contextmanager
def counting() -> Iterator[tuple[str, _Counting]]:
    counts = _Counting()
    with serve(counts.session, "127.0.0.1", 0, process_request=schema) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"openenv:http://127.0.0.1:{server.socket.getsockname()[1]}", counts
        server.shutdown()
        thread.join()


PROBLEM = Problem("to-ten", "Count to ten.", meta={"seed": 4})


def add(number: int) -> str:
    return json.dumps({"add": number})


def pool(address: str) -> EpisodePool:
    made = environment_at(address)
    assert isinstance(made, EpisodePool)
    return made


def test_an_episode_is_shown_rewarded_and_won() -> None:
    with counting() as (address, _):
        episodes = pool(address)
        shown = shown_along(episodes, PROBLEM, [add(3), 'I think: {"add": 1, "why": "close"}', "2"])
        episodes.close()
    assert ["".join(s.text for s in one.steps) for one in shown] == [f'{{"value": {n}}}\n' for n in (4, 7, 8, 10)]
    assert [one.done for one in shown] == [False, False, False, True]
    assert [one.outcome for one in shown] == [0.0, 0.0, 0.0, 1.0]
    assert [one.reward for one in shown[1:]] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("hm", "none was read"), (add(9), "9 is greater than the maximum of 3"), ('{"sub": 1}', "'sub' was unexpected"),
        ("[]", "none was read"), (add(0), "add must not be 0"),
    ],
)  # fmt: skip
def test_what_is_no_action_is_told_and_changes_nothing(said: str, told: str) -> None:
    with counting() as (address, _):
        episodes = pool(address)
        shown = shown_along(episodes, PROBLEM, [said, add(1)])
        episodes.close()
    assert told in shown[1].steps[0].text
    assert "{" in shown[1].steps[0].text
    assert shown[2].steps[0].text == '{"value": 5}\n'


def test_an_episode_is_over_at_its_limit_of_turns_taken_or_not() -> None:
    """Of several calls in a turn the last is executed; braces the wrong way round are no object."""
    both = calling_step("", [{"id": f"{n}", "name": "act", "arguments": {"add": n}} for n in (1, 2)])
    with counting() as (address, _):
        server = OpenEnvServer(address.removeprefix("openenv:"), 1, 20.0)
        for said, shown in (([add(1), add(1)], '{"value": 6}\n'), (["}{", "}{"], "No action was taken: none was read")):
            episode = OpenEnvEpisode(server, turns=2)
            assert not episode.reset(PROBLEM).done
            first, last = (episode.act(Step(one)) for one in said)
            assert (first.done, last.done, last.outcome) == (False, True, 0.0)
            assert last.steps[0].text.startswith(shown)
            episode.close()
        episode = OpenEnvEpisode(server)
        episode.reset(PROBLEM)
        answer = episode.act(both)
        assert (answer.steps[0].text, answer.steps[0].role) == ('{"value": 6}\n', "tool")
        assert answer.steps[0].meta
        episode.close()


def test_one_session_serves_many_episodes_by_acting_again() -> None:
    paths = [[add(1), add(2)], [add(1), add(1)], [add(2), add(2), add(2)]]
    made = []
    for sessions in (1, 3):
        with counting() as (address, server):
            episodes = pool(f"{address}?sessions={sessions}")
            steps: list[tuple[Step, ...]] = [(), (), ()]
            seen = [list[str]() for _ in paths]
            # Turn by turn, so that the episodes take the session from each other.
            for turn in range(4):
                for n, path in enumerate(paths):
                    if turn > len(path):
                        continue
                    steps[n] += (Step(path[turn - 1]),) if turn else ()
                    (shown,) = episodes.act_many([Act(Problem(f"p{n}", "Count.", meta={"seed": n}), steps[n])])
                    steps[n] += shown.steps
                    seen[n] += [one.text for one in shown.steps]
            assert server.most <= sessions
            made.append((seen, len(server.messages)))
            episodes.close()
    (alone, many), (apart, few) = made
    assert alone == apart
    assert many > few == 3 + 2 + 2 + 3


def test_a_server_that_fails_or_is_none_is_told() -> None:
    with counting() as (address, _):
        episodes = pool(address)
        with pytest.raises(EpisodeError, match="three and three"):
            shown_along(episodes, Problem("p", "Count.", meta={"seed": 3}), [add(3)])
        episodes.close()
        with pytest.raises(EpisodeError, match=r"the session with http.* broke"):
            shown_along(episodes, PROBLEM, ['{"add": 1, "why": "gone"}'])
        assert shown_along(episodes, PROBLEM, [add(1)])[1].steps[0].text == '{"value": 5}\n', "the next has another"
        episodes.close()
    with pytest.raises(InputError, match="states no action of OpenEnv"):
        environment_at(address)


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    with counting() as (address, _):
        require_resumes(lambda: pool(address), PROBLEM, [add(1), add(2), add(3)], tmp_path)


def test_a_policy_acts_and_is_told_what_an_action_is() -> None:
    with counting() as (address, _):
        drawn = TabularPolicy(lambda *_: [(Step(f"{add(n)}\n"), 0.5, True) for n in (2, 3)], "adder")
        agent = stepreward.policy(drawn, environment=address)
        (tool,) = agent.environment.prepared(PROBLEM).meta["tools"]  # type: ignore[attr-defined]
        assert tool["function"]["name"] == "act"
        assert set(tool["function"]["parameters"]["properties"]) == {"add", "why"}
        rows = stepreward.label([PROBLEM], policy=agent, method="math-shepherd", n=4, samples=4, transform="soft")
        for row in rows:
            total = 4 + sum(json.loads(step.text)["add"] for step in row.steps if step.kind == "action")
            assert row.outcome == float(total == 10)


def test_the_command_line_names_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ten.jsonl").write_text(json.dumps({"id": "t", "prompt": "Count to ten.", "seed": 4}) + "\n")
    with counting() as (address, _):
        told = json.loads(invoke(
            f"label --problems ten.jsonl --policy builtin:arithmetic --environment '{address}?turns=3' --samples 2 "
            "--rollouts 1 --out labels --json"
        ))  # fmt: skip
    assert told["trajectories"] >= 1

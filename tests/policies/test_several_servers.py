"""Several servers of one model behind one name: who gets which request, and what happens when one goes away."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from stepreward.cli.app import app
from stepreward.core.errors import InputError, PolicyError
from stepreward.core.http.addresses import lasting, split_address
from stepreward.core.http.client import ServerClient
from stepreward.core.http.faults import PassingError
from stepreward.core.http.routing import FAULTS, Replica, Route, Servers
from stepreward.core.http.server import Server
from stepreward.core.keys import Key
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Propose
from stepreward.core.table import read_table
from stepreward.core.types import Problem
from stepreward.policies.http import HttpPolicy
from stepreward.policies.named import policy_at
from stepreward.search.samples.independent import majority_vote
from stepreward.tasks.arithmetic_truth import ArithmeticGrader

PROBLEMS = [Problem(f"p{i}", f"What is {i} + 1?", reference=str(i + 1)) for i in range(24)]


class Model:
    """A server that answers by prompt and seed alone, and can be told to break off or to refuse."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.breaks_after: int | None = None
        self.status = 200
        self.begun = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Quiet."""

            def do_GET(self) -> None:
                self._send(model.status, b"{}")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                prompt = body["messages"][0]["content"]
                model.prompts.append(prompt)
                model.begun.set()
                model.goes_on.wait(10)
                if model.status != 200:
                    return self._send(model.status, b'{"error": "as told"}')
                if model.breaks_after is not None and len(model.prompts) > model.breaks_after:
                    # As a killed process does: half an answer, then nothing listens any more.
                    threading.Thread(target=model.stop, daemon=True).start()
                    model.gone.wait(10)
                    return self._send(200, b"", whole=False)
                number = int(prompt.split()[2]) + 1 + body["seed"] % 2
                event = {"choices": [{"index": 0, "delta": {"content": f"Answer: {number}"}, "finish_reason": "stop"}]}
                usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}
                events = "".join(f"data: {json.dumps(one)}\n\n" for one in (event, usage))
                return self._send(200, f"{events}data: [DONE]\n\n".encode(), kind="text/event-stream")

            def _send(self, status: int, data: bytes, kind: str = "application/json", *, whole: bool = True) -> None:
                self.close_connection = True
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data) + (not whole)))
                self.end_headers()
                self.wfile.write(data)

        self.handler, self.gone = Handler, threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.gone.set()

    def restart(self) -> None:
        self.breaks_after = None
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), self.handler)
        self.start()


@pytest.fixture
def models() -> Iterator[list[Model]]:
    made = [Model(), Model(), Model()]
    yield made
    for one in made:
        if not one.gone.is_set():
            one.stop()


def policy(models: list[Model], **how: Any) -> HttpPolicy:
    server = Server(",".join(model.url for model in models), "m", backoff=0.0, **{"place": "here", **how})
    return HttpPolicy(server, sleep=lambda _: None)


def ask(policy: HttpPolicy, problem: Problem, n: int = 1) -> list[str]:
    ((*made,),) = policy.propose([Propose(problem, (), Key.seed(0), n)])
    return [one.steps[0].text for one in made]


def solve(policy: HttpPolicy, log: AnswerLog | None = None) -> tuple[dict[int, Any], Any]:
    driver = Driver(policy=policy, grader=ArithmeticGrader(), log=log)
    flows = (majority_vote(one, Key.seed(3).fold(one.id), n=4) for one in PROBLEMS)
    return {one.index: [t.text for t in one.result.trajectories()] for one in driver.run(flows)}, driver.bill


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_problem_stays_with_its_server_and_the_problems_are_spread(models: list[Model]) -> None:
    made = policy(models)
    for _ in range(4):
        for problem in PROBLEMS:
            ask(made, problem)
    by_server = [Counter(model.prompts) for model in models]
    # One at a time no server is busy: each prompt was read by one server, four times.
    assert sum(by_server, Counter()) == {problem.text: 4 for problem in PROBLEMS}
    assert all(set(counts.values()) == {4} for counts in by_server)
    assert min(len(counts) for counts in by_server) >= 3


def test_one_busy_prompt_is_spread_by_load(models: list[Model]) -> None:
    for model in models:
        model.goes_on.clear()
    made = policy(models, concurrency=8)
    thread = threading.Thread(target=ask, args=(made, PROBLEMS[0], 12))
    thread.start()
    places = made._client.servers.replicas
    deadline = threading.Event()
    for _ in range(500):
        if sum(len(model.prompts) for model in models) == 12:
            break
        deadline.wait(0.01)
    loads = sorted(one.open for one in places)
    for model in models:
        model.goes_on.set()
    thread.join()
    # 12 of one prompt over three servers: none above ceil(1.25 * 12 / 3) = 5.
    assert sum(loads) == 12
    assert loads[-1] <= 5
    assert all(one.open == 0 for one in places)


def test_a_run_in_which_one_of_three_dies_gives_the_same_and_pays_once(models: list[Model]) -> None:
    wanted, bill = solve(policy(models[:1]))
    assert bill.proposals == 4 * len(PROBLEMS)
    models[1].breaks_after = 7
    made = policy(models)
    found, same = solve(made)
    assert models[1].gone.is_set()
    assert (found, same) == (wanted, bill)
    # What broke off was asked again elsewhere, and is on no bill twice.
    assert made.usage.requests == same.proposals
    assert sum(len(model.prompts) for model in (models[0], models[2])) > len(PROBLEMS)


def test_answers_are_kept_under_one_name_whichever_server_gave_them(models: list[Model], tmp_path: Path) -> None:
    with AnswerLog(tmp_path / "answers.sqlite") as log:
        wanted, bill = solve(policy(models), log)
    asked = [len(model.prompts) for model in models]
    with AnswerLog(tmp_path / "answers.sqlite") as log:
        # Another server at the same place has the same name; without a place the first address has.
        found, again = solve(policy(models[2:]), log)
    assert found == wanted
    assert (bill.cached, again.proposals, again.cached) == (0, 0, bill.proposals)
    assert [len(model.prompts) for model in models] == asked
    first = policy(models[:1], place="")
    assert policy(models, place="").name == first.name
    assert policy(models[1:], place="").name != first.name


def test_a_server_that_is_down_is_left_alone_and_taken_back_when_it_answers(models: list[Model]) -> None:
    clock, (one, two) = Clock(), models[:2]
    servers = Servers(Server(f"{one.url},{two.url}", "m").each, clock=clock)
    replicas = dict(zip((one.url, two.url), servers.replicas, strict=True))
    with servers.one(Route("q")) as first:
        pass
    other = next(replica for replica in servers.replicas if replica is not first)
    with pytest.raises(PassingError), servers.one(Route("q")):
        raise PassingError("gone", absent=True)
    assert not first.up
    first_model = one if replicas[one.url] is first else two
    first_model.status = 503
    for clock.now in (0.5, 1.0, 1.5):
        # Looked at after a second, in vain; its requests go to the next server in rank.
        with servers.one(Route("q")) as chosen:
            assert chosen is other
    assert first.looked_at == 1.0 + 2.0
    first_model.status = 200
    clock.now = 2.9
    with servers.one(Route("q")) as chosen:
        assert chosen is other
    clock.now = 3.0
    with servers.one(Route("q")) as chosen:
        assert chosen is first


def test_a_look_outlives_one_connection_that_the_server_had_closed() -> None:
    broken = httpx.RemoteProtocolError("Server disconnected without sending a response.")
    looks: list[httpx.TransportError | int] = []

    def answer(_: httpx.Request) -> httpx.Response:
        look = looks.pop(0)
        if isinstance(look, int):
            return httpx.Response(look)
        raise look

    server = Server("http://127.0.0.1:1/v1", "m")
    replica = Replica(server, httpx.Client(transport=httpx.MockTransport(answer)))
    for given, up in (([broken, 200], True), ([broken, 503], False), ([broken, broken], False)):
        looks[:] = given
        assert (replica.answers(), looks) == (up, [])
    looks[:] = [httpx.ConnectError("refused"), 200]
    assert not replica.answers()
    assert looks == [200]


def test_faults_in_a_row_take_a_server_out_and_being_busy_does_not(models: list[Model]) -> None:
    servers = Servers(Server(f"{models[0].url},{models[1].url}", "m").each, clock=Clock())

    def fail(**how: Any) -> None:
        with pytest.raises(PassingError), servers.one(Route("q")):
            raise PassingError("as told", **how)

    for _ in range(2 * FAULTS):
        fail(busy=True)
    assert all(one.up for one in servers.replicas)
    for _ in range(FAULTS):
        fail()
    assert sorted(one.up for one in servers.replicas) == [False, True]


def test_a_server_comes_back_in_the_middle_of_a_run(models: list[Model]) -> None:
    clock, made = Clock(), policy(models[:2])
    made._client.servers._clock = clock
    models[0].stop()
    before = {problem.text: ask(made, problem) for problem in PROBLEMS}
    assert not models[0].prompts
    models[0].restart()
    clock.now = 100.0
    assert {problem.text: ask(made, problem) for problem in PROBLEMS} == before
    assert len(models[0].prompts) > 3


def test_errors_name_the_server(models: list[Model]) -> None:
    models[1].status = 404
    made = policy(models)
    refused = next(one for one in PROBLEMS if made._client.servers._choice(Route(one.text)).server.url == models[1].url)
    with pytest.raises(PolicyError, match=rf"{models[1].url}/chat/completions refused with status 404"):
        ask(made, refused)
    for model in models:
        model.status = 500
    with pytest.raises(PolicyError, match=r"none of 3 servers answers, in 2 rounds of tries; last http://127.* 500"):
        ask(policy(models, retries=1, patience=0.0), PROBLEMS[0])
    # Each of the three was tried in each of the two rounds, or was known to be down.
    assert len({model.url for model in models if model.prompts}) == 3


def test_json_goes_to_another_server_too(models: list[Model]) -> None:
    models[0].stop()
    client = ServerClient(Server(f"{models[0].url},{models[1].url}", "m"), PolicyError, sleep=lambda _: None)
    body = {"messages": [{"content": "What is 1 + 1?"}], "seed": 0}
    for start in "abcdefgh":
        # The answers are events, and no JSON: the error names the server that gave it.
        with pytest.raises(PolicyError, match=f"{models[1].url}/chat/completions answered with no JSON"):
            client.json("chat/completions", body, start=start)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("http://a/v1#m", ("http://a/v1", "m", "")),
        ("http://a/v1,https://b/v1#m?top_p=1", ("http://a/v1,https://b/v1", "m", "top_p=1")),
        ("http://a/v1#m,http://b/v1#m?top_p=1", ("http://a/v1,http://b/v1", "m", "top_p=1")),
        ("http://u:p@a/v1?k=1#o/m,http://b?k=2#o/m", ("http://u:p@a/v1?k=1,http://b?k=2", "o/m", "")),
        ('http://a#m?body={"x":"1,http://c"}', ("http://a", "m", 'body={"x":"1,http://c"}')),
    ],
)
def test_addresses_of_several_servers(address: str, parts: tuple[str, str, str]) -> None:
    assert split_address(address) == parts


def test_plans_of_folders_hold_the_place_of_servers() -> None:
    assert lasting("http://a/v1,http://b/v1#m?top_p=1") == lasting("http://a/v1#m?top_p=1") == "http://a/v1#m?top_p=1"
    assert lasting("http://a/v1#m?place=here") == lasting("http://b/v1,http://c/v1#m?place=here") == "here#m?place=here"
    assert lasting("builtin:arithmetic?top_k=2") == "builtin:arithmetic?top_k=2"


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://a/v1#m,http://b/v1#n", "must serve one model, got m and n"),
        ("http://a/v1#m,http://a/v1#m", "an address is given twice"),
        ("http://a/v1,http://b/v1", "names no model"),
    ],
)
def test_addresses_that_are_refused(address: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        policy_at(address)


def test_secrets_of_each_server_are_hidden() -> None:
    server = Server("http://u:first-secret@a/v1,http://b/v1?key=other-secret", "m")
    assert [one.url for one in server.each] == ["http://a/v1", "http://b/v1"]
    assert server.hidden("first-secret other-secret") == "*** ***"
    assert "secret" not in repr(server)


def test_label_by_two_servers_of_which_one_is_gone(models: list[Model], tmp_path: Path) -> None:
    problems = tmp_path / "problems.jsonl"
    rows = [{"id": one.id, "prompt": one.text, "reference": one.reference} for one in PROBLEMS[:6]]
    problems.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    models[0].stop()
    tables = []
    for name, address in (
        ("one", f"{models[1].url}#m?place=here"),
        ("two", f"{models[0].url}#m,{models[1].url}#m?place=here"),
    ):
        out = tmp_path / name
        line = (
            f"label --problems {problems} --policy {address} --samples 4 --rollouts 2 --grader arithmetic --out {out}"
        )
        done = CliRunner().invoke(app, line.split())
        assert done.exit_code == 0, done.output
        tables.append([*read_table(out / "labels.parquet")])
    assert tables[0] == tables[1]
    assert len(tables[0]) > 6

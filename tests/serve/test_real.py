"""The whole chain of real programs: OpenAI's client, `stepreward serve`, and a model server that no one here wrote."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx
import openai
import pytest
from typer.testing import CliRunner

from stepreward.cli.app import app
from stepreward.core.errors import SteprewardError
from stepreward.policies.model_sources import resolve
from stepreward.score.encode.per_step import EncoderRecord
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.tasks.arithmetic import generate
from tests.forked import COMMAND, begun
from tests.serve.running import first_line
from tests.transformers_server import serving


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    StepRewardModel.from_backbone(resolve("builtin:arithmetic"), EncoderRecord()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`transformers serve` on the built-in policy."""
    with serving(tmp_path_factory.mktemp("backend")) as url:
        yield f"{url}/v1#{resolve('builtin:arithmetic')}?endpoint=completions&max_tokens=64"


@pytest.fixture
def gateway(model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[ForkServerProcess, str]]:
    """`stepreward serve` with the flags that the test names, and its address."""
    command = ["serve", "--port", "0", "--model", str(model), "--grader", "arithmetic"]
    flags = [request.getfixturevalue("backend") if flag == "BACKEND" else flag for flag in request.param]
    (tmp_path / "program.py").write_text(COMMAND.format(before=""))
    run = begun(tmp_path / "program.py", tmp_path, tmp_path / "log", words=[*command, *flags])
    found = re.search(r"http://\S+", first_line(run, tmp_path / "log"))
    assert found
    yield run, found.group()
    run.kill()
    run.join()


BEHIND_A_SERVER = ["--policy", "BACKEND", "--method", "best-of-n", "--set", "n=2", "--name", "solver"]


@pytest.mark.parametrize("gateway", [BEHIND_A_SERVER], indirect=True)
def test_an_application_changes_its_base_url_and_gets_guided_answers(
    gateway: tuple[ForkServerProcess, str], tmp_path: Path
) -> None:
    run, url = gateway
    problem = next(iter(generate("held_out", 1)))
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert "solver:beam" in [model.id for model in client.models.list()]
        messages = [{"role": "user", "content": problem.text}]
        made = client.chat.completions.create(model="solver", messages=messages, seed=1)  # type: ignore[call-overload]
        assert made.choices[0].message.content
        assert made.usage.completion_tokens > 0
        stream = client.chat.completions.create(
            model="solver:beam?beams=1&width=2&max_steps=3", messages=messages, stream=True, seed=1
        )  # type: ignore[call-overload]
        text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
        assert "\n" in text
    assert run.pid is not None
    os.kill(run.pid, signal.SIGTERM)
    run.join(30)
    assert run.exitcode == 0
    log = (tmp_path / "log" / "err").read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [line["route"] for line in lines] == ["/v1/models", "/v1/chat/completions", "/v1/chat/completions"]
    assert problem.text not in log


@pytest.mark.parametrize("gateway", [["--policy", "builtin:arithmetic", "--set", "beams=2"]], indirect=True)
def test_a_model_in_the_server_itself_and_step_scores_with_curl_s_shapes(
    gateway: tuple[ForkServerProcess, str],
) -> None:
    _, url = gateway
    problem = next(iter(generate("held_out", 1)))
    body = {"model": "policy", "messages": [{"role": "user", "content": problem.text}], "seed": 3}
    body |= {"stepreward": {"scores": True}}
    made = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()
    steps = made["choices"][0]["stepreward"]["steps"]
    again = httpx.post(
        f"{url}/v1/steps", json={"problem": problem.text, "steps": [s["text"] for s in steps]}, timeout=60
    ).json()
    assert again["scores"] == pytest.approx([s["score"] for s in steps], abs=1e-5)
    assert made["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "nothing to serve"),
        (["--policy", "builtin:arithmetic", "--host", "0.0.0.0"], "can be reached by others"),
        (["--policy", "builtin:arithmetic", "--method", "baem"], "did you mean beam"),
        (["--policy", "builtin:arithmetic", "--method", "beam", "--set", "beans=2"], "did you mean beams"),
        (["--policy", "http://localhost:1/v1"], "names no model"),
        (["--policy", "http://localhost:1/v1#m?endpoint=chatty"], "one of chat, completions"),
        (["--policy", "http://localhost:1/v1#m?temperatur=1"], "did you mean temperature"),
        (["--policy", "builtin:arithmetic", "--keys", "nowhere.txt"], "cannot read API keys"),
    ],
)
def test_what_cannot_be_served_is_said_before_it_listens(
    flags: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["serve", *flags])
    assert isinstance(done.exception, SteprewardError)
    assert says in str(done.exception)

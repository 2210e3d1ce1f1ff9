"""A real vLLM, on a CPU: servers that generate, pool and classify, engines in process, and their end.

Runs by `make vllm` in an environment that has it; skipped elsewhere. Scores are those of the same weights in this
process, read as the literal recipes read them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from tests.docs import blocks
from tests.score.awkward_texts import CASES
from tests.score.tiny_checkpoints import build

from stepreward import export
from stepreward.core.errors import InputError
from stepreward.core.http.server import Server
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Propose, Score
from stepreward.core.types import Problem, Step
from stepreward.policies.http import HttpPolicy
from stepreward.policies.loading import resolve
from stepreward.policies.local import LocalPolicy
from stepreward.score.by_recipe import load_served
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.load import load
from stepreward.score.model.layouts import LAYOUTS
from stepreward.score.model.step_reward_model import StepRewardModel
from stepreward.score.model.tiny_models import fresh_backbone, train_tokenizer
from stepreward.score.remote.reward_server import ServedScorer
from stepreward.tasks.arithmetic import generate

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM: make vllm"),
    pytest.mark.timeout(600),
]
ENVIRONMENT = {
    **os.environ, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
}  # fmt: skip
# Seeded requests whose prompt is cut into chunks crash this build; it cuts above the batched tokens.
FLAGS = ["--enforce-eager", "--dtype", "float32", "--max-num-batched-tokens", "16384"]
PROBLEMS = list(generate("held_out", 6))
WIDE = 128
"""Hidden states: with four heads the narrowest that the CPU kernels know."""
FOVER = "ryokamoi/Qwen-2.5-7B-FoVer-PRM"
STEPWISE = [case for name, case in CASES.items() if name not in ("line break first", "blank lines")]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Running:
    """A server of vLLM that may be killed and started again at its address."""

    def __init__(self, model: Path, log: Path, *flags: str) -> None:
        self.model, self.log, self.flags, self.port = model, log, flags, free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        words = ["--model", str(self.model), "--served-model-name", "tiny", "--host", "127.0.0.1"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words, "--port", str(self.port), *FLAGS,
                 *self.flags],
                env=ENVIRONMENT, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        for _ in range(600):
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        raise AssertionError(f"no server after 300 s: {self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """kill -9 of the server and of its engine's processes."""
        family = [self.process.pid, *(child.pid for child in psutil.Process(self.process.pid).children(recursive=True))]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def running(model: Path, *flags: str) -> Iterator[Running]:
    server = Running(model, model.parent / f"{model.name}.log", *flags)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 of random weights: a reward model that answers by a token."""
    folder = tmp_path_factory.mktemp("vllm") / "language"
    build(folder, "qwen", "tokens", hidden=WIDE)
    return folder


@pytest.fixture(scope="module")
def labels(language: Path) -> Iterator[Running]:
    with running(language, "--max-model-len", "1024") as server:
        yield server


@pytest.fixture(scope="module")
def generating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The built-in policy, which has learned to write what people can read."""
    folder = tmp_path_factory.mktemp("vllm") / "policy"
    shutil.copytree(resolve("builtin:arithmetic"), folder)
    # Renders a prompt as the completions' template does, so that both interfaces see one text.
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message['content'] + '\\n' }}{% endfor %}"
    )
    with running(folder) as server:
        yield server


def asked(problem: Problem, prefix: tuple[Step, ...] = (), *, until: str = "end") -> Propose:
    return Propose(problem, prefix, Key.seed(1), 1, until, 24, temperature=0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("until", ["end", "step"])
def test_greedy_answers_are_those_of_the_same_weights_in_process(
    generating: Running, endpoint: str, until: str
) -> None:
    plain = "{prompt}\n"
    local = LocalPolicy.load(generating.model, dtype="float32", template=None if endpoint == "chat" else plain)
    served = HttpPolicy(Server(f"{generating.url}/v1", "tiny"), endpoint=endpoint, template=plain)  # type: ignore[arg-type]
    questions = [asked(problem, until=until) for problem in PROBLEMS]
    for here, there in zip(local.propose(questions), served.propose(questions), strict=True):
        assert [s.text for s in there[0].steps] == [s.text for s in here[0].steps]
        assert there[0].finished == here[0].finished


def test_label_tokens_far_from_the_likeliest_are_read(labels: Running, language: Path) -> None:
    """The token that vLLM adds to the likeliest, since it drew it, may be less likely than a label outside them."""
    served = load_served(language, labels.url, served_as="tiny", endpoint="completions", like=FOVER)
    local = load(language, like=FOVER)
    for question, steps in STEPWISE:
        np.testing.assert_allclose(served.score(question, steps), local.score(question, steps), atol=1e-5)


def test_a_row_past_the_context_is_its_own_fault(labels: Running, language: Path) -> None:
    served = load_served(language, labels.url, served_as="tiny", endpoint="completions", like=FOVER)
    with pytest.raises(InputError, match="refused with status 400"):
        served.score_many([Score(Problem("long", "q"), (Step("word " * 300),))])
    (fine,) = served.score_many([Score(Problem("p", "q"), (Step("1 + 1 = 2"),))])
    assert np.isfinite(fine.scores).all()


def test_a_server_killed_in_a_labelling_and_started_again_gives_the_same_table(
    generating: Running, tmp_path: Path
) -> None:
    problems = tmp_path / "problems.jsonl"
    rows = [{"prompt": problem.text, "reference": problem.reference} for problem in PROBLEMS]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [
        "label", "--problems", str(problems), "--grader", "arithmetic",
        "--policy", f"{generating.url}/v1#tiny?max_tokens=64",
        "--samples", "2", "--rollouts", "4", "--skip-failed",
    ]  # fmt: skip

    def label(out: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "stepreward", *words, "--out", str(tmp_path / out)])

    assert label("whole").wait(300) == 0
    broken = label("broken")
    answers = tmp_path / "broken"
    for _ in range(600):
        if answers.exists() and any(path.stat().st_size > 40_000 for path in answers.glob("*sqlite*")):
            break
        time.sleep(0.05)
    generating.kill()
    generating.start()
    if broken.wait(300) != 0:
        assert label("broken").wait(300) == 0
    tables = [pq.read_table(tmp_path / out / "labels.parquet") for out in ("whole", "broken")]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("layout", "row", "endpoint", "probabilities", "flags"),
    [
        ("token-classification-2", "trl-prm", "pooling", None, ()),
        ("token-classification-1", "SCAN-PRM", "pooling", True, ()),
        ("token-classification-1", "SCAN-PRM", "pooling", False, ()),
        ("sequence-classification-1", "HRM", "classify", None, ()),
        ("sequence-classification-1", "HRM", "score", None, ()),
    ],
)  # fmt: skip
def test_scores_of_a_reward_model_in_a_server(
    tmp_path_factory: pytest.TempPathFactory, layout: str, row: str, endpoint: str, probabilities: bool | None,
    flags: tuple[str, ...], servers: dict[str, Running],
) -> None:  # fmt: skip
    if layout not in servers:
        folder = tmp_path_factory.mktemp("vllm") / layout
        build(folder, "qwen", layout, hidden=WIDE)
        servers[layout] = Running(folder, folder.parent / "log", "--runner", "pooling", *flags)
    server = servers[layout]
    served = load_served(
        server.model,
        server.url,
        served_as="tiny",
        endpoint=endpoint,
        probabilities=probabilities,
        like=row,  # type: ignore[arg-type]
    )
    local = load(server.model, like=row)
    assert isinstance(served, ServedScorer)
    for question, steps in STEPWISE:
        np.testing.assert_allclose(served.score(question, steps), local.score(question, steps), atol=2e-5)


EXPORTS = {
    "token-classification": ("pooling", True, ()),
    "trl-prm": ("pooling", None, ()),
    "qwen-prm": ("pooling", None, ("--pooler-config", '{"tok_pooling_type": "ALL"}')),
    "qwen-reward": ("pooling", False, ()),
    "sequence-classification": ("classify", True, ()),
}
"""For each layout the endpoint, whether the server makes probabilities, and flags of the server."""


@pytest.mark.parametrize("layout", [*EXPORTS])
def test_scores_of_an_exported_model_in_a_server(layout: str, tmp_path: Path) -> None:
    endpoint, probabilities, flags = EXPORTS[layout]
    tokenizer = train_tokenizer([text for question, steps in STEPWISE for text in (question, *steps)] * 10, 400)
    torch.manual_seed(1)
    head = torch.nn.Linear(WIDE, 1, bias=layout != "sequence-classification")
    torch.nn.init.normal_(head.weight, 0, 0.2)
    record = EncoderRecord(PerStep(clean=("chomp",)))
    model = StepRewardModel(fresh_backbone(tokenizer, hidden=WIDE, layers=2), tokenizer, record, head=head)
    scorer = DiscriminativeScorer(model)
    export(scorer, tmp_path / "out", layout=layout)
    with running(tmp_path / "out", "--runner", "pooling", *flags) as server:
        served = load_served(
            tmp_path / "out",
            server.url,
            served_as="tiny",
            endpoint=endpoint,
            probabilities=probabilities,  # type: ignore[arg-type]
        )
        for question, steps in STEPWISE:
            np.testing.assert_allclose(served.score(question, steps), scorer.score(question, steps), atol=2e-5)
        # The whole code of the card, with the address and the name that this server has.
        code = "\n".join(blocks(tmp_path / "out" / "README.md", "python"))
        code = code.replace("http://localhost:8000", server.url).replace('"model": NAME', '"model": "tiny"')
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=200,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        said = [json.loads(line) for line in done.stdout.splitlines()]
        wanted = scorer.score("1 + 1 = ?", ["1 + 1 = 2", "Answer: 2"])
        np.testing.assert_allclose(said, [wanted] * (3 if LAYOUTS[layout].task else 2), atol=2e-5)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Running]]:
    started: dict[str, Running] = {}
    yield started
    for server in started.values():
        server.kill()


def test_a_sequence_classifier_in_process_scores_and_prints_results_alone(tmp_path: Path) -> None:
    model = tmp_path / "HRM"
    build(model, "qwen", "sequence-classification-1", hidden=WIDE)
    rows = tmp_path / "rows.jsonl"
    question, steps = CASES["plain"]
    rows.write_text(json.dumps({"question": question, "steps": list(steps)}) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "stepreward", "score", "--data", str(rows), "--model", f"vllm:{model}", "--like", "HRM"],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = done.stdout.splitlines()
    # The engine's own dtype is half of float32's.
    np.testing.assert_allclose(json.loads(line)["scores"], load(model, like="HRM").score(question, steps), atol=0.05)


def test_sigterm_of_a_gateway_leaves_no_engine(language: Path, tmp_path: Path) -> None:
    words = ["serve", "--port", "0", "--policy", f"vllm:{language}", "--grader", "arithmetic"]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "stepreward", *words], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=log, text=True
        ) as gateway,
    ):
        assert gateway.stdout is not None
        line = gateway.stdout.readline()
        assert "serves at http" in line, (tmp_path / "log").read_text()[-3000:]
        family = psutil.Process(gateway.pid).children(recursive=True)
        assert family
        gateway.send_signal(signal.SIGTERM)
        gateway.wait(90)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive

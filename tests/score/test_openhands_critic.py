"""The critic of OpenHands: a run of an agent as its client sends it, 27 outputs by name, here and in a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.cli.running import invoke
from tests.score.test_served import Vllm, served
from tests.score.tiny_checkpoints import Built, build

from stepreward.core.errors import ModelError
from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step
from stepreward.formats.registry import read
from stepreward.score.checkpoints.known_checkpoints import by_name
from stepreward.score.encode.readout import Readout
from stepreward.score.load import load
from stepreward.score.remote.head_outputs import are_activated

NAME = "OpenHands/openhands-critic-4b-v1.0"
TOOL = {"type": "function", "function": {"name": "bash", "parameters": {"type": "object", "properties": {}}}}
LOG = [
    {"kind": "SystemPromptEvent", "source": "agent", "tools": [TOOL], "system_prompt": {"type": "text", "text": "Fix."},
     "dynamic_context": {"type": "text", "text": "Today."}},
    {"kind": "MessageEvent", "source": "user", "llm_message": {"role": "user", "content": "Repair the sum."}},
    {"kind": "ActionEvent", "source": "agent", "id": "a", "thought": [{"type": "text", "text": "I look."}],
     "reasoning_content": "secret", "tool_name": "bash", "tool_call_id": "c1",
     "tool_call": {"arguments": '{"command": "ls"}'}},
    {"kind": "ObservationEvent", "source": "environment", "tool_name": "bash", "tool_call_id": "c1",
     "observation": {"content": [{"type": "text", "text": "sum.py"}]}},
    {"kind": "ActionEvent", "source": "agent", "id": "b", "thought": [], "tool_name": "bash", "tool_call_id": "c2",
     "tool_call": {"arguments": '{"command": "sed"}'}},
    {"kind": "ObservationEvent", "source": "environment", "tool_name": "bash", "tool_call_id": "c2",
     "observation": {"content": [{"type": "text", "text": "done"}]}},
    {"kind": "MessageEvent", "source": "agent", "llm_message": {"role": "assistant", "content": "It adds now."}},
]  # fmt: skip
SENT = [
    {"role": "system", "content": "Fix.\nToday."},
    {"role": "user", "content": "Repair the sum."},
    {"role": "assistant", "content": "I look."},
    {"role": "tool", "content": "sum.py"},
    {"role": "assistant", "content": ""},
    {"role": "tool", "content": "done"},
    {"role": "assistant", "content": "It adds now."},
]
"""The messages of the same run as the authors' client sends them: text alone, by roles."""


@pytest.fixture(scope="module")
def critic(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("hub") / "openhands-critic-4b-v1.0"
    return build(folder, "qwen3", "sequence-classification-27")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "run.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in LOG), encoding="utf-8")
    return path


def sent(critic: Built, messages: list[dict[str, str]], tools: Any) -> np.ndarray:
    """(27,) sigmoids at the last token of a chat, by transformers alone."""
    ids = critic.tokenizer.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=False)
    with torch.no_grad():
        return critic.model(input_ids=torch.tensor([ids])).logits[0].sigmoid().numpy()


def expected(critic: Built, tools: Any = (TOOL,)) -> np.ndarray:
    """(7 - 2, 27) outputs behind each step of the log, NaN at observations."""
    rows = [sent(critic, SENT[: n + 1], list(tools) or None) for n in range(2, 7)]
    return np.array([row if SENT[n]["role"] == "assistant" else row * np.nan for n, row in enumerate(rows, 2)])


def question(log: Path) -> Score:
    (item,) = read(log)
    return Score(item.problem, item.steps)


def test_a_log_is_scored_as_the_client_sends_it(critic: Built, log: Path) -> None:
    names = by_name(NAME).record.readout.names
    scorer = load(critic.folder, also={name: name for name in names[1:]})
    asked = question(log)
    assert asked.problem.meta["tools"] == [TOOL]
    (made,) = scorer.score_many([asked])
    rows = expected(critic)
    np.testing.assert_allclose(made.scores, rows[:, 0], atol=1e-5)
    for place, name in enumerate(names[1:], 1):
        np.testing.assert_allclose(made.columns[name], rows[:, place], atol=1e-5, err_msg=name)
    assert np.nanstd(rows) > 0.05, "outputs that do not differ prove nothing"


def test_the_labels_stand_where_the_client_has_them() -> None:
    names = by_name(NAME).record.readout.names
    assert [names.index(one) for one in ("success", "sentiment_positive", "misunderstood_intention")] == [0, 1, 4]
    assert [names.index(one) for one in ("other_agent_issue", "infrastructure_external_issue", "correction")] == [
        16, 17, 20,
    ]  # fmt: skip
    assert len(names) == 27


def test_tools_decide_a_score_and_problems_that_differ_in_them_share_none(critic: Built, log: Path) -> None:
    asked = question(log)
    bare = replace(asked, problem=replace(asked.problem, meta={}))
    together = load(critic.folder).score_many([asked, bare])
    np.testing.assert_allclose(together[0].scores, expected(critic)[:, 0], atol=1e-5)
    np.testing.assert_allclose(together[1].scores, expected(critic, ())[:, 0], atol=1e-5)
    assert np.nanmax(abs(together[0].scores - together[1].scores)) > 1e-4


def test_another_width_is_refused(tmp_path: Path) -> None:
    one = build(tmp_path / "one", "qwen3", "sequence-classification-1")
    with pytest.raises(ModelError, match="the head has 1 outputs, the record says n_labels=27"):
        load(one.folder, like=NAME)


class Multi(Vllm):
    """A server of 27 labels: sigmoids by default, logits where they are requested, or a softmax."""

    softmax: bool = False

    def rows(self, ids: list[int], body: dict[str, Any]) -> torch.Tensor:
        with torch.no_grad():
            z = self.built.model.score(self.built.model.model(input_ids=torch.tensor([ids])).last_hidden_state[0])
        active = body.get("use_activation") is not False if self.always is None else self.always
        return z.softmax(-1) if self.softmax else z.sigmoid() if active else z


@pytest.fixture
def server(critic: Built) -> Iterator[tuple[Multi, str]]:
    state = Multi(critic, None, step_tag=None)
    running, url = served(state)
    yield state, f"{url}#{critic.folder}"
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize("endpoint", ["classify", "pooling"])
def test_a_server_gives_the_same_scores(critic: Built, log: Path, server: tuple[Multi, str], endpoint: str) -> None:
    state, address = server
    (made,) = load(f"{address}?endpoint={endpoint}").score_many([question(log)])
    np.testing.assert_allclose(made.scores, expected(critic)[:, 0], atol=1e-5)
    path, body = state.asked[-1]
    ids = critic.tokenizer.apply_chat_template(SENT, tools=[TOOL], tokenize=True, return_dict=False)
    assert (path, body["input"][-1] if endpoint == "classify" else body["input"]) == (f"/{endpoint}", ids)


def test_a_server_that_pools_whole_texts_is_told_its_endpoint(log: Path, server: tuple[Multi, str]) -> None:
    """As `vllm serve --task classify` is: one row a text at /pooling, which says nothing of earlier steps."""
    state, address = server
    state.change = lambda answer: answer | {"data": [{"index": 0, "data": answer["data"][0]["data"][-1:]}]}
    with pytest.raises(ModelError, match=r"returned 1 rows for .* by endpoint=classify"):
        load(address).score_many([question(log)])


def test_a_server_that_applies_something_anyway_is_not_read_wrongly(
    critic: Built, log: Path, server: tuple[Multi, str]
) -> None:
    state, address = server
    state.always = True
    with pytest.raises(ModelError, match="pass probabilities=True if it did"):
        load(f"{address}?endpoint=classify").score_many([question(log)])
    (made,) = load(f"{address}?endpoint=classify&probabilities=true").score_many([question(log)])
    np.testing.assert_allclose(made.scores, expected(critic)[:, 0], atol=1e-5)
    state.softmax = True
    for stated in ("", "&probabilities=true"):
        with pytest.raises(ModelError, match=r"compares its 27 labels by a softmax.*multi_label_classification"):
            load(f"{address}?endpoint=classify{stated}").score_many([question(log)])


def test_what_numbers_of_a_server_show() -> None:
    each, compared = Readout(n_labels=2), Readout("softmax", n_labels=2)
    shares, sigmoids, logits = (np.array([row]) for row in ([0.25, 0.75], [0.5, 0.75], [-1.0, 0.5]))
    assert are_activated(compared, shares, None)
    assert not are_activated(compared, logits, None)
    assert not are_activated(each, logits, None)
    assert not are_activated(each, shares, False), "logits may add up to one"
    assert are_activated(each, sigmoids, True)
    assert not are_activated(Readout("value", n_labels=2), sigmoids, None)


def test_the_command_line_scores_a_log(critic: Built, log: Path, server: tuple[Multi, str], tmp_path: Path) -> None:
    rows = expected(critic)
    loops = by_name(NAME).record.readout.names.index("loop_behavior")
    for model, more in (
        (str(critic.folder), "--also loops=loop_behavior"), (f"{server[1]}?endpoint=classify", ""),
    ):  # fmt: skip
        out = tmp_path / f"scored{len(more)}.jsonl"
        out.write_text(invoke(f"score --data {log} --model {model} --to table {more}"), encoding="utf-8")
        (item,) = read(out)
        np.testing.assert_allclose(item.column("score"), rows[:, 0], atol=1e-5)
        if more:
            np.testing.assert_allclose(item.column("score:loops"), rows[:, loops], atol=1e-5)


def test_thinking_and_calls_are_no_part_of_what_was_said(critic: Built) -> None:
    scorer = load(critic.folder)
    calls = [{"name": "bash", "arguments": {}}]
    plain = Step("I look.")
    full = Step('hm\nI look.\n{"name": "bash", "arguments": {}}\n', meta={"tool_calls": calls, "reasoning": "hm"})
    (a,), (b,) = (scorer.score_many([Score(Problem("p", "Do."), (step,))])[0].scores for step in (plain, full))
    assert a == b

"""Settings of a policy: the same in its address, as flags and of one question, in a server and on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.serve.backend import Backend, backing
from tests.vllm_engine import SamplingParams, StandIn
from tiny_models import byte_level, tiny

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.answer_log import digest
from stepreward.core.runtime.flows import Propose
from stepreward.core.types import Problem
from stepreward.policies import vllm_policy as vllm
from stepreward.policies.http import HttpPolicy
from stepreward.policies.local import LocalPolicy
from stepreward.policies.named import policy_at
from stepreward.policies.prompts import PromptTokens
from stepreward.policies.vllm_policy import VllmPolicy

GIVEN = {
    "top_k": "20", "min_p": "0.1", "reasoning_effort": "low", "chat_template_kwargs": '{"enable_thinking":false}',
    "body": '{"user":"me"}',
}  # fmt: skip
SENT = {
    "top_k": 20, "min_p": 0.1, "reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False},
    "user": "me",
}  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<{{m.role}}>{{m.content}}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}<no>{% endif %}{{ reasoning_effort or '' }}"
)
PROBLEM = Problem("p", "ab")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Backend, str]]:
    with backing() as (backend, url):
        yield backend, url


@pytest.fixture(scope="module")
def chatting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose chat template reads two words beside the messages."""
    folder, tokenizer = tmp_path_factory.mktemp("model"), byte_level()
    tokenizer.chat_template = TEMPLATE
    tiny("qwen2", tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def ask(problem: Problem = PROBLEM, **how: Any) -> Propose:
    return Propose(problem, (), Key.seed(0), **{"max_tokens": 5, **how})


@pytest.mark.parametrize("name", GIVEN)
def test_a_flag_and_an_address_say_the_same_to_a_server(server: tuple[Backend, str], name: str) -> None:
    backend, url = server
    told = {name: GIVEN[name]}
    for made in (policy_at(f"{url}#good?{name}={GIVEN[name]}"), policy_at(f"{url}#good", settings=told)):
        made.propose([ask()])
        field = "user" if name == "body" else name
        assert backend.sent[-1][field] == SENT[field]
        assert not {*SENT} - {field} & {*backend.sent[-1]} - {field} & {*SENT}
        assert made.name == policy_at(f"{url}#good", settings=told).name
    with pytest.raises(InputError, match=f"{name} is given twice"):
        policy_at(f"{url}#good?{name}={GIVEN[name]}", settings=told)


def test_they_reach_the_chat_template_of_a_model_on_this_machine(chatting: Path) -> None:
    plain = policy_at(str(chatting))
    assert isinstance(plain, LocalPolicy)
    told = {name: GIVEN[name] for name in ("reasoning_effort", "chat_template_kwargs")}
    made = policy_at(str(chatting), settings=told)
    assert isinstance(made, LocalPolicy)
    read = byte_level().decode
    assert read(plain.prompt_ids(PROBLEM)) == "<user>ab<a>"
    assert read(made.prompt_ids(PROBLEM)) == "<user>ab<a><no>low"
    assert made.name != plain.name
    both = policy_at(str(chatting), settings={"body": '{"reasoning_effort":"high","min_p":0.3}'})
    assert isinstance(both, LocalPolicy)
    assert read(both.prompt_ids(PROBLEM)) == "<user>ab<a>high"


@pytest.mark.parametrize("name", ["thinking", "chat_template", "tokenize", "add_generation_prompt"])
def test_what_a_chat_template_does_not_read_is_refused(chatting: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"does not read '{name}'"):
        policy_at(str(chatting), settings={"chat_template_kwargs": f'{{"{name}": 1}}'})


def test_a_question_says_more_than_its_policy(server: tuple[Backend, str], chatting: Path) -> None:
    backend, url = server
    meta = {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "high"}
    problem = Problem("q", "ab", meta=meta)
    far = policy_at(f'{url}#good?top_k=9&min_p=0.5&chat_template_kwargs={{"other":1}}&reasoning_effort=low')
    far.propose([ask(problem, top_k=3, min_p=0.0)])
    wanted = {"top_k": 3, "min_p": 0.0, "reasoning_effort": "high"}
    wanted |= {"chat_template_kwargs": {"other": 1, "enable_thinking": False}}  # type: ignore[dict-item]
    assert {name: backend.sent[-1][name] for name in wanted} == wanted
    far.propose([ask(problem, top_k=0)])
    assert backend.sent[-1]["top_k"] == -1, "all tokens, in the words of vLLM and SGLang"
    near = policy_at(str(chatting))
    assert isinstance(near, LocalPolicy)
    assert byte_level().decode(near.prompt_ids(problem)) == "<user>ab<a><no>high"
    with pytest.raises(InputError, match="problem 'x' must be an object"):
        near.prompt_ids(Problem("x", "ab", meta={"chat_template_kwargs": "on"}))
    names = {digest(one, "who") for one in (ask(), ask(problem), ask(top_k=3), ask(min_p=0.1), ask(top_k=3, min_p=0.1))}
    assert len(names) == 5, "a log does not take one for another"


def test_the_engine_in_this_process_is_told_the_same() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = TEMPLATE
    engine = StandIn(tiny("qwen2", tokenizer), tokenizer)
    made = VllmPolicy(engine, tokenizer, SamplingParams, min_p=0.2, top_k=7, chat={"enable_thinking": False})
    assert tokenizer.decode(made.prompt_ids(PROBLEM)) == "<user>ab<a><no>"
    made.propose([ask(), ask(top_k=3, min_p=0.4)])
    assert [(one.top_k, one.min_p) for one in engine.calls[-1][1]] == [(7, 0.2), (3, 0.4)]
    assert made.takes == {"top_k", "min_p", "chat_template_kwargs", "reasoning_effort"}


def test_tokens_below_min_p_are_never_drawn_and_log_probabilities_stay_the_model_s() -> None:
    tokenizer = byte_level()
    model = tiny("qwen2", tokenizer)
    made = LocalPolicy(model, tokenizer, min_p=0.5, max_tokens=1)
    with torch.no_grad():
        logits = model(torch.tensor([made.prompt_ids(PROBLEM)])).logits[0, -1].double()
    logs = logits.log_softmax(-1)
    kept = {int(v) for v in torch.nonzero(logits >= logits.max() + np.log(0.5))[:, 0]}
    (cut,), (free,) = (made.propose([ask(n=400, until="end", min_p=one)]) for one in (None, 0.0))
    drawn = [(s.tokens[0], s.logprobs[0]) for c in cut for s in c.steps if s.tokens and s.logprobs]
    assert {token for token, _ in drawn} == kept
    assert {s.tokens[0] for c in free for s in c.steps if s.tokens} - kept
    np.testing.assert_allclose([value for _, value in drawn], [float(logs[token]) for token, _ in drawn], atol=1e-5)


def test_a_chat_template_that_refuses_is_an_error_about_the_problem() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = "{% if messages[0].role != 'user' %}{{ raise_exception('no such role') }}{% endif %}x"
    with pytest.raises(InputError, match="refuses problem 's': no such role"):
        PromptTokens(tokenizer).prompt(Problem("s", ({"role": "robot", "content": "x"},)))


def test_what_a_policy_honours_is_what_it_says(server: tuple[Backend, str], chatting: Path) -> None:
    assert policy_at("builtin:arithmetic").takes == {"top_k", "min_p"}  # type: ignore[attr-defined]
    assert policy_at(str(chatting)).takes == {  # type: ignore[attr-defined]
        "top_k", "min_p", "chat_template_kwargs", "reasoning_effort",
    }  # fmt: skip
    far = policy_at(f"{server[1]}#good?fields=top_k:")
    assert isinstance(far, HttpPolicy)
    assert far.takes == {"tools", "min_p", "chat_template_kwargs", "reasoning_effort"}


def test_settings_behind_the_name_of_an_engine_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = TEMPLATE
    engine = StandIn(tiny("qwen2", tokenizer), tokenizer)
    started = list[dict[str, Any]]()
    monkeypatch.setattr(vllm, "vllm_engine", lambda **given: [engine, started.append(given)][0])
    monkeypatch.setattr(vllm, "vllm_module", lambda: SimpleNamespace(SamplingParams=SamplingParams))
    how = 'vllm:org/m?top_k=7&logprobs=true&separator=th&max_tokens=4&chat_template_kwargs={"enable_thinking":false}'
    made = policy_at(how, settings={"min_p": "0.2", "reasoning_effort": "low"})
    ((one,),) = made.propose([ask(max_tokens=None, until="step")])
    ((given,),) = [given for _, given in engine.calls]
    assert (given.top_k, given.min_p, given.max_tokens, given.stop) == (7, 0.2, 4, ["th"])
    assert tokenizer.decode(engine.calls[0][0][0]) == "<user>ab<a><no>low"
    assert all(len(step.logprobs or ()) == len(step.tokens or ()) for step in one.steps)
    with pytest.raises(InputError, match="seed cannot be set for a model on this machine"):
        policy_at('vllm:org/m?body={"seed":1}')
    other = policy_at('vllm:org/m?engine={"dtype":"float32","tensor_parallel_size":2}')
    assert started[-1] == {
        "model": "org/m", "enable_prefix_caching": True, "dtype": "float32", "tensor_parallel_size": 2
    }  # fmt: skip
    assert other.name != policy_at("vllm:org/m").name
    with pytest.raises(InputError, match="engine must be a JSON object, got 'float32'"):
        policy_at("vllm:org/m?engine=float32")

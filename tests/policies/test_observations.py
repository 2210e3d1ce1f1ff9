"""Prompts of agents: observations between actions are messages, as the chat template writes them."""

from __future__ import annotations

import pytest
from tiny_models import byte_level, tiny

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Propose
from stepreward.core.types import TOOLS, Problem, Step
from stepreward.policies.chat_messages import messages_of
from stepreward.policies.local import LocalPolicy
from stepreward.policies.prompts import PromptTokens

CHATML = (
    "{% if tools %}<tools>{{ tools | map(attribute='name') | join(',') }}</tools>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PROBLEM = Problem("p", "Count.")
SHOWN = Step("value 1", "observation", "user")


def prompts(template: str | None = CHATML) -> PromptTokens:
    tokenizer = byte_level()
    tokenizer.chat_template = template
    return PromptTokens(tokenizer)


def text_of(steps: list[Step], made: PromptTokens | None = None, problem: Problem = PROBLEM) -> str:
    made = made or prompts()
    return str(made.tokenizer.decode(made.ids(problem, steps, {})))


def test_a_prompt_of_turns_is_the_template_over_all_messages() -> None:
    steps = [Step("+1"), Step("value 2", "observation", "tool"), Step("*2"), Step("value 4", "observation", "tool")]
    made = prompts()
    messages = [{"role": "user", "content": "Count."}] + [
        {"role": role, "content": step.text} for role, step in zip(["assistant", "tool"] * 2, steps, strict=True)
    ]
    whole = made.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text_of(steps) == whole
    # A turn that is not over goes on where it is.
    assert text_of(steps[:3]) == whole[: whole.index("*2") + 2]
    assert text_of([]) == "<|user|>Count.<|end|><|assistant|>"


def test_what_is_shown_first_joins_the_prompt() -> None:
    assert text_of([SHOWN]) == "<|user|>Count.\n\nvalue 1<|end|><|assistant|>"
    assert text_of([SHOWN, Step("+1")]) == "<|user|>Count.\n\nvalue 1<|end|><|assistant|>+1"
    assert [m["content"] for m in messages_of(PROBLEM, [SHOWN, Step("+1")])] == ["Count.\n\nvalue 1", "+1"]
    other = Step("value 1", "observation", "tool")
    assert [m["role"] for m in messages_of(PROBLEM, [other])] == ["user", "tool"]


def test_actions_keep_the_tokens_that_were_sampled() -> None:
    made = prompts()
    action = Step("+1", tokens=(7, 8, 9))
    ids = made.ids(PROBLEM, [action, Step("value 2", "observation", "tool")], {})
    before = made.prompt(PROBLEM)
    assert ids[: len(before) + 3] == (*before, 7, 8, 9)
    assert made.tokenizer.decode(ids[len(before) + 3 :]) == "<|end|><|tool|>value 2<|end|><|assistant|>"


def test_tools_of_a_problem_reach_a_template_that_reads_them() -> None:
    problem = Problem("p", "Count.", meta={TOOLS: [{"name": "add"}]})
    assert TOOLS in prompts().takes
    assert text_of([], problem=problem).startswith("<tools>add</tools>")
    bare = prompts("{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}:{% endif %}")
    assert TOOLS not in bare.takes
    assert text_of([], bare, problem) == "Count.:"


def test_without_a_chat_template_texts_follow_each_other() -> None:
    assert text_of([SHOWN, Step("+1"), Step("value 2", "observation", "tool")], prompts(None)) == (
        "Count.\nvalue 1+1value 2"
    )


def test_a_template_that_drops_what_was_said_is_refused() -> None:
    silent = prompts("{% for m in messages if m.role != 'assistant' %}{{ m.content }}{% endfor %}")
    with pytest.raises(InputError, match="changes what an assistant says"):
        text_of([Step("+1"), Step("value 2", "observation", "tool")], silent)


def test_a_local_model_reads_observations() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = CHATML
    policy = LocalPolicy(tiny("qwen2", tokenizer), tokenizer, max_tokens=4)
    steps = (Step("+1"), Step("value 2", "observation", "tool"))
    ((made,),) = policy.propose([Propose(PROBLEM, steps, Key.seed(0))])
    assert made.n_prompt_tokens == len(PromptTokens(tokenizer).ids(PROBLEM, steps, {}))

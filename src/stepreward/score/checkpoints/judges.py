"""Public verifiers that write their judgement: what they are asked, where their answer begins and ends, as data."""

from __future__ import annotations

from dataclasses import dataclass

from stepreward.core.errors import UnknownNameError


@dataclass(frozen=True, slots=True)
class Judge:
    """A verifier that writes: its names, its prompt, and how a verdict stands in its answer."""

    names: tuple[str, ...]
    """Hub names that share the row."""
    source: str
    """Where it was read."""
    prompt_format: str
    """The first user message; `{prompt}` is the problem, `{steps}` the formatted steps (in a dialogue, the first)."""
    opening: str
    """Text that the answer begins with; `{n}` is the number of the step it is about."""
    ends: tuple[str, ...]
    """Texts at which an answer is over, where they come before its own end; `{next}` is the steps' number plus one."""
    labels: tuple[str, str]
    """What stands in a box for a right step, and for a wrong one."""
    system: str | None = None
    """System message; None for none."""
    dialogue: bool = False
    """Whether each step is a message of its own, answered before the next one; else one answer judges all steps."""
    unnumber: bool = False
    """Drops "Step 1:" from the beginning of a step, and white space around it."""
    step_format: str = "{step}"
    """Text of a step; `{n}` is its number."""
    between: str = "\n"
    """Text between steps of one message."""
    verdict: str = ""
    """In a dialogue, the text behind an answer that is over, after which comes the box with the label."""
    closing: str = ""
    """In a dialogue, what follows the box in the messages that later steps see."""
    temperature: float = 0.7
    """Of sampling, as published."""
    top_p: float | None = None
    """Share of the probability that is sampled from; None for all."""
    max_tokens: int = 2048
    """Longest answer."""
    notes: str = ""
    """Where this differs from what its authors run, and what is not checked."""

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]


JUDGES = (
    Judge(
        ("launch/ThinkPRM-1.5B", "launch/ThinkPRM-7B", "launch/ThinkPRM-14B"),
        "repository ThinkPRM utils/helper.py, prm/thinkprm_api.py and dataset/prm_dataset.py; arXiv:2504.16828",
        prompt_format="You are given a math problem and a proposed step-by-step solution:\n\n[Math Problem]\n\n"
        "{prompt}\n\n[Solution]\n\n{steps}\n\nReview and critique each step in the proposed solution to determine "
        "whether each step is correct. If the solution is incomplete, only verify the provided steps.",
        opening="\nLet's verify step by step:",
        ends=("Is the solution correct?", "</think>", "Step {next}:"),
        labels=("correct", "incorrect"),
        unnumber=True,
        step_format="Step {n}: {step}",
        max_tokens=8172,
        notes="A step's score is the share of the sampled answers that call it correct; its authors score a whole "
        "solution by the probability of 'yes' behind 'Is the solution correct?'. It stops at the first wrong step, so "
        "later ones have no score from that answer. Not checked on its own weights.",
    ),
    Judge(
        ("GenPRM/GenPRM-7B", "GenPRM/GenPRM-1.5B"),
        "repository GenPRM README.md, src/prm_evaluation/genprm_inference.py and prm_evaluate.py; arXiv:2504.00891",
        prompt_format="Question: {prompt}\n\n{steps}",
        opening="<analyze>\nLet's analyze the Paragraph {n} step by step: ",
        ends=("</analyze>",),
        labels=("Yes", "No"),
        system="You are a math teacher. Your task is to review and critique the paragraphs in solution step by step.",
        dialogue=True,
        verdict="</analyze>\n<output>\n**Judgement**: $\\boxed",
        closing="$\n</output>\n",
        temperature=0.6,
        top_p=0.95,
        notes="Its mode that analyses without running code (verify off): no code that a model wrote is run here. "
        "Sampling is not cut at the 20 likeliest tokens. A sample without a verdict counts as no score, there as 0.5. "
        "Its benchmark script puts the bare problem and one line break before the first step, its README what stands "
        "here. Not checked on its own weights: its script adds no generation prompt of its own, a chat policy does.",
    ),
)
"""Every verifier that writes."""


def judge_by_name(name: str) -> Judge:
    """The row of a hub name.

    Raises:
        UnknownNameError: there is none.
    """
    found = {n: row for row in JUDGES for n in row.names}
    if name not in found:
        raise UnknownNameError("verifier that writes", name, found)
    return found[name]

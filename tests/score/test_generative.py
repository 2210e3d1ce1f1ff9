"""Verifiers that write: their prompts spelled out, their answers read, by scripts instead of models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.score.tiny_checkpoints import build

from stepreward.core.errors import InputError, ModelError, PolicyError, UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Continuation, Propose, Score
from stepreward.core.types import Problem, Step
from stepreward.policies.local import LocalPolicy
from stepreward.score.checkpoints.known_checkpoints import judge_by_name, judges
from stepreward.score.judges.continuations import LanguageModelChooser
from stepreward.score.judges.generative import GenerativeScorer, cut, judged_items
from stepreward.score.judges.readings import boxed

THINK, GEN = judge_by_name("launch/ThinkPRM-1.5B"), judge_by_name("GenPRM/GenPRM-7B")
QUESTION, STEPS = "What is {12} + 5?", ["Step 1: 12 + 5 = 17.\n", "  So 18."]


class Writer:
    """A policy that says its lines in order, for every question's samples, and keeps what it was asked."""

    name, batch_size, concurrency = "writer", 8, 1

    def __init__(self, *lines: str) -> None:
        self.lines, self.asked = list(lines), list[Propose]()

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order."""
        self.asked += questions
        if sum(question.n for question in questions) > len(self.lines):
            raise PolicyError("no line is left")
        return [
            [Continuation((Step(self.lines.pop(0)),), True, 10, n_prompt_tokens=3) for _ in range(question.n)]
            for question in questions
        ]  # fmt: skip


THINK_PROMPT = """You are given a math problem and a proposed step-by-step solution:

[Math Problem]

What is {12} + 5?

[Solution]

Step 1: 12 + 5 = 17.
Step 2: So 18.

Review and critique each step in the proposed solution to determine whether each step is correct. If the solution is \
incomplete, only verify the provided steps."""


def literal_verdicts(answer: str, count: int) -> list[float]:
    """A slow reading of an answer: what stands in each box, in order, before anything that ends it."""
    for end in ("Is the solution correct?", "</think>", f"Step {count + 1}:"):
        answer = answer.partition(end)[0]
    found = []
    for part in answer.replace("\\boxed{\\text{correct}}", "\\boxed{correct}").split("\\boxed{")[1:]:
        content = part.partition("}")[0]
        if content in ("correct", "incorrect"):
            found.append(float(content == "correct"))
    return found[:count] + [float("nan")] * (count - len(found))


def test_think_prm_is_asked_as_published_and_its_boxes_are_read() -> None:
    writer = Writer(" Step 1: fine, 12 + 5 is \\boxed{17}: \\boxed{correct}\nStep 2: no, \\boxed{incorrect}")
    scores = GenerativeScorer(writer, THINK).score(QUESTION, STEPS)
    np.testing.assert_array_equal(scores, [1, 0])
    (asked,) = writer.asked
    assert asked.problem.messages == ({"role": "user", "content": THINK_PROMPT},)
    assert [step.text for step in asked.prefix] == ["\nLet's verify step by step:"]
    assert (asked.until, asked.temperature, asked.max_tokens) == ("end", 0.7, 8172)


ANSWERS = [
    "\\boxed{correct} \\boxed{correct}",
    "\\boxed{\\text{correct}} then \\boxed{incorrect} and </think> \\boxed{correct}",
    "\\boxed{incorrect}\nIs the solution correct? No",
    "\\boxed{correct}\nStep 3: there is none \\boxed{incorrect}",
    "I cannot say.",
    "\\boxed{Correct} \\boxed{x = 1} \\boxed{correct} \\boxed{correct} \\boxed{incorrect}",
]


def test_scores_are_means_over_the_answers_that_have_a_verdict() -> None:
    read = np.array([literal_verdicts(answer, 2) for answer in ANSWERS])
    for answer, expected in zip(ANSWERS, read, strict=True):
        np.testing.assert_array_equal(GenerativeScorer(Writer(answer), THINK).score(QUESTION, STEPS), expected)
    # Verdicts on step 1: 1, 1, 0, 1, none, 1; on step 2: 1, 0, none, none, none, 1.
    scorer = GenerativeScorer(Writer(*ANSWERS), THINK, n=len(ANSWERS))
    (made,) = scorer.score_many([Score(Problem("p", QUESTION), tuple(Step(step) for step in STEPS))])
    np.testing.assert_allclose(made.scores, [4 / 5, 2 / 3])
    np.testing.assert_allclose(made.scores, np.nanmean(read, axis=0))
    assert made.tokens == 6 * 13


GEN_SYSTEM = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."


def gen_answer(n: int, said: str, label: str) -> str:
    return (
        f"<analyze>\nLet's analyze the Paragraph {n} step by step: {said}</analyze>\n<output>\n**Judgement**: "
        f"$\\boxed{{{label}}}$\n</output>\n"
    )


def test_gen_prm_talks_about_one_step_after_the_other() -> None:
    writer = Writer("it adds up.</analyze>\n<verify>", "{Yes}$\n</output>", "17 is not 18.", "{No}$")
    scores = GenerativeScorer(writer, GEN).score(QUESTION, ["12 + 5 = 17.\n", "So 18."])
    np.testing.assert_array_equal(scores, [1, 0])
    first, _, third, fourth = writer.asked
    start = (
        {"role": "system", "content": GEN_SYSTEM},
        {"role": "user", "content": "Question: What is {12} + 5?\n\n12 + 5 = 17."},
    )
    assert first.problem.messages == start
    said = gen_answer(1, "it adds up.", "Yes")
    later = (*start, {"role": "assistant", "content": said}, {"role": "user", "content": "So 18."})
    assert third.problem.messages == fourth.problem.messages == later
    assert fourth.prefix[0].text == gen_answer(2, "17 is not 18.", "X").partition("{X}")[0]
    assert fourth.max_tokens == 8
    assert (first.temperature, first.top_p) == (0.6, 0.95)


class Weigher:
    """A chooser with log-probabilities of its own."""

    def __init__(self, *rows: tuple[float, float]) -> None:
        self.rows, self.asked = list(rows), list[str]()

    def choose(self, questions: Sequence[Propose], options: Sequence[str]) -> np.ndarray:
        assert options == ["{Yes", "{No"]
        self.asked += [question.prefix[0].text for question in questions]
        return np.log([self.rows.pop(0) for _ in questions])


def test_gen_prm_with_probabilities_takes_their_share_and_asks_for_no_verdict() -> None:
    # P(Yes) / (P(Yes) + P(No)): 0.6 / 0.8, 0.1 / 0.5 and 0.02 / 0.08, 0.3 / 0.4; means over two answers.
    weigher, writer = Weigher((0.6, 0.2), (0.1, 0.4), (0.02, 0.06), (0.3, 0.1)), Writer("a", "b", "c", "d")
    scores = GenerativeScorer(writer, GEN, n=2, chooser=weigher).score(QUESTION, STEPS)
    np.testing.assert_allclose(scores, [(0.75 + 0.2) / 2, (0.25 + 0.75) / 2])
    assert len(writer.asked) == 2
    assert all(text.endswith("</analyze>\n<output>\n**Judgement**: $\\boxed") for text in weigher.asked)
    assert writer.asked[1].problem.messages[2]["content"] == gen_answer(1, "a", "Yes"), "later steps see the first"


def test_an_answer_without_a_verdict_is_no_score_and_later_steps_do_not_see_one() -> None:
    writer = Writer("a", "b", "Perhaps", "{No}", "c", "d", "?", "!")
    scores = GenerativeScorer(writer, GEN, n=2).score(QUESTION, STEPS)
    np.testing.assert_array_equal(scores, [0, np.nan])
    assert writer.asked[3].problem.messages[2]["content"] == gen_answer(1, "b", "No")
    writer = Writer("a", "Perhaps", "b", "{Yes}")
    np.testing.assert_array_equal(GenerativeScorer(writer, GEN).score(QUESTION, STEPS), [np.nan, 1])
    assert writer.asked[2].problem.messages[2]["content"] == gen_answer(1, "a", "X").partition("</analyze>")[0]


def test_a_local_model_weighs_labels_by_their_tokens(tmp_path: Path) -> None:
    built = build(tmp_path, "qwen", "tokens")
    chooser = LanguageModelChooser.load(tmp_path)
    scorer = GenerativeScorer(Writer("it adds up.</analyze>"), GEN, chooser=chooser)
    tok = built.tokenizer
    asked = [{"role": "system", "content": GEN_SYSTEM}, {"role": "user", "content": f"Question: {QUESTION}\n\n17"}]
    before = tok.encode(tok.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
    before += tok.encode(gen_answer(1, "it adds up.", "X").partition("{X}")[0])
    both = []
    for label in ("{Yes", "{No"):
        ids, total = list(before), 0.0
        for token in tok.encode(label):
            total += float(built.logits(ids)[-1].log_softmax(-1)[token])
            ids.append(token)
        both.append(np.exp(total))
    assert scorer.score(QUESTION, ["17"])[0] == pytest.approx(both[0] / sum(both), abs=1e-5)
    bare = deepcopy(tok)
    bare.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        LanguageModelChooser(built.model, bare)


def test_a_local_policy_writes_and_its_scores_repeat(tmp_path: Path) -> None:
    build(tmp_path, "qwen", "tokens")
    judge = replace(THINK, max_tokens=12, labels=("", "0"))
    policy = LocalPolicy.load(tmp_path)
    asked = Score(Problem("p", QUESTION), (Step("17"),))
    alone, again = (GenerativeScorer(policy, judge, n=2).score_many([asked])[0] for _ in range(2))
    assert alone.tokens == again.tokens > 24
    np.testing.assert_array_equal(alone.scores, again.scores)


R_PRM, GROUNDED = judge_by_name("kevinpro/R-PRM-7B-DPO"), judge_by_name("GroundedPRM")
SHEPHERD = judge_by_name("WebShepherd/web-shepherd-base")


class Yes(Weigher):
    """The same with R-PRM's labels."""

    def choose(self, questions: Sequence[Propose], options: Sequence[str]) -> np.ndarray:
        assert options == [" Yes", " No"]
        self.asked += [question.prefix[0].text for question in questions]
        return np.log([self.rows.pop(0) for _ in questions])


def test_r_prm_is_asked_about_each_step_by_itself_and_weighs_yes_beside_no() -> None:
    asked = "Is the step correct (Yes/No)?"
    lines = [f"Fine. Verification: {asked} Yes, it is.", "I lost the thread", f"Hm. Verification: {asked} No", "x"]
    writer, weigher = Writer(*lines), Yes((0.6, 0.2), (0.1, 0.3), (0.1, 0.1), (0.3, 0.9))
    scores = GenerativeScorer(writer, R_PRM, n=2, chooser=weigher).score(
        "What is {12} + 5?", ["12 + 5 = 17.", "So 18."]
    )
    np.testing.assert_allclose(scores, [(0.75 + 0.25) / 2, (0.5 + 0.25) / 2])
    lost = "\nBased on your analysis. Is the answer correct (Yes/No)?"
    assert weigher.asked == [
        f"Fine. Verification: {asked}", f"I lost the thread{lost}", f"Hm. Verification: {asked}", f"x{lost}"
    ]  # fmt: skip
    texts = [question.problem.text for question in writer.asked]
    assert texts[0].endswith(
        "Question: What is {12} + 5?\n"
        "Previous Steps: Since the Now Step is the first step, there are no Previous Steps.\n"
        "Now Step: 12 + 5 = 17.\nPlease carefully analyze the correctness of the Now Step.\nReply:"
    )
    assert "Previous Steps: 12 + 5 = 17.\nNow Step: So 18.\n" in texts[1]
    assert all(question.prefix == () for question in writer.asked)
    # Without a chooser the word is sampled behind the same text.
    plain = Writer(f"Fine {asked} Yes", " Yes", "Hm", " No.")
    np.testing.assert_array_equal(GenerativeScorer(plain, R_PRM).score("q", ["a", "b"]), [1, 0])
    assert plain.asked[1].prefix[0].text == f"Fine {asked}"


def test_grounded_prm_is_asked_in_a_dialogue_that_keeps_its_labels() -> None:
    writer = Writer(
        "The sum is 17. The conclusion is[Right]", "boxed says \\boxed{-}", "[Right] but [Wrong]", "no mark"
    )
    scores = GenerativeScorer(writer, GROUNDED).score("What is 12 + 5?", ["12 + 5 = 17.", "So 18.", "c", "d"])
    np.testing.assert_array_equal(scores, [1, 0, 0, np.nan])
    roles = [(m["role"], m["content"]) for m in writer.asked[2].problem.messages]
    assert roles[1:] == [
        ("user", "What is 12 + 5?\n\n12 + 5 = 17."), ("assistant", "This step is: +"), ("user", "So 18."),
        ("assistant", "This step is: -"), ("user", "c"),
    ]  # fmt: skip
    assert roles[0][0] == "system"
    assert "'<output>\\boxed{}</output>'" in roles[0][1]


def test_web_shepherd_judges_a_checklist_on_the_page_that_the_step_saw() -> None:
    writer = Writer(
        "Good.<answer>\nChecklist 1: Yes\nChecklist 2: In Progress\nChecklist 3: No\n</answer> Yes",
        "<answer> Yes, Yes",
        "I cannot say Yes.",
    )
    problem = Problem("p", "Buy a lamp", meta={"checklist": "1: open the shop"})
    steps = (
        Step("[1] link Shop", kind="observation"), Step("THOUGHT: go\nACTION: click('1')"), Step("THOUGHT: buy"),
        Step("[7] button", kind="observation"), Step("THOUGHT: done"),
    )  # fmt: skip
    (made,) = GenerativeScorer(writer, SHEPHERD).score_many([Score(problem, steps)])
    np.testing.assert_array_equal(made.scores, [np.nan, 0.5, 1.0, np.nan, np.nan])
    assert len(writer.asked) == 3, "nothing is asked about what others say"
    text = writer.asked[0].problem.messages[1]["content"]
    for part in ("## User Instruction\nBuy a lamp\n", "[1] link Shop\n## Checklist\n1: open the shop\n",
                 "## Agent's Response\nTHOUGHT: go\nACTION: click('1')\n"):  # fmt: skip
        assert part in text
    assert judged_items("<answer>Yes, No</answer> No", SHEPHERD.items) == 0.5
    assert np.isnan(judged_items("Yes", SHEPHERD.items))


def test_several_questions_are_asked_together_and_each_keeps_its_own_answers() -> None:
    lines = ["a", "b", "{Yes}", "{No}", "c", "{No}"]
    writer = Writer(*lines)
    short, long = ("one",), ("one", "two")
    made = GenerativeScorer(writer, GEN).score_many(
        [Score(Problem("p", "x"), tuple(map(Step, steps))) for steps in (short, long)]
    )
    assert [one.scores.tolist() for one in made] == [[1.0], [0.0, 0.0]]
    assert [one.tokens for one in made] == [26, 52]


def test_samples_depend_on_what_is_judged_and_on_the_key_alone() -> None:
    def keys(steps: list[str], seed: int, others: int) -> list[Key]:
        writer = Writer(*["\\boxed{correct}"] * (1 + others))
        asks = [Score(Problem(f"o{i}", "other"), (Step("x"),)) for i in range(others)]
        scorer = GenerativeScorer(writer, THINK, key=Key.seed(seed))
        scorer.score_many([*asks, Score(Problem("p", "q"), tuple(map(Step, steps)))])
        return writer.asked[-1].sample_keys()

    assert keys(["a"], 0, 0) == keys(["a"], 0, 3)
    assert len({str(keys(steps, seed, 0)) for steps, seed in ((["a"], 0), (["b"], 0), (["a"], 1))}) == 3


def test_observations_are_shown_and_not_scored() -> None:
    writer = Writer("\\boxed{correct} \\boxed{correct}")
    steps = (Step("look"), Step("a tool's words", kind="observation"))
    (made,) = GenerativeScorer(writer, THINK).score_many([Score(Problem("p", "q"), steps)])
    np.testing.assert_array_equal(made.scores, [1, np.nan])
    assert "Step 2: a tool's words" in writer.asked[0].problem.text


def test_mistakes_are_told() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean launch/ThinkPRM-7B"):
        judge_by_name("launch/ThinkPRM-8B")
    with pytest.raises(ValueError, match="n must be at least 1"):
        GenerativeScorer(Writer(), THINK, n=0)
    with pytest.raises(InputError, match="has no text"):
        GenerativeScorer(Writer(), THINK).score_many([Score(Problem("p", "q"), (Step(" "),))])
    names = {GenerativeScorer(Writer(), judge, n=n).name for judge in judges.values() for n in (1, 2)}
    names.add(GenerativeScorer(Writer(), GEN, chooser=Weigher()).name)
    assert len(names) == 2 * len(judges) + 1, "a cache keeps them apart"


def test_small_parts() -> None:
    assert boxed(r"\boxed{ correct } \boxed{\text{incorrect}} \boxed{}", ("correct", "incorrect")) == [1.0, 0.0]
    assert cut("a </think> Step 3:", ("Step 3:", "</think>")) == "a "
    assert cut("whole", ()) == "whole"
    free = replace(THINK, step_format="{step} {n}", clean=("chomp",))
    writer = Writer("\\boxed{correct}")
    GenerativeScorer(writer, free).score("{steps} {prompt}", ["{n} braces"])
    assert re.search(r"\{steps\} \{prompt\}\n.*\{n\} braces 1", writer.asked[0].problem.text, re.DOTALL)

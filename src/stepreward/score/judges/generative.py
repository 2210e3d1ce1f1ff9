"""Scores that a language model writes: a policy is asked to judge steps, and its verdicts are read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Policy, Propose, Score, Scored
from stepreward.core.types import Message, Problem, Step
from stepreward.score.checkpoints.row import JudgeCheckpoint
from stepreward.score.short_call import score_texts

Floats = NDArray[np.float64]
_NUMBER = re.compile(r"^\s*Step \d+:")
_TEXT = re.compile(r"\\text\{([^}]*)\}")
_BOX = re.compile(r"\\boxed\{([^}]*)\}")
_VERDICT_TOKENS = 8
"""Enough for a label in its box."""


class Chooser(Protocol):
    """Who says how likely each of a few texts is to come next."""

    def choose(self, questions: Sequence[Propose], options: Sequence[str]) -> Floats:
        """(Q, O) log-probabilities of the options behind each question's prompt and prefix."""


class GenerativeScorer:
    """Scores steps by the verdicts that a policy writes; a `core.runtime.flows.Scorer`.

    A step's score is the mean over the sampled answers of its verdicts, 1 for right and 0 for wrong, or, where a
    verdict is asked for behind each answer and there is a chooser, of the probability of the right label among the
    two. An answer that gives a step no verdict does not count; a step without any has no score (NaN). Samples
    depend on the problem, the steps and the key alone.

    Args:
        policy: who writes.
        judge: what it is asked and how its answer is read.
        n: answers sampled.
        chooser: who weighs the labels in a dialogue; None lets the policy write one.
        key: the randomness of the answers.

    Raises:
        ValueError: `n` is not positive.
    """

    def __init__(
        self,
        policy: Policy,
        judge: JudgeCheckpoint,
        *,
        n: int = 1,
        chooser: Chooser | None = None,
        key: Key | None = None,
    ) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        self.policy, self.judge, self.n, self.chooser = policy, judge, n, chooser
        self.key = key or Key.seed(0)
        weighed = "" if chooser is None else ", weighed"
        self.name = f"{policy.name} as {judge.name}, {n} answers, key {self.key.bits:x}{weighed}"
        self.batch_size = max(1, policy.batch_size // n)

    def score(self, question: str, steps: Sequence[str]) -> Floats:
        """One score a step.

        Raises:
            InputError: there is no step, or one is blank.
        """
        return score_texts(self, question, steps)

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps; an observation is shown to the judge and has no score.

        Raises:
            InputError: a step is blank.
        """
        for question in questions:
            if any(not step.text.strip() for step in question.steps):
                raise InputError(f"a step of problem {question.problem.id!r} has no text", remedy="drop empty steps")
        judged = self._reviews if self.judge.asked == "once" else self._step_by_step
        verdicts, tokens = judged(questions)
        made = []
        for question, seen, paid in zip(questions, verdicts, tokens, strict=True):
            shown = np.array([step.kind == "action" for step in question.steps], bool)
            made.append(Scored(np.where(shown, _mean(seen), np.nan), paid, paid))
        return made

    def _reviews(self, questions: Sequence[Score]) -> tuple[list[Floats], list[int]]:
        """(n, S) verdicts of each question out of answers about all its steps, and the tokens read and written."""
        judge, asked = self.judge, []
        for question in questions:
            steps = judge.between.join(self._step(step, n) for n, step in enumerate(question.steps, 1))
            asked.append(self._ask(question, [self._first(question.problem, steps)], judge.opening))
        verdicts, tokens = [], []
        for question, answers in zip(questions, self.policy.propose(asked), strict=True):
            count = len(question.steps)
            ends = [end.replace("{next}", str(count + 1)) for end in judge.ends]
            read = [boxed(cut("".join(s.text for s in answer.steps), ends), judge.labels) for answer in answers]
            verdicts.append(np.array([(row + [np.nan] * count)[:count] for row in read], np.float64))
            tokens.append(sum(answer.n_tokens + answer.n_prompt_tokens for answer in answers))
        return verdicts, tokens

    def _step_by_step(self, questions: Sequence[Score]) -> tuple[list[Floats], list[int]]:
        """The same out of answers about one step each; in a dialogue later steps see an answer to each earlier one."""
        judge = self.judge
        verdicts = [np.full((self.n, len(question.steps)), np.nan) for question in questions]
        tokens, talks = [0] * len(questions), [list[Message]() for _ in questions]
        for i in range(max((len(question.steps) for question in questions), default=0)):
            open_ = [row for row, question in enumerate(questions) if self._is_asked(question, i)]
            for row in open_:
                self._say(talks[row], questions[row], i)
            opening = judge.opening.replace("{n}", str(i + 1))
            asked = [self._ask(questions[row], talks[row], opening) for row in open_]
            for row, ask, answers in zip(open_, asked, self.policy.propose(asked), strict=True):
                whole = ["".join(s.text for s in answer.steps) for answer in answers]
                said = [opening + self._ended(text) for text in whole]
                verdicts[row][:, i], paid = self._judged(ask, said)
                tokens[row] += paid + sum(answer.n_tokens + answer.n_prompt_tokens for answer in answers)
                talks[row].append({"role": "assistant", "content": self._told(said, verdicts[row][:, i])})
        return verdicts, tokens

    def _is_asked(self, question: Score, i: int) -> bool:
        """Whether a step is asked about: in a dialogue all are, as later ones need it."""
        there = i < len(question.steps)
        return there and (self.judge.asked == "dialogue" or question.steps[i].kind == "action")

    def _say(self, talk: list[Message], question: Score, i: int) -> None:
        """Puts the question about a step at the end of a talk, or in its place where steps are asked about apart."""
        judge, text = self.judge, self._step(question.steps[i], i + 1)
        if judge.asked == "dialogue":
            talk.append({"role": "user", "content": text} if talk else self._first(question.problem, text))
            return
        seen = [self._step(step, n) for n, step in enumerate(question.steps[:i], 1)]
        before = question.steps[i - 1] if i else None
        state = before.text if before is not None and before.kind == "observation" else ""
        more = {"step": text, "state": state, "checklist": str(question.problem.meta.get("checklist", ""))}
        talk[:] = [self._first(question.problem, judge.between.join(seen) or judge.first, more)]

    def _ended(self, text: str) -> str:
        """An answer up to its end, with the text that asks for the verdict."""
        judge, over = self.judge, cut(text, self.judge.ends)
        return over + (judge.otherwise if judge.otherwise and over == text else judge.verdict)

    def _told(self, said: Sequence[str], verdicts: Floats) -> str:
        """What later steps see of the answers to this one: the first that has a verdict, with its label."""
        judge, known = self.judge, np.flatnonzero(~np.isnan(verdicts))
        if not known.size:
            return said[0].removesuffix(judge.verdict)
        label = judge.labels[0 if verdicts[known[0]] >= 0.5 else 1]
        if judge.told:
            return filled(judge.told, {"label": label})
        return f"{said[known[0]]}{judge.before_label}{label}{judge.closing}"

    def _judged(self, ask: Propose, said: Sequence[str]) -> tuple[Floats, int]:
        """(n,) verdicts of answers that are over, or behind them, and the tokens they cost."""
        judge, labels = self.judge, self.judge.labels
        if not judge.verdict:
            return np.array([self._within(text) for text in said], np.float64), 0
        finals = [
            replace(ask, prefix=(Step(text),), key=ask.key.fold("verdict", i), n=1, max_tokens=_VERDICT_TOKENS)
            for i, text in enumerate(said)
        ]
        if self.chooser is not None:
            logs = self.chooser.choose(finals, [judge.before_label + label for label in labels])
            return 1 / (1 + np.exp(np.clip(logs[:, 1] - logs[:, 0], -700, 700))), 0
        read, paid = [], 0
        for (answer,) in self.policy.propose(finals):
            text = "".join(step.text for step in answer.steps).lstrip(" {")
            read.append(1.0 if text.startswith(labels[0]) else 0.0 if text.startswith(labels[1]) else np.nan)
            paid += answer.n_tokens + answer.n_prompt_tokens
        return np.array(read, np.float64), paid

    def _within(self, text: str) -> float:
        """The verdict that an answer holds; NaN for none."""
        judge = self.judge
        if judge.items:
            return judged_items(text, judge.items)
        if judge.marks is not None and any(mark in text for mark in judge.marks):
            return 0.0 if judge.marks[1] in text else 1.0
        found = boxed(text, judge.labels)
        return found[-1] if found else np.nan

    def _ask(self, question: Score, talk: Sequence[Message], opening: str) -> Propose:
        judge = self.judge
        system: list[Message] = [{"role": "system", "content": judge.system}] if judge.system is not None else []
        # Policies tell prompts apart by the problem's id.
        digest = hashlib.blake2b(repr([m["content"] for m in talk]).encode(), digest_size=8).hexdigest()
        problem = Problem(f"{question.problem.id} judged {digest}", (*system, *talk))
        key = self.key.fold("judge", question.problem.id, digest)
        return Propose(
            problem,
            (Step(opening),) if opening else (),
            key,
            self.n,
            max_tokens=judge.max_tokens,
            temperature=judge.temperature,
            top_p=judge.top_p,
        )

    def _first(self, problem: Problem, steps: str, more: Mapping[str, str] | None = None) -> Message:
        parts = {"prompt": problem.text, "steps": steps, **(more or {})}
        return {"role": "user", "content": filled(self.judge.prompt_format, parts)}

    def _step(self, step: Step, n: int) -> str:
        text = _NUMBER.sub("", step.text).strip() if self.judge.unnumber else step.text.rstrip("\r\n")
        return filled(self.judge.step_format, {"step": text, "n": str(n)})


def boxed(text: str, labels: tuple[str, str]) -> list[float]:
    r"""The verdicts of an answer in order: 1 for `\boxed{right}`, 0 for `\boxed{wrong}`; other boxes do not count."""
    found = (box.strip() for box in _BOX.findall(_TEXT.sub(r"\1", text)))
    return [1.0 if box == labels[0] else 0.0 for box in found if box in labels]


def judged_items(text: str, items: Sequence[tuple[str, float]]) -> float:
    """The mean worth of the words that judge a checklist's items behind `<answer>`; NaN where none does."""
    _, there, answer = text.partition("<answer>")
    worth = dict(items)
    words = sorted(worth, key=len, reverse=True)
    found = re.findall(rf"\b({'|'.join(map(re.escape, words))})\b", answer.partition("</answer>")[0]) if there else []
    return float(np.mean([worth[word] for word in found])) if found else float("nan")


def cut(text: str, ends: Sequence[str]) -> str:
    """The text up to the first of some ends."""
    return text[: min((at for at in map(text.find, ends) if at >= 0), default=len(text))]


def filled(form: str, parts: Mapping[str, str]) -> str:
    """The form with each `{name}` replaced once, in one pass: braces inside the parts stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda found: parts.get(found[1], found[0]), form)


def _mean(verdicts: Floats) -> Floats:
    """(S,) means over the answers that have a verdict, NaN where none has."""
    known = ~np.isnan(verdicts)
    count = known.sum(0)
    return np.where(count > 0, np.where(known, verdicts, 0.0).sum(0) / np.maximum(count, 1), np.nan)

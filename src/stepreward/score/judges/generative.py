"""Scores that a language model writes: a policy judges steps, and its verdicts are read."""

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
from stepreward.core.runtime.flows import Continuation, Policy, Propose, Score, Scored
from stepreward.core.types import Floats, Message, Problem, Step
from stepreward.score.checkpoints.row import JudgeCheckpoint
from stepreward.score.encode.recipe_text import cleaned, filled, filled_prompt
from stepreward.score.judges.readings import behind_thoughts, boxed, boxed_number, read_solution
from stepreward.score.short_call import ShortCall

_VERDICT_TOKENS = 8
"""Enough for a label in its box."""


_OPEN = 4
"""Answers of a batch for each that may be written at the same time."""


class Chooser(Protocol):
    """Gives the probabilities of a few texts to come next."""

    def choose(self, questions: Sequence[Propose], options: Sequence[str]) -> Floats:
        """(Q, O) log-probabilities of the options behind each question's prompt and prefix."""


class GenerativeScorer(ShortCall):
    """Scores steps by the verdicts that a policy writes; a `core.runtime.flows.Scorer`.

    A step's score is the mean over the sampled answers of its verdicts, 1 for right and 0 for wrong. Where the verdict
    has a place of its own behind each answer and there is a chooser, it is the probability of the right label among the
    two. An answer that gives a step no verdict does not count; a step without any has no score (NaN). Samples depend on
    the problem, the steps and the key alone.

    Args:
        policy: writes the verdicts.
        judge: its prompt, and how its answer is read.
        n: answers sampled.
        chooser: weighs the two labels behind an answer; None lets the policy write one.
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
        with_reference = ", shown the reference" if judge.sees_reference else ""
        self.name = f"{policy.name} as {judge.name}, {n} answers, key {self.key.bits:x}{weighed}{with_reference}"
        # A server takes each request alone, and many at once: full batches, so that the slowest keeps few waiting.
        self.batch_size = max(1, max(policy.batch_size, _OPEN * policy.concurrency) // n)

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps; an observation is shown to the judge and has no score.

        The verdicts of answer i are the further column `vote<i>`, from 1 on, and the means of what a judge says of
        steps by channels are columns of the channels' names.

        Raises:
            InputError: a step is blank, or the prompt shows the reference answer and a problem has none.
        """
        for question in questions:
            if any(not step.text.strip() for step in question.steps):
                raise InputError(f"a step of problem {question.problem.id!r} has no text", remedy="drop empty steps")
        judged = self._judge_at_once if self.judge.prompting == "once" else self._judge_by_step
        made = []
        for question, said, paid in zip(questions, *judged(questions), strict=True):
            # (n, 1 + C, S)
            said = np.where(_actions(question), said, np.nan)
            known = ~np.isnan(said)
            means = np.where(known, said, 0.0).sum(0) / np.maximum(known.sum(0), 1)
            means[~known.any(0)] = np.nan
            columns = {f"vote{i}": verdicts for i, (verdicts, *_) in enumerate(said, 1)}
            columns |= dict(zip(self.judge.channels, means[1:], strict=True))
            made.append(Scored(means[0], paid, paid, columns))
        return made

    def _judge_at_once(self, questions: Sequence[Score]) -> tuple[list[Floats], list[int]]:
        """(n, 1 + C, S) verdicts of each question out of answers about all its steps, and the tokens of all."""
        judge, talks = self.judge, list[list[Message]]()
        for question in questions:
            steps = judge.between.join(self._step_text(step, n) for n, step in enumerate(question.steps, judge.base))
            talks.append([self._prompt(question.problem, steps)])
        requests = [self._request(q, talk, judge.opening) for q, talk in zip(questions, talks, strict=True)]
        texts, tokens = list[list[list[str]]](), list[int]()
        for question, answers in zip(questions, self.policy.propose(requests), strict=True):
            ends = [end.replace("{next}", str(len(question.steps) + judge.base)) for end in judge.ends]
            texts.append([[cut(written(answer), ends)] for answer in answers])
            tokens.append(sum(map(tokens_of, answers)))
        for _ in judge.follow:
            self._revise(questions, talks, texts, tokens)
        read = [
            np.array([read_solution(one, judge, _actions(question)) for one in answers])
            for question, answers in zip(questions, texts, strict=True)
        ]
        return read, tokens

    def _revise(
        self,
        questions: Sequence[Score],
        talks: Sequence[Sequence[Message]],
        texts: Sequence[list[list[str]]],
        tokens: list[int],
    ) -> None:
        """Appends to each answer's texts what its writer says to the next message, and adds what that costs."""
        judge, requests, place = self.judge, [], []
        for row, (question, talk) in enumerate(zip(questions, talks, strict=True)):
            for i, said in enumerate(texts[row]):
                more: list[Message] = [*talk]
                # What was thought before an answer is not shown, as chat templates do not show it either.
                for asked, text in zip(judge.follow, said, strict=False):
                    # Servers refuse a message without a word.
                    shown = behind_thoughts(judge.opening + text).strip() or "(no answer)"
                    more.append({"role": "assistant", "content": shown})
                    more.append({"role": "user", "content": filled_prompt(asked, question.problem, {})})
                request = self._request(question, more, "")
                requests.append(replace(request, key=request.key.fold("follow", i), n=1))
                place.append((row, i))
        for (row, i), (answer,) in zip(place, self.policy.propose(requests), strict=True):
            texts[row][i].append(written(answer))
            tokens[row] += tokens_of(answer)

    def _judge_by_step(self, questions: Sequence[Score]) -> tuple[list[Floats], list[int]]:
        """The same out of answers about one step each; in a dialogue later steps see an answer to each earlier one."""
        judge, dialogue = self.judge, self.judge.prompting == "dialogue"
        verdicts = [np.full((self.n, len(question.steps)), np.nan) for question in questions]
        tokens, talks = [0] * len(questions), [list[Message]() for _ in questions]
        # Step by step over all questions, so that each pass is one batch of the policy.
        for i in range(max((len(question.steps) for question in questions), default=0)):
            # A dialogue judges observations too, since the messages of later steps follow an answer to each.
            rows = [
                row for row, question in enumerate(questions)
                if i < len(question.steps) and (dialogue or question.steps[i].kind == "action")
            ]  # fmt: skip
            opening, requests = judge.opening.replace("{n}", str(i + 1)), []
            for row in rows:
                self._add_step(talks[row], questions[row], i)
                requests.append(self._request(questions[row], talks[row], opening))
            for row, request, answers in zip(rows, requests, self.policy.propose(requests), strict=True):
                texts = []
                for answer in answers:
                    whole = written(answer)
                    text = cut(whole, judge.ends)
                    # An answer that came to none of its ends may need other words that ask for the verdict.
                    lead = judge.otherwise if judge.otherwise and text == whole else judge.verdict
                    texts.append(opening + text + lead)
                verdicts[row][:, i], paid = self._read(request, texts)
                tokens[row] += paid + sum(map(tokens_of, answers))
                talks[row].append({"role": "assistant", "content": self._shown_later(texts, verdicts[row][:, i])})
        return [one[:, None] for one in verdicts], tokens

    def _add_step(self, talk: list[Message], question: Score, i: int) -> None:
        """Appends the prompt about a step to a dialogue, or replaces the prompt where steps are judged apart."""
        judge, text = self.judge, self._step_text(question.steps[i], i + 1)
        if judge.prompting == "dialogue":
            talk.append({"role": "user", "content": text} if talk else self._prompt(question.problem, text))
            return
        seen = [self._step_text(step, n) for n, step in enumerate(question.steps[:i], 1)]
        before = question.steps[i - 1] if i else None
        state = before.text if before is not None and before.kind == "observation" else ""
        more = {"step": text, "state": state, "checklist": str(question.problem.meta.get("checklist", ""))}
        talk[:] = [self._prompt(question.problem, judge.between.join(seen) or judge.first, more)]

    def _shown_later(self, texts: Sequence[str], verdicts: Floats) -> str:
        """The message that later steps see: the first answer to this one that has a verdict, with its label."""
        judge, known = self.judge, np.flatnonzero(~np.isnan(verdicts))
        if not known.size:
            return texts[0].removesuffix(judge.verdict)
        label = judge.labels[0 if verdicts[known[0]] >= 0.5 else 1]
        if judge.shown_later:
            return filled(judge.shown_later, {"label": label})
        return f"{texts[known[0]]}{judge.before_label}{label}{judge.closing}"

    def _read(self, request: Propose, texts: Sequence[str]) -> tuple[Floats, int]:
        """(n,) verdicts in answers or behind them, and the tokens that it costs to have them written."""
        judge, labels = self.judge, self.judge.labels
        if not judge.verdict:
            return np.array([self._verdict_within(text) for text in texts], np.float64), 0
        finals = [
            replace(request, prefix=(Step(text),), key=request.key.fold("verdict", i), n=1, max_tokens=_VERDICT_TOKENS)
            for i, text in enumerate(texts)
        ]
        if self.chooser is not None:
            logs = self.chooser.choose(finals, [judge.before_label + label for label in labels])
            # The exponential of more than 709 is infinite, with a warning.
            return 1 / (1 + np.exp(np.clip(logs[:, 1] - logs[:, 0], -700, 700))), 0
        read, paid = [], 0
        for (answer,) in self.policy.propose(finals):
            text = written(answer).lstrip(" {")
            read.append(1.0 if text.startswith(labels[0]) else 0.0 if text.startswith(labels[1]) else np.nan)
            paid += tokens_of(answer)
        return np.array(read, np.float64), paid

    def _verdict_within(self, text: str) -> float:
        """The verdict that an answer states itself; NaN for none."""
        judge = self.judge
        if judge.items:
            return judged_items(text, judge.items)
        if judge.highest:
            return boxed_number(behind_thoughts(text), judge.highest)
        if judge.marks is not None and any(mark in text for mark in judge.marks):
            return 0.0 if judge.marks[1] in text else 1.0
        found = boxed(text, judge.labels)
        return found[-1] if found else np.nan

    def _request(self, question: Score, talk: Sequence[Message], opening: str) -> Propose:
        judge = self.judge
        system: list[Message] = [{"role": "system", "content": judge.system}] if judge.system is not None else []
        # Policies distinguish prompts by the problem's id.
        digest = hashlib.blake2b(repr([m["content"] for m in talk]).encode(), digest_size=8).hexdigest()
        return Propose(
            Problem(f"{question.problem.id} judged {digest}", (*system, *talk)),
            (Step(opening),) if opening else (),
            self.key.fold("judge", question.problem.id, digest),
            self.n,
            max_tokens=judge.max_tokens,
            temperature=judge.temperature,
            top_p=judge.top_p,
        )

    def _prompt(self, problem: Problem, steps: str, more: Mapping[str, str] | None = None) -> Message:
        content = filled_prompt(self.judge.prompt_format, problem, {"steps": steps, **(more or {})})
        return {"role": "user", "content": content}

    def _step_text(self, step: Step, n: int) -> str:
        text = cleaned(step.text, self.judge.clean)
        return filled(self.judge.step_format, {"step": text, "n": str(n)})


def _actions(question: Score) -> NDArray[np.bool_]:
    """(S,) True at actions."""
    return np.array([step.kind == "action" for step in question.steps], bool)


def written(answer: Continuation) -> str:
    """The text of a policy's answer."""
    return "".join(step.text for step in answer.steps)


def tokens_of(answer: Continuation) -> int:
    """Tokens read and written for an answer."""
    return answer.n_tokens + answer.n_prompt_tokens


def judged_items(text: str, items: Sequence[tuple[str, float]]) -> float:
    """The mean worth of the words that judge a checklist's items behind `<answer>`; NaN where none does."""
    _, there, answer = text.partition("<answer>")
    worth = dict(items)
    # Longer words first, as one may begin with another, as "In Progress" does with "In".
    words = sorted(worth, key=len, reverse=True)
    found = re.findall(rf"\b({'|'.join(map(re.escape, words))})\b", answer.partition("</answer>")[0]) if there else []
    return float(np.mean([worth[word] for word in found])) if found else float("nan")


def cut(text: str, ends: Sequence[str]) -> str:
    """The text up to the first of some ends."""
    return text[: min((at for at in map(text.find, ends) if at >= 0), default=len(text))]

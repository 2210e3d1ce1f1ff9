"""Scores steps without a model: the tool scorer finds equations in a step and computes them again.

It reads plain text, LaTeX and <<calculators>>, with units, percent and chained equalities, and evaluates nothing but
arithmetic. 1 says that all equations of the step hold, 0 that one does not; a step without one gets the prior.
"""

from __future__ import annotations

from stepreward import Problem, Step
from stepreward.core.measure.first_error import first_error
from stepreward.core.runtime.flows import Score
from stepreward.score.tools.equations import ToolScorer, equations

question = Problem(
    "clips", "Natalia sold 48 clips in April and half as many in May. At 25 cents each, what did she earn?"
)
steps = (
    Step("In May she sold 48 / 2 = <<48/2=24>>24 clips.\n"),
    Step("Together that makes $48 + 24 = 74$ clips.\n"),
    Step("At 25 cents a clip she earned \\frac{74 \\times 25}{100} = 18.50 dollars.\n"),
    Step("So the answer is eighteen and a half dollars.\n"),
)
(answer,) = ToolScorer().score_many([Score(question, steps)])
for step, score in zip(steps, answer.scores, strict=True):
    found = ", ".join(f"{e.text} {'holds' if e.holds else 'is wrong'}" for e in equations(step.text))
    print(f"{score:.2f}  {step.text.strip()}\n      {found or 'nothing to compute'}")
first = first_error(answer.scores)
print("first error: none" if first < 0 else f"first error: step {first + 1}")

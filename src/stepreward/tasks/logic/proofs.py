"""Solutions of logic problems, a derivation a line: which lines are right, and whether the answer is.

fact1 & fact3 -> int1: Q
int1 & fact2 -> hypothesis
The final answer is PROVED
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from stepreward.core.catalog import check
from stepreward.core.errors import InputError
from stepreward.core.step_check import StepCheck
from stepreward.core.types import Problem, Step
from stepreward.tasks.logic.consequence import follows_from
from stepreward.tasks.logic.formulas import Formula, NoFormula, read_formula

ANSWERS = ("PROVED", "DISPROVED", "UNKNOWN")
_ANSWER = re.compile(r"final answer is:?\W*(PROVED|DISPROVED|UNKNOWN)\b", re.IGNORECASE)
_LINE = re.compile(r"([A-Za-z]\w*(?:\s*&\s*[A-Za-z]\w*)*)\s*->\s*([A-Za-z]\w*)\s*(?::\s*(.+))?")


def statements(problem: Problem) -> tuple[dict[str, Formula], Formula]:
    """The facts of a logic problem by name, and its hypothesis.

    Raises:
        InputError: the problem has none in `meta`, or one cannot be read.
    """
    facts, hypothesis = problem.meta.get("facts"), problem.meta.get("hypothesis")
    if not isinstance(facts, Mapping) or not isinstance(hypothesis, str):
        what = f"problem {problem.id!r} has no `facts` by name and `hypothesis` in its meta"
        raise InputError(what, remedy="make logic problems with `stepreward generate logic`")
    try:
        return {str(name): read_formula(str(text)) for name, text in facts.items()}, read_formula(hypothesis)
    except NoFormula as error:
        raise InputError(f"problem {problem.id!r} has a fact that is no formula: {error}") from error


@check.method(
    "logic",
    note="after the verifier of logic steps in psunlpgroup/FoVer: premises and not(conclusion) have no model. There a "
    "step is right where Z3 gives up or the premises contradict each other, and may use what is derived later; here it "
    "is unknown, unknown and wrong",
)
def check_proof(problem: Problem, steps: Sequence[Step]) -> list[StepCheck]:
    """Checks derivations: the conclusion of each line must follow from the facts and earlier conclusions that it names.

    A right line need not lead anywhere. Kinds of errors: `entailment` (it does not follow), `premise` (a name that is
    no fact and was not derived before), `answer` (of the last line, which says what the hypothesis is). Unknown are
    lines that are no derivation (`form`), premises that contradict each other, from which everything follows
    (`vacuous`), what the solver gives up (`unknown`), and what reaches its limits (`limit`).

    Args:
        problem: with facts, hypothesis and reference.
        steps: of one solution, a line each.

    Raises:
        InputError: the problem has no facts and hypothesis.
        ModelError: there are many symbols, and Z3 is not installed.
    """
    facts, hypothesis = statements(problem)
    known: dict[str, Formula | None] = {**facts}
    made = []
    for step in steps:
        text = " ".join(step.text.split()).strip(" ;.")
        if step.kind != "action":
            made.append(StepCheck(None))
        elif answer := said_answer(text):
            right = None if problem.reference is None else answer == problem.reference
            made.append(StepCheck(right, "answer" if right is False else "", "" if right else answer))
        else:
            made.append(_derivation(text, known, hypothesis))
    return made


def said_answer(text: str) -> str | None:
    """The answer that a text states last."""
    found = _ANSWER.findall(text)
    return found[-1].upper() if found else None


def _derivation(text: str, known: dict[str, Formula | None], hypothesis: Formula) -> StepCheck:
    """The verdict on a line, whose conclusion is known from then on, right or not."""
    found = _LINE.fullmatch(text)
    if found is None:
        return StepCheck(None, "form")
    cited, name = [one.strip() for one in found[1].split("&")], found[2]
    strangers = [one for one in cited if one not in known]
    premises = [known[one] for one in cited if one in known]
    try:
        conclusion = hypothesis if name == "hypothesis" and not found[3] else read_formula(found[3] or "")
    except NoFormula as error:
        known[name] = None
        return StepCheck(None, "form", str(error))
    known[name] = conclusion
    if strangers:
        return StepCheck(False, "premise", strangers[0])
    read = [one for one in premises if one is not None]
    if len(read) < len(premises):
        return StepCheck(None, "form")
    answer = follows_from(read, conclusion)
    if answer in ("yes", "no"):
        return StepCheck(True) if answer == "yes" else StepCheck(False, "entailment", text)
    return StepCheck(None, answer)


class LogicGrader:
    """Grades a solution 1 if its last line says rightly what the hypothesis is, else 0; NaN without a reference."""

    name = "logic-1"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """1.0 or 0.0; NaN for a problem whose reference is no answer."""
        if problem.reference not in ANSWERS:
            return float("nan")
        return float(self.answer(problem, steps) == problem.reference)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """What the last step says, in capitals; None if it says no answer."""
        return said_answer(steps[-1].text) if steps else None

"""Programs: samples of HumanEval and MBPP problems (CodeT), and those of Reflexion and LATS with feedback on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.fields import plain_text
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, annotated, check_choice, need, other_fields, shown

Cut = Literal["whole", "lines"]
"""What a step of a program is: all of it, or a line."""
_READ = ("prompt", "entry_point", "test", "canonical_solution", "implementations", "test_feedback", "reflections",
         "solution", "is_solved", "name")  # fmt: skip
_EMPTY = "# an empty sample\n"
"""The step of a sample without text: programs without any are no solutions elsewhere."""
_NONE = "MCTS reflections"
"""What LATS logs in the place of a reflection on its last program."""


def is_reflexion(row: Row) -> bool:
    """Whether a row looks like a result of Reflexion, of LATS, or of a debugger with their log, on a problem."""
    return {"prompt", "entry_point", "test"} <= row.keys() and (
        ("is_solved" in row and ("solution" in row or "implementations" in row)) or _is_early(row)
    )


def _is_early(row: Row) -> bool:
    """Whether a row is what LATS logs where the first program passed: the problem, without the program."""
    return "acc" in row and not {"is_solved", "solution", "implementations", "samples"} & row.keys()


def read_samples(row: Row, number: int, *, cut: Cut = "whole") -> Iterator[Trajectory]:
    """Reads `prompt` and its `samples`, a solution each. No row says whether it is right: that is what `test` is for.

    Nothing is run; a sample without text is a solution of one comment that says so. Tests and the entry point are in
    the problem's meta.

    Args:
        number: its 1-based number, the problem's id where the row has no `task_id`.
        cut: `whole` makes a sample one step, `lines` a line each.

    Raises:
        InputError: a field is missing, a sample is no text, or an unknown option.
    """
    problem = _problem(row, str(row.get("task_id") or f"code-{number}"))
    for i, sample in enumerate(need(row, "samples", list)):
        if not isinstance(sample, str):
            raise InputError(f"sample {i} must be text, got {shown(sample)}")
        # An empty sample is a wrong one: without it, shares of right samples would be too high.
        yield annotated(problem, _steps(sample, cut) or (Step(_EMPTY),), None, "nobody")


def read_reflexion(row: Row, number: int, *, cut: Cut = "whole") -> Iterator[Trajectory]:
    """Reads `implementations`, each followed by its `test_feedback` and the reflection on it, and `is_solved`.

    Feedback and `reflections` are observations, the latter by the agent "reflection". Reflections on programs that are
    not in the log, of which LATS has many, come before the last program. `solution` ends the trajectory where it is
    not the last program, and is all of it where the log holds no programs: reflections then come before it.

    Args:
        number: its 1-based number, the problem's id where the row has no `name`.
        cut: `whole` makes a program one step, `lines` a line each.

    Raises:
        InputError: a field is missing or of another kind, or an unknown option.
    """
    if _is_early(row):
        what = "there is no program: LATS logs none where the first attempt passed"
        raise InputError(what, remedy="log 'solution' and 'is_solved' there too")
    problem = _problem(row, str(row.get("name") or row.get("task_id") or f"code-{number}"))
    programs, reflections = _texts(row, "implementations"), _texts(row, "reflections")
    reflections = [text for text in reflections if text.strip() and text != _NONE]
    steps = _attempts(programs, _texts(row, "test_feedback"), reflections, cut)
    solution = row.get("solution")
    if isinstance(solution, str) and [text.strip() for text in programs[-1:]] != [solution.strip()]:
        steps += _steps(solution, cut)
    elif solution is not None and not isinstance(solution, str):
        raise InputError(f"'solution' must be text, got {shown(solution)}")
    if not any(step.kind == "action" for step in steps):
        raise InputError("no program is in 'implementations' or 'solution'")
    solved = row.get("is_solved")
    if not isinstance(solved, bool | int | None) or solved not in (0, 1, None):
        raise InputError(f"'is_solved' must be true or false, got {shown(solved)}")
    yield annotated(
        problem, tuple(steps), None, "unit tests",
        outcome=np.nan if solved is None else float(solved), facts=other_fields(row, *_READ),
    )  # fmt: skip


def _attempts(programs: list[str], feedback: list[str], reflections: list[str], cut: Cut) -> list[Step]:
    """Programs with what was said of them."""
    each = len(reflections) in (len(programs) - 1, len(programs))  # As Reflexion has them: one a program.
    steps: list[Step] = []
    for at, program in enumerate(programs):
        # LATS reflects on all programs of its tree and logs those of one path: which reflection is on which is unknown.
        if not each and at == len(programs) - 1:
            steps += map(_reflection, reflections[min(at, 1) :])
        steps += (replace(step, meta={"attempt": at}) for step in _steps(program, cut))
        if at < len(feedback) and feedback[at].strip():
            feedback_text = feedback[at].rstrip("\n") + "\n"
            steps.append(Step(feedback_text, "observation", "tool", "tests", meta={"attempt": at}))
        if reflections[at : at + 1] and (each or at == 0 < len(programs) - 1):
            steps.append(_reflection(reflections[at]))
    return steps if programs else [_reflection(text) for text in reflections]


def _reflection(text: str) -> Step:
    return Step(text.rstrip("\n") + "\n", "observation", agent="reflection")


def _texts(row: Row, name: str) -> list[str]:
    """The texts of a list; feedback of another kind is its JSON.

    Raises:
        InputError: it is no list, or one of programs or reflections is no text.
    """
    given = [] if row.get(name) is None else need(row, name, list)
    if name != "test_feedback" and not all(isinstance(text, str) for text in given):
        raise InputError(f"'{name}' must be texts, got {shown(given)}")
    return [plain_text(text) for text in given]


def _problem(row: Row, name: str) -> Problem:
    meta = {key: row[key] for key in ("entry_point", "test", "canonical_solution") if isinstance(row.get(key), str)}
    return Problem(name, need(row, "prompt"), meta=meta)


def _steps(program: str, cut: Cut) -> tuple[Step, ...]:
    check_choice("cut", cut, Cut)
    if not program.strip():
        return ()
    return tuple(map(Step, program.splitlines(keepends=True) if cut == "lines" else [program]))


FORMATS: tuple[Format, ...] = (
    Format("code-samples", "samples of programming problems, not graded",
           has("prompt", "entry_point", "test", samples=list), read_samples),
    Format("reflexion-code", "programs of Reflexion and LATS with test feedback and reflections", is_reflexion,
           read_reflexion),
)  # fmt: skip

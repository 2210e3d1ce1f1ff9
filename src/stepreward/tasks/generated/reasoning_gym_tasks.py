"""The tasks of reasoning-gym as problems, and its scorers as a grader.

Scorers of some tasks read an answer by evaluating it, so that they run in a sandbox: a process that has the package
imported is copied for each answer, and nothing of one answer is left for the next.
"""

from __future__ import annotations

import json
import re
import sysconfig
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stepreward.core.catalog import generate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.optional import optional, require_installed
from stepreward.core.sandbox.isolation import SandboxLimits
from stepreward.core.sandbox.programs import Output, Sandbox
from stepreward.core.types import Problem, Step
from stepreward.tasks.final_answer import final_answer

REQUEST = "Write the answer alone between <answer> and </answer>."
ANY = "(any answer that the task accepts)"
"""The reference of a problem of which the package knows no single answer."""
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_CODE = re.compile(r"__|\b(?:import|exec|eval|compile|globals|lambda)\b")
"""What no answer to a task needs, and what an answer would need to score itself."""
_BEFORE = "import json, sys, reasoning_gym"
_SCORE = f"""
{_BEFORE}
job = json.load(sys.stdin)
made = reasoning_gym.create_dataset(job["task"], seed=job["seed"], size=1, **job["config"])
print(json.dumps(float(made.score_answer(answer=job["answer"], entry=made[0]))))
"""
_LIMITS = SandboxLimits(seconds=20.0, memory=2 << 30)


@generate.method("reasoning-gym", note="the package of that name, whose scores below 1 count as wrong")
def gym_problems(key: Key, *, task: str = "chain_sum", config: str = "") -> Iterator[Problem]:
    """Makes problems of a task of reasoning-gym; the grader `reasoning-gym` scores them as the package does.

    Args:
        key: randomness.
        task: name of the data set, such as `chain_sum`, `knights_knaves` or `maze`.
        config: its settings, as `min_terms=2;max_terms=4`; values are JSON, or text.

    Raises:
        ModelError: the package is not installed.
        ValueError: it has no such task, or does not take the settings.
    """
    package, settings, number = optional("reasoning_gym"), _settings(config), 0
    while True:
        seed = key.fold("reasoning-gym", number).bits % 2**31
        try:
            entry = package.create_dataset(task, seed=seed, size=1, **settings)[0]
        except (ValueError, TypeError, AssertionError) as error:
            raise ValueError(f"reasoning-gym makes no {task} with {settings}: {error}") from error
        answer = entry.get("answer")
        meta = {"task": task, "seed": seed, "config": settings}
        prompt = f"{entry['question']}\n\n{REQUEST}"
        yield Problem(f"{task}-{key.bits:016x}-{number}", prompt, ANY if answer is None else str(answer), meta)
        number += 1


def _settings(text: str) -> dict[str, Any]:
    made = {}
    for part in filter(str.strip, text.split(";")):
        name, equals, value = (one.strip() for one in part.partition("="))
        if not equals or not name:
            raise ValueError(f"config is name=value;name=value, got {text!r}")
        try:
            made[name] = json.loads(value)
        except ValueError:
            made[name] = value
    return made


class ReasoningGymGrader:
    """Grades an answer 1 if reasoning-gym gives it full marks, else 0; may be used from any thread.

    The package gives parts of marks for answers that contain the right one, and to valid but idle ones: they are wrong.
    An answer that looks like a program is wrong too. NaN is an answer whose score was not found within the limits.

    Raises:
        ModelError: at the first grade: the package or a sandbox is not installed.
    """

    name = "reasoning-gym-1"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._job = ""
        self._outputs: Iterator[Output] | None = None

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """1.0 or 0.0, or NaN.

        Raises:
            InputError: the problem has no task, seed and config in its meta.
        """
        job = {name: problem.meta.get(name) for name in ("task", "seed", "config")}
        if not (isinstance(job["task"], str) and isinstance(job["seed"], int) and isinstance(job["config"], dict)):
            what = f"problem {problem.id!r} has no task, seed and config in its meta"
            raise InputError(what, remedy="make such problems with `stepreward generate reasoning-gym`")
        answer = self.answer(problem, steps)
        if answer is None or _CODE.search(answer):
            return 0.0
        with self._lock:
            if self._outputs is None:
                require_installed("reasoning_gym")
                self._outputs = Sandbox(_LIMITS, _folders()).outputs(_SCORE, self._jobs(), before=_BEFORE)
            self._job = json.dumps({**job, "answer": answer})
            try:
                made = next(self._outputs)
            except BaseException:
                self._outputs = None
                raise
        try:
            return float(float(made.text.strip().rpartition("\n")[2]) >= 1.0) if made.status == 0 else float("nan")
        except ValueError:
            return float("nan")

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """What stands last between the marks, else in a box or after "the answer is"; None if nothing does."""
        text = "".join(step.text for step in steps if step.kind == "action")
        found = _ANSWER.findall(text)
        return str(found[-1]).strip() if found else final_answer(text)

    def _jobs(self) -> Iterator[str]:
        """The one job that is asked next, each time the sandbox asks for one."""
        while True:
            yield self._job


def _folders() -> list[Path]:
    """Folders of installed packages."""
    spec = find_spec("reasoning_gym")
    own = [] if spec is None or spec.origin is None else [Path(spec.origin).resolve().parents[1]]
    return [*dict.fromkeys([*own, *(Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib"))])]

"""Problems and grades of reasoning-gym: with a small package of that name, and with the real one where it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.sandboxed import needs_sandbox

from stepreward.core.catalog import generate
from stepreward.core.errors import InputError, ModelError
from stepreward.core.keys import Key
from stepreward.core.sandbox.isolation import SandboxLimits
from stepreward.core.types import Problem, Step
from stepreward.tasks.generated import reasoning_gym_tasks
from stepreward.tasks.generated.reasoning_gym_tasks import ANY, ReasoningGymGrader, gym_problems

PACKAGE = '''
"""As reasoning-gym: data sets by name, seed and size, whose scorers may evaluate an answer."""
import random

scored = 0

class Sums:
    def __init__(self, seed, most):
        self.seed, self.most = seed, most

    def __getitem__(self, at):
        rng = random.Random(self.seed + at)
        one, other = rng.randint(0, self.most), rng.randint(0, self.most)
        return {"question": f"{one} + {other}?", "answer": str(one + other), "metadata": {"one": one}}

    def score_answer(self, answer, entry):
        global scored
        scored += 1
        assert scored == 1, "the process was used before"
        if answer == "near":
            return 0.99
        return float(eval(answer) == int(entry["answer"]))

class Free(Sums):
    def __getitem__(self, at):
        return {**super().__getitem__(at), "answer": None}

def create_dataset(name, seed, size, most=9):
    if name not in ("sums", "free"):
        raise ValueError(f"Dataset '{name}' not registered")
    return {"sums": Sums, "free": Free}[name](seed, most)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "reasoning_gym"
    folder.mkdir()
    (folder / "__init__.py").write_text(PACKAGE)
    tmp_path.chmod(0o755)  # as folders of packages are
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "reasoning_gym", raising=False)
    monkeypatch.setattr(reasoning_gym_tasks, "_LIMITS", SandboxLimits(seconds=1.0))
    yield
    sys.modules.pop("reasoning_gym", None)


def problems(n: int = 3, **settings: Any) -> list[Problem]:
    return list(islice(generate["reasoning-gym"].take({"key": Key.seed(1)}, **{"task": "sums", **settings}), n))


def answered(text: str) -> list[Step]:
    return [Step("Let us see.\n"), Step(f"<answer>{text}</answer>")]


@pytest.mark.usefixtures("package")
def test_problems_hold_what_makes_them_again() -> None:
    first, again = problems(), problems()
    assert first == again
    assert len({one.text for one in first}) == 3
    assert all(one.meta == {"task": "sums", "seed": one.meta["seed"], "config": {}} for one in first)
    assert problems(task="free")[0].reference == ANY
    assert problems(config="most=0; ")[0].text.startswith("0 + 0?")
    for settings, said in (
        ({"task": "none"}, "not registered"),
        ({"config": "wrong=1"}, "wrong"),
        ({"config": "x"}, "x"),
    ):
        with pytest.raises(ValueError, match=said):
            problems(**settings)


@needs_sandbox
@pytest.mark.usefixtures("package")
def test_only_full_marks_are_right_and_each_answer_has_a_process_of_its_own() -> None:
    grader = ReasoningGymGrader()
    for one in problems():
        assert one.reference is not None
        assert grader.grade(one, answered(one.reference)) == 1.0
        assert grader.grade(one, answered(f"{one.reference} - 1 + 1")) == 1.0
        assert grader.grade(one, answered("99")) == 0.0
        assert grader.grade(one, answered("near")) == 0.0
        # Programs are no answers, and no answer is none.
        assert grader.grade(one, answered("__import__('os')._exit(0)")) == 0.0
        assert grader.grade(one, answered("(lambda: 1)()")) == 0.0
        assert grader.grade(one, [Step("No idea")]) == 0.0
        assert grader.answer(one, [Step(r"\boxed{7}")]) == "7"


@needs_sandbox
@pytest.mark.usefixtures("package")
def test_a_score_that_is_not_found_is_unknown() -> None:
    (one,) = problems(1)
    grader = ReasoningGymGrader()
    assert np.isnan(grader.grade(one, answered("what")))
    assert np.isnan(grader.grade(one, answered("9**9**9**9")))
    assert grader.grade(one, answered(str(one.reference))) == 1.0


def test_other_problems_are_refused() -> None:
    with pytest.raises(InputError, match="'p' has no task, seed and config"):
        ReasoningGymGrader().grade(Problem("p", "?", "1"), answered("1"))


@pytest.mark.skipif(find_spec("reasoning_gym") is not None, reason="it is here")
def test_without_the_package_the_error_names_the_extra() -> None:
    with pytest.raises(ModelError, match=r"stepreward\[reasoning-gym\]"):
        problems(1)


@needs_sandbox
@pytest.mark.parametrize("task", ["chain_sum", "countdown", "knights_knaves", "propositional_logic"])
def test_the_real_package(task: str) -> None:
    pytest.importorskip("reasoning_gym", reason="needs reasoning-gym")
    grader = ReasoningGymGrader()
    for one in islice(gym_problems(Key.seed(2), task=task), 2):
        right = one.reference != ANY
        assert grader.grade(one, answered(str(one.reference))) == float(right)
        assert grader.grade(one, answered("no such thing")) == 0.0

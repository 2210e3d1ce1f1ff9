"""An agent for generated repositories that knows the bug, and errs at known rates: no model, for measurements."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from stepreward.core.keys import Key
from stepreward.core.segment.tool_calls import stated_calls
from stepreward.core.types import Problem, Step
from stepreward.environments.repositories.checked_files import is_test
from stepreward.environments.repositories.edit_commands import edit_between
from stepreward.environments.repositories.planted_bugs import bugs_of

NextTurns = Callable[[Problem, tuple[Step, ...]], Sequence[tuple[Step, float, bool]]]
_TEST, _SUBMIT = "test\n", "submit\n"


def mender(*, miss: float = 0.3, hasty: float = 0.08, wrong: int = 3) -> NextTurns:
    """A table for `policies.tabular.TabularPolicy`: the chances of each turn, so that all values can be worked out.

    It tests, views the module with the bug, mends it, tests and submits; after a wrong edit it tests and mends that. It
    misses by viewing another file, or by an edit that plants another bug; and it submits in haste, whatever the tests
    say.

    Args:
        miss, hasty: chances of either error; not negative, and at most 1 together.
        wrong: edits among which a miss is drawn, other ones after every edit.

    Raises:
        ValueError: a chance is out of range.
    """
    if min(miss, hasty) < 0 or miss + hasty > 1 or wrong < 1:
        raise ValueError(f"expected chances that sum to at most 1, and edits, got {miss}, {hasty} and {wrong}")
    planted = lru_cache(maxsize=4096)(partial(_planted, wrong))

    def turns(problem: Problem, prefix: tuple[Step, ...]) -> Sequence[tuple[Step, float, bool]]:
        work = _work(problem, prefix)
        move = work.right_move
        errors = [f"view {other}\n" for other in work.others]
        if work.edits or work.viewed:
            changed = planted(problem.id, work.text, work.right, work.edits)
            errors = [_edit(edit_between(work.path, work.text, one)) for one in changed] or errors
        chances: dict[str, float] = {move: 1 - miss - hasty}
        for one, chance in [*((one, miss / len(errors)) for one in errors), (_SUBMIT, hasty)]:
            chances[one] = chances.get(one, 0.0) + chance
        return [(Step(one), chance, True) for one, chance in chances.items() if chance > 0]

    return turns


@dataclass(frozen=True)
class _Work:
    """What was done in an episode."""

    path: str
    """Of the module with the bug."""
    text: str
    """Of that module now."""
    right: str
    """Of that module without a bug."""
    others: tuple[str, ...]
    """Paths of the other modules."""
    edits: int
    tested: bool
    """Whether the tests ran since the last edit."""
    viewed: bool
    """Whether the module was viewed."""

    @property
    def right_move(self) -> str:
        """What brings the episode nearer to its end."""
        if not self.tested:
            return _TEST
        if self.text == self.right:
            return _SUBMIT
        return _edit(edit_between(self.path, self.text, self.right)) if self.viewed else f"view {self.path}\n"


def _work(problem: Problem, prefix: Sequence[Step]) -> _Work:
    mend, files = json.loads(problem.reference or "{}"), problem.meta["files"]
    path = mend["path"]
    right, text = files[path].replace(mend["old"], mend["new"], 1), files[path]
    edits, tested, viewed = 0, False, False
    for step in prefix:
        if step.kind != "action":
            continue
        for call in stated_calls(step):
            text = text.replace(call["arguments"]["old"], call["arguments"]["new"], 1)
            edits, tested = edits + 1, False
        tested |= step.text == _TEST
        viewed |= step.text == f"view {path}\n"
    others = tuple(one for one, said in files.items() if one != path and said and not is_test(one))
    return _Work(path, text, right, others, edits, tested, viewed)


def _edit(change: Mapping[str, str]) -> str:
    return json.dumps({"name": "edit", "arguments": change}) + "\n"


def _planted(most: int, name: str, text: str, right: str, number: int) -> list[str]:
    """Versions of a module with one more bug, drawn by the problem's name and the number of edits."""
    lines = text.splitlines()
    made = []
    for function in ast.parse(text).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        first = function.lineno - 1
        for bug in bugs_of("\n".join(lines[first : function.end_lineno]) + "\n"):
            at = first + bug.line
            made.append("\n".join([*lines[:at], bug.wrong, *lines[at + 1 :]]) + "\n")
    new = [one for one in dict.fromkeys(made) if one not in (text, right)]
    order = Key.seed(0).fold("misses", name, number).rng().permutation(len(new))
    return [new[at] for at in order[:most]]

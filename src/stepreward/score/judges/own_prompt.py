"""A judge in words of one's own: a row of the table, with fields of a JSON file in place of its."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from stepreward.core.errors import InputError
from stepreward.score.checkpoints.row import JudgeCheckpoint
from stepreward.score.encode.record_file import read_fields, replaced

_FIXED = ("names", "source")


def with_own_prompt(judge: JudgeCheckpoint, path: Path) -> JudgeCheckpoint:
    """The judge with the fields of a file; its name tells other words apart.

    Args:
        judge: row that is followed in all other fields.
        path: JSON object of fields of `JudgeCheckpoint`, lists where these are tuples.

    Raises:
        InputError: the file holds no object, a value is not what its field takes, or the prompt shows no solution.
        UnknownNameError: there is no such field.
    """
    given = {name: value for name, value in read_fields(path).items() if name not in _FIXED}
    try:
        made = replaced(judge, given, path, of="a judge")
    except ValueError as error:
        raise InputError(str(error), source=path) from error
    shown = "{step}" if made.prompting == "apart" else "{steps}"
    if "{prompt}" not in made.prompt_format or shown not in made.prompt_format:
        what = f"the prompt of a judge must hold {{prompt}} and {shown}"
        raise InputError(what, source=path, remedy="put them where the problem and the solution stand")
    digest = hashlib.blake2b(json.dumps(given, sort_keys=True).encode(), digest_size=4).hexdigest()
    return replace(made, names=(f"{judge.name} in other words ({digest})",), source=str(path))

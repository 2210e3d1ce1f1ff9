"""What a command says of a file of which it can read nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.core.errors import InputError


def test_all_bad_rows_are_counted_whatever_is_wrong_with_them(tmp_path: Path) -> None:
    half = [json.dumps({"prompt": f"{n} + \ud83d?", "completions": ["So."], "labels": [True]}) for n in range(3)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*half, '{"prompt": broken}']) + "\n")
    with pytest.raises(InputError, match=r"half a surrogate pair.*, and 3 more rows are bad"):
        list(ReadFlags().solutions(path))

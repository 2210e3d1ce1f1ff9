"""Records in files: fields on top of a base, each value checked, one sentence for each mistake."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.score.checkpoints.table import by_name, checkpoints
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.encode.record_file import read_record


def written(folder: Path, row: object) -> Path:
    path = folder / "record.json"
    path.write_text(row if isinstance(row, str) else json.dumps(row))
    return path


def test_every_record_of_the_table_is_read_back(tmp_path: Path) -> None:
    for row in checkpoints.values():
        assert read_record(written(tmp_path, asdict(row.record))) == row.record


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    base = by_name("trl-prm").record
    path = written(tmp_path, {"separator": "\n\n", "version": 2, "probe": [1]})
    assert read_record(path, base) == replace(base, separator="\n\n")
    assert read_record(path) == replace(EncoderRecord(), separator="\n\n")
    path = written(tmp_path, {"system": None, "clean": ["strip"], "threshold": 0, "also": []})
    assert read_record(path, base) == replace(base, system=None, clean=("strip",), threshold=0)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "record.json: no readable JSON"),
        ([1], "expected an object, got"),
        ({"readout": "sigmoidal"}, r"readout must be one of 'sigmoid', .*, got \"sigmoidal\""),
        ({"max_length": "long"}, "max_length must be a whole number, got"),
        ({"max_length": True}, "max_length must be a whole number, got true"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"special_tokens": 1}, "special_tokens must be true or false, got 1"),
        ({"system": 3}, "system must be a text or null, got 3"),
        ({"label_tokens": "+"}, "label_tokens must be a list, each a text"),
        ({"clean": ["wash"]}, "clean must be a list, each one of 'unnumber'"),
        ({"readout": "softmax"}, "a softmax readout needs n_labels >= 2"),
        ({"threshold": "half"}, "threshold must be a number"),
    ],
)
def test_what_is_no_record_is_told_with_its_field(tmp_path: Path, row: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_record(written(tmp_path, row))


def test_an_unknown_field_or_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"'seperator'.*did you mean separator"):
        read_record(written(tmp_path, {"seperator": "\n"}))
    with pytest.raises(InputError, match="no readable JSON"):
        read_record(tmp_path / "none.json")

"""Records in files: fields on top of a base, each value checked, one sentence for each mistake."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.score.checkpoints.known_checkpoints import by_name, checkpoints
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, PerPrefix, PerStep, WholeText
from stepreward.score.encode.record_file import RECORD_FILE, load_record, read_record, save_record


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
    assert read_record(path, base) == replace(base, encoding=replace(base.encoding, separator="\n\n"))
    assert read_record(path) == EncoderRecord(PerStep(separator="\n\n"))
    path = written(tmp_path, {"system": None, "clean": ["strip"], "threshold": 0, "also": []})
    readout = replace(base.readout, also=())
    assert read_record(path, base) == replace(
        base, encoding=replace(base.encoding, system=None, clean=("strip",)), threshold=0, readout=readout
    )
    path = written(tmp_path, {"tokenise": "joined", "tag": "x"})
    whole = WholeText(prompt_format="{bos}{prompt}", clean=("chomp",), separator="\n", tag="x", max_length=1024)
    assert read_record(path, base) == replace(base, encoding=replace(whole, too_long="drop"))
    path = written(tmp_path, {"encoding": {"kind": "per-prefix", "too_long": "cut"}})
    assert read_record(path).encoding == PerPrefix(separator="\n", too_long="cut")
    with pytest.raises(UnknownNameError, match=r"'encoding\.answer'"):
        read_record(written(tmp_path, {"answer": "+"}))
    path = written(tmp_path, {"readout": {"positive": 0}})
    assert read_record(path, base) == replace(base, readout=replace(base.readout, positive=0))


OLD = json.loads((Path(__file__).parent / "records_of_version_2.json").read_text())
"""Files as versions 1 and 2 wrote them, with all fields side by side, each with its probe."""
OWN = {
    "default": EncoderRecord(),
    "version 1": EncoderRecord(readout=Readout(surprise=True)),
    "surprise": EncoderRecord(readout=Readout(surprise=True)),
    "before": EncoderRecord(PerStep(read="before", separator=""), readout=Readout("value")),
    "three": EncoderRecord(readout=Readout("softmax", n_labels=3, positive=2, also=(1,))),
    "lines": EncoderRecord(PerStep(clean=("lines",))),
    "use": EncoderRecord(aggregation="mean", threshold=0.3),
    "implicit": EncoderRecord(WholeText(), readout=Readout("implicit", beta=0.05)),
}


@pytest.mark.parametrize("name", OLD)
def test_a_record_of_an_older_version_is_the_same_record(tmp_path: Path, name: str) -> None:
    expected = OWN.get(name) or by_name(name).record
    # Records of that version did not name the reference of an implicit score.
    expected = replace(expected, readout=replace(expected.readout, reference=""))
    (tmp_path / RECORD_FILE).write_text(json.dumps(OLD[name]))
    assert load_record(tmp_path) == (expected, OLD[name]["probe"])
    assert read_record(tmp_path / RECORD_FILE) == expected
    save_record(expected, tmp_path, probe=[7])
    assert load_record(tmp_path) == (expected, [7])
    assert json.loads((tmp_path / RECORD_FILE).read_text())["version"] == 3


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "record.json: no readable JSON"),
        ([1], "expected an object, got"),
        ({"readout": "sigmoidal"}, r"readout.kind must be one of 'sigmoid', .*, got \"sigmoidal\""),
        ({"readout": ["softmax"]}, "readout must be an object, got"),
        ({"encoding": {"kind": "per-word"}}, "encoding.kind must be one of 'per-step', 'conversation'"),
        ({"encoding": {"kind": ["per-step"]}}, "encoding.kind must be one of"),
        ({"encoding": 3, "separator": "x"}, "encoding must be an object"),
        ({"encoding": {"kind": "per-prefix", "too_long": "cut", "max_length": "x"}}, "encoding.max_length must be"),
        ({"tokenise": ["step"]}, "tokenise must be one of 'step', 'segment', got"),
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

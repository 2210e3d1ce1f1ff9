"""`stepreward convert`: options on the command line, streaming, refusals, and the page of formats."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepreward import formats
from stepreward.core.errors import InputError, StoreError, UnknownNameError
from stepreward.core.files.row_files import write_rows
from stepreward.formats.description import formats_page, formats_table
from stepreward.formats.files.rows_of_files import read_rows
from stepreward.formats.registry import formats as registry
from tests.cli.running import invoke, refused
from tests.effort import scaled

from .examples import EXAMPLES, FOLDER


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for path in FOLDER.glob("*.jsonl"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_options_reach_reader_and_writer(inside: Path) -> None:
    said = invoke(
        "convert fover.jsonl o.jsonl --to openrlhf --read polarity=true-is-wrong --read after_first_error=mask "
        "--write key=label --write threshold=0.5 --write mark= --write unknown=wrong"
    )
    # The first of true, false, null is wrong now; what follows is masked, and written as wrong.
    assert rows(inside / "o.jsonl") == [
        {
            "input": "Prove it. fact1 -> int1 ки\nint1 -> int2 ки\nThe final answer is PROVED ки",
            "label": ["-", "-", "-"],
        }
    ]
    assert "read as fover (steps checked by formal tools): row 1 has id, problem" in said


def test_none_and_line_breaks_can_be_written_as_arguments(inside: Path) -> None:
    invoke(r"convert scan.jsonl o.jsonl --to trl --read 'separator=\n' --write 'separator=\n' --write threshold=none")
    (row,) = rows(inside / "o.jsonl")
    assert (row["completions"], row["labels"]) == (["1 + 1 = 2.", "2 + 2 = 5."], [1.0, 0.25])


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("convert fover.jsonl o.jsonl --to trl --read polarity=up", "polarity must be true-is-right, true-is-wrong"),
        ("convert fover.jsonl o.jsonl --to trl --read polarty=up", "did you mean polarity?"),
        ("convert fover.jsonl o.jsonl --to trl --read polarity", "expected name=value, got 'polarity'; fover knows"),
        ("convert fover.jsonl o.jsonl --to trl --write threshold=much", "threshold must be a number or none, got 'm"),
        ("convert fover.jsonl o.jsonl --to trl --write threshold=1 --write threshold=0", "'threshold' is given twice"),
        ("convert prm800k.jsonl o.jsonl --to trl --read alternatives=maybe", "alternatives must be true or false"),
        ("convert fover.jsonl o.parquet --write threshold=1", "option of format stepreward is called 'threshold'"),
        ("convert fover.jsonl fover.jsonl --to trl", "fover.jsonl: is read and written at once"),
        ("convert fover.jsonl", "a file to read and one to write are needed"),
        ("convert fover.jsonl o.jsonl --to comparisons", "make pairs of them with `stepreward pairs`"),
        ("convert fover.jsonl o.jsonl --to step-dpo", "holds solutions and cannot become step-dpo, which holds"),
        ("convert two.jsonl o.jsonl --to trl", "two.jsonl: ambiguous: row 1 fits trl but row 2 fits scan"),
        ("convert masprm.jsonl o.jsonl --to trl --from trl", "'labels' entry 1 must be in [0, 1], got -1.0"),
    ],
)  # fmt: skip
def test_refusals_name_file_value_and_remedy(
    line: str, error: str, inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (inside / "two.jsonl").write_text(f"{json.dumps(EXAMPLES['trl'][0])}\n{json.dumps(EXAMPLES['scan'][0])}\n")
    assert error in refused(line, capsys, monkeypatch)


def test_bad_rows_are_counted_and_good_ones_written(inside: Path) -> None:
    good = json.dumps(EXAMPLES["trl"][0])
    (inside / "mixed.jsonl").write_bytes(b"\n".join([good.encode(), b"{", b'{"prompt": "\xff"}', good.encode()]))
    done = json.loads(invoke("convert mixed.jsonl o.jsonl --to scan --json", 1))
    assert (done["read"], done["written"], done["refused"], done["bad_rows"]) == (2, 2, 0, 2)
    assert len(rows(inside / "o.jsonl")) == 2


def test_the_list_and_the_page_hold_every_format_and_option() -> None:
    table, page = invoke("convert --formats"), formats_page()
    assert table.strip() == formats_table()
    for name, form in registry.items():
        assert f"\n## {name}\n" in page
        assert name in table
        for function in filter(None, (form.read, form.write)):
            for option in form.options(function):
                assert f"{option}=" in table
                assert f"| `{option}` | `" in page
    assert "|  |" not in page.replace("| | |", "")  # no option without its meaning
    # Defaults as they are written: a text, a text of signs that do not print, an empty one, none.
    for default in ("`keep`", r"`\n\n`", "`''`", "`none`"):
        assert f" {default} |" in page, default


# Files: arrays and objects stream, and what is broken costs no more than it must.


def test_an_array_is_read_value_by_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepreward.formats.files.rows_of_files._BLOCK", 7)
    made = [{"text": "[,]}{" * i, "n": i, "half": i / 7, "é": "\u2028"} for i in range(30)]
    for name, text in (
        ("a.json", json.dumps(made)),
        ("b.json", json.dumps(made, indent=4, ensure_ascii=False)),
        ("c.json", "\ufeff \n" + json.dumps(made)),
        ("d.json", "\n".join(json.dumps(one, indent=2) for one in made)),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert list(read_rows(tmp_path / name)) == list(enumerate(made, start=1)), name


@pytest.mark.parametrize(
    ("text", "good", "error"),
    [
        ('[{"a": 1}, {"a": }, {"a": 3}]', 1, "broken JSON: Expecting value"),
        ('[{"a": 1}, {"a": 2}', 2, "broken JSON array: no ']' at its end"),
        ('[{"a": 1}, {"a": "2', 1, "broken JSON: Unterminated string"),
        ('[{"a": 1} {"a": 2}]', 2, ""),
        ('[{"a": 1}, 7, {"a": 2}]', 2, "expected an object, got int"),
        ("[]", 0, ""),
        ("[", 0, "broken JSON array: no ']'"),
        ('{\n"a": 1\n}\n{\n"a": \n}', 1, "broken JSON: Expecting value"),
        ('{"a": 1\n{"a": 2}\n', 1, "broken JSON: Expecting ',' delimiter"),
    ],
)
def test_what_is_broken_costs_no_good_row_before_it(text: str, good: int, error: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    found = [row for _, row in read_rows(path)]
    errors = [str(row) for row in found if isinstance(row, InputError)]
    assert len(found) - len(errors) == good
    assert [error in one for one in errors] == [True] * bool(error)


def test_a_torn_archive_gives_its_rows_and_then_its_error(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    whole = gzip.compress("".join(json.dumps({"a": i, "b": "x" * (i % 50)}) + "\n" for i in range(5000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    *good, (_, last) = read_rows(path)
    assert len(good) > 100
    assert isinstance(last, InputError)
    assert "a broken .gz" in str(last)


def test_columns_of_parquet_take_the_type_of_all_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    made = [{"a": None, "b": [1], "c": {"d": 1}}] * 1500 + [{"a": "text", "b": [0.5], "c": {"d": 2, "e": "f"}}]
    assert write_rows(path, iter(made)) == 1501
    last = pq.read_table(path).to_pylist()[-1]
    assert last == {"a": "text", "b": [0.5], "c": {"d": 2, "e": "f"}}
    with pytest.raises(InputError, match=r"columns of one type.*write \.jsonl instead"):
        write_rows(path, [{"a": 1}, {"a": [2]}])
    assert [one.name for one in tmp_path.iterdir()] == ["x.parquet"]


def test_half_a_character_can_be_written_and_read(tmp_path: Path) -> None:
    row = {"prompt": "\ud800?", "completions": ["a"], "labels": [True]}
    items = list(formats.read(_lines(tmp_path / "in.jsonl", row), strict=True))
    for name in ("o.jsonl", "o.json", "o.jsonl.gz"):
        assert formats.write(tmp_path / name, items, "trl") == []
        assert next(iter(formats.read(tmp_path / name))).problem.text == "\ud800?"
    whole = list(formats.read(_lines(tmp_path / "in.jsonl", {**row, "prompt": "?"}), strict=True))
    for form in ("trl", "stepreward"):
        (error,) = formats.write(tmp_path / "o.parquet", [*items, *whole], form)
        assert "half a surrogate pair, '\\ud800', which Parquet cannot hold" in error.problem
        assert [item.problem.text for item in formats.read(tmp_path / "o.parquet")] == ["?"]
        with pytest.raises(InputError, match="half a surrogate pair"):
            formats.write(tmp_path / "o.parquet", items, form, strict=True)
    # What is JSON in a text has it as its escape.
    meta = [replace(one, facts={"said": "\ud800"}) for one in whole]
    assert formats.write(tmp_path / "o.parquet", meta, "stepreward") == []
    assert next(iter(formats.read(tmp_path / "o.parquet"))).facts == {"said": "\ud800"}


def test_what_cannot_be_converted_is_told_and_counted(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": text, "completions": ["a"], "labels": [True]} for text in ("\ud800?", "?")]
    _lines(inside / "in.jsonl", *rows)
    told = json.loads(invoke("convert in.jsonl out.parquet --json", 1))
    assert (told["written"], told["refused"], told["bad_rows"]) == (1, 1, 0)
    assert "1 that stepreward cannot hold were left out" in invoke("convert in.jsonl out.parquet", 1)


def test_a_folder_of_parts_is_written_and_read(inside: Path) -> None:
    _lines(inside / "in.jsonl", *({"prompt": f"{n}?", "completions": ["a"], "labels": [True]} for n in range(5)))
    told = json.loads(invoke("convert in.jsonl parts --rows-per-part 2 --json"))
    assert (told["read"], told["written"]) == (5, 5)
    assert sorted(path.name for path in (inside / "parts").iterdir()) == [
        "_parts.json", "part-000000.parquet", "part-000001.parquet", "part-000002.parquet",
    ]  # fmt: skip
    assert json.loads(invoke("convert parts back.jsonl --to trl --json"))["written"] == 5
    assert [row["prompt"] for row in rows(inside / "back.jsonl")] == [f"{n}?" for n in range(5)]
    assert repr(formats.read("back.jsonl")) == "<solutions of 'back.jsonl', read as trl>"


SLOW_WRITER = """
import sys, time
from pathlib import Path
from stepreward.core.files.row_files import write_rows
def rows():
    for number in range(10_000_000):
        if number == 5000:
            print("half", flush=True)
            time.sleep(60)
        yield {"number": number, "text": "x" * 100}
write_rows(Path(sys.argv[1]), rows())
"""


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ["o.jsonl", "o.json", "o.parquet", "o.jsonl.gz"])
def test_a_kill_leaves_the_old_file_and_a_second_writer_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write_rows(path, [{"old": 1}])
    before = path.read_bytes()
    child = subprocess.Popen([sys.executable, "-c", SLOW_WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "half\n"
    with pytest.raises(StoreError, match="is being written by another process"):
        write_rows(path, [{"new": 1}])
    child.kill()
    child.wait()
    child.stdout.close()
    assert path.read_bytes() == before
    assert [row for _, row in read_rows(tmp_path / name)] == [{"old": 1}]
    assert write_rows(path, [{"new": 1}]) == 1
    assert [row for _, row in read_rows(path)] == [{"new": 1}]
    assert [one.name for one in tmp_path.iterdir()] == [name]


def _lines(path: Path, *made: object) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in made))
    return path


def test_a_strict_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = _lines(tmp_path / "o.jsonl", {"old": True})
    items = list(formats.read(FOLDER / "scan.jsonl"))
    with pytest.raises(InputError, match="has no rating"):
        formats.write(path, items, "prm800k", strict=True)
    assert rows(path) == [{"old": True}]
    assert [one.name for one in tmp_path.iterdir()] == ["o.jsonl"]


def test_unknown_options_of_a_writer_are_refused_in_python_too(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean threshold"):
        formats.write(tmp_path / "o.jsonl", [], "trl", treshold=1)


@settings(max_examples=scaled(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | st.text(alphabet='[]{}",:\\ u012tfn-.e\n\ufeffé', max_size=60).map(str.encode))
@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.jsonl.gz", "x.parquet"])
def test_any_bytes_are_rows_or_the_documented_error(name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    refusal: InputError | None = None
    try:
        for number, row in read_rows(path):
            assert number > 0
            assert isinstance(row, InputError | dict)
    except InputError as error:
        refusal = error
    assert refusal is None or (name in str(refusal) and refusal.remedy)


@settings(max_examples=scaled(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made=st.lists(st.dictionaries(st.text(max_size=3), st.none() | st.floats(allow_nan=False) | st.text(), max_size=3)),
    block=st.integers(1, 40),
    indent=st.none() | st.integers(0, 3),
)
def test_arrays_of_anything_come_back_whole(
    made: list[dict[str, object]], block: int, indent: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(made, indent=indent, ensure_ascii=indent is None), encoding="utf-8", errors="ignore")
    expected = json.loads(path.read_text(encoding="utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stepreward.formats.files.rows_of_files._BLOCK", block)
        assert list(read_rows(path)) == list(enumerate(expected, start=1))

"""Bad input ends in one clear line that names file, row, value and remedy, and in exit status 1."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from stepreward.cli.app import app
from tests.cli.running import example, refused
from tests.forked import command

pytestmark = pytest.mark.xdist_group("commands")


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("label --out x", "expected either --data or --problems; pass one of them"),
        ("label --problems none.jsonl --out x", "none.jsonl: cannot be read"),
        ("label --problems bad.jsonl --out x --strict", "bad.jsonl, row 1: problem '1' has no reference"),
        ("label --problems broken.jsonl --out x", "broken.jsonl, row 1: broken JSON"),
        ("label --problems field.jsonl --out x", "field.jsonl, row 1: a problem needs a text under 'prompt'"),
        ("label --problems problems.jsonl --out x --estimator bisect", "did you mean bisection"),
        ("label --problems problems.jsonl --out x --set m=3", "no setting of bisection or hard is called 'm'"),
        ("label --problems problems.jsonl --out x --set n=two", "must be a whole number of at least 1, got 'two'"),
        ("label --problems problems.jsonl --out x --set unfinished=so", "must be one of wrong, drop, got 'so'"),
        ("label --problems problems.jsonl --out x --rollouts 2 --set n=3", "'n' of bisection is given twice"),
        (
            "label --data solution.jsonl --out x --set threshold=2",
            "threshold must lie in [0, 1), got 2.0",
        ),
        (
            "label --problems problems.jsonl --out labels --grader arithmetic --seed 9 --json",
            "the folder was begun",
        ),
        ("label --problems problems.jsonl --out x --set n", "expected name=value, got 'n'; give any of n=8"),
        ("label --problems problems.jsonl --out x --policy builtin:nothing", "known: builtin:arithmetic"),
        ("label --problems problems.jsonl --out x --grader nobody", "no grader is called 'nobody'"),
        ("label --problems problems.jsonl --out problems.jsonl/x", "problems.jsonl/x"),
        (
            "label --problems noref.jsonl --out x",
            "noref.jsonl, row 1: problem '1' has no reference to grade",
        ),
        (
            "label --data solution.jsonl --out x --json",
            "solution.jsonl, row 1: problem 'processbench-1' has no",
        ),
        ("label --problems none-here.jsonl --out x", "none-here.jsonl: no problem is here"),
        ("label --problems twice.jsonl --out x", "twice.jsonl: 1 ids occur twice, first 'a'; make ids differ"),
        ("search --problems none-here.jsonl --out x --method majority", "none-here.jsonl: no problem is here"),
        ("search --problems problems.jsonl --out x --model model --device gpu9", "no torch device is called 'gpu9'"),
        ("score --model model --device cdua", "no torch device is called 'cdua'; did you mean cuda?"),
        ("score --model model --dtype bfloat", "no dtype is called 'bfloat'; did you mean bfloat16"),
        ("search --problems problems.jsonl --out x --model model --cache-memory lots", "a size of memory cannot be"),
        ("score --model model --data latin.jsonl --strict", "latin.jsonl, row 1: broken JSON: 'utf-8' codec"),
        ("convert questions.jsonl x.jsonl --to trl", "trl can hold none of the 1 solutions: problem 'gsm8k-1': step 0"),
        ("evaluate --data questions.jsonl --model model", "questions.jsonl: the rows hold no labels"),
        ("train --data range.jsonl --out x", "range.jsonl, row 1: 'scores' entry 0 must be in [0, 1], got 1.5"),
        ("train --data empty.jsonl --out x", "empty.jsonl, row 1: 'completions' must be a list of at least one step"),
        ("train --data odd.jsonl --out x", "odd.jsonl: no format fits; the first row has the fields what"),
        ("train --data labels/labels.parquet --out x --learning-rate 0", "learning_rate must be positive"),
        ("train --data labels/labels.parquet --out x --objective mae", "no loss method is called 'mae'"),
        ("train --data labels/labels.parquet --out x --backbone ./nowhere", "no model at './nowhere'"),
        ("search --problems problems.jsonl --out x", "beam needs a reward model; pass --model"),
        ("search --problems problems.jsonl --out x --model labels", "labels"),
        ("evaluate --data labels/labels.parquet", "no step scores and no outcomes; pass --model"),
        ("convert labels/labels.parquet x.txt --to trl", "no format for the ending '.txt'"),
        ("convert labels/labels.parquet x.jsonl --to gsm8k", "format gsm8k can only be read"),
        ("convert problems.jsonl x.parquet --from nothing", "no format is called 'nothing'"),
        (
            "convert both.jsonl x.parquet",
            "both.jsonl, row 1: ambiguous: the fields prompt, completions",
        ),
        ("convert labels/labels.parquet x.parquet --to trk", "did you mean trl?"),
        ("convert labels/labels.parquet problems.jsonl/x.jsonl --to trl", "cannot write problems.jsonl/x.jsonl"),
        ("convert none.jsonl x.parquet", "none.jsonl: cannot be read: No such file"),
        ("convert torn.parquet x.jsonl --to trl", "torn.parquet: not a readable Parquet file"),
        ("evaluate --data bad.jsonl --model model", "bad.jsonl: no format fits; the first row has the fields prompt"),
        ("evaluate --data broken.jsonl --model model", "broken.jsonl: no readable row"),
        (
            "evaluate --data range.jsonl --model model",
            "range.jsonl, row 1: 'scores' entry 0 must be in [0, 1], got 1.5",
        ),
        ("evaluate --data length.jsonl --model model", "length.jsonl, row 1: 'labels' has 2 entries for 1 steps"),
        ("evaluate --data labels --model nowhere", "nowhere"),
        ("evaluate --data labels --model model --aggregate least", "no aggregate method is called 'least'"),
        ("evaluate --data labels --model model --grader me", "no grader is called 'me'"),
        ("search --problems problems.jsonl --out x --model nowhere", "nowhere"),
        ("search --problems bad.jsonl --out x --method majority --strict", "bad.jsonl, row 2: broken JSON"),
        ("search --problems problems.jsonl --out x --method bean --model model", "did you mean beam?"),
        (
            "search --problems problems.jsonl --out x --method majority --beams 2",
            "majority does not know --beams; drop it",
        ),
        ("search --problems problems.jsonl --out x --model model --aggregate least", "no aggregate method is called"),
        ("search --problems problems.jsonl --out problems.jsonl/x --method majority", "problems.jsonl/x"),
        (
            "search --problems problems.jsonl --out x --method majority --policy no/where/at",
            "no model at 'no/where/at'",
        ),
        ("train --data labels --out problems.jsonl/x --epochs 0.1", "problems.jsonl/x"),
        ("train --data labels --out x --set positive_weight=-1", "positive_weight must be positive, got -1.0"),
        ("train --data labels --out x --set per=token", "got 'token'"),
        ("train --data labels --out x --metric accuracy", "no metric is called 'accuracy'"),
        ("train --data labels --out x --set zeta=1", "no setting of bce is called 'zeta'"),
        ("score --model nowhere --data range.jsonl", "nowhere"),
        ("score --model model --data none.jsonl", "none.jsonl: cannot be read: No such file"),
        ("score --model model --data broken.jsonl --strict", "broken.jsonl, row 1: broken JSON"),
        ("score --model model --data hollow.jsonl --strict", "hollow.jsonl, row 1: none of 2 steps holds text"),
        ("view labels", "labels: this run has no report yet"),
        ("methods losses", "no family is called 'losses'; did you mean loss?"),
        ("--config wrong.toml search", "wrong.toml: no flag of search is called 'methd'; did you mean method"),
        ("--config other.toml methods", "other.toml: no command is called 'serch'; did you mean search"),
        ("--config list.yaml methods", "list.yaml: expected a table for each command"),
        ("--config none.toml methods", "cannot read the configuration"),
    ],
)
def test_bad_input_is_one_clear_line(
    line: str, error: str, inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "bad": '{"prompt": "a"}\n{"prompt": \n',
        "field": '{"text": "a"}\n',
        "range": '{"question": "q", "steps": ["a"], "scores": [1.5]}\n',
        "empty": '{"prompt": "q", "completions": [], "labels": []}\n',
        "odd": '{"what": 1}\n',
        "broken": '{"question": "q", \n',
        "hollow": '{"question": "q", "steps": ["", " "]}\n',
        "length": '{"prompt": "q", "completions": ["a"], "labels": [true, false]}\n',
        "both": '{"prompt": "q", "completions": ["a"], "labels": [1], "problem": "q", "steps": ["a"], "label": 0}\n',
        "noref": '{"prompt": "1 + 1?"}\n',
        "none-here": "",
        "twice": '{"id": "a", "prompt": "1?", "reference": "1"}\n{"id": "a", "prompt": "2?", "reference": "2"}\n',
        "questions": '{"question": "1 + 1?", "answer": "1+1=2\\n#### 2"}\n',
        "solution": '{"problem": "1 + 1?", "steps": ["2"], "label": -1, "final_answer_correct": true}\n',
    }
    for name, text in files.items():
        (inside / f"{name}.jsonl").write_text(text)
    (inside / "torn.parquet").write_bytes(b"PAR1 torn")
    (inside / "latin.jsonl").write_bytes(b'{"question": "\xff"}\n')
    (inside / "list.yaml").write_text("- search\n")
    (inside / "wrong.toml").write_text('[search]\nmethd = "beam"\n')
    (inside / "other.toml").write_text('[serch]\nmethod = "beam"\n')
    assert error in refused(line, capsys, monkeypatch)


def test_good_rows_are_kept_and_bad_ones_told(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ['{"prompt": "q", "completions": ["a"], "labels": [true]}', "{", '{"prompt": "q", "completions": ["a"]}']
    (inside / "mixed.jsonl").write_text("\n".join(rows))
    done = CliRunner().invoke(app, "convert mixed.jsonl kept.parquet")
    assert done.exit_code == 1
    assert done.stdout.startswith("1 solutions in kept.parquet")
    assert [line[: line.index(":", 30)] for line in done.stderr.splitlines()] == [
        "stepreward: left out: mixed.jsonl, row 2", "stepreward: left out: mixed.jsonl, row 3"
    ]  # fmt: skip


def test_a_bad_row_of_score_is_a_line_of_its_own(inside: Path) -> None:
    rows = ['{"question": "1 + 1?", "steps": ["2"]}', '{"question": "1 + 1?", "steps": []}']
    done = command("score --model model", inside, stdin="\n".join(rows))
    assert done.returncode == 1
    first, second = done.stdout.splitlines()
    assert "scores" in first
    assert "standard input, row 2: 'steps' must be a list of texts" in second
    assert done.stderr == ""


@pytest.mark.parametrize("line", [example("label").replace("labels", "full"), "convert labels full.jsonl --to trl"])
def test_a_full_disk_is_one_clear_line(inside: Path, line: str) -> None:
    # No file may grow past 1 KiB, which fails a write as a full disk does.
    done = command(line, inside, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))")
    assert done.returncode == 1, done.stderr
    said = [text for text in done.stderr.splitlines() if text.startswith("stepreward:")]
    assert len(said) == 1
    assert "full" in said[0]
    assert "File too large" in said[0] or "disk I/O error; free some space" in said[0]
    assert "Traceback" not in done.stderr

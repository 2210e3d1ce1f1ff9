"""Segmentation: lossless on any text whatever the options, in linear time, and cut where people would."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stepreward.core import segment as package
from stepreward.core.catalog import segment

DATA = Path(__file__).parents[2].parent / "shared" / "data"
METHODS = sorted(method.name for method in segment)
PIECES = st.sampled_from((
    "\n", "\n\n", "\r\n", " ", "\t", "\f", "a", "B", ".", "3.14", "e.g. ", "! ", "\u3002", "\u00e9", "\\d", "$x$", "$",
    "Step 2:", "1. ", "2) ", "## Step 3\n", "$$", "\\[", "\\]", "\\begin{align}", "\\end{align}", "```", "~~~", "`",
    "<think>", "</think>", "Wait", "Hmm, ", "User:", "Assistant: ", "<|im_start|>user\n", "<|im_end|>", "\u043a\u0438",
    "<|im_start|>assistant", "<|begin_of_text|>", "Thought 1:", "Action:", "Observation: ",
    "def f():\n  pass\n", "x = 1\n", "# c\n",
))  # fmt: skip
TEXTS = st.lists(PIECES, max_size=14).map("".join) | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
OPTIONS: dict[str, st.SearchStrategy[object]] = {
    "protect": st.booleans(),
    "marker": st.sampled_from(("\u043a\u0438", "\n\n", " ", "a", ".*")),
    "inside": st.sampled_from(METHODS),
    "after": st.sampled_from(METHODS),
    "first": st.sampled_from(("assistant", "user")),
    "opening": st.sampled_from(("<think>", "a", "(")),
    "closing": st.sampled_from(("</think>", "\n", ".")),
}


def cut(method: str, text: str, **settings: object) -> list[str]:
    return [step.text for step in segment[method].take({"text": text}, **settings)]


def test_importing_the_package_registers_every_method() -> None:
    assert package.__name__ == "stepreward.core.segment"
    names = {"blank-lines", "lines", "marker", "numbered", "sentences", "transitions", "code", "think", "chat"}
    assert set(METHODS) == names


@pytest.mark.parametrize("method", METHODS)
@given(text=TEXTS, data=st.data())
def test_no_character_is_lost_and_no_step_is_blank(method: str, text: str, data: st.DataObject) -> None:
    # A setting that OPTIONS lacks is a KeyError here: every option of every method is drawn.
    settings = {name: data.draw(OPTIONS[name] | st.just(default)) for name, default in segment[method].settings.items()}
    steps = cut(method, text, **settings)
    assert "".join(steps) == text
    assert all(step.strip() for step in steps) or len(steps) == 1
    assert bool(steps) == bool(text)


@pytest.mark.parametrize(
    ("method", "settings"), [("blank-lines", {}), ("lines", {}), ("marker", {"protect": False}), ("chat", {})]
)
@given(text=TEXTS)
@example(text="\n\n \n\n a\n\n\n\nb")
@example(text="```\na\n\n```\n\n$$ b\n\n c $$\n\n$$")
@example(text="User: a\nThought: b\nAction: c\nObservation: d")
def test_a_step_cut_again_is_itself(method: str, settings: dict[str, object], text: str) -> None:
    # Not so where what a text means depends on what stands far away: lists before "Step 1:", names before the first
    # special token, sections of reasoning, a whole file of code.
    text = text.replace("<|", "<") if method == "chat" else text
    for step in cut(method, text, **settings):
        assert cut(method, step, **settings) == [step]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "unit",
    [
        "\n",
        "\n ",
        "$$",
        "\\[",
        "\\begin{a}",
        "```\n",
        ". ",
        "<think>",
        "<think></think>",
        "1. ",
        "\n1. ",
        "(",
        "User:\n",
    ],
)
def test_long_texts_of_many_cuts_end(method: str, unit: str) -> None:
    text = unit * (40_000 // len(unit))
    assert "".join(cut(method, text)) == text


@pytest.mark.sampled(4)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "shape",
    [
        lambda n: "`" * n, lambda n: "$" * n, lambda n: " " * n, lambda n: "\n" * n, lambda n: "(" * n,
        lambda n: "\\begin{align}" * (n // 13), lambda n: "$" + "\\a" * (n // 2), lambda n: "." + ")" * n,
        lambda n: "#" + " " * n, lambda n: "- **Step" + " " * n, lambda n: "Step 1" + " " * n,
        lambda n: "User" + " " * n, lambda n: "\u7b2c" + " " * n, lambda n: ". but" + "," * n,
        lambda n: "\na" + " " * n,
    ],
)  # fmt: skip
@pytest.mark.timeout(60)
def test_a_long_text_that_invites_backtracking_ends(method: str, shape: Callable[[int], str]) -> None:
    # A quadratic pattern would need 10^11 steps here, beyond the time limit; a linear one ends within a second.
    text = shape(300_000)
    assert "".join(cut(method, text)) == text


@pytest.mark.parametrize(
    ("method", "steps"),
    [
        ("blank-lines", ["First.\nStill first.\n\n", "Second.\n \n\n", "  Third."]),
        ("blank-lines", ["\n\nLeading blanks join.\r\n\r\n", "Next"]),
        ("blank-lines", ["Janet sells 16 - 3 - 4 = 9 eggs.\n\n", "She makes 9 * 2 = \\$18.\n\n", "\\boxed{18}"]),
        ("blank-lines", ["\\begin{proof}a\n\n", "b\\end{proof}"]),
        ("lines", ["2 + 3 = 5\n", "5 * 2 = 10\n\n", "Answer: 10"]),
        ("lines", ["Step 1: It is 2. \u043a\u0438\n", "Step 2: The answer is: 2 \u043a\u0438"]),
        ("lines", ["So:\n", "```py\na = 1\nb = 2\n```\n", "Done"]),
        ("marker", ["Step 1: 3 + 5 = <<3+5=8>>8. \u043a\u0438\n", "Step 2: The answer is: 8 \u043a\u0438"]),
        ("marker", ["a \u043a\u0438 \u043a\u0438\n", "b"]),
        ("numbered", ["Let me think.\n", "Step 1: add\nmore\n", "Step 2: multiply by 3.5\n", "**Step 3** done\n"]),
        ("numbered", ["1. One\n", "2) Two, see\n2.5 or\n5 apples\n   1. nested\n", "(3) Three\n", "**4.** Four"]),
        ("numbered", ["## Step 1: list\n1. a\n2. b\n\n", "## Step 2\nStep 1 gave us a.\n", "### **Step 3.**\nc"]),
        ("numbered", ["Step 1/3: a\n", "step 2 of 3 - b\n", "- Step 3) c\n", "\\textbf{Step 4} d"]),
        ("numbered", ["\u6b65\u9aa41\uff1aa\n", "\u7b2c\u4e8c\u6b65 b"]),
        ("sentences", ["It is 3.14, e.g. pi. ", "Dr. Who has 2! ", "So what?\n", "Done"]),
        ("sentences", ["Let $a. B$ be it. ", "And so on... ", "(Fig. 2 shows.) ", "End."]),
        (
            "sentences",
            ["It costs $5 and $6. ", "By Eq. (3) it is\n", "\\[a. B\n\n\\]\n", "Here 5! = 120. ", "Is it? ", "yes."],
        ),
        ("sentences", ["\u7b54\u3048\u306f5\u3067\u3059\u3002", "\u6b21\u3002"]),
        ("sentences", ["1. First it is so. ", "Then not."]),
        (
            "sentences",
            ["It is more than thirty-two letters long\n", "2. Then not. ", "No! ", "5 it is\n", "so\u3002", "a"],
        ),
        (
            "sentences",
            ["**Step 3.** Add. ", "So by step 3. ", "The answer is no. ", "(See above.) ", "O is 7. ", "End"],
        ),
        ("transitions", ["It is 5. ", "Wait, is it?\n", "Hmm, yes. So wait for it. ", "Alternatively, no."]),
        ("transitions", ["So x = 2.\n\n", "But let me check. It holds. ", "Another way: $a. Wait$ and so on."]),
        ("code", ["import os\n\n", "# why\nx = 1; y = 2\n", "@cache\ndef f():\n\n    return 1\n# end\n"]),
        ("code", ["x = (1,\n\n2)\n", "y = 3"]),
        ("code", ["x = 1; y = (\n2)\n", "\fz = 3\n", "w = 4"]),
        ("code", ["no python here\n\n", "at all"]),
        ("code", ["Run this:\n", "```python\nx = 1\n\ny = 2\n```\n\n", "It prints 3."]),
    ],
)
def test_texts_are_cut_where_people_would(method: str, steps: list[str]) -> None:
    assert cut(method, "".join(steps)) == steps


def test_fences_and_display_mathematics_stay_whole() -> None:
    for block in (
        "```python\na\n\nb\n```",
        "~~~~\na\n\n~~~\n\n```\n~~~~",
        "$$\na\n\nb\n$$",
        "\\[a\n\nb\\]",
        "\\begin{align}a\n\n$$ b\\end{align}",
        "\\begin{cases}\\begin{cases}a\n\n\\end{cases}b\n\nc\\end{cases}",
        "```\na\n\nb",
    ):
        text = f"x\n\n{block}"
        assert cut("blank-lines", text) == ["x\n\n", block]
        assert len(cut("blank-lines", text, protect=False)) >= 3
        assert package.protected(text) == [(3, len(text))]


@pytest.mark.parametrize(
    "text",
    [
        "a $$ b\n\nc", "a \\$$ b\n\nc$$", "a \\\\[2pt] b\n\nc\\]", "a \\end{align}\n\nb \\begin{align}",
        "\\begin{align} a\n\n\\begin{cases}b\\end{cases}", "$$ a\n\n```\n$$\n```", "\\begin{align}a\n\nb\\end{cases}",
        "\\[a\\begin{align}\\] b\n\n\\end{align}",
    ],
)  # fmt: skip
def test_a_delimiter_without_a_partner_protects_nothing(text: str) -> None:
    assert len(cut("blank-lines", text)) == 2


def test_an_empty_marker_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one character"):
        cut("marker", "a", marker="")


def rows(name: str) -> list[dict[str, object]]:
    path = DATA / name
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


@pytest.mark.sampled(3)
@pytest.mark.real
@pytest.mark.skipif(not DATA.exists(), reason="needs the real data")
@pytest.mark.parametrize(
    ("name", "field", "solutions", "same"),
    [
        ("processbench/gsm8k.json", "steps", 400, 400),
        ("processbench/math.json", "steps", 1000, 1000),
        # 165 have a step with a blank line inside, 3 a blank step, 2 a display that runs over several steps.
        ("prmbench/prmbench.jsonl.gz", "modified_process", 6216, 6046),
    ],
)
def test_steps_that_people_labelled_come_back(name: str, field: str, solutions: int, same: int) -> None:
    found = [row[field] for row in rows(name)]
    back = [cut("blank-lines", "\n\n".join(steps)) == _ended(steps) for steps in found]
    assert (len(back), sum(back)) == (solutions, same)
    unlike = [steps for steps, equal in zip(found, back, strict=True) if not equal]
    reasons = [any(not s.strip() or re.search(r"\n[^\S\n]*\n", s) for s in steps) for steps in unlike]
    displays = [cut("blank-lines", "\n\n".join(steps), protect=False) == _ended(steps) for steps in unlike]
    assert all(blank or display for blank, display in zip(reasons, displays, strict=True))


def _ended(steps: list[str]) -> list[str]:
    return [step + "\n\n" for step in steps[:-1]] + steps[-1:]


@pytest.mark.real
@pytest.mark.skipif(not DATA.exists(), reason="needs the real data")
def test_math_shepherd_has_a_step_a_marker_a_line_and_a_number() -> None:
    for row in rows("auto_label_formats/samples_math-shepherd.jsonl"):
        text, labels = str(row["input"]), re.findall(r"[+-](?=\n|$)", str(row["label"]))
        assert text.count("\u043a\u0438") == len(labels)
        assert [len(cut(method, text)) for method in ("marker", "lines")] == [len(labels)] * 2

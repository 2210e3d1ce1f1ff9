"""Grading of real answers: our grader, plain math-verify and exact match, on every public answer file at hand.

    python -m benchmarks.grading [--quick] [--write]

Whether each reference equals itself in a box, whether a fragment of it passes, whether grades agree with flags of pools
that were graded by others, and how many short answers a second are graded. `--write` writes docs/results/grading.md.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from math_verify import parse, verify

from benchmarks import need
from benchmarks.grading_fragments import ALLOWED, fragments
from stepreward.core.types import Problem, Step
from stepreward.tasks.mathematics import MathGrader

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
PAGE = ROOT / "docs" / "results" / "grading.md"
FRAGMENTS = 300
"""Of each file, drawn at random: math-verify needs milliseconds for each."""
SPEED = 500
"""Different answers that are timed."""
WAYS = ("right here, wrong there", "wrong here, right there")
Pair = tuple[str, str]
"""A reference, and the text of a solution."""
Judge = Callable[[str, str], float]
"""Grades a solution by a reference: 1, 0, or NaN for what could not be graded."""


def rows(path: str) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines, packed or not."""
    raw = need(DATA / path).read_bytes()
    text = gzip.decompress(raw) if path.endswith(".gz") else raw
    return [json.loads(line) for line in text.decode().splitlines()]


def references() -> dict[str, list[str]]:
    """The references of each answer file, as its rows state them; each once, empty ones left out."""
    made = {
        "MATH-500": [row["answer"] for row in rows("math/test500.jsonl")],
        "MATH test, 5,000": [in_box(row["solution"]) for row in rows("math/math_test_5000.jsonl.gz")],
        "OlympiadBench": [", ".join(row["final_answer"]) for row in rows("math/olympiadbench.jsonl.gz")],
        "Minerva": [in_box(row["solution"]) for row in rows("math/minerva_math.jsonl.gz")],
        "Gaokao 2023": [row["answer"] for row in rows("math/gaokao2023en.jsonl.gz")],
        "AIME 2024": [row["answer"] for row in rows("math/aime24.jsonl.gz")],
        "AMC 2023": [str(row["answer"]) for row in rows("math/amc23.jsonl.gz")],
        "SVAMP": [str(row["Answer"]) for row in rows("math/svamp.jsonl.gz")],
        "GSM8K": [row["answer"] for name in ("test", "train") for row in rows(f"gsm8k/{name}.jsonl.gz")],
    }
    return {name: list(filter(None, dict.fromkeys(found))) for name, found in made.items()}


def in_box(solution: str) -> str:
    """What the last box of a reference solution holds."""
    start = max(solution.rfind(r"\boxed"), solution.rfind(r"\fbox"))
    rest = solution[solution.find("boxed" if r"\boxed" in solution else "fbox", start) :].lstrip("boxedf")
    if not rest.startswith("{"):
        return rest.strip().split("$")[0].split(".")[0].strip()
    depth = 0
    for i, sign in enumerate(rest):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth == 0:
            return rest[1:i]
    raise ValueError(f"a box is not closed: {rest[:60]}")


def answer_of(reference: str) -> str:
    """The answer that a reference states: GSM8K's stand behind its mark."""
    return reference.rsplit("####", 1)[-1].strip()


def boxed(text: str) -> str:
    """A solution that states an answer."""
    return rf"The answer is \boxed{{{text}}}."


def our_judge(grader: MathGrader) -> Judge:
    """Our grader."""
    return lambda reference, solution: grader.grade(Problem("p", "q", reference), [Step(solution)])


@lru_cache(maxsize=1 << 16)
def _parsed(text: str) -> Any:
    return parse(text)


def math_verify(reference: str, solution: str) -> float:
    """math-verify as its page shows it: both texts parsed as they are."""
    return float(verify(_parsed(answer_of(reference)), _parsed(solution)))


def math_verify_in_dollars(reference: str, solution: str) -> float:
    """math-verify where references are put in dollars first."""
    return float(verify(_parsed(f"${answer_of(reference).strip('$')}$"), _parsed(solution)))


def exact(reference: str, solution: str) -> float:
    """Whether the box holds the reference's very text, but for spaces and dollars."""
    if r"\boxed" not in solution:
        return 0.0
    bare = [text.replace("$", "").replace(" ", "") for text in (answer_of(reference), _box_or_nothing(solution))]
    return float(bare[0] == bare[1])


def _box_or_nothing(solution: str) -> str:
    try:
        return in_box(solution)
    except ValueError:
        return ""


def judged(judge: Judge, pairs: Sequence[Pair]) -> dict[Pair, float]:
    """The grade of each different pair."""
    return {pair: judge(*pair) for pair in dict.fromkeys(pairs)}


def shares(pairs: Sequence[Pair], judges: Mapping[str, Judge]) -> dict[str, Any]:
    """How many pairs each judge accepts, and how many it cannot grade."""
    made: dict[str, Any] = {"pairs": len(pairs)}
    for name, judge in judges.items():
        grades = [judge(*pair) for pair in pairs]
        made[name] = {"accepted": sum(grade == 1 for grade in grades), "ungraded": sum(map(math.isnan, grades))}
    return made


def pools() -> Iterator[tuple[str, list[Pair], list[bool]]]:
    """Sampled solutions that others graded: name, reference and solution, their flags."""
    pairs, flags = [], []
    for row in rows("bon_pools/gsm8k_scores.jsonl.gz"):
        pairs += [(row["gold"], boxed(answer or "")) for answer in row["answers_reextracted"]]
        flags += [bool(flag) for flag in row["is_correct_regraded"]]
    yield "GSM8K, 500 x 32, `is_correct_regraded`", pairs, flags
    pairs, flags = [], []
    for row in rows("qwen_rm_maj/math_cot_100.jsonl.gz"):
        pairs += [(row["answer"], text) for text in row["code"]]
        flags += [bool(flag) for flag in row["score"]]
    yield "MATH, 100 x 8, `score` of Qwen2.5-Math", pairs, flags


def agreement(pairs: Sequence[Pair], flags: Sequence[bool], judges: Mapping[str, Judge]) -> dict[str, Any]:
    """How many grades are the flag, and which way the others differ."""
    made: dict[str, Any] = {"pairs": len(pairs)}
    for name, judge in judges.items():
        found = judged(judge, pairs)
        grades = [found[pair] for pair in pairs]
        made[name] = {
            "agree": sum(grade == flag for grade, flag in zip(grades, flags, strict=True)),
            WAYS[0]: sum(g == 1 and not f for g, f in zip(grades, flags, strict=True)),
            WAYS[1]: sum(g == 0 and f for g, f in zip(grades, flags, strict=True)),
        }
    return made


def _timed_by_math_verify(pairs: Sequence[Pair]) -> int:
    return sum(verify(parse(f"${reference}$"), parse(solution)) for reference, solution in pairs)


def speed(n: int) -> dict[str, Any]:
    """Short answers of MATH-500 a second, each different, on two cores; both graders have started before."""
    found = [text for text in dict.fromkeys(row["answer"] for row in rows("math/test500.jsonl")) if len(text) <= 40][:n]
    pairs = [(text, boxed(f" {text} ".replace(r"\frac", r"\dfrac"))) for text in found]
    pairs += [(text, boxed(f"{other} + 0")) for text, other in zip(found, [*found[1:], found[0]], strict=True)]
    judge = our_judge(MathGrader())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: judge("x", boxed(f"{i}y")), range(4)))
        start = time.perf_counter()
        list(pool.map(lambda pair: judge(*pair), pairs))
        ours = len(pairs) / (time.perf_counter() - start)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        halves = [pairs[::2], pairs[1::2]]
        list(processes.map(_timed_by_math_verify, [pairs[:2], pairs[2:4]]))
        start = time.perf_counter()
        list(processes.map(_timed_by_math_verify, halves))
        theirs = len(pairs) / (time.perf_counter() - start)
    return {"answers": len(pairs), "ours": ours, "math-verify": theirs, "ratio": ours / theirs}


def main(*, quick: bool = False) -> dict[str, Any]:
    """All numbers of the page."""
    grader = MathGrader()
    judges = {
        "this grader": our_judge(grader), "math-verify": math_verify,
        "math-verify, $": math_verify_in_dollars, "exact match": exact,
    }  # fmt: skip
    made: dict[str, Any] = {"themselves": {}, "fragments": {}, "pools": {}}
    draw = random.Random(0)
    for name, found in references().items():
        found = found[:20] if quick else found
        made["themselves"][name] = shares([(text, boxed(answer_of(text))) for text in found], judges)
        parts = [
            (text, boxed(part.text))
            for text in dict.fromkeys(map(answer_of, found))
            for part in fragments(text)
            if part.left_out not in ALLOWED
        ]
        made["fragments"][name] = shares(draw.sample(parts, min(FRAGMENTS, len(parts))), judges)
        made["fragments"][name]["all"] = shares(parts, {"this grader": judges["this grader"]})
    for name, pairs, flags in pools():
        n = 80 if quick else len(pairs)
        made["pools"][name] = agreement(pairs[:n], flags[:n], judges)
    made["speed"] = speed(20 if quick else SPEED)
    return made


def page(found: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    names = ["this grader", "math-verify", "math-verify, $", "exact match"]
    head = f"| file | {{}} | {' | '.join(names)} |\n|---|---|{'---|' * len(names)}\n"

    def table(part: Mapping[str, Any], title: str, field: str) -> str:
        lines = [
            f"| {name} | {row['pairs']:,} | {' | '.join(f'{row[judge][field]:,}' for judge in names)} |\n"
            for name, row in part.items()
        ]
        return head.format(title) + "".join(lines)

    every = [row["all"] for row in found["fragments"].values()]
    fast = found["speed"]
    apart = "".join(
        f"| {name} | {judge} | " + " | ".join(f"{row[judge][way]:,}" for way in WAYS) + " |\n"
        for name, row in found["pools"].items()
        for judge in names
    )
    return (
        "# Grading of mathematics\n\n"
        "Written by `python -m benchmarks.grading --write` (seed 0); no number in a table is typed by hand. Plain\n"
        "math-verify reads both texts as they are; in the column with a dollar sign, references are put in dollars.\n"
        "Exact match compares what boxes hold as text, without spaces and dollars.\n\n"
        "## References that equal themselves in a box\n\n"
        f"{table(found['themselves'], 'references', 'accepted')}\n"
        "## Fragments that pass\n\n"
        "A fragment is a reference without one of its parts: an answer, a side, a term, a factor, a sign, an\n"
        "exponent, an entry, a command, a digit, its end or its beginning (`benchmarks/grading_fragments.py`).\n"
        "A value without its unit or its name (`5` for `x=5`) may pass and does not count.\n"
        f"A sample of {FRAGMENTS} a file; fewer is better.\n\n"
        f"{table(found['fragments'], 'fragments', 'accepted')}\n"
        f"Of all {sum(row['pairs'] for row in every):,} fragments, this grader accepts "
        f"{sum(row['this grader']['accepted'] for row in every):,} and cannot grade "
        f"{sum(row['this grader']['ungraded'] for row in every):,} (derivatives and integrals).\n\n"
        "## Agreement with grades of others\n\n"
        f"{table(found['pools'], 'solutions', 'agree')}\n"
        "| pool | grader | right here, wrong there | wrong here, right there |\n|---|---|---|---|\n"
        f"{apart}\n"
        "## Speed\n\n"
        f"{fast['answers']:,} different short answers of MATH-500, two threads with two worker processes: "
        f"{fast['ours']:,.0f} a second;\nmath-verify in two processes: {fast['math-verify']:,.0f} a second. "
        f"Ratio {fast['ratio']:.1f}. The two numbers depend on the machine.\n"
    )


if __name__ == "__main__":
    results = main(quick="--quick" in sys.argv)
    if "--write" in sys.argv:
        PAGE.write_text(page(results), encoding="utf-8")
    print(json.dumps(results))

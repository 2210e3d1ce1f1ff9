"""Questions and steps that trip recipes up."""

from __future__ import annotations

from stepreward.score.encode.record import Conversation, EncoderRecord

QUESTION = "What is 12 + 5? "
CASES = {
    "plain": (QUESTION, ["12 + 5 = 17.", "So the answer is 17."]),
    "one step": ("What is 2 + 2?", ["4"]),
    "unicode": (
        "Naïve café: 漢字 🙂?",
        ["ünïcode 漢字.", "  leading spaces", "🙂🙂 emoji\nsecond line", "e\u0301 combined"],
    ),
    "blank lines": ("What\n\nis it?\n", ["first\n\nsecond. ", "a\n \nb\n\n\nc", "tail:", "x"]),
    "numbered": ("How many?", ["Step 1: one. ", "step 2: two", "Step 3: {braces} \\boxed{17}"]),
    "line break first": ("q", ["\nstarts with a line break", "   ", "then"]),
    "many": ("the quick brown fox", [f"the sum is {i}." for i in range(12)]),
}


def cases(record: EncoderRecord) -> dict[str, tuple[str, list[str]]]:
    """All of them, and one with the record's own separator inside a step."""
    encoding = record.encoding
    marker = encoding.answer if isinstance(encoding, Conversation) else encoding.separator
    inside = f"before{marker or '+'}after"
    return {**CASES, "separator inside": ("q", ["one", inside, "two."])}

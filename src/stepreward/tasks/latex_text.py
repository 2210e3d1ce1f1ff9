r"""Tidies answers: one notation for fractions, signs, words and spaces, whatever LaTeX or Unicode people write."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable

from stepreward.tasks.expressions import FUNCTIONS

OPEN, CLOSE = "\ue000", "\ue001"
"""Marks around words in text mode: `\text{cm}`."""
_SIGNS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "≤": r"\le ",
    "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap ",
    "±": r"\pm ", "∓": r"\mp ",
    "∞": r"\infty ", "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ",
    "∅": r"\emptyset ",
    "ℝ": r"\mathbb{R}", "°": r"^{\circ}", "，": ", ", "、": ", ", "。": ".", "∠": r"\angle ", "′": "'", "\u200b": "",
}  # fmt: skip
_ROOT = re.compile(r"√\s*(\d+|[a-z]|\([^()]*\)|\{)")
_SUPER = re.compile(r"[⁰¹²³⁴-⁹⁺⁻]+")
_NOISE = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|limits|nolimits|bigl?|bigr|Bigl?|Bigr|biggl?|biggr|Biggl?|Biggr|middle|"
    r"tiny|small|large|Large|phantom\{[^{}]*\})(?![A-Za-z])\.?|\\!"
)
_SPACE = re.compile(r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![A-Za-z])|\\(?:thinspace|enspace|hspace\{[^{}]*\})(?![A-Za-z])")
_WORDS = re.compile(
    r"\\(text|textbf|textit|textrm|textsf|texttt|textup|textnormal|emph|mbox|hbox|mathrm|mathbf|mathit|mathsf|rm|bf|"
    r"operatorname|boldsymbol|bm|mathcal|underline)\*?\s*\{([^{}]*)\}"
)
_BOXES = re.compile(r"^\\(?:boxed|fbox|framebox)\s*\{(.*)\}$", re.DOTALL)
_NAMES = re.compile(
    r"(?<![\\A-Za-z])(arcsin|arccos|arctan|sqrt|theta|infty|infinity|sin|cos|tan|log|ln|exp|pi|sec|csc|cot)(?![a-zA-Z])"
)
_SAME = {
    r"\leqslant": "≤", r"\leq": "≤", r"\leqq": "≤", r"\le": "≤", "<=": "≤", r"\geqslant": "≥", r"\geq": "≥",
    r"\geqq": "≥", r"\ge": "≥", ">=": "≥", r"\neq": "≠", r"\ne": "≠", "!=": "≠", r"\lt": "<", r"\gt": ">",
    r"\approx": "≈", r"\simeq": "≈", r"\thickapprox": "≈", r"\in": "∈", r"\isin": "∈", r"\cup": "∪",
    r"\lbrace": r"\{", r"\rbrace": r"\}", r"\langle": "(", r"\rangle": ")", r"\rvert": "|", r"\lvert": "|",
    r"\vert": "|", r"\degree": r"^{\circ}", r"\deg": r"^{\circ}", r"\emptyset": "∅", r"\varnothing": "∅",
    r"\dots": "…", r"\ldots": "…", r"\cdots": "…", "...": "…", r"\infinity": r"\infty", "**": "^", ":=": "=",
    r"\dbinom": r"\binom", r"\tbinom": r"\binom", r"\colon": ":", r"\pmod": r"\mod", r"\bmod": r"\mod",
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac",
}  # fmt: skip
"""Commands and signs with several spellings, each with the one that we use."""
_SIGN = re.compile(r"\\[A-Za-z]+|[<>!:]=|\.\.\.|\*\*")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d{1,30})\}|(\d))")
_GAP = r"(?:\\[,;:! ]|\\thinspace\s?|~|\{,\}|,\s*\\!\s*|,\\,|[\u202f\u2009\u00a0 ])+"
_THIN = re.compile(rf"(?<![\d.,/^_])([1-9]\d{{0,2}}(?:{_GAP}\d{{3}})+)(?!\d|\s*[\d/]|\s*\\[dtc]?frac)")
_VALUE = re.compile(r"[\d.}]\s*$")
_CHOOSE = re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}")
_OVER = re.compile(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}")


def tidy(text: str) -> str:
    """An answer without delimiters, boxes, sizes and spaces of LaTeX, with words between `OPEN` and `CLOSE`.

    A JSON list of texts, as data sets keep several answers, becomes these answers between semicolons.
    """
    if (listed := _json_list(text)) is not None:
        return " ; ".join(map(tidy, listed))
    text = _without_delimiters(text.strip())
    text = _THIN.sub(lambda found: re.sub(r"\D", "", found[1]), text)
    text = _plain_signs(text)
    text = _to_fixpoint(lambda shorter: _BOXES.sub(r"\1", _without_delimiters(shorter)), text)
    text = _SPACE.sub(" ", _NOISE.sub("", text)).replace("{,}", ",").replace("{:}", ":")
    if r"\over" in text:
        text = _OVER.sub(r"\\frac{\1}{\2}", _OVER.sub(r"\\frac{\1}{\2}", text if "{" in text else f"{{{text}}}"))
    if r"\choose" in text:
        text = _CHOOSE.sub(r"\\binom{\1}{\2}", text if "{" in text else f"{{{text}}}")
    text = _SIGN.sub(lambda found: _SAME.get(found[0], found[0]), text)
    if "\\" in text:
        text = _REPEATING.sub(_repeating_fraction, text)
        text = _to_fixpoint(lambda shorter: _WORDS.sub(_marked_words, shorter), text)
    return re.sub(r"\s+", " ", _NAMES.sub(r"\\\1", text)).strip().rstrip(" .;,").strip()


def _to_fixpoint(shorten: Callable[[str], str], text: str) -> str:
    # Commands in commands: each pass opens one level. The bound keeps hostile text in linear time.
    for _ in range(8):
        shorter = shorten(text)
        if shorter == text:
            break
        text = shorter
    return text


def _json_list(text: str) -> list[str] | None:
    """The answers of a list of texts, as data sets keep them; None where it is none."""
    text = text.strip().strip("$").strip()
    if not re.match(r"^\[\s*[\"']", text):
        return None
    # As JSON; with backslashes of LaTeX that JSON would take for escapes; as Python writes a list.
    for source in (text, re.sub(r"(?<!\\)\\(?![\\\"])", r"\\\\", text), re.sub(r"'", '"', text.replace("\\", "\\\\"))):
        try:
            found = json.loads(source)
        except ValueError:
            continue
        if isinstance(found, list) and found and all(isinstance(one, str) for one in found):
            return found
    return None


def _without_delimiters(text: str) -> str:
    """The text without delimiters of mathematics and Markdown, and without full stops at the end."""
    text = re.sub(r"(?<!\\)\$", "", text).strip()
    text = re.sub(r"(?<!\\)\\[()\[\]]", "", text)
    return text.strip().strip("*`").strip().rstrip(".。").strip()


def _plain_signs(text: str) -> str:
    """Replaces fullwidth letters and digits, superscripts, fraction characters and signs by plain notation."""
    if text.isascii():
        return text
    made = []
    for sign in text:
        # NFKC alone would make "1½" into "11⁄2".
        parts = unicodedata.decomposition(sign)
        if parts.startswith("<fraction>"):
            above, _, below = unicodedata.normalize("NFKC", sign).partition("\u2044")
            made.append(rf"\frac{{{above}}}{{{below}}}")
        else:
            made.append(_SIGNS.get(sign, sign))
    text = _SUPER.sub(
        lambda found: "^{" + unicodedata.normalize("NFKC", found[0]).replace("−", "-") + "}", "".join(made)
    )
    text = unicodedata.normalize("NFKC", _ROOT.sub(_latex_root, text))
    return "".join(_SIGNS.get(sign, sign) for sign in text)


def _latex_root(found: re.Match[str]) -> str:
    inside = found[1]
    return r"\sqrt{" if inside == "{" else rf"\sqrt{{{inside.strip('()')}}}"


def _marked_words(found: re.Match[str]) -> str:
    """Words of a text command, marked; letters and numbers in another font are letters and numbers."""
    command, inside = found[1], found[2].strip()
    # After a value, "min" and "sec" are minutes and seconds, and a letter is a unit; elsewhere functions and names.
    after_value = bool(_VALUE.search(found.string[: found.start()]))
    if after_value and (
        inside in ("min", "sec") or (len(inside) == 1 and inside.isalpha() and found[2] == f" {inside}")
    ):
        return f"{OPEN}{inside}{CLOSE}"
    if inside in FUNCTIONS:
        return f"\\{inside} "
    if not re.search(r"[^\W\d_]", inside) or (len(inside) == 1 and not command.startswith("text")):
        return inside
    if OPEN in inside or "\\" in inside or (command in ("mathbf", "boldsymbol", "bm") and re.search(r"\d", inside)):
        return inside
    return f"{OPEN}{inside}{CLOSE}"


def _repeating_fraction(found: re.Match[str]) -> str:
    """A repeating decimal as a fraction: 0.1(6) is (16 - 1) / 90."""
    digits, again = found[2], found[3] or found[4]
    below = (10 ** len(again) - 1) * 10 ** len(digits)
    above = int(found[1] + digits + again) - int(found[1] + digits or "0")
    return rf"\frac{{{above}}}{{{below}}}"

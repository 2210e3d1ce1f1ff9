"""A conversation in which the user says a step and the assistant "+" or "-": RLHFlow's rows and VisualPRM400K's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from stepreward.core.errors import InputError
from stepreward.core.types import Floats, Problem, Step, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.labels import SIGNS, AfterError, Unknown, fully_labelled, labelled, signed_labels
from stepreward.formats.rows import Row, id_of, need, other_fields, shown, texts_of
from stepreward.formats.steps.tagged import MARK, parted

QUESTION, PROCESS = "### Question:\n", "\n\n### Solution Process:\n"


class _Names(NamedTuple):
    """What a layout calls the parts of a turn, and the two speakers."""

    role: str
    text: str
    user: str
    model: str


_OPENAI = _Names("role", "content", "user", "assistant")
_SHARE_GPT = _Names("from", "value", "human", "gpt")


def _is_signed(row: Row, names: _Names) -> bool:
    turns = row.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        return False
    signs = [turn.get(names.text) for turn in turns if turn.get(names.role) == names.model]
    has_steps = any(turn.get(names.role) == names.user for turn in turns)
    return bool(signs) and has_steps and all(sign in ("+", "-") for sign in signs)


def _steps(row: Row, names: _Names) -> tuple[list[str], Floats]:
    """The texts of steps and their labels."""
    spoken = []
    for i, turn in enumerate(need(row, "conversations", list)):
        who, text = (turn.get(names.role), turn.get(names.text)) if isinstance(turn, Mapping) else (None, None)
        if not isinstance(who, str) or not isinstance(text, str):
            raise InputError(f"turn {i} needs '{names.role}' and '{names.text}', got {shown(turn)}")
        if who != "system":
            spoken.append((who, text))
    if not spoken or len(spoken) % 2:
        raise InputError(f"a step and its sign must take turns; there are {len(spoken)} turns")
    for i, (who, text) in enumerate(spoken):
        expected = names.model if i % 2 else names.user
        if who != expected or (i % 2 and text not in SIGNS):
            raise InputError(f"turn {i} must be {expected}'s{' sign' * (i % 2)}, got {who}: {shown(text)}")
    texts, signs = [text for _, text in spoken[::2]], [text for _, text in spoken[1::2]]
    return texts, signed_labels(signs, len(texts))


def is_rlhflow(row: Row) -> bool:
    """Whether a row looks like RLHFlow's process rows."""
    return _is_signed(row, _OPENAI)


def read_rlhflow(
    row: Row, number: int, *, mark: str = MARK, separator: str = "\n", after_first_error: AfterError = "keep"
) -> Iterator[Trajectory]:
    """Reads `conversations`: the question and the first step in one turn, then a step a turn.

    Args:
        number: its 1-based number; the problem's id is of its words.
        mark: how the first step begins; '' leaves the question inside it, as the rows made with Deepseek need.
        separator: put at the end of each step.
        after_first_error: labels after the first "-"; each step was estimated by its own rollouts.

    Raises:
        InputError: a turn is missing or no sign, or the mark is not in the first turn.
    """
    texts, labels = _steps(row, _OPENAI)
    question, first = parted(texts[0], mark)
    steps = tuple(Step(text + separator) for text in (first, *texts[1:]))
    yield labelled(Problem(id_of("rlhflow", question), question), steps, labels, "rlhflow rollouts",
                   after_first_error=after_first_error, facts=other_fields(row, "conversations"))  # fmt: skip


def write_rlhflow(
    item: Trajectory, *, mark: str = MARK, separator: str = "\n", threshold: float = 0.5, unknown: Unknown = "cut"
) -> dict[str, Any]:
    """One RLHFlow row.

    Args:
        mark: how the first step begins; put before one that begins otherwise, to part it from the question.
        separator: taken from the end of each step.
        threshold: labels above it are "+".
        unknown: what a label that was not measured becomes; the format cannot hold it.
    """
    item = fully_labelled(item, unknown)
    texts = texts_of(item.steps, separator)
    question = item.problem.text
    if question:
        first = texts[0] if texts[0].startswith(mark) else f"{mark} {texts[0]}"
        texts[0] = f"{question} {first}"
    turns = []
    for text, label in zip(texts, item.labels.tolist(), strict=True):
        turns += [{"role": "user", "content": text}]
        turns += [{"role": "assistant", "content": "+" if label > threshold else "-"}]
    return {"conversations": turns}


def is_visual(row: Row) -> bool:
    """Whether a row looks like VisualPRM400K."""
    return _is_signed(row, _SHARE_GPT)


def read_visual(
    row: Row, number: int, *, separator: str = "\n\n", after_first_error: AfterError = "keep"
) -> Iterator[Trajectory]:
    """Reads `conversations` and `image` of arXiv:2503.10291; the paths of images are the problem's `meta["images"]`.

    Args:
        number: its 1-based number; the problem's id.
        separator: put at the end of each step.
        after_first_error: labels after the first "-"; a step is "+" if any of its 16 rollouts is right.

    Raises:
        InputError: a turn is missing or no sign, or the first turn has no question.
    """
    texts, labels = _steps(row, _SHARE_GPT)
    # The first turn has the question and the first step, under headings; later turns are steps alone.
    question, found, first = texts[0].removeprefix(QUESTION).partition(PROCESS)
    if not found:
        raise InputError(f"the first turn must hold a question and a step, got {shown(texts[0])}")
    problem = Problem(f"visual-prm-{number}", question, meta={"images": images_of(row.get("image"))})
    steps = tuple(Step(text + separator) for text in (first, *texts[1:]))
    yield labelled(problem, steps, labels, "visual-prm rollouts", after_first_error=after_first_error,
                   facts=other_fields(row, "conversations", "image"))  # fmt: skip


def images_of(value: object) -> list[str]:
    """The paths of images that a row names: one, several or none.

    Raises:
        InputError: it is neither text, a list of texts nor null.
    """
    paths = [value] if isinstance(value, str) else value or []
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise InputError(f"'image' must be a path or a list of paths, got {shown(value)}", remedy="or leave it out")
    return paths


FORMATS: tuple[Format, ...] = (
    Format("rlhflow", "turns of steps and signs", is_rlhflow, read_rlhflow, write_rlhflow),
    Format("visual-prm-turns", "turns of steps and signs about images", is_visual, read_visual),
)

"""The encoder record: all that must be equal in training and scoring, as data. A published recipe is one row of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from stepreward.score.capabilities import ScoreUse
from stepreward.score.encode.readout import Readout

Clean = Literal["unnumber", "chomp", "strip", "no-blank-lines", "lines", "own-number"]
"""What a step's text undergoes before it is encoded, in the order given:

`unnumber` drops "Step 1:" at its beginning, `chomp` line breaks at its end, `strip` white space at both ends,
`no-blank-lines` every pair of line breaks; `lines` encodes each line by itself with a separator behind it; `own-number`
lets a step that begins with "step" stand as it is, where `step_format` would number it."""


Contradictions = tuple[tuple[str, bool], ...]
"""What a user can do about impossible states, and whether a record is in them."""


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """Everything that must be equal in training and scoring.

    Raises:
        ValueError: a field is outside its range, or two fields contradict each other.
    """

    template: Literal["plain", "chat", "turns", "messages"] = "plain"
    """`plain`: `prompt_format` filled in; `chat`: the tokenizer's chat template, steps inside one assistant message;
    `turns`: each step a user message that a dummy assistant message (`answer`) follows, the prompt in the first one;
    `messages`: each step a message of its own role."""
    prompt_format: str = "{prompt}\n"
    """Text of a plain prompt; `{prompt}` is replaced by the problem's text, `{bos}` by the tokenizer's first token.
    Where the prompt is a chat message it is the content of that; in `turns`, `{step}` is replaced by the first step."""
    system: str | None = None
    """System message of a chat prompt; None for none."""
    tokenise: Literal["step", "segment", "joined", "prefix"] = "step"
    """What the tokenizer sees at once. `step`: the prompt, each step and the separator, each by itself. `segment`: the
    text between two added tokens, which cut it anyway; where there is no separator, as if padding tokens cut it.
    `joined`: the whole text, as recipes do that find their positions afterwards. `prefix`: one text for each step, of
    all steps up to it. With the first two, ids are a function of each step alone, so they can grow with a search."""
    special_tokens: bool = False
    """Lets the tokenizer add its own special tokens around the text, such as a first token."""
    clean: tuple[Clean, ...] = ()
    """What a step's text undergoes first."""
    step_format: str = "{step}"
    """Text of a step; `{n}` is its number from 1. In `prefix`, `{previous}` is the text of the steps before it."""
    later_format: str = ""
    """Text of the second and later steps where it differs; empty for the same."""
    between: str = ""
    """Text between a step's separator and the next step; in `prefix`, between previous steps."""
    separator: str = "\n"
    """Text that ends each step: added where a step does not end with it. May be empty."""
    separator_token: bool = True
    """Demands that the separator is one token, so that every step is read at the same token."""
    tag: str = ""
    """In `joined`, the text whose last token marks the end of a step, where it is not the separator's own; with a
    second pass, the token that stands for a label."""
    second: str = ""
    """Text of a second pass over a `prefix`: behind the first, with each `tag` replaced by the label that is likelier
    before it. Read before its own tag; a step that the first pass finds wrong scores 0."""
    answer: str = ""
    """The dummy assistant message of `turns`."""
    closed: bool = True
    """Whether a `prefix` in a chat ends its assistant message, or is an answer that `end` closes."""
    end: str = ""
    """Token behind an open `prefix`: `{eos}` or a text of one token."""
    read: Literal["at", "before", "answer", "recounted"] = "at"
    """Read the model at the step's last token, at the one before it, or at the one before the dummy answer;
    `recounted`: where the text up to the step, tokenised by itself with its message closed, has its last token."""
    readout: Readout = field(default_factory=Readout)
    """What the head says there, and how that becomes a score."""
    max_length: int = 4096
    """Longest trajectory in tokens, the prompt included."""
    too_long: Literal["error", "drop", "cut"] = "error"
    """What to do with steps that end past `max_length`, or whose separator melts into their text: refuse, leave them
    without a score, or (`prefix` alone) read the last token that fits."""
    images: Literal["ignored", "refused"] = "ignored"
    """What to do with images of a problem or step: `refused` where the model was trained to see them, since only its
    language model is here."""
    aggregation: str = "min"
    """Name of the aggregate that makes one number of a trajectory's scores, where the caller names none."""
    threshold: float = 0.5
    """Scores at or below it mean a wrong step, where the caller names none."""

    def __post_init__(self) -> None:
        for problem, wrong in (*self._of_template(), *self._of_text(), *self._of_passes()):
            if wrong:
                raise ValueError(problem)

    def _of_template(self) -> Contradictions:
        turns, segments = self.template == "turns", self.tokenise == "segment"
        answered = bool(self.answer) and self.read == "answer" and segments and "{step}" in self.prompt_format
        return (
            (f"prompt_format must hold {{prompt}}, got {self.prompt_format!r}", "{prompt}" not in self.prompt_format),
            (f"step_format must hold {{step}}, got {self.step_format!r}", "{step}" not in self.step_format),
            (
                "turns need a dummy answer, read='answer', tokenise='segment' and {step} in prompt_format",
                turns and not answered,
            ),
            ("an answer belongs to template='turns'", not turns and (bool(self.answer) or self.read == "answer")),
            (
                "turns and messages are segments without a separator",
                self.template in ("turns", "messages") and (not segments or bool(self.separator)),
            ),
        )

    def _of_text(self) -> Contradictions:
        forms, lines = self.step_format + self.later_format, "lines" in self.clean
        marked = self.tokenise == "joined" or bool(self.second)
        return (
            (
                "separator_token demands a separator: give one or set separator_token=False",
                self.separator_token and not self.separator,
            ),
            (
                "clean 'lines' needs a separator and tokenise='step'",
                lines and not (self.separator and self.tokenise == "step"),
            ),
            ("a tag marks steps in joined text: set tokenise='joined'", bool(self.tag) and not marked),
            ("{previous} belongs to tokenise='prefix'", "{previous}" in forms and self.tokenise != "prefix"),
            (
                "surprise reads the tokens of whole steps: set tokenise='step'",
                self.readout.surprise and not self.per_step,
            ),
            (f"max_length must be at least 1, got {self.max_length}", self.max_length < 1),
        )

    def _of_passes(self) -> Contradictions:
        prefix, chat, joined = self.tokenise == "prefix", self.template == "chat", self.tokenise == "joined"
        labelled = bool(self.tag) and self.tag in self.second and len(self.readout.label_tokens) == 2
        return (
            (
                "too_long='cut' reads a prefix at its last token: set tokenise='prefix'",
                self.too_long == "cut" and not prefix,
            ),
            ("read='recounted' is for joined chats", self.read == "recounted" and not (chat and joined)),
            (
                "an open prefix (closed=False) needs tokenise='prefix' and template='chat'",
                not self.closed and not (chat and prefix),
            ),
            (
                "a second pass needs a tag in it, tokenise='prefix', template='chat' and two label_tokens",
                bool(self.second) and not (labelled and prefix and chat),
            ),
            (
                "an implicit score is read in joined text: set tokenise='joined'",
                self.readout.kind == "implicit" and not joined,
            ),
        )

    @property
    def per_step(self) -> bool:
        """Whether a step's ids depend on nothing that follows it, so that they can grow with a tree."""
        return self.tokenise in ("step", "segment")

    @property
    def use(self) -> ScoreUse:
        """How scores by this record are used."""
        return ScoreUse(self.aggregation, self.threshold)

"""The encoder record: all that must be equal in training and scoring, as data. A published recipe is one row of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from stepreward.core.atomic_files import write_json
from stepreward.core.errors import ModelError
from stepreward.score.capabilities import ScoreUse

RECORD_FILE = "stepreward.json"
_VERSION = 2

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
    """Text of a plain prompt; `{prompt}` stands for the problem's text, `{bos}` for the tokenizer's first token.
    Where the prompt is a chat message it is that message's content; in `turns`, `{step}` stands for the first step."""
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
    """Text of a step; `{n}` stands for its number from 1. In `prefix`, `{previous}` stands for the steps before it."""
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
    readout: Literal["sigmoid", "softmax", "value", "tanh", "difference", "mean-sigmoid", "implicit"] = "sigmoid"
    """Logits to score: sigmoid or tanh of one, the bare number, softmax over all taken at `positive`, the same minus
    the rest (in [-1, 1]), the mean of all sigmoids, or beta times the log-ratio to a reference model, summed so far."""
    n_labels: int = 1
    """Width of the head."""
    positive: int = 0
    """Index of the label that means a right step."""
    also: tuple[int, ...] = ()
    """Further labels whose probability counts as right."""
    label_tokens: tuple[str, ...] = ()
    """Texts whose token's row of the language-model head is a label each, in order; empty for a head of its own."""
    label_piece: Literal["first", "last"] = "last"
    """Which token of such a text."""
    beta: float = 1.0
    """Scale of an implicit score."""
    surprise: bool = False
    """Lets the head also read how likely the step was to the backbone's own language model: the least log-probability
    among its tokens after the first. Needs a backbone whose input and output embeddings are tied."""
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
        for problem, wrong in (*self._of_labels(), *self._of_template(), *self._of_text(), *self._of_passes()):
            if wrong:
                raise ValueError(problem)

    def _of_labels(self) -> Contradictions:
        labels = (self.positive, *self.also)
        out_of_range = not all(0 <= i < self.n_labels for i in labels)
        many = self.readout in ("softmax", "difference")
        return (
            (f"positive must be an index below n_labels={self.n_labels}, got {max(labels)}", out_of_range),
            ("a softmax readout needs n_labels >= 2; use sigmoid or value for one label", many and self.n_labels < 2),
            (
                "further right labels (also) are summed by a softmax, and must leave a wrong one",
                bool(self.also) and (not many or len(set(labels)) >= self.n_labels),
            ),
            (
                f"label_tokens must be as many as n_labels={self.n_labels}",
                len(self.label_tokens) not in (0, self.n_labels),
            ),
            (
                "label_tokens are read from a language-model head: surprise needs a head of its own",
                bool(self.label_tokens) and self.surprise,
            ),
        )

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
            ("surprise reads the tokens of whole steps: set tokenise='step'", self.surprise and not self.per_step),
            (f"max_length must be at least 1, got {self.max_length}", self.max_length < 1),
        )

    def _of_passes(self) -> Contradictions:
        prefix, chat, joined = self.tokenise == "prefix", self.template == "chat", self.tokenise == "joined"
        labelled = bool(self.tag) and self.tag in self.second and len(self.label_tokens) == 2
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
                self.readout == "implicit" and not joined,
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

    def save(self, folder: Path, *, probe: list[int]) -> None:
        """Writes the record beside the model's files, with the token ids of a probe text."""
        row = {"version": _VERSION, "probe": probe, **asdict(self)}
        write_json(folder / RECORD_FILE, row)

    @classmethod
    def load(cls, folder: Path) -> tuple[EncoderRecord, list[int]]:
        """Reads the record of a checkpoint and the token ids of its probe text.

        Raises:
            ModelError: there is none, or it has fields that this version does not know.
        """
        path = folder / RECORD_FILE
        if not path.is_file():
            raise ModelError(f"{folder} holds no {RECORD_FILE}: it is not a stepreward checkpoint")
        try:
            row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            version, probe = row.pop("version"), row.pop("probe")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelError(f"{path} is not a record of version {_VERSION} or older: {error}") from error
        unknown = sorted(set(row) - {f.name for f in fields(cls)})
        if unknown or version not in range(1, _VERSION + 1):
            what = f"fields this version does not know: {unknown}" if unknown else f"version {version!r}"
            raise ModelError(f"{path} has {what}; upgrade stepreward")
        try:
            known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in row.items()}
            return cls(**known), probe
        except (TypeError, ValueError) as error:
            raise ModelError(f"{path} is no possible record: {error}") from error

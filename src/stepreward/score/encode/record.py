"""The encoder record: all that must be equal in training and scoring, as data. A published recipe is one row of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from stepreward.score.capabilities import ScoreUse
from stepreward.score.encode.readout import Readout

Clean = Literal["unnumber", "chomp", "strip", "no-blank-lines", "lines", "own-number"]
"""What a step's text undergoes before it is encoded, in the order given:

`unnumber` drops "Step 1:" at its beginning, `chomp` line breaks at its end, `strip` white space at both ends,
`no-blank-lines` every pair of line breaks; `lines` encodes each line by itself with a separator behind it; `own-number`
leaves a step that begins with "step" as it is, where `step_format` would number it."""


@dataclass(frozen=True, kw_only=True)
class RecipeFields:
    """What every encoding says of texts and limits.

    Raises:
        ValueError: a field is outside its range, or two fields contradict each other.
    """

    prompt_format: str = "{prompt}\n"
    """Text of a plain prompt; `{prompt}` is replaced by the problem's text, `{reference}` by its reference answer,
    which it must then have, `{bos}` by the tokenizer's first token. Where the prompt is a chat message it is that
    message's content."""
    system: str | None = None
    """System message of a chat prompt; None for none."""
    special_tokens: bool = False
    """Lets the tokenizer add its own special tokens around the text, such as a first token."""
    clean: tuple[Clean, ...] = ()
    """What a step's text undergoes first."""
    step_format: str = "{step}"
    """Text of a step; `{n}` is its number from 1."""
    later_format: str = ""
    """Text of the second and later steps where it differs; empty for the same."""
    max_length: int = 4096
    """Longest trajectory in tokens, the prompt included."""
    images: Literal["ignored", "refused"] = "ignored"
    """What to do with images of a problem or step: `refused` where the model was trained to see them, since only its
    language model is here."""

    def __post_init__(self) -> None:
        if "{prompt}" not in self.prompt_format:
            raise ValueError(f"prompt_format must hold {{prompt}}, got {self.prompt_format!r}")
        if "{step}" not in self.step_format:
            raise ValueError(f"step_format must hold {{step}}, got {self.step_format!r}")
        if "{previous}" in self.step_format + self.later_format and not isinstance(self, PerPrefix):
            raise ValueError("{previous} belongs to the encoding PerPrefix")
        if self.max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {self.max_length}")

    @property
    def reads_reference(self) -> bool:
        """Whether the prompt holds the problem's reference answer: a verifier, for problems whose answer is known."""
        return "{reference}" in self.prompt_format


@dataclass(frozen=True, kw_only=True)
class PerStep(RecipeFields):
    """Each step has token ids of its own, whatever follows it, so that they grow with a search."""

    kind: Literal["per-step"] = "per-step"
    template: Literal["plain", "chat"] = "plain"
    """`plain`: `prompt_format` filled in; `chat`: the tokenizer's chat template, steps inside one assistant message."""
    tokenise: Literal["step", "segment"] = "step"
    """What the tokenizer sees at once. `step`: the prompt, each step and the separator, each by itself. `segment`: the
    text between two added tokens, which cut it anyway; where there is no separator, as if padding tokens cut it."""
    between: str = ""
    """Text between a step's separator and the next step."""
    separator: str = "\n"
    """Text that ends each step: added where a step does not end with it. May be empty."""
    separator_token: bool = True
    """Demands that a separator is one token, so that every step is read at the same token."""
    read: Literal["at", "before"] = "at"
    """Read the model at the step's last token, or at the one before it."""
    too_long: Literal["error", "drop"] = "error"
    """What to do with steps that end past `max_length`: refuse, or leave them without a score."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "lines" in self.clean and not (self.separator and self.tokenise == "step"):
            raise ValueError("clean 'lines' needs a separator and tokenise='step'")


@dataclass(frozen=True, kw_only=True)
class Conversation(RecipeFields):
    """Each step is a message, so that it has token ids of its own, as those of `PerStep`."""

    kind: Literal["conversation"] = "conversation"
    answer: str = ""
    """A dummy answer. With one, each step is a user message that this assistant message follows, the first step is in
    the prompt's message, at `{step}`, and the model is read before the answer. Without one, each step is a message of
    its own role, read at its end."""
    tools: bool = False
    """Shows a run as an agent's client does: the chat template gets the tool definitions in the problem's meta
    (`tools`), results of tools are messages of the role `tool`, and an action's message holds neither its calls nor
    thinking that was recorded apart from it."""
    too_long: Literal["error", "drop"] = "error"
    """What to do with steps that end past `max_length`: refuse, or leave them without a score."""
    # What the other encodings choose is fixed here, as the chat template itself separates messages.
    template: ClassVar[str] = "chat"
    read: ClassVar[str] = "at"
    between: ClassVar[str] = ""
    separator: ClassVar[str] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answer and "{step}" not in self.prompt_format:
            raise ValueError(f"with a dummy answer prompt_format must hold {{step}}, got {self.prompt_format!r}")
        if self.answer and self.tools:
            raise ValueError("tools show an agent's own messages: leave out the dummy answer")


@dataclass(frozen=True, kw_only=True)
class WholeText(RecipeFields):
    """The tokenizer sees the whole text at once, as with recipes that find their positions afterwards."""

    kind: Literal["whole-text"] = "whole-text"
    template: Literal["plain", "chat"] = "plain"
    """As of `PerStep`."""
    between: str = ""
    """Text between a step's separator and the next step."""
    separator: str = ""
    """Text behind each step."""
    tag: str | None = ""
    """The text whose last token marks the end of a step, "" for the separator; None where any token that ends there
    will do."""
    read: Literal["at", "before", "recounted"] = "at"
    """Read the model at that token, or at the one before it; `recounted`: where the chat up to the step, tokenised by
    itself with its message closed, has its last token."""
    too_long: Literal["error", "drop"] = "error"
    """What to do with steps that end past `max_length`, or whose separator melts into their text: refuse, or leave
    them without a score."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.read == "recounted" and self.template != "chat":
            raise ValueError("read='recounted' is for chats: set template='chat'")


@dataclass(frozen=True, kw_only=True)
class PerPrefix(RecipeFields):
    """One text for each step, of all steps up to it; in `step_format`, `{previous}` is the text of the steps before."""

    kind: Literal["per-prefix"] = "per-prefix"
    template: Literal["plain", "chat"] = "plain"
    """As of `PerStep`."""
    between: str = ""
    """Text between previous steps."""
    separator: str = ""
    """Text behind the step."""
    end: str | None = None
    """With a chat, leaves the assistant message open and puts this one token behind the text, `{eos}` for the
    tokenizer's own, "" for none; None closes the message."""
    second: str = ""
    """Text of a second pass: behind the first, with each `tag` replaced by the label that is likelier before it. Read
    before its own tag; a step that the first pass finds wrong scores 0."""
    tag: str = ""
    """With a second pass, the token in place of which a label comes."""
    read: Literal["at", "before"] = "at"
    """Read the model at the text's last token, or at the one before it."""
    too_long: Literal["error", "drop", "cut"] = "error"
    """What to do with texts that end past `max_length`: refuse, leave their step without a score, or read the last
    token that fits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end is not None and self.template != "chat":
            raise ValueError("an open message (end) belongs to template='chat'")
        if self.second and not (self.tag and self.tag in self.second):
            raise ValueError("a second pass needs a tag in it")


Encoding = PerStep | Conversation | WholeText | PerPrefix
"""How a trajectory becomes token ids and positions at which the model is read, by its `kind`."""


@dataclass(frozen=True, slots=True)
class EncoderRecord:
    """Everything that must be equal in training and scoring.

    Raises:
        ValueError: the readout is of another encoding.
    """

    encoding: Encoding = field(default_factory=PerStep)
    """How a trajectory becomes token ids and positions at which the model is read."""
    readout: Readout = field(default_factory=Readout)
    """What the head says there, and how that becomes a score."""
    aggregation: str = "min"
    """Name of the aggregate that makes one number of a trajectory's scores, where the caller names none."""
    threshold: float = 0.5
    """Scores at or below it mean a wrong step, where the caller names none."""
    both_ways: bool = False
    """Reads each step also in the solution from its last step to its first, and mixes the outputs by a gate. A score
    then depends on the steps behind it: it is for whole solutions, and not for the prefixes of a search."""

    def __post_init__(self) -> None:
        if self.both_ways and (not self.per_step or self.readout.surprise or self.readout.label_tokens):
            raise ValueError("both_ways takes the encoding PerStep and a head of its own, without surprise")
        if self.both_ways and self.readout.exits:
            raise ValueError("both_ways reads the last layer: a head with exits reads several")
        if self.both_ways and self.readout.kind == "implicit":
            raise ValueError("both_ways mixes the outputs of a head: an implicit score has none")
        if self.readout.reads_language and not self.per_step:
            raise ValueError("surprise reads the tokens of whole steps, as a policy does: take the encoding PerStep")
        if self.readout.policy and (self.both_ways or self.encoding.read != "at"):
            raise ValueError("a policy is read forward, at the end of each step: set read='at', without both_ways")
        if self.readout.begins and (self.both_ways or not self.per_step):
            raise ValueError("where steps begin is read forward, of whole steps: take PerStep, without both_ways")
        if self.readout.kind == "implicit" and not isinstance(self.encoding, WholeText | PerStep):
            raise ValueError("an implicit score sums over an answer's tokens: take the encoding PerStep or WholeText")
        if self.readout.kind == "implicit" and isinstance(self.encoding, PerStep) and self.encoding.read != "at":
            raise ValueError("an implicit score of PerStep is read at the end of each step: set read='at'")
        plain = isinstance(self.encoding, PerStep) and self.encoding.read == "at" and not self.both_ways
        if self.readout.next_token and not plain:
            raise ValueError(
                "next_token scores tokens by those before: take the encoding PerStep with read='at', one way"
            )
        if self.second_pass and len(self.readout.label_tokens) != 2:
            raise ValueError("a second pass needs two label_tokens")
        if self.second_pass and self.readout.formula:
            raise ValueError("a second pass decides the score: it takes no formula")

    @property
    def per_step(self) -> bool:
        """Whether a step's ids depend on nothing that follows it, so that they can grow with a tree."""
        return isinstance(self.encoding, PerStep | Conversation)

    @property
    def grows(self) -> bool:
        """Whether a step's score depends on nothing that follows it, and its ids neither."""
        return self.per_step and not self.both_ways

    @property
    def caches(self) -> bool:
        """Whether the keys and values of earlier steps are enough to score one; they say nothing of its first token."""
        return self.grows and not (self.readout.policy or self.readout.next_token)

    @property
    def second_pass(self) -> bool:
        """Whether the scores of a first pass decide what a second one reads."""
        return isinstance(self.encoding, PerPrefix) and bool(self.encoding.second)

    @property
    def use(self) -> ScoreUse:
        """How scores by this record are used."""
        return ScoreUse(self.aggregation, self.threshold, self.both_ways, self.encoding.reads_reference)

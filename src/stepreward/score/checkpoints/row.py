"""What a row of the table of public checkpoints holds: a model that is read, or a verifier that writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import Clean, EncoderRecord, Encoding

Reading = Literal["boxes", "first-error", "lines", "total"]
"""How an answer about all steps states its verdicts: boxes in the order of the steps, the index of the first wrong step
in the last box (-1 for none), a line `Step N: ...` for each step, or one number of the whole in a box, which is that of
the last action."""
Head = Literal["weights", "tokens", "mean", "none"]
"""Where labels come from: a head among the weights, rows of the language-model head, the mean of all its rows, or
log-probabilities."""


def head_of(readout: Readout) -> Head:
    """Where labels come from, as far as a readout says: label tokens are read from the language-model head."""
    if readout.kind == "implicit":
        return "none"
    return "tokens" if readout.label_tokens else "weights"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A public checkpoint: its names, how it is fed and read, and the source of that.

    Raises:
        ValueError: the readout is of another encoding.
    """

    names: tuple[str, ...]
    """Hub names that share the row; a recipe for any model has one name without a slash."""
    encoding: Encoding
    """How a trajectory becomes token ids and positions at which the model is read."""
    readout: Readout = field(default_factory=Readout)
    """From its outputs there to scores."""
    source: str = field(kw_only=True)
    """Where the recipe was read."""
    aggregation: str = "min"
    """Name of the aggregate that makes one number of a trajectory's scores."""
    threshold: float = 0.5
    """Scores at or below it mean a wrong step."""
    mean: bool = False
    """Reads the mean of all logits of the language-model head."""
    architectures: tuple[str, ...] = ()
    """`architectures` of its configuration, where they say more than the family."""
    notes: str = ""
    """Contradictions between sources, and how they were settled."""
    golden: tuple[float, ...] = ()
    """Step scores that its authors print for their own example."""
    record: EncoderRecord = field(init=False)
    """The encoder record of these fields."""

    def __post_init__(self) -> None:
        record = EncoderRecord(self.encoding, self.readout, self.aggregation, self.threshold)
        object.__setattr__(self, "record", record)  # a frozen dataclass has no other way

    @property
    def head(self) -> Head:
        """Where its labels come from."""
        return "mean" if self.mean else head_of(self.readout)

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]

    @property
    def generic(self) -> bool:
        """Whether it is a recipe for any model rather than a checkpoint."""
        return "/" not in self.name


@dataclass(frozen=True, slots=True)
class JudgeCheckpoint:
    """A verifier that writes: its names, its prompt, and how its answer states a verdict."""

    names: tuple[str, ...]
    """Hub names that share the row."""
    source: str
    """Where it was read."""
    prompt_format: str
    """The first user message. `{prompt}` is the problem, `{steps}` the formatted steps: in a dialogue the first one,
    and with `prompting="apart"` those before `{step}`; `{state}` is the observation before it, `{checklist}` that of
    the problem."""
    opening: str
    """Text that the answer begins with; `{n}` is the number of the step it is about. Empty for none."""
    ends: tuple[str, ...]
    """Texts at which an answer is over, where they come before its own end; `{next}` is the steps' number plus one."""
    labels: tuple[str, str]
    """The content of the box for a right step, and for a wrong one."""
    reading: Reading = "boxes"
    """With `prompting="once"`, how verdicts are read."""
    base: int = 1
    """Number of the first step in the prompt and in what is read."""
    words: tuple[tuple[str, float], ...] = ()
    """Of `reading="lines"`, the words of a line and what each is worth in [0, 1]; yes and no where there is none."""
    channels: tuple[str, ...] = ()
    """Of `reading="lines"`, what a line says of a step, each as `NAME=WORD`; the verdict is their product, and each is
    a further number of the step."""
    follow: tuple[str, ...] = ()
    """With `prompting="once"`, messages that come behind an answer one after the other, such as a request to review it;
    the answer to the last one is read. `{reference}` is the problem's."""
    agree: bool = False
    """An answer counts only if its last revision names the same first error as it did."""
    highest: float = 0.0
    """The highest number that a box may hold, with `prompting="apart"` or `reading="total"`; the score is its share. 0
    reads labels."""
    system: str | None = None
    """System message; None for none."""
    prompting: Literal["once", "dialogue", "apart"] = "once"
    """One answer judges all steps; or each step is a message of its own, answered before the next one; or each step has
    a prompt of its own, with the steps before it in the prompt."""
    raw: bool = False
    """The prompt is bare text: the policy must be one without a chat template (`template="{prompt}"`)."""
    first: str = ""
    """With `prompting="apart"`, the text in place of the steps before the first one."""
    clean: tuple[Clean, ...] = ("chomp",)
    """What a step's text undergoes first, as in an encoding; `lines` and `own-number` have no meaning here."""
    step_format: str = "{step}"
    """Text of a step; `{n}` is its number."""
    between: str = "\n"
    """Text between steps of one message."""
    verdict: str = ""
    """Of one step, the text behind an answer that is over, after which comes the label. Empty where the answer itself
    holds it."""
    before_label: str = "{"
    """The text between it and the label."""
    closing: str = "}"
    """In a dialogue, what follows the label in the messages that later steps see."""
    otherwise: str = ""
    """Put before the verdict's text where the answer came to none of its `ends`, in place of that text; empty for the
    same."""
    marks: tuple[str, str] | None = None
    """Texts that are a verdict, right or wrong, wherever they stand in an answer; a wrong one counts first."""
    items: tuple[tuple[str, float], ...] = ()
    """Words that judge an item of a checklist, behind `<answer>`, and what each is worth; the mean is the score."""
    shown_later: str = ""
    """In a dialogue, what later steps see of an answer, `{label}` in it; empty for all of it."""
    temperature: float = 0.7
    """Of sampling, as published."""
    top_p: float | None = None
    """Share of the probability that is sampled from; None for all."""
    max_tokens: int = 2048
    """Longest answer."""
    notes: str = ""
    """Where this differs from what its authors run, and what is not checked."""

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]

    @property
    def sees_reference(self) -> bool:
        """Whether it is shown the right answer: such verdicts are no measure of what it finds by itself."""
        return any("{reference}" in text for text in (self.prompt_format, *self.follow))

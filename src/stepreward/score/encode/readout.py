"""From the outputs of a head to scores: one readout for the local model, for servers, for engines and for training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from numpy.typing import NDArray

from stepreward.score.encode.formula import SCORE, Formula, Index, is_name, parse

_SO_FAR = f"sum_so_far({SCORE})"
POLICY_NAMES = ("value", "before", "advantage", "logprob")
"""Outputs of a readout of a `policy`."""
Array = Any
"""A NumPy array or a torch tensor."""


@dataclass(frozen=True, slots=True)
class Readout:
    """What a model's head says at a read position, and how that becomes a score.

    Raises:
        ValueError: a field is outside its range, or two fields contradict each other.
    """

    kind: Literal["sigmoid", "softmax", "value", "tanh", "difference", "mean-sigmoid", "implicit"] = "sigmoid"
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
    reference: str = ""
    """Folder or hub name of the reference model of an implicit score; empty where the caller names it."""
    surprise: bool = False
    """Lets the head also read how likely the step was to the backbone's own language model: the least log-probability
    among its tokens after the first. Needs a backbone whose input and output embeddings are tied."""
    next_token: bool = False
    """Reads the entry of the step's last token one token earlier: the head has an entry for each token of the
    vocabulary, the score of what is there with that token behind it."""
    begins: int = 0
    """How many outputs, the last ones, are read where the step begins: at the token before its first one, the end of
    the step above, of an observation or of the prompt. They say nothing of the step itself."""
    policy: bool = False
    """Reads four numbers of each step, `POLICY_NAMES` by default: the value of a head with one output at its end and
    where it begins; the sum over its tokens of how far their logits are below the likeliest token's; and its
    log-probability to the backbone's own language model. Needs tied embeddings, as `surprise` does."""
    exits: int = 0
    """Reads the backbone after this many equal shares of its layers: the probability at each, then that of leaving
    there. 0 reads the last layer alone."""
    names: tuple[str, ...] = ()
    """Names of the outputs in a formula; empty for `out0`, `out1`, ..."""
    formula: str = ""
    """Makes the score out of the named outputs, each of them a probability or a number by `kind`, and of `score`, which
    is the score without a formula; see `formula.parse`. Empty: the score is `score`."""

    def __post_init__(self) -> None:
        labels = (self.positive, *self.also)
        if not all(0 <= i < self.n_labels for i in labels):
            raise ValueError(f"positive must be an index below n_labels={self.n_labels}, got {max(labels)}")
        if self.compares and self.n_labels < 2:
            raise ValueError("a softmax readout needs n_labels >= 2; use sigmoid or value for one label")
        if self.also and (not self.compares or len(set(labels)) >= self.n_labels):
            raise ValueError("further right labels (also) are summed by a softmax, and must leave a wrong one")
        if len(self.label_tokens) not in (0, self.n_labels):
            raise ValueError(f"label_tokens must be as many as n_labels={self.n_labels}")
        if self.next_token and (self.n_labels > 1 or self.kind not in ("sigmoid", "value") or self.label_tokens):
            raise ValueError("next_token reads one entry of its own head: set kind sigmoid or value, and n_labels=1")
        if self.next_token and self.surprise:
            raise ValueError("next_token has the language-model head, which has no place for surprise")
        if self.label_tokens and self.surprise:
            raise ValueError("label_tokens are read from a language-model head: surprise needs a head of its own")
        if self.begins and not (0 < self.begins < self.n_labels and not self.label_tokens and not self.surprise):
            what = f"begins={self.begins} of n_labels={self.n_labels} outputs"
            raise ValueError(
                f"{what}: some outputs of a head of its own, without surprise, are read where a step begins"
            )
        if self.policy and (self.kind, self.n_labels, self.surprise) != ("value", len(POLICY_NAMES), False):
            raise ValueError(f"a policy is read as {len(POLICY_NAMES)} values a step, without surprise")
        other = self.reads_steps or self.label_tokens
        if self.exits and (self.kind != "sigmoid" or self.n_labels != 2 * self.exits or other):
            raise ValueError("exits have two probabilities each and their own head: set kind sigmoid, n_labels=2 exits")
        valid = all(map(is_name, self.names)) and len({*self.names}) == len(self.names)
        if len(self.names) not in (0, self.n_labels) or not valid:
            raise ValueError(
                f"names must be n_labels={self.n_labels} different words, none a function; got {self.names}"
            )
        if self.formula and self.kind == "implicit":
            raise ValueError("a formula reads the outputs of a head: an implicit score has none")
        if self.formula:
            parse(self.formula, self.output_names)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in a formula."""
        return self.names or (POLICY_NAMES if self.policy else tuple(f"out{k}" for k in range(self.n_labels)))

    @property
    def head_width(self) -> int:
        """Outputs of the head."""
        return 1 if self.policy else self.n_labels

    @property
    def reads_steps(self) -> bool:
        """Whether more is read of a step than a head says at one token."""
        return self.reads_language or self.next_token or self.begins > 0

    @property
    def reads_language(self) -> bool:
        """Whether what the backbone's own language model says of a step's tokens is read too."""
        return self.surprise or self.policy

    @property
    def parsed(self) -> Formula:
        """The formula; where there is none `score`, or its sum so far for an implicit score."""
        return parse(self.formula or (_SO_FAR if self.kind == "implicit" else SCORE), self.output_names)

    @property
    def looks_back(self) -> bool:
        """Whether a step's score depends on what the head says of earlier steps."""
        return self._combines and self.parsed.looks_back

    @property
    def _combines(self) -> bool:
        """Whether a score is more than the function of one step's outputs that `kind` names."""
        return bool(self.formula) or self.kind == "implicit"

    @property
    def is_probability(self) -> bool:
        """Whether the score is a probability whatever the outputs are."""
        return self.kind in ("sigmoid", "softmax", "mean-sigmoid") and not self.formula

    def with_formula(self, formula: str) -> Readout:
        """The readout with another score of the same outputs, which may use the definitions of the present formula.

        Args:
            formula: such as the name of an output or of a definition; empty for the score without a formula.

        Raises:
            ValueError: it is no formula.
        """
        return replace(self, formula="; ".join([*self.parsed.definition_texts, formula]) if formula else "")

    def joined(self, end: Array, begin: Array) -> Array:
        """(Q, n_labels) outputs, out of those of the head where each step ends and where it begins."""
        cut = self.n_labels - self.begins
        return array_namespace(end).concat([end[:, :cut], begin[:, cut:]], axis=1) if self.begins else end

    @property
    def compares(self) -> bool:
        """Whether labels are compared by a softmax."""
        return self.kind in ("softmax", "difference")

    def scores(self, outputs: Array, *, previous: Index | None = None, activated: bool = False) -> Array:
        """(Q,) scores of head outputs, in the outputs' own kind of array and numbers.

        Args:
            outputs: (Q, n_labels).
            previous: (Q,) the read of the scored step before each, -1 for none; for a formula that looks back.
            activated: whether they are probabilities already: the softmax of several labels, or the sigmoid of each.

        Raises:
            ValueError: the formula looks back, and there is no `previous`.
        """
        if not self.formula:
            return self._plain_scores(outputs, activated=activated)
        parts = self.parts(outputs, activated=activated)
        if not is_torch_array(outputs):
            return self.combined(parts, previous).astype(outputs.dtype)
        return outputs.new_tensor(self.combined(parts.detach().double().cpu().numpy(), previous))

    def parts(self, outputs: Array, *, activated: bool = False, all_outputs: bool = False) -> Array:
        """(Q, M) what `combined` makes the scores of, from head outputs (Q, n_labels).

        M is 1 without a formula, and else 1 + n_labels; `all_outputs` makes it so for other formulas of the outputs.
        """
        score = self._plain_scores(outputs, activated=activated)[:, None]
        if not (self._combines or all_outputs):
            return score
        if self.compares:
            each = outputs if activated else softmax(outputs)
        elif self.kind in ("sigmoid", "mean-sigmoid"):
            each = outputs if activated else _sigmoid(outputs)
        else:
            each = self._numbers(outputs, activated=activated)
        return array_namespace(outputs).concat([score, each], axis=1)

    def combined(self, parts: NDArray[np.float64], previous: Index | None = None) -> NDArray[np.float64]:
        """(Q,) scores of `parts` (Q, M)."""
        return self.parsed.evaluate(parts, previous) if self._combines else parts[:, 0]

    def _plain_scores(self, outputs: Array, *, activated: bool) -> Array:
        """(Q,) scores without a formula."""
        if self.compares:
            shares = outputs if activated else softmax(outputs)
            right = shares[:, [self.positive, *self.also]].sum(-1)
            return right if self.kind == "softmax" else 2 * right - 1
        if self.kind == "mean-sigmoid":
            return (outputs if activated else _sigmoid(outputs)).mean(-1)
        one = outputs[:, self.positive]
        if self.kind == "sigmoid":
            return one if activated else _sigmoid(one)
        return self._numbers(one, activated=activated)

    def _numbers(self, outputs: Array, *, activated: bool) -> Array:
        """Bare numbers or their hyperbolic tangents, of outputs of any shape."""
        xp = array_namespace(outputs)
        # A bare number and a tanh are functions of the logit: the sigmoid of the server is inverted.
        if activated:
            with np.errstate(divide="ignore"):
                outputs = xp.log(outputs) - xp.log1p(-outputs)
        return xp.tanh(outputs) if self.kind == "tanh" else outputs

    def step_logits(self, outputs: Array) -> Array:
        """(Q,) one logit a read, whose sigmoid is the score without a formula, out of head outputs (Q, n_labels).

        For a softmax readout that is log sum_{k right} e^{z_k} - log sum_{k wrong} e^{z_k}, for `tanh` 2 z: a
        score of 2 p - 1 has the logit of p. For `value` it is the score itself.

        Raises:
            ValueError: the score is no function of one logit.
        """
        if self.kind in ("mean-sigmoid", "implicit"):
            raise ValueError(f"the readout {self.kind!r} has no single logit a step: train another one")
        if not self.compares:
            return outputs[:, self.positive] * (2 if self.kind == "tanh" else 1)
        right = [self.positive, *self.also]
        wrong = [k for k in range(self.n_labels) if k not in right]
        return _logsumexp(outputs[:, right]) - _logsumexp(outputs[:, wrong])


def activate(outputs: Array) -> Array:
    """(Q, n_labels) probabilities: the softmax of two or more labels, the sigmoid of one."""
    return _sigmoid(outputs) if outputs.shape[1] == 1 else softmax(outputs)


def softmax(outputs: Array) -> Array:
    """Softmax over the last axis."""
    if is_torch_array(outputs):
        return outputs.softmax(-1)
    shares = np.exp(outputs - outputs.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def _sigmoid(outputs: Array) -> Array:
    # exp(-log(1 + e^-z)) does not overflow for any z.
    return outputs.sigmoid() if is_torch_array(outputs) else np.exp(-np.logaddexp(0, -outputs))


def _logsumexp(outputs: Array) -> Array:
    return outputs.logsumexp(-1) if is_torch_array(outputs) else np.logaddexp.reduce(outputs, axis=-1)

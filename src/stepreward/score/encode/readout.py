"""From the outputs of a head to scores: one readout for the local model, for servers, for engines and for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace, is_torch_array

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
    surprise: bool = False
    """Lets the head also read how likely the step was to the backbone's own language model: the least log-probability
    among its tokens after the first. Needs a backbone whose input and output embeddings are tied."""

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
        if self.label_tokens and self.surprise:
            raise ValueError("label_tokens are read from a language-model head: surprise needs a head of its own")

    @property
    def compares(self) -> bool:
        """Whether labels are compared by a softmax."""
        return self.kind in ("softmax", "difference")

    def scores(self, outputs: Array, *, activated: bool = False) -> Array:
        """(Q,) scores of head outputs, in the outputs' own kind of array and numbers.

        Args:
            outputs: (Q, n_labels).
            activated: whether they are probabilities already: the softmax of several labels, or the sigmoid of each.
        """
        if self.compares:
            shares = outputs if activated else softmax(outputs)
            right = shares[:, [self.positive, *self.also]].sum(-1)
            return right if self.kind == "softmax" else 2 * right - 1
        if self.kind == "mean-sigmoid":
            return (outputs if activated else _sigmoid(outputs)).mean(-1)
        one = outputs[:, self.positive]
        if self.kind == "sigmoid":
            return one if activated else _sigmoid(one)
        xp = array_namespace(one)
        # A bare number and a tanh are functions of the logit: the sigmoid of the server is inverted.
        if activated:
            with np.errstate(divide="ignore"):
                one = xp.log(one) - xp.log1p(-one)
        return xp.tanh(one) if self.kind == "tanh" else one

    def step_logits(self, outputs: Array) -> Array:
        """(Q,) one logit a read, whose sigmoid is the score, out of head outputs (Q, n_labels).

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

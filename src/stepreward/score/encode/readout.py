"""From the outputs of a head to scores: one function for the local model, for servers, for engines and for training."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array
from scipy import special

from stepreward.score.encode.record import EncoderRecord

Array = Any
"""A NumPy array or a torch tensor."""


def read_out(record: EncoderRecord, outputs: Array, *, activated: bool = False) -> Array:
    """(Q,) scores of head outputs by the record's readout, in the outputs' own kind of array and numbers.

    Args:
        record: says what the outputs mean.
        outputs: (Q, n_labels).
        activated: whether they are probabilities already: the softmax of several labels, or the sigmoid of each.
    """
    kind = record.readout
    if kind in ("softmax", "difference"):
        shares = outputs if activated else softmax(outputs)
        right = shares[:, [record.positive, *record.also]].sum(-1)
        return right if kind == "softmax" else 2 * right - 1
    if kind == "mean-sigmoid":
        return (outputs if activated else sigmoid(outputs)).mean(-1)
    one = outputs[:, record.positive]
    if kind == "sigmoid":
        return one if activated else sigmoid(one)
    xp = array_namespace(one)
    if activated:  # a bare number and a tanh are of the logit
        with np.errstate(divide="ignore"):
            one = xp.log(one) - xp.log1p(-one)
    return xp.tanh(one) if kind == "tanh" else one


def step_logits(record: EncoderRecord, outputs: Array) -> Array:
    """(Q,) one logit a read, whose sigmoid is the record's score, out of head outputs (Q, n_labels).

    For a softmax readout that is log sum_{k right} e^{z_k} - log sum_{k wrong} e^{z_k}, for `tanh` 2 z: a
    score of 2 p - 1 has the logit of p. For `value` it is the score itself.

    Raises:
        ValueError: the readout is no function of one logit.
    """
    if record.readout in ("mean-sigmoid", "implicit"):
        raise ValueError(f"the readout {record.readout!r} has no single logit a step: train another one")
    if record.readout not in ("softmax", "difference"):
        return outputs[:, record.positive] * (2 if record.readout == "tanh" else 1)
    right = [record.positive, *record.also]
    wrong = [k for k in range(outputs.shape[1]) if k not in right]
    return _logsumexp(outputs[:, right]) - _logsumexp(outputs[:, wrong])


def activate(outputs: Array) -> Array:
    """(Q, n_labels) probabilities: the softmax of two or more labels, the sigmoid of one."""
    return sigmoid(outputs) if outputs.shape[1] == 1 else softmax(outputs)


def softmax(outputs: Array) -> Array:
    """Softmax over the last axis."""
    return outputs.softmax(-1) if is_torch_array(outputs) else special.softmax(outputs, axis=-1)


def sigmoid(outputs: Array) -> Array:
    """Sigmoid of each number."""
    return outputs.sigmoid() if is_torch_array(outputs) else special.expit(outputs)


def _logsumexp(outputs: Array) -> Array:
    return outputs.logsumexp(-1) if is_torch_array(outputs) else special.logsumexp(outputs, axis=-1)

"""Samples that lm-evaluation-harness logs, generated or chosen by likelihood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.agents.messages import prompt_of
from stepreward.formats.fields import decoded, first_value, outcome_or_nan
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, annotated, need, other_fields, shown, text_or_none
from stepreward.formats.samples.rollout_logs import cut

_METRICS = ("exact_match", "acc", "pass@1", "pass_at_1", "prompt_level_strict_acc", "acc_norm", "math_verify", "em",
            "f1", "score")  # fmt: skip
_OWN = ("doc", "target", "arguments", "resps", "filtered_resps", "metrics", "doc_hash", "prompt_hash", "target_hash",
        "doc_id", "filter")  # fmt: skip
_ASKED = ("doc.question", "doc.problem", "doc.query", "doc.prompt", "doc.input", "doc.text")


@dataclass(frozen=True, slots=True)
class _Request:
    context: Any
    continuation: str
    responses: list[Any]


def read(row: Row, number: int, *, metric: str = "", scale: float = 1.0) -> Iterator[Trajectory]:
    """Reads `resps`: each generated text is a trajectory; of continuations with likelihoods, the likeliest is one.

    The outcome is the metric named, else the first known one, NaN where it is no number from 0 to `scale`. A sample's
    metric judges one answer: of several responses it is the first one's, or no one's where the filter votes. A file
    has a row for each filter, named in meta.

    Args:
        number: its 1-based number.
        metric: the outcome's metric.
        scale: the largest value of the metric.

    Raises:
        InputError: a field is missing or of another shape, no text was generated, or there is no such metric.
    """
    if metric and metric not in row:
        raise InputError(f"no metric is called {metric!r}", remedy=f"the row has {', '.join(_metrics(row))}")
    requests = _requests(row)
    won = row.get(metric or next(iter(_metrics(row)), ""))
    prompt = requests[0].context or first_value(row, *_ASKED)
    problem = Problem(
        f"lm-eval-{row.get('task') or ''}{row.get('doc_id', number)}", prompt_of(prompt, "arguments"),
        text_or_none(row.get("target")), {"doc": row["doc"]} if isinstance(row.get("doc"), dict) else {},
    )  # fmt: skip
    texts = [text for request in requests for text in request.responses]
    meta = other_fields(row, *_OWN) | {
        name: row[name] for name in ("filter", "doc_id", "filtered_resps") if name in row
    }
    if not all(isinstance(text, str) for text in texts):
        best = max(requests, key=_likelihood)
        if not best.continuation:
            raise InputError("no text was generated or chosen in this sample", remedy="log samples of another task")
        values = [_likelihood(request) for request in requests]
        texts, meta = [best.continuation], meta | {
            "log_likelihoods": values, "choices": [request.continuation for request in requests],
        }  # fmt: skip
    # A filter that votes, or averages, makes one metric of all responses.
    votes = any(word in str(row.get("filter", "")).lower() for word in ("maj", "vote", "avg", "mean"))
    for at, text in enumerate(texts):
        if not text:
            text = " "  # An empty answer is an answer; a step holds at least a character.
        value = won[at] if isinstance(won, list) and len(won) == len(texts) else won
        judged = isinstance(won, list) or len(texts) == 1 or (at == 0 and not votes)
        steps = cut(text)
        yield annotated(
            problem, steps, None, "lm-eval metrics",
            outcome=outcome_or_nan(value if judged else None, scale), policy=str(row.get("model") or ""),
            answer=_answer(row, len(texts), at), facts=meta | ({"sample": at} if len(texts) > 1 else {}),
        )  # fmt: skip


def _metrics(row: Row) -> list[str]:
    """The names of a row's metrics, those that say right or wrong first."""
    listed = row.get("metrics")
    names = [name for name in listed if isinstance(name, str) and name in row] if isinstance(listed, list) else []
    known = [name for name in _METRICS if name in row]
    numbers = [name for name in row if name not in _OWN and isinstance(row[name], int | float)]
    return list(dict.fromkeys([*[name for name in known if name in names or not names], *(names or numbers)]))


def _requests(row: Row) -> list[_Request]:
    """Prompts and responses, request by request; newer versions name them, older ones list them."""
    given, responses_of_requests = row.get("arguments"), need(row, "resps", list)
    prompts = list(given.values()) if isinstance(given, Mapping) else given if isinstance(given, list) else []
    if not responses_of_requests:
        raise InputError("'resps' is empty")
    made = []
    for at, responses in enumerate(responses_of_requests):
        one = prompts[at] if at < len(prompts) else ()
        parts = list(one.values()) if isinstance(one, Mapping) else one if isinstance(one, list | tuple) else [one]
        context = parts[0] if parts else None
        # The harness logs a chat as the JSON of its messages.
        again = decoded(context, "[{")
        continuation = parts[1] if len(parts) > 1 and isinstance(parts[1], str) else ""
        made.append(_Request(again, continuation, responses if isinstance(responses, list) else [responses]))
    return made


def _likelihood(request: _Request) -> float:
    value: Any = request.responses
    while isinstance(value, list) and value:
        value = value[0]
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"'resps' must hold texts or log-likelihoods, got {shown(request.responses)}") from error


def _answer(row: Row, count: int, at: int) -> str | None:
    filtered = row.get("filtered_resps")
    value = filtered[0] if isinstance(filtered, list) and filtered else None
    if isinstance(value, list):
        value = value[at] if len(value) == count else None
    return value if isinstance(value, str) and (count == 1 or at == 0) else None


FORMATS: tuple[Format, ...] = (
    Format("lm-eval", "samples logged by lm-evaluation-harness", has("doc_id", "doc", "resps"), read),
)

"""What several commands read: problems, labelled solutions of any format, graders by name."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pyarrow.parquet as pq
import torch

from stepreward.cli.format_options import format_options
from stepreward.cli.recipes import Recipe, mark
from stepreward.core.annotations import Annotated
from stepreward.core.engines import VLLM
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.flows import Grader, Policy
from stepreward.core.servers import Server
from stepreward.core.store import SCHEMA
from stepreward.core.types import Labels, Problem, first_error
from stepreward.formats.files import read_rows
from stepreward.formats.registry import Evidence, by_name, detect, evidence, formats, read
from stepreward.label.run import load_labels
from stepreward.pipeline.world import read_problems
from stepreward.policies.http import HttpPolicy
from stepreward.policies.local import LocalPolicy
from stepreward.policies.vllm import VllmPolicy
from stepreward.score.calibrated import CalibratedScorer, read_calibrator
from stepreward.score.checkpoints.judges import Judge, judge_of
from stepreward.score.generative import GenerativeScorer
from stepreward.score.load import Loaded, load
from stepreward.score.memory import NO_CACHE, CacheSize
from stepreward.tasks.arithmetic_truth import ArithmeticGrader
from stepreward.tasks.mathematics import MathGrader

GRADERS: dict[str, Callable[[], Grader]] = {"mathematics": MathGrader, "arithmetic": ArithmeticGrader}
OWN = "stepreward"
"""Name of the format that `stepreward label` writes."""
LABELS = "labels.parquet"
"""The file of labels in the folder of a label run."""
_HTTP_SETTINGS: dict[str, type] = {
    "endpoint": str, "prefill": str, "separator": str, "template": str, "temperature": float, "top_p": float,
    "max_tokens": int, "logprobs": bool, "running_usage": bool,
}  # fmt: skip
"""Settings of a policy in a server that its address may name, with their types."""
_HTTP_CHOICES = {"endpoint": ("chat", "completions"), "prefill": ("continue", "plain")}
_SOLUTION_FIELDS = ("steps", "completions", "completion", "solution")
_TOLD = 10


def grader_by_name(name: str) -> Grader:
    """An outcome grader.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in GRADERS:
        raise UnknownNameError("grader", name, GRADERS)
    return GRADERS[name]()


def problems_of(path: Path) -> list[Problem]:
    """The problems of a JSONL file.

    Raises:
        InputError: it cannot be read, holds none, or two share an id, by which samples are drawn and kept.
    """
    made = list(read_problems(path))
    if not made:
        raise InputError("no problem is here", source=path, remedy='write rows {"prompt": ..., "reference": ...}')
    twice = [name for name, count in Counter(problem.id for problem in made).items() if count > 1]
    if twice:
        raise InputError(f"{len(twice)} ids stand twice, first {twice[0]!r}", source=path, remedy="make ids differ")
    return made


def scorer_at(
    model: str, device: str, recipe: Recipe | None = None, *, cache: CacheSize = NO_CACHE, calibrated: bool = True
) -> Loaded | GenerativeScorer:
    """A checkpoint of stepreward or a public one, a folder or a hub name, on a device, or one in a server.

    A verifier that writes is a policy that is asked, by the row of its name or of the recipe.

    Scores are mapped by the recipe's calibrator, or else by the one in its folder, unless not `calibrated`.

    Raises:
        InputError: there is no such device.
        ModelError: there is no such checkpoint.
    """
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"torch knows no device {device!r}", remedy="pass cpu, cuda or cuda:0") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r} is not here", remedy="pass --device cpu; see `stepreward doctor`")
    recipe = recipe or Recipe()
    judge = judge_of(recipe.like or model)
    if judge is not None:
        return _written(model, judge, recipe)
    like, record = recipe.read(model)
    own = calibrated and recipe.calibrator is None
    scorer = load(model, like=like, record=record, device=device, cache_bytes=cache, calibrated=own)
    scorer.name += mark(like, record)
    if calibrated and recipe.calibrator is not None:
        return CalibratedScorer(scorer, read_calibrator(recipe.calibrator))
    return scorer


def _written(model: str, judge: Judge, recipe: Recipe) -> Loaded | GenerativeScorer:
    """A verifier that writes its verdicts."""
    if recipe.file is not None:
        raise InputError(f"{judge.name} writes its verdicts: no record says how it is read", remedy="drop --record")
    scorer = GenerativeScorer(policy_at(model, raw=judge.raw), judge, n=recipe.answers)
    return scorer if recipe.calibrator is None else CalibratedScorer(scorer, read_calibrator(recipe.calibrator))


def hold_problems(path: Path) -> bool:
    """Whether a file's first readable row is a bare problem: a prompt, no solution, and of no format of solutions.

    Raises:
        InputError: the file cannot be read.
    """
    if path.is_dir() or path.suffix == ".parquet":
        return False
    row = next((row for _, row in read_rows(path) if isinstance(row, Mapping)), {})
    return (
        isinstance(row.get("prompt"), str)
        and not any(name in row for name in _SOLUTION_FIELDS)
        and not any(form.matches(row) for form in formats.values())
    )


def read_solutions(
    path: Path, form: str = "", *, given: Sequence[str] = (), strict: bool = False
) -> Iterator[Annotated]:
    """Yields the solutions of a file of any format, or of what `stepreward label` wrote.

    Rows that cannot be read are told on standard error and left out, unless `strict`.

    Args:
        path: a file, or the folder of a label run.
        form: name of the format; detected where empty.
        given: options of the format as `name=value`.
        strict: raise at the first bad row.

    Raises:
        InputError: nothing can be read.
    """
    if is_own(path, form):
        no_options(given)
        yield from (_annotated(one) for one in _own_labels(path))
        return
    chosen = by_name(form) if form else detect(path)
    reading = read(path, chosen.name, strict=strict, **format_options(chosen, chosen.read, given))
    found = False
    for item in reading:
        found = True
        yield item
    if not found:
        what, row = "no row is here", None
        if reading.bad:
            first, more = reading.bad[0], reading.left_out - 1
            what, row = f"{first.problem}" + (f", and {more:,} more rows cannot be read" if more else ""), first.row
        raise InputError(what, source=path, row=row, remedy="repair the rows, or name another format")
    for error in reading.bad[:_TOLD]:
        print(f"stepreward: left out: {error}", file=sys.stderr)
    if reading.left_out > _TOLD:
        print(f"stepreward: left out: {reading.left_out - _TOLD:,} more rows", file=sys.stderr)


def no_options(given: Sequence[str]) -> None:
    """Refuses options of a format where our own labels are read.

    Raises:
        InputError: there are some.
    """
    if given:
        raise InputError(f"format {OWN} has no options to read", remedy="drop --read")


def read_labels_of(path: Path, form: str = "", *, given: Sequence[str] = (), strict: bool = False) -> Iterator[Labels]:
    """Yields labels of solutions, with their rollouts where `stepreward label` wrote them; otherwise as above."""
    if is_own(path, form):
        no_options(given)
        yield from _own_labels(path)
    else:
        yield from (item.to_labels() for item in read_solutions(path, form, given=given, strict=strict))


def is_own(path: Path, form: str = "") -> bool:
    """Whether a path holds what `stepreward label` wrote, by the format named or else by its columns.

    Raises:
        InputError: it ends in .parquet and is no Parquet file.
    """
    if form or path.is_dir():
        return form == OWN or (not form and path.is_dir())
    if path.suffix != ".parquet":
        return False
    try:
        return {"n_rollouts", "provenance"} <= set(pq.read_schema(path).names) <= set(SCHEMA.names)
    except (OSError, ValueError) as error:
        raise InputError(f"not a readable Parquet file ({error})", source=path, remedy="check the path") from error


def shown_format(path: Path, form: str = "") -> str:
    """The format that a file is read as, with the evidence.

    Raises:
        InputError: no format fits, or several do.
        UnknownNameError: no such format.
    """
    if is_own(path, form):
        return f"{OWN} (labels with rollouts and provenance)"
    found: Evidence | str = evidence(path) if not form else f"{by_name(form).name} ({formats[form].about}): as told"
    return str(found)


def _own_labels(path: Path) -> Iterator[Labels]:
    """The labels of a file or a label run: transformed ones, or what was measured where the run has not ended."""
    return load_labels(path / LABELS if (path / LABELS).is_file() else path)


def _annotated(one: Labels) -> Annotated:
    known = one.label[~np.isnan(one.label)]
    return Annotated(one.trajectory, one.label, one.provenance, first_error(one.label) if known.size else None)


def policy_at(source: str, *, concurrency: int = 16, raw: bool = False) -> Policy:
    """A policy by name: a model folder, a hub name, a built-in one, `vllm:NAME`, or `URL#MODEL` for a server.

    Settings of the server's policy may follow: `URL#MODEL?endpoint=completions&temperature=0.7`. Its API key is read
    from STEPREWARD_API_KEY, or else OPENAI_API_KEY.

    Args:
        source: the name.
        concurrency: most requests under way at once to a server.
        raw: send prompts as bare text, without a chat template.

    Raises:
        InputError: an address without a model, or a setting that does not fit.
        UnknownNameError: there is no such setting.
        ModelError: the model cannot be loaded.
    """
    bare: dict[str, Any] = {"template": "{prompt}"} if raw else {}
    if source.startswith(VLLM):
        return VllmPolicy.load(source, **bare)
    if not source.startswith(("http://", "https://")):
        return LocalPolicy.load(source, **bare)
    url, _, model = source.partition("#")
    if not model:
        raise InputError(f"{source} names no model", remedy=f"pass {source.rstrip('/')}#MODEL")
    model, _, query = model.partition("?")
    key = os.environ.get("STEPREWARD_API_KEY") or os.environ.get("OPENAI_API_KEY", "")
    settings = dict(_http_setting(name, value) for name, value in parse_qsl(query, keep_blank_values=True))
    settings |= {**bare, "endpoint": "completions"} if raw else {}
    try:
        return HttpPolicy(Server(url, model, key, concurrency=concurrency), **settings)
    except ValueError as error:
        raise InputError(str(error), source=source) from error


def _http_setting(name: str, text: str) -> tuple[str, Any]:
    """A setting of `HttpPolicy` in the type that it takes."""
    if name not in _HTTP_SETTINGS:
        raise UnknownNameError("setting of a policy in a server", name, _HTTP_SETTINGS)
    kind = _HTTP_SETTINGS[name]
    try:
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise InputError(f"{name} must be a {kind.__name__}, got {text!r}") from None
    if text not in _HTTP_CHOICES.get(name, (text,)):
        raise InputError(f"{name} must be one of {', '.join(_HTTP_CHOICES[name])}, got {text!r}")
    return name, value

"""Labels on disk: one Parquet file, one row a trajectory, readable by anything that reads Parquet.

problem, prompt, reference, meta   the problem; `meta` and chat prompts as JSON
steps                              list of {text, kind, role, agent}
outcome, terminal, root_value      of the trajectory
value, n_rollouts, n_correct, low, high, label   lists with one entry a step; null where not measured
provenance, transforms             JSON, list of names
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stepreward.core.errors import InputError
from stepreward.core.json_file import in_one_move
from stepreward.core.types import Labels, Problem, Provenance, Step, Trajectory

_FLOATS = ("value", "low", "high", "label")
_COUNTS = ("n_rollouts", "n_correct")
_STEP = pa.struct([(name, pa.string()) for name in ("text", "kind", "role", "agent")])
SCHEMA = pa.schema(
    [
        ("problem", pa.string()),
        ("prompt", pa.string()),
        ("reference", pa.string()),
        ("meta", pa.string()),
        ("steps", pa.list_(_STEP)),
        ("outcome", pa.float64()),
        ("terminal", pa.bool_()),
        ("root_value", pa.float64()),
        *((name, pa.list_(pa.float64())) for name in _FLOATS),
        *((name, pa.list_(pa.int64())) for name in _COUNTS),
        ("provenance", pa.string()),
        ("transforms", pa.list_(pa.string())),
    ]
)


def write_labels(path: Path, labels: Iterable[Labels], *, rows_at_once: int = 4096) -> int:
    """Writes labels in one move, streaming; a kill leaves the old file or none.

    Returns:
        The number of trajectories written.

    Raises:
        StoreError: the file cannot be written.
    """
    written, rows = 0, []
    with in_one_move(path) as unfinished, pq.ParquetWriter(unfinished, SCHEMA, compression="zstd") as writer:
        for one in labels:
            rows.append(_row(one))
            if len(rows) == rows_at_once:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                written, rows = written + len(rows), []
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return written + len(rows)


def is_whole(path: Path) -> bool:
    """Whether a file of labels is there and was written to its end."""
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def read_labels(path: Path) -> Iterator[Labels]:
    """Yields the labels of a file, streaming.

    Raises:
        InputError: the file is no Parquet file or misses a column, or a label is outside [0, 1].
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"not a readable Parquet file ({error})", source=path, remedy="pass what `label` wrote"
        ) from error
    missing = [name for name in SCHEMA.names if name not in file.schema_arrow.names]
    if missing:
        raise InputError(f"columns {missing} are missing", source=path, remedy="pass what `label` wrote")
    number = 0
    for batch in file.iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield _labels(row, path, number)


def _row(one: Labels) -> dict[str, Any]:
    problem, trajectory = one.trajectory.problem, one.trajectory
    prompt = problem.prompt if isinstance(problem.prompt, str) else json.dumps([dict(m) for m in problem.prompt])
    return {
        "problem": problem.id,
        "prompt": prompt,
        "reference": problem.reference,
        "meta": json.dumps(dict(problem.meta), default=str),
        "steps": [{"text": s.text, "kind": s.kind, "role": s.role, "agent": s.agent} for s in trajectory.steps],
        "outcome": _number(trajectory.outcome),
        "terminal": trajectory.terminal,
        "root_value": _number(one.root_value),
        **{name: [_number(v) for v in getattr(one, name)] for name in _FLOATS},
        **{name: getattr(one, name).tolist() for name in _COUNTS},
        "provenance": json.dumps(asdict(one.provenance)),
        "transforms": list(one.transforms),
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _array(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)


def _labels(row: dict[str, Any], path: Path, number: int) -> Labels:
    prompt: Any = row["prompt"]
    if prompt.startswith('[{"'):
        prompt = tuple(json.loads(prompt))
    problem = Problem(row["problem"], prompt, row["reference"], json.loads(row["meta"]))
    steps = tuple(Step(s["text"], s["kind"], s["role"], s["agent"]) for s in row["steps"])
    floats = {name: _array(row[name]) for name in _FLOATS}
    label = floats["label"]
    if ((label < 0) | (label > 1)).any():
        raise InputError(f"labels {label.tolist()} leave [0, 1]", source=path, row=number, remedy="rescale them")
    if len(label) != len(steps):
        raise InputError(f"{len(steps)} steps but {len(label)} labels", source=path, row=number, remedy="fix the row")
    scalars = {name: np.nan if row[name] is None else row[name] for name in ("outcome", "root_value")}
    trajectory = Trajectory(problem, steps, scalars["outcome"], row["terminal"])
    return Labels(
        trajectory,
        value=floats["value"],
        n_rollouts=np.array(row["n_rollouts"], np.int64),
        n_correct=np.array(row["n_correct"], np.int64),
        low=floats["low"],
        high=floats["high"],
        label=label,
        root_value=float(scalars["root_value"]),
        provenance=Provenance(**json.loads(row["provenance"])),
        transforms=tuple(row["transforms"]),
    )

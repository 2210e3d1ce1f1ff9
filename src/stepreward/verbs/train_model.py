"""The verb train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepreward.core.files.stored_rows import StoredRows
from stepreward.pipeline.export_model import export_finished, needs_bias, require_layouts
from stepreward.policies.model_sources import resolve
from stepreward.train.data.domains import of_domain
from stepreward.train.data.held_out import held_out_split
from stepreward.train.data.references import KnownReferences
from stepreward.train.data.stored_trees import StoredTrees
from stepreward.train.parameters import loading
from stepreward.train.processes import is_main
from stepreward.train.scratch import starting_model, starting_record
from stepreward.train.settings import SCRATCH, TrainSettings
from stepreward.train.trainer import train as train_model
from stepreward.verbs.names import load
from stepreward.verbs.read_rows import Rows, rows_of

if TYPE_CHECKING:
    from stepreward.score.load import Loaded


def train(
    rows: Rows | Mapping[str, Rows], out: str | Path, *, backbone: str | Path = "builtin:arithmetic",
    keep_head: bool = False, like: str = "", held_out: float = 0.1, meta: Rows | None = None,
    export: Sequence[str] = (), **settings: Any,
) -> Loaded:  # fmt: skip
    """Trains a step reward model on labelled steps or graded solutions, and returns it as a scorer.

    Args:
        rows: labelled solutions, a file of any format or trajectories; or several of these by name, which is the domain
            of rows that have none, and by which `mix` weighs them.
        out: folder of the checkpoint; an interrupted training in it is resumed.
        backbone: a causal language model: folder, hub name, `builtin:arithmetic`, or `scratch`.
        keep_head: the backbone is a reward model that `load` reads: how it is fed is kept, and its head is turned into
            that of the objective, whose scores are the old ones at first.
        like: with `keep_head`, row of the table of checkpoints whose recipe that reward model follows.
        held_out: share of the problems kept to pick the best checkpoint.
        meta: graded solutions of other problems, from which the weights of domains are learned (`domain_rate`).
        export: layouts in which the finished model is also written, each into `out/export/LAYOUT`; see `export`.
        settings: fields of `stepreward.train.settings.TrainSettings`, such as `objective`, `epochs`, `device`, `seed`.

    Raises:
        InputError: there is nothing to learn from, `out` holds another unfinished training, or a layout cannot hold
            such a model; or the objective cannot go on from the head of a reward model.
        ModelError: the backbone cannot be loaded, or the loss became infinite or NaN.
    """
    chosen = TrainSettings(**settings).on(str(backbone), resolve)
    chosen.require_packages()
    objective, stored, known = chosen.loss(), StoredRows(), KnownReferences()
    for domain, some in (rows if isinstance(rows, Mapping) else {"": rows}).items():
        stored.extend(of_domain(known.passing(rows_of(some, comparisons=True), some), domain), domain)
    learned, kept = held_out_split(stored.problems, held_out, chosen.seed)
    chosen.require_meta(meta is not None)
    graded = StoredRows()
    graded.extend(known.passing(rows_of(meta or (), comparisons=True), meta))
    outside = StoredTrees(graded, range(len(graded.problems)), chosen.domain_loss()) if meta is not None else ()
    trees = StoredTrees(stored, learned, objective, chosen.augmented)
    name = backbone if backbone == SCRATCH else resolve(backbone)
    record = starting_record(
        name, objective, keep_head=keep_head, like=like, prompt_format=chosen.prompt_format, teacher=chosen.teacher,
        both_ways=chosen.both_ways,
    )  # fmt: skip
    known.check(record)
    model = starting_model(
        name,
        trees,
        record=record,
        keep_head=keep_head,
        like=like,
        bias=needs_bias(export),
        seed=chosen.seed,
        loading=loading(chosen),
    )
    require_layouts(model, export, adapters=chosen.writes_adapters)
    kept_trees = StoredTrees(stored, kept, objective) if kept else ()
    train_model(trees, model, Path(out), chosen, held_out=kept_trees, meta=outside)
    if is_main():
        export_finished(Path(out), export)
    return load(out)

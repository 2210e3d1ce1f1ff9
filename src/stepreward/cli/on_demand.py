"""What the work of commands needs beyond their flags, imported at its first use, so that help needs no extra."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepreward.core.on_demand import on_demand

if TYPE_CHECKING:
    from stepreward.evaluate.fitting import fit_calibrator as fit_calibrator
    from stepreward.pipeline.export_model import export as export
    from stepreward.pipeline.export_model import export_finished as export_finished
    from stepreward.pipeline.export_model import needs_bias as needs_bias
    from stepreward.pipeline.export_model import require_layouts as require_layouts
    from stepreward.pipeline.reinforce import reinforce as reinforce
    from stepreward.pipeline.rounds_report import rows_of_table as rows_of_table
    from stepreward.pipeline.whole_run import Run as Run
    from stepreward.score.calibrate.calibrated_scorer import save_calibrator as save_calibrator
    from stepreward.train.annotator_scores import readout_of_pairs as readout_of_pairs
    from stepreward.train.data.stored_trees import StoredTrees as StoredTrees
    from stepreward.train.dry_run import Costs as Costs
    from stepreward.train.dry_run import costs as costs
    from stepreward.train.parameters import loading as loading
    from stepreward.train.scratch import starting_model as starting_model
    from stepreward.train.scratch import starting_record as starting_record
    from stepreward.train.trainer import finished as finished
    from stepreward.train.trainer import train as train
    from stepreward.verbs.serve_models import serve as serve
    from stepreward.verbs.train_in_rounds import train_in_rounds as train_in_rounds

if not TYPE_CHECKING:  # a type checker then refuses names that are not above
    __getattr__ = on_demand(__file__)

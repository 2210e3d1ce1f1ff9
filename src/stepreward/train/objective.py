"""An objective with its settings, and what it reads: outputs of the model and data of a batch, both by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from stepreward.core.catalog import loss as losses
from stepreward.core.errors import InputError
from stepreward.core.method import Method
from stepreward.core.optional import Deferred
from stepreward.score.encode.formula import RUNNING, is_name
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, Encoding
from stepreward.train.data.factors import Factor
from stepreward.train.objective_data import COLUMNS, LAGGING, OF_FEATURES, OF_TOKENS, OUTPUTS, at_ends, zeros
from stepreward.train.objectives.loss import Loss, only, outputs_of
from stepreward.train.objectives.reading import OutputReading
from stepreward.train.objectives.returns import kto

if TYPE_CHECKING:
    import torch

    from stepreward.score.model.log_ratio_model import Trainable
    from stepreward.train.data.training_batch import TrainingBatch
else:
    torch = Deferred("torch")


@dataclass(frozen=True)
class Objective:
    """A loss of the catalog, its hyper-parameters, and the columns of a table that it reads.

    Raises:
        UnknownNameError: there is no such hyper-parameter.
        InputError: it reads columns that are not named, or none that is named; or the formula is none.
        ValueError: a hyper-parameter is outside its range.
    """

    method: Method[..., Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    labels: str = COLUMNS["labels"]
    """Step column that `labels` are taken from."""
    targets: tuple[str, ...] = ()
    """Step columns that `targets` are taken from, one an output."""
    width: int = 0
    """Outputs of a step; 0 for as many as the objective needs."""
    formula: str = ""
    """Of a step's score, in place of the objective's own; see `score.encode.formula.parse`."""

    reference: str = ""
    """Frozen language model, whose log-ratios are trained; empty for a head, or for the backbone itself."""
    beta: float = 0.05
    """Scale of log-ratios."""
    annotators: tuple[str, ...] = ()
    """Names of those who compared the training data, in the order of their numbers."""
    factors: tuple[Factor, ...] = ()
    """What decides pairs, the most important first; empty for the outcome."""

    def __post_init__(self) -> None:
        name = self.method.name
        if self.of_ratios and {"outputs", "ends", "token_values", *OF_FEATURES} & {*self.method.data}:
            what = f"the objective {name} reads several outputs or features of a step, a log-ratio is one number"
            raise InputError(what, remedy="leave reference out, or take an objective of totals")
        if ("targets" in self.method.data) != bool(self.targets):
            what = "reads several columns" if not self.targets else "reads no column of targets"
            remedy = "name them as targets" if not self.targets else "leave targets out, or take objective 'columns'"
            raise InputError(f"the objective {name} {what}", remedy=remedy)
        if self.factors and "pairs" not in self.method.data:
            raise InputError(f"the objective {name} compares no pairs", remedy="leave factors out")
        wanted = self.reading.columns
        if wanted not in (0, len(self.targets)):
            raise InputError(f"the objective {name} reads {wanted} columns", remedy=f"name {wanted} of them as targets")
        if ("cells" in self.method.data or "ends" in self.method.data) and not self.width:
            raise InputError(f"the objective {name} has any number of outputs", remedy="say how many: outputs")
        one = {"labels": torch.zeros(1, 1), "mask": torch.ones(1, 1, dtype=torch.bool)}
        self.method.take(zeros(self.method.data, 1, 1, self.n_outputs) | one, **self.settings)
        if self.formula:
            try:
                self.readout()
            except ValueError as error:
                raise InputError(f"readout: {error}", remedy="see the guide to training") from error

    @classmethod
    def of(cls, name: str, **settings: Any) -> Objective:
        """An objective by name, with hyper-parameters.

        Raises:
            UnknownNameError: there is no such objective, or it has no such hyper-parameter.
        """
        return cls(losses[name], settings)

    @property
    def of_ratios(self) -> bool:
        """Whether it trains log-ratios of a language model to a reference, not a head."""
        return bool(self.reference) or "reference" in self.method.asks

    @property
    def reading(self) -> OutputReading:
        """What its outputs are."""
        stated: OutputReading = self.method.reading or OutputReading()
        return stated

    @property
    def all_settings(self) -> dict[str, Any]:
        """Its hyper-parameters, defaults among them."""
        return {**self.method.settings, **self.settings}

    @property
    def trains_rewards(self) -> bool:
        """Whether its outputs are rewards, whose zero and unit are free or come from outcomes."""
        return self.reading.rewards

    @property
    def outputs_are_alike(self) -> bool:
        """Whether each of its outputs can begin as the score of an earlier model."""
        return bool({"logits", "totals"} & {*self.method.data}) or self.reading.alike

    @property
    def compares(self) -> bool:
        """Whether all trajectories of a problem must be in one batch."""
        return bool({"group", "pairs", "siblings"} & {*self.method.data}) or self.method.function is kto

    @property
    def compares_problems(self) -> bool:
        """Whether the loss of a trajectory depends on those of other problems in its batch."""
        return self.method.function is kto or "views" in self.method.data or self.infers_users

    @property
    def infers_users(self) -> bool:
        """Whether the numbers of an annotator are made of other pairs of theirs in a batch."""
        return "latents" in self.method.data

    @property
    def reads_features(self) -> bool:
        """Whether a forward pass has to return what the last layer of the head reads."""
        return bool({*OF_FEATURES} & {*self.method.data}) or self.infers_users

    @property
    def of_policy(self) -> bool:
        """Whether it trains a language model together with values of its states."""
        return self.reading.policy

    @property
    def lags(self) -> bool:
        """Whether its targets are made of what a lagging copy of the model says."""
        return bool({*LAGGING} & {*self.method.data})

    @property
    def reads_next_tokens(self) -> bool:
        """Whether it trains a head with an entry for each next token."""
        return "token_values" in self.method.data

    @property
    def reads_tokens(self) -> bool:
        """Whether it reads arrays of the tokens of each trajectory's steps."""
        return bool({*OF_TOKENS} & {*self.method.data})

    @property
    def columns(self) -> dict[str, tuple[str, ...]]:
        """The step columns behind each data of steps that it reads."""
        named = {**COLUMNS, "labels": self.labels}
        made = {name: (named[name],) for name in self.method.data if name in named}
        if "siblings" in self.method.data:
            made["labels"] = (self.labels,)
        return made | ({"targets": self.targets} if self.targets else {})

    @property
    def n_outputs(self) -> int:
        """Outputs of the head."""
        return outputs_of(self.all_settings) or len(self.targets) or self.width or 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs in formulas; empty where they have none of their own."""
        columns = tuple(re.sub(r"\W", "_", name) for name in self.targets)
        names = self.reading.names(self.all_settings, self.n_outputs) or columns
        return names if len({*names}) == len(names) and all(map(is_name, names)) else ()

    def readout(self) -> Readout:
        """What makes a score of a fresh head's outputs: the formula, or one of them, such as the median.

        Raises:
            InputError: none of the outputs is a score.
            ValueError: the formula is none of these outputs.
        """
        if self.of_ratios:
            return Readout("implicit", beta=self.beta, reference=self.reference, formula=self.formula)
        reading, settings = self.reading, self.all_settings
        score = reading.score(settings)
        made = Readout(
            "softmax" if reading.softmax else "sigmoid" if self.fits_probabilities else "value",
            n_labels=self.n_outputs,
            next_token=self.reads_next_tokens,
            positive=max(score, 0),
            exits=int(settings.get("exits", 0)),
            names=self.output_names,
            policy=reading.policy,
            begins=self.n_outputs // 2 if reading.begins else 0,
        )
        formula = reading.formula_of(settings, made.output_names)
        if not (formula or self.formula) and score < 0:
            what = f"no output that {self.method.name} trains is the score of a step"
            raise InputError(what, remedy="say how a score is made of them: readout")
        own = replace(made, formula=formula)
        return own.with_formula(self.formula) if self.formula else own

    def record(self, encoding: Encoding, *, surprise: bool = False, both_ways: bool = False) -> EncoderRecord:
        """The record of a model that this objective trains.

        Where the score is a running total or mean, or only a trajectory's last output is trained, the last step's score
        is that of the solution; where the sum of rewards is trained, the sum is. Where the score is a gain or a
        log-ratio, a step without one is taken for wrong.

        Args:
            encoding: how trajectories become tokens.
            surprise: whether the head also reads the surprise of a step.
            both_ways: whether steps are also read in reversed order.

        Raises:
            InputError: none of the outputs is a score.
        """
        ahead = {"siblings", "latents", *OF_FEATURES} & {*self.method.data}
        read_more = self.of_ratios or self.reading.policy or self.reading.begins
        if ((both_ways or surprise) and read_more) or (both_ways and ahead):
            what = f"the objective {self.method.name} reads each step behind its prefix, by no head with more inputs"
            raise InputError(what, remedy="drop both_ways and surprise")
        readout = replace(self.readout(), surprise=surprise)
        functions = readout.parsed.functions
        try:
            plain = EncoderRecord(encoding, readout, both_ways=both_ways)
        except ValueError as error:
            raise InputError(str(error), remedy="drop one of the two") from error
        at_last = functions & {*RUNNING} or ({"totals", "ends"} & {*self.method.data} and not self.columns)
        summed = self.reading.summed and not (self.of_ratios or self.formula)
        return replace(
            plain,
            aggregation="last" if at_last else "sum" if summed else plain.aggregation,
            threshold=0.0 if "gain" in functions or self.of_ratios or (summed and self.of_policy) else plain.threshold,
        )

    @property
    def fits_probabilities(self) -> bool:
        """Whether its outputs are logits of probabilities, so that labels must be in [0, 1]."""
        return self.all_settings.get("link") != "none" and not self.trains_rewards

    def __call__(self, model: Trainable, outputs: torch.Tensor, batch: TrainingBatch) -> Loss:
        """The loss of a batch.

        Args:
            model: the model that made them.
            outputs: what its forward pass returned for the batch.
            batch: on the same device.
        """
        names = self.method.data
        made = {"mask": batch.mask, **batch.data, **self._said(model, outputs, batch)}
        if self.lags:
            late = outputs if batch.lagging is None else batch.lagging
            made |= {f"lagging_{name}": one for name, one in self._said(model, late.detach(), batch).items()}
        if "ends" in names:
            made["ends"] = at_ends(made["outputs"], batch.mask)
        if "totals" in names:
            logits = made["logits"]
            ends = only(batch.mask, logits).sum(1) if self.of_ratios else at_ends(logits, batch.mask)
            made["totals"] = torch.where(batch.mask.any(1), ends, torch.nan)
        # A model of log-ratios has no features and no users: such objectives are refused for it.
        headed: Any = model
        if "slopes" in names:
            made["slopes"] = headed.slope().expand(batch.mask.shape)
        if "views" in names:
            made["views"] = batch.gather(headed.step_features(model(batch.packed)).float())
        if self.infers_users:
            context = batch.data["pairs"], batch.data["annotator"], batch.problems
            made["users"], made["latents"] = headed.users(at_ends(made["features"], batch.mask), *context)
        elif "users" in names:
            made["users"] = headed.annotator_numbers(batch.data["annotator"])
        return self._loss(made)

    def _said(self, model: Trainable, outputs: torch.Tensor, batch: TrainingBatch) -> dict[str, torch.Tensor]:
        """What the outputs of a forward pass say of each token and step, as far as it is read."""
        names, made = self.method.data, dict[str, torch.Tensor]()
        reads = model.step_outputs(outputs, batch.packed)
        if "token_rewards" in names:
            made["token_rewards"] = self.beta * batch.gather_tokens(outputs)
        if "token_values" in names:
            made["token_values"] = batch.gather_tokens(outputs[:, 0])
        if {"outputs", "ends"} & {*names}:
            made["outputs"] = batch.gather(reads.float())
        if {"logits", "totals"} & {*names}:
            made["logits"] = batch.gather(model.step_logits(reads))
        if self.reads_features:
            headed: Any = model
            made["features"] = batch.gather(headed.step_features(outputs).float())
        return made

    def counts(self, batch: TrainingBatch) -> torch.Tensor:
        """(M,) float64 units that the loss of a batch is a mean of: of the data alone, before any pass."""
        rows, steps = batch.mask.shape
        tokens = batch.token.shape[1] if batch.token is not None else 0
        made = zeros([n for n in self.method.data if n in OUTPUTS], rows, steps, self.n_outputs, tokens)
        for name, width in (("users", self.n_outputs), ("latents", 2 * self.n_outputs)):
            if name in made:
                made[name] = torch.zeros(len(batch.data["pairs"]), width)
        made = {name: array.to(batch.mask.device) for name, array in made.items()}
        return self._loss({**made, "mask": batch.mask, **batch.data}).counts.double()

    def _loss(self, available: Mapping[str, torch.Tensor]) -> Loss:
        made = self.method.take({n: available[n] for n in self.method.data if n in available}, **self.settings)
        # A plug-in may return a scalar; the mean of a batch is then that of its parts.
        return made if isinstance(made, Loss) else Loss(made[None], torch.ones_like(made[None]))

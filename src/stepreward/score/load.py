"""A scorer by name or path; loads torch only for a scorer with weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Policy
from stepreward.score import on_demand
from stepreward.score.baselines import WITHOUT_MODEL, WithoutModel
from stepreward.score.checkpoints.known_checkpoints import judge_of
from stepreward.score.checkpoints.row import Head
from stepreward.score.checkpoints.unread import refuse_unread
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.judges.generative import GenerativeScorer
from stepreward.score.judges.own_prompt import with_own_prompt
from stepreward.score.model.cache_memory import CacheSize
from stepreward.score.stored_scores import STORED, StoredScores
from stepreward.score.tools.checker_scorer import CHECK, CheckerScorer

if TYPE_CHECKING:
    import torch

    from stepreward.score.executed import ExecutedScorer
    from stepreward.score.on_demand import ByRecipe, CalibratedScorer

    Bare = ByRecipe | CheckerScorer | GenerativeScorer | StoredScores | WithoutModel
    Loaded = Bare | CalibratedScorer | ExecutedScorer


class OpenPolicy(Protocol):
    """What makes a policy of its name, such as `policies.named.policy_at`."""

    def __call__(self, source: str, /, *, raw: bool, dtype: str) -> Policy:
        """The policy; `raw` where its prompts are whole conversations, `dtype` "" for its own numbers."""


def load(
    name: str | Path,
    *,
    like: str = "",
    record: EncoderRecord | str | Path | None = None,
    readout: str = "",
    head: Head | None = None,
    reference: str | Path = "",
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "",
    cache_bytes: int | str | CacheSize = 0,
    also: Mapping[str, str] | None = None,
    calibrated: bool = True,
    calibrator: str | Path | None = None,
    answers: int = 1,
    open_policy: OpenPolicy | None = None,
) -> Loaded:
    """Loads a scorer from a checkpoint folder or a hub name, or reaches one in a server or an engine.

    A checkpoint of stepreward has its own record of how it is scored. A public one is looked up in the table of
    checkpoints by its name, by the name in its configuration or by its architecture; any other is scored as `like` or
    `record` say.
    Some scorers need no weights: `tool` computes equations again, `check:NAME` is a checker of the family check,
    `stored:TABLE#COLUMN` gives the scores that a table has;
    `random`, `length` and `constant` are baselines. A verifier that writes its verdicts is a policy, by the row of
    its name or of `like`.

    The scorer's name says which recipe it follows and in which numbers it computes, where these are not its own.

    Args:
        name: folder written by `train` or `stepreward run`, folder in transformers format, hub name, address of a
            model in a server, see `by_recipe.served_at`, `vllm:NAME` for a vLLM engine in this process, or a name
            without weights (a folder of the same name is `./tool`).
        like: name of the row to follow where the name does not decide it, such as `trl-prm`.
        record: encoder record in place of the row's or the checkpoint's own, or a JSON file of the fields that differ;
            of a verifier that writes, a file of the fields of its row that do, such as `prompt_format`.
        readout: formula of another score of the same model, such as `gain(score, 0.5)`, or the name of an output or of
            a definition in its record's formula; see `score.encode.formula.parse`. Empty for the record's own.
        head: where labels come from, in place of the row's.
        reference: the reference model of an implicit score, in place of the row's.
        device: torch device; `auto` is CUDA where there is one. A server or an engine chooses its own, and its dtype.
        dtype: of the weights, such as `bfloat16`, which halves their memory and that of the cache; `auto` is what the
            checkpoint was saved in, and float32 on a CPU; empty is float32, and of a verifier that writes its own.
        cache_bytes: memory for the keys and values of growing trees between calls, so that a search pays for new tokens
            only: bytes, a text such as `2GiB`, or `auto`: half of what is free on a CUDA device, a quarter of free RAM,
            at most 16 GiB. 0 keeps none.
        also: further numbers of each step by name, each by a formula as `readout` is: `{"low": "q10"}`. They come from
            the same pass, as `Scored.columns`; for a model in this process with a head. No calibrator maps them.
        calibrated: map scores by a calibrator, where there is one.
        calibrator: its file; None is the one in the checkpoint's folder.
        answers: sampled of a verifier that writes.
        open_policy: makes the policy of a verifier that writes.

    Raises:
        InputError: a recipe is given for a scorer that has none, the device is not here, a file is no record or no
            calibrator, or a verifier that writes has no `open_policy`.
        ModelError: there is no such checkpoint, it cannot be read, or nothing says how it is scored, as of the models
            in `checkpoints.unread`.
        UnknownNameError: no row is called `like`, or there is no such device, dtype or field of a record.
    """
    if device != "cpu":  # which is always here, with or without torch
        on_demand.device_of(device)
    if not like and record is None:
        refuse_unread(name)
    scorer: Bare
    beside: Path | None = None
    judge = judge_of(like or str(name))
    if judge is not None:
        if isinstance(record, EncoderRecord) or readout or also:
            what = f"{judge.name} writes its verdicts: no encoder record says how it is read"
            raise InputError(what, remedy="drop --readout and --also; --record is a file of a judge's own words")
        if record is not None:
            judge = with_own_prompt(judge, Path(record))
        if open_policy is None:
            raise InputError(f"{judge.name} writes its verdicts", remedy="pass open_policy=policies.named.policy_at")
        scorer = GenerativeScorer(open_policy(str(name), raw=judge.raw, dtype=str(dtype)), judge, n=answers)
    elif name in WITHOUT_MODEL or str(name).startswith((CHECK, STORED)):
        if like or record or readout or also or head or reference:
            what = f"{name!r} has no weights, and no recipe to follow"
            raise InputError(what, remedy="leave like, record and readout out")
        rule = str(name).removeprefix(CHECK)
        if str(name).startswith(STORED):
            scorer = StoredScores(str(name).removeprefix(STORED))
        else:
            scorer = WITHOUT_MODEL[rule]() if name in WITHOUT_MODEL else CheckerScorer(rule)
    else:
        scorer, beside = on_demand.scorer_by_recipe(
            name, like=like, record=record, readout=readout, head=head, reference=reference,
            device=device, dtype=dtype or "float32", cache_bytes=cache_bytes, also=also,
        )  # fmt: skip
    file = beside if calibrator is None else Path(calibrator)
    if not calibrated or file is None:
        return scorer
    return on_demand.CalibratedScorer(scorer, on_demand.read_calibrator(file))

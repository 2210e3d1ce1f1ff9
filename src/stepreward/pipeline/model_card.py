"""The card of an exported model: README.md with the hub's metadata, from what the training wrote down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stepreward.core.catalog import loss
from stepreward.pipeline.card_code import ids_code, quoted, transformers_code, vllm_code
from stepreward.score.encode.record import EncoderRecord
from stepreward.score.model.layouts import OWN, Layout

_METRICS = {
    "auroc": "AUROC of the step scores",
    "f1": "F1 of the first error, at the threshold that is best for these very solutions",
    "threshold": "that threshold",
    "brier": "Brier score, 0 is perfect",
    "ece": "expected calibration error",
    "loss": "loss of the objective",
}
_NOT_SHOWN = ("device", "save_seconds", "objective_settings")
_PIPELINES = {"token": "token-classification", "sequence": "text-classification"}
_UNKNOWN = "Not recorded: this model was not exported from the folder of its training."


def model_card(record: EncoderRecord, layout: Layout, name: str, training: Mapping[str, Any], *, mapped: bool) -> str:
    """The text of README.md.

    Args:
        record: of the exported model.
        layout: of its files.
        name: hub name or folder.
        training: content of `training.json`; empty where there is none.
        mapped: whether a calibrator is beside the model.
    """
    metadata = yaml.safe_dump(_metadata(layout, name, training), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{metadata}---\n# {Path(name).name}",
        "A process reward model: it gives each step of a solution a score."
        f" Files: the layout `{layout.name}`, for {layout.readers}. Written by stepreward.",
        *_training_parts(training),
        *_measured_parts(training),
        *_score_parts(record, layout, name),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(record, mapped)),
        "## Licence",
        "None is chosen yet: add `license:` to the metadata above. Mind those of the base model and of the data.",
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(layout: Layout, name: str, training: Mapping[str, Any]) -> dict[str, Any]:
    library = "peft" if layout.adapter else "transformers" if layout.task else "stepreward"
    made: dict[str, Any] = {"library_name": library}
    if layout.task:
        made["pipeline_tag"] = _PIPELINES[layout.task]
    objective = training.get("settings", {}).get("objective")
    made["tags"] = ["stepreward", "process-reward-model", "reward-model", *([objective] if objective else [])]
    # Names of local folders would be links to models of others.
    if "/" in (base := training.get("backbone", "")):
        made["base_model"] = base
    metrics = [
        {"type": key, "name": _METRICS[key], "value": round(value, 4)}
        for key, value in training.get("metrics", {}).items()
        if key in ("auroc", "f1", "brier", "ece")
    ]
    if metrics:
        task, dataset = {"type": "process-reward"}, {"type": "own", "name": "held-out problems of the training data"}
        result = {"task": task, "dataset": dataset, "metrics": metrics}
        made["model-index"] = [{"name": Path(name).name, "results": [result]}]
    return made


def _training_parts(training: Mapping[str, Any]) -> Iterator[str]:
    yield "## Training"
    settings = training.get("settings")
    if not settings:
        yield _UNKNOWN
        return
    # The objective of a plug-in may not be here.
    paper = loss[settings["objective"]].paper if settings["objective"] in loss else ""
    paper = f" ({paper})" if paper else ""
    own = ", ".join(f"`{key}={value!r}`" for key, value in settings.get("objective_settings", {}).items())
    size, data = training.get("sizes", {}).get("data", {}), training.get("identity", {}).get("data", "")
    counted = f"{size['solutions']:,} solutions of {size['problems']:,} problems, " if size else ""
    yield "\n".join(
        f"- {line}"
        for line in (
            f"Base model: {training.get('backbone') or 'a small fresh one'}",
            f"Data: {counted}{training['tokens']:,} tokens a pass, each shared prefix once; hash `{data}`",
            f"Objective: `{settings['objective']}`{paper}{f', with {own}' if own else ''}",
            f"Steps of the optimizer: {training['steps']:,}",
        )
    )
    shown = {key: value for key, value in settings.items() if key not in _NOT_SHOWN and value not in ("", [], {})}
    yield _table(("setting", "value"), [(f"`{key}`", f"`{value}`") for key, value in shown.items()])


def _measured_parts(training: Mapping[str, Any]) -> Iterator[str]:
    yield "## Numbers"
    metrics, intervals = training.get("metrics", {}), training.get("intervals", {})
    if not metrics:
        yield "Nothing was held out, so that nothing was measured." if training else _UNKNOWN
        return
    size = training.get("sizes", {}).get("held_out", {})
    of = f"{size['solutions']:,} solutions of {size['problems']:,} problems" if size else "problems"
    yield f"On {of} of the same data that training did not see. Intervals are 95 %, by a bootstrap over problems."
    rows = []
    for key, about in _METRICS.items():
        if key in metrics:
            low, high = intervals.get(key, (None, None))
            rows.append((about, f"{metrics[key]:.3f}", "" if low is None else f"{low:.3f} to {high:.3f}"))
    yield _table(("metric", "value", "interval"), rows)


def _score_parts(record: EncoderRecord, layout: Layout, name: str) -> Iterator[str]:
    yield "## Score with stepreward"
    yield _block("python", f'import stepreward\n\nscorer = stepreward.load({quoted(name)})\n'
                 'print(scorer.score("1 + 1 = ?", ["1 + 1 = 2", "Answer: 2"]).tolist())\n')  # fmt: skip
    if layout is OWN:
        return
    yield "## Score with other libraries"
    yield "Each step is tokenised by itself and read where it ends; tokens of joined text may be others."
    yield _block("python", ids_code(record, layout, name))
    if layout.task:
        yield "With PEFT:" if layout.adapter else "With transformers:"
        yield _block("python", transformers_code(record.readout, layout))
    if layout.adapter:
        return
    pooler = """ --pooler-config '{"tok_pooling_type": "ALL"}'""" if layout.outputs == "two" and not layout.task else ""
    yield "With a server of vLLM:"
    yield _block("console", f"$ vllm serve {name} --runner pooling{pooler}\n")
    yield _block("python", vllm_code(record.readout, layout))


def _limits(record: EncoderRecord, mapped: bool) -> Iterator[str]:
    yield f"Solutions of up to {record.encoding.max_length:,} tokens, the question included."
    yield "The numbers above are of the data that it was trained for; on other tasks it was not measured."
    yield f"Where no other threshold is chosen, a step at or below {record.threshold:g} counts as wrong."
    if record.encoding.images == "ignored":
        yield "It sees text alone; images are passed over."
    if mapped:
        yield "stepreward maps its scores by `calibrator.json`; other libraries give them without that."


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def _block(language: str, code: str) -> str:
    return f"```{language}\n{code}```"

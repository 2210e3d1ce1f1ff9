"""The page of checkpoints, written from the table."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from typing import Any

from stepreward.score.checkpoints.known_checkpoints import checkpoints, judges
from stepreward.score.checkpoints.row import JudgeCheckpoint
from stepreward.score.checkpoints.unread import UNREAD
from stepreward.score.encode.record import PerStep

_HEAD = """# Checkpoints

Public reward models are rows of one table: which text they see, what the tokenizer sees at once, where they are
read and how the logits become a score. Each row is tested against its published recipe, written out by hand in plain
`transformers` calls, on a tiny random checkpoint of the same architecture, file layout and tokenizer behaviour: scores
differ by less than 1e-5 in float32 ([row by row](results/checkpoint-parity.md)). No code of a checkpoint is run, and
pickled weights are read as tensors or refused.

```text
import stepreward
stepreward.load("Qwen/Qwen2.5-Math-PRM-7B").score("1 + 1 = ?", ["1 + 1 = 2"])     # a hub name, or a local folder
```

A local folder is recognised by its name, by the name in its configuration, or by its architecture. Any other model is
scored by a row that it follows, `load(folder, like="trl-prm")`, or by a record of its own:

```text
from dataclasses import replace
from stepreward.score.checkpoints.known_checkpoints import by_name
record = by_name("trl-prm").record
stepreward.load(folder, record=replace(record, encoding=replace(record.encoding, separator="\\n\\n")))
```

On the command line these are `--like trl-prm` and `--record FILE.json`, a file with the fields that differ.

Steps may come with the line breaks between them: `chomp` and `strip` take them off where the recipe has none. A step
whose position is lost, past the longest input or in a separator that melts into its text, has no score (NaN).

Of models that see images (VisualPRM, URSA-RM) the language model alone is loaded: problems without images are scored,
those with images are refused. Verifiers that write a judgement (ThinkPRM, GenPRM, R-PRM and others) are
[below](#verifiers-that-write).

## In a server

A model that a server holds is scored with the same record, by its address: `URL#NAME`, where NAME, a hub name or a
folder, tells the recipe and the tokenizer. Tokens are built here and sent as ids. A reward model in a vLLM server
answers at `/pooling`, `/classify` or `/score`, and the softmax is applied where the server left it. A language model
that answers with a label token (Math-Shepherd, RLHFlow, ER-PRM, FoVer and others) can be in any server with OpenAI's
`/v1/completions` and log-probabilities: the labels are compared behind each read position, and a label that the
server cannot tell the probability of is an error, not a zero.

```text
stepreward.load("http://localhost:8000#Qwen/Qwen2.5-Math-PRM-7B").score("1 + 1 = ?", ["1 + 1 = 2"])
stepreward.load("http://localhost:8000#peiyi9979/math-shepherd-mistral-7b-prm?endpoint=completions")
```

On the command line the address is what `--model` takes. A key is read from STEPREWARD_API_KEY, or OPENAI_API_KEY.

"""
_JUDGES = """
## Verifiers that write

Some verifiers write a judgement of each step. Any policy can write it, a local model or one in a server; its answers
are sampled, and a step's score is the mean of its verdicts. The prompts are those of the authors, tested against
scripts, not on their weights.

```text
$ stepreward score --model launch/ThinkPRM-1.5B --answers 4 --data rows.jsonl
$ stepreward score --model http://localhost:8000/v1#verifier --like GenPRM/GenPRM-7B --data rows.jsonl
```

```text
from stepreward.policies.local import LocalPolicy
from stepreward.score.checkpoints.known_checkpoints import judge_by_name
from stepreward.score.judges.generative import GenerativeScorer
policy = LocalPolicy.load("launch/ThinkPRM-1.5B")
GenerativeScorer(policy, judge_by_name("launch/ThinkPRM-1.5B"), n=4).score("1 + 1 = ?", ["1 + 1 = 2"])
```

With `chooser=LanguageModelChooser.load("GenPRM/GenPRM-7B")` of `stepreward.score.judges.continuations`, GenPRM's
verdict is the probability of Yes beside that of No, instead of a sampled word; `ServedChooser` of
`stepreward.score.remote.label_tokens_server` asks a completions server for it."""
_UNREAD = """
## Known, and not here

A name that is listed here is refused, in a sentence that says why: scores by a recipe that we guessed would look like
its authors'. Whoever knows the recipe passes a row that it follows (`--like`) or a record of their own (`--record`).
"""
_PROMPTING = {
    "once": "one for all steps",
    "dialogue": "one message a step",
    "apart": "one for each step by itself",
}
_SEEN = {"conversation": "text between added tokens", "whole-text": "the whole text", "per-prefix": "one text a step"}
_SEEN_OF_STEPS = {"step": "each step by itself", "segment": "text between added tokens"}


def checkpoints_page() -> str:
    """Every row of the table of public checkpoints: its recipe, source and how to score with it."""
    lines = [_HEAD, "| checkpoint | the tokenizer sees | score | threshold |", "|---|---|---|---|"]
    for row in checkpoints.values():
        record, encoding = row.record, row.record.encoding
        seen = _SEEN_OF_STEPS[encoding.tokenise] if isinstance(encoding, PerStep) else _SEEN[encoding.kind]
        lines.append(
            f"| [{row.name}](#{re.sub(r'[^a-z0-9_-]+', '', row.name.lower())}) | {seen} | "
            f"{record.readout.kind} | {record.threshold:g} |"
        )
    for row in checkpoints.values():
        call = f'stepreward.load("{row.name}")' if not row.generic else f'stepreward.load(folder, like="{row.name}")'
        lines += ["", f"## {row.name}", "", "```text", f"{call}.score(question, steps)", "```", ""]
        others = ", ".join(f"`{name}`" for name in row.names[1:])
        facts = {
            "Also": others,
            "Source": row.source,
            "Labels": {"weights": "a head among the weights", "mean": "the mean of all logits"}.get(row.head, ""),
            "Reference model": f"`{row.readout.reference}`" if row.readout.reference else "",
            "Its authors' example scores": ", ".join(f"{score:g}" for score in row.golden),
            "Notes": row.notes,
        }
        lines += [f"- {what}: {value}" for what, value in facts.items() if value]
        lines += ["", "```python", _constructor_call(row.record), "```"]
    return "\n".join([*lines, *_judge_sections(), *_unread_section()])


def _constructor_call(part: Any, indent: str = "") -> str:
    """The expression that makes a record or a part of it, with the fields that differ from its defaults."""
    blank, lines = type(part)(), [f"{type(part).__name__}("]
    for field in fields(part):
        value = getattr(part, field.name)
        if value != getattr(blank, field.name):
            made = _constructor_call(value, f"{indent}    ") if is_dataclass(value) else repr(value)
            lines.append(f"{indent}    {field.name}={made},")
    return "\n".join([*lines, f"{indent})"])


def _read(judge: JudgeCheckpoint) -> str:
    """What is read of an answer of a verifier that writes."""
    if judge.highest:
        return f"a number up to {judge.highest:g} in a box"
    if judge.reading == "first-error":
        return "the index of the first wrong step, or -1, in the last box"
    if judge.reading == "lines":
        parts = [f"`{name}=yes` or `no`" for name in judge.channels] or [f"`{word}`" for word, _ in judge.words]
        return f"a line `Step N: ...` for each step with {', '.join(parts)}"
    return " and ".join(f"`{label}`" for label in judge.labels)


def _unread_section() -> list[str]:
    """The part on models without a row."""
    lines = [_UNREAD]
    for row in UNREAD:
        names = ", ".join(f"`{name}`" for name in row.names)
        lines.append(f"- {names}: {row.lacks}." + (f" But {row.instead}." if row.instead else ""))
    return [*lines, "- GUI-Shepherd (arXiv:2509.23738): no weights, data or program of it are public where we looked."]


def _judge_sections() -> list[str]:
    """The part on verifiers that write."""
    lines = [_JUDGES]
    for judge in judges.values():
        others = ", ".join(f"`{name}`" for name in judge.names[1:])
        facts = {
            "Also": others,
            "Source": judge.source,
            "Prompts": _PROMPTING[judge.prompting],
            "Read": _read(judge),
            "Notes": judge.notes,
        }
        lines += ["", f"### {judge.name}", "", *(f"- {what}: {value}" for what, value in facts.items() if value)]
    return lines

"""Code of a model card: how to score with other libraries, written for one record and layout."""

from __future__ import annotations

import json

from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.model.layouts import Layout

_TRANSFORMERS = """model = {load}.eval()
with torch.no_grad():
    outputs = {outputs}
print({scores}.tolist())
"""
_AT_READS = "model(torch.tensor([ids])).logits[0, reads]"
_EACH_PREFIX = "torch.cat([model(torch.tensor([ids[: at + 1]])).logits for at in reads])"
_VLLM = """import httpx

body = {{"model": NAME, "use_activation": False, "input": {sent}}}
data = httpx.post("http://localhost:8000/{endpoint}", json=body, timeout=60).json()["data"]
outputs = torch.tensor({outputs})
print({scores}.tolist())
"""


def ids_code(record: EncoderRecord, layout: Layout, name: str) -> str:
    """Code that makes the token ids `ids` of an example and its read positions `reads`.

    Args:
        record: of the exported model; its encoding is one that `write_layout` accepts.
        layout: of the exported model.
        name: hub name or folder.
    """
    encoding = record.encoding
    assert isinstance(encoding, PerStep)
    auto = f"{_auto_class(layout)}, " if layout.task and not layout.adapter else ""
    back = 1 if encoding.read == "at" else 2
    lines = [
        "import torch",
        f"from transformers import {auto}AutoTokenizer",
        "",
        f"NAME = {quoted(name)}",
        "tokenizer = AutoTokenizer.from_pretrained(NAME)",
        "",
        "",
        "def encode(text, special=False):",
        '    return tokenizer(text, add_special_tokens=special)["input_ids"] if text or special else []',
        "",
        "",
        'question, steps = "1 + 1 = ?", ["1 + 1 = 2", "Answer: 2"]',
        *(['reference = "2"'] if encoding.reads_reference else []),
        *_prompt_lines(encoding),
        f"ids, reads = encode(prompt{', special=True' if encoding.special_tokens else ''}), []",
        "for n, step in enumerate(steps, 1):",
        *(f"    {line}" for line in _step_lines(encoding)),
        f"    ids += encode(text) + encode({quoted(encoding.separator)})",
        f"    reads.append(len(ids) - {back})",
    ]
    return "\n".join(lines) + "\n"


def _prompt_lines(encoding: PerStep) -> list[str]:
    form = encoding.prompt_format
    put = '.replace("{reference}", reference)' if encoding.reads_reference else ""
    put += '.replace("{prompt}", question)'
    if encoding.template == "plain":
        bos = '.replace("{bos}", tokenizer.bos_token or "")' if "{bos}" in form else ""
        return [f"prompt = {quoted(form)}{bos}{put}"]
    # The line break of the plain default is no part of a message.
    content = f"{quoted(form)}{put}" if form != "{prompt}\n" else "question"
    system = f'{{"role": "system", "content": {quoted(encoding.system)}}}, ' if encoding.system is not None else ""
    return [
        f'messages = [{system}{{"role": "user", "content": {content}}}]',
        "prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)",
    ]


def _step_lines(encoding: PerStep) -> list[str]:
    text = "step"
    for how in encoding.clean:
        text += {"chomp": '.rstrip("\\r\\n")', "strip": ".strip()"}[how]
    if encoding.separator:
        text += f".removesuffix({quoted(encoding.separator)})"
    lines = [f"text = {text}"]
    first, later = encoding.step_format, encoding.later_format or encoding.step_format
    if (first, later) != ("{step}", "{step}"):
        form = f"({quoted(first)} if n == 1 else {quoted(later)})" if first != later else quoted(first)
        lines.append(f'text = {form}.replace("{{n}}", str(n)).replace("{{step}}", text)')
    if encoding.between:
        lines.append(f'text = ({quoted(encoding.between)} if n > 1 else "") + text')
    return lines


def transformers_code(readout: Readout, layout: Layout) -> str:
    """Code that scores the example of `ids_code` with transformers."""
    outputs = _AT_READS if layout.task == "token" else _EACH_PREFIX
    load = f"{_auto_class(layout)}.from_pretrained(NAME, dtype=torch.float32)"
    if layout.adapter:
        # The base knows nothing of labels: without their number its head would be of another size.
        labels = f"num_labels={readout.n_labels}"
        load = f"AutoPeftModelForTokenClassification.from_pretrained(NAME, {labels}, dtype=torch.float32)"
    code = _TRANSFORMERS.format(load=load, outputs=outputs, scores=scores_code(readout))
    return f"from peft import AutoPeftModelForTokenClassification\n\n{code}" if layout.adapter else code


def _auto_class(layout: Layout) -> str:
    return f"AutoModelFor{layout.task.capitalize()}Classification"


def vllm_code(readout: Readout, layout: Layout) -> str:
    """Code that scores the example of `ids_code` with a vLLM server."""
    sequence = layout.task == "sequence"
    return _VLLM.format(
        sent="[ids[: at + 1] for at in reads]" if sequence else 'ids, "encoding_format": "float"',
        endpoint="classify" if sequence else "pooling",
        outputs='[row["probs"] for row in data]' if sequence else '[data[0]["data"][at] for at in reads]',
        scores=scores_code(readout),
    )


def scores_code(readout: Readout) -> str:
    """The expression that makes scores of the tensor `outputs`."""
    right = [readout.positive, *readout.also]
    one = f"outputs[:, {readout.positive}]"
    shares = f"outputs.softmax(-1)[:, {right}].sum(-1)"
    return {
        "sigmoid": f"{one}.sigmoid()",
        "value": one,
        "tanh": f"{one}.tanh()",
        "softmax": shares,
        "difference": f"(2 * {shares} - 1)",
        "mean-sigmoid": "outputs.sigmoid().mean(-1)",
    }[readout.kind]


def quoted(text: str) -> str:
    """A text as Python code."""
    return json.dumps(text, ensure_ascii=False)

"""Published scoring recipes written out in plain transformers calls, one trajectory at a time.

Each returns a pair for each step: its score (NaN where the recipe finds no position) and the last token of the step.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from tests.score.tiny_checkpoints import Built

Pairs = list[tuple[float, int]]
NAN = float("nan")
_LIMIT = [10**9]
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


@contextlib.contextmanager
def cut_at(limit: int) -> Iterator[None]:
    """Within it, inputs are truncated to `limit` tokens."""
    _LIMIT[0] = limit
    try:
        yield
    finally:
        _LIMIT[0] = 10**9


@dataclass(frozen=True)
class Recipe:
    families: tuple[str, ...]
    layout: str
    recipe: Callable[[Built, str, list[str]], Pairs]
    seed: int = 0
    clean: Callable[[str], str] = lambda step: step.rstrip("\r\n")
    """What splitting a solution into steps does to each, before the recipe sees it."""

    def cleaned(self, steps: list[str]) -> list[str]:
        return [self.clean(step) for step in steps]

    def score(self, built: Built, question: str, steps: list[str]) -> list[float]:
        return [score if end < _LIMIT[0] else NAN for score, end in self.recipe(built, question, steps)]

    def lengths(self, built: Built, question: str, steps: list[str]) -> list[int]:
        return [end + 1 for _, end in self.recipe(built, question, steps)]


def tagged(
    ids: list[int], tag: int, texts: list[str], token: Callable[[str], list[int]], before: str = ""
) -> list[int]:
    """The positions of the tags that end steps: tags inside the prompt or a step are passed over."""
    found = [i for i, token_id in enumerate(ids) if token_id == tag]
    inside = [sum(t == tag for t in token(text)) for text in [before, *texts]]
    picked, at = [], inside[0]
    for count in inside[1:]:
        at += count
        picked.append(found[at] if at < len(found) else -1)
        at += 1
    assert at == len(found)
    return picked


def mlp(built: Built, hidden: torch.Tensor, name: str = "score") -> torch.Tensor:
    h = built.head
    x = torch.relu(hidden @ h[f"{name}.0.weight"].T + h[f"{name}.0.bias"])
    return x @ h[f"{name}.2.weight"].T + h[f"{name}.2.bias"]


def qwen_prm(system: str | None) -> Callable[[Built, str, list[str]], Pairs]:
    def recipe(built: Built, question: str, steps: list[str]) -> Pairs:
        tok = built.tokenizer
        messages = [{"role": "system", "content": system}] if system else []
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
        ]
        text = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        ids = tok.encode(text)
        at = tagged(ids, tok.encode("<extra_0>")[0], steps, tok.encode, question)
        if "score.0.weight" in built.head:
            scores = mlp(built, built.hidden(ids)).softmax(-1)[:, 1]
        else:
            scores = ensemble(built, built.hidden(ids)).sigmoid().mean(0)
        return [(float(scores[i]), i) for i in at]

    return recipe


def ensemble(built: Built, hidden: torch.Tensor) -> torch.Tensor:
    """(E, T) outputs."""
    h, out = built.head, []
    for e in range(len(h["score.model.nn1.bias"])):
        x = hidden
        for name in ("nn1", "nn2"):
            x = torch.relu(x @ h[f"score.model.{name}.weight"][e] + h[f"score.model.{name}.bias"][e])
        out.append((x @ h["score.model.nn_out.weight"][e] + h["score.model.nn_out.bias"][e])[:, 0])
    return torch.stack(out)


def skywork(built: Built, question: str, steps: list[str]) -> Pairs:
    """Lines are steps; a step's score is that of its last line."""
    tok = built.tokenizer
    ids = tok.encode((tok.bos_token or "") + question + "\n")
    newline, ends = tok.encode("\n")[-1], []
    for step in steps:
        for line in step.split("\n"):
            ids += (tok.encode(line) if line != "" else []) + [newline]
        ends.append(len(ids) - 1)
    hidden = built.hidden(ids)
    value = hidden @ built.head["v_head.summary.weight"].T + built.head["v_head.summary.bias"]
    return [(float(value[i, 0].sigmoid()), i) for i in ends]


def per_step(
    prompt: Callable[[Built, str], list[int]], separator: str, readout: Callable[[torch.Tensor], torch.Tensor]
):
    def recipe(built: Built, question: str, steps: list[str]) -> Pairs:
        tok, ids, ends = built.tokenizer, prompt(built, question), []
        separator_ids = tok(separator, add_special_tokens=False)["input_ids"]
        for step in steps:
            ids = ids + tok(step, add_special_tokens=False)["input_ids"] + separator_ids[-1:]
            ends.append(len(ids) - 1)
        scores = readout(built.logits(ids))
        return [(float(scores[i]), i) for i in ends]

    return recipe


def plain_ids(built: Built, text: str) -> list[int]:
    return built.tokenizer(text, add_special_tokens=False)["input_ids"]


def with_bos(built: Built, text: str) -> list[int]:
    bos = built.tokenizer.bos_token_id
    return ([bos] if bos is not None else []) + plain_ids(built, text)


def reason_eval(size: str) -> Callable[[Built, str, list[str]], Pairs]:
    def recipe(built: Built, question: str, steps: list[str]) -> Pairs:
        tok, separator = built.tokenizer, built.tokenizer.pad_token
        prompt = f"Question:\n{question}\nAnswer:\nLet's think step by step.\n"
        tokenized = tok(prompt + separator + "".join(step + separator for step in steps))["input_ids"]
        separator_id = tok(separator)["input_ids"][-1]
        labeled, adjusted, count = [], [], 0
        for idx, token_id in enumerate(tokenized):
            if token_id == separator_id:
                labeled.append(idx - 1 - count)
                count += 1
            else:
                adjusted.append(token_id)
        if size == "7B":
            adjusted, labeled = [1, *adjusted], labeled[2:]
        else:
            labeled = labeled[1:]
        assert len(labeled) == len(steps)
        scores = (built.hidden(adjusted) @ built.head["score_head.weight"].T + built.head["score_head.bias"]).softmax(
            -1
        )
        return [(float(scores[i, 1] + scores[i, 2]), i + (size == "7B")) for i in labeled]

    return recipe


def label_pair(built: Built, ids: list[int], tokens: list[int]) -> torch.Tensor:
    return built.logits(ids)[:, tokens].softmax(-1)


def math_shepherd(built: Built, question: str, steps: list[str]) -> Pairs:
    tok = built.tokenizer
    candidates = tok.encode("+ -")[1:]
    tag = tok.encode("ки")[-1]
    lines = []
    for idx, step in enumerate(steps):
        if step.strip().startswith("Step") or step.strip().startswith("step"):
            lines.append(f"{step.strip()} ки\n")
        else:
            lines.append(f"Step {idx + 1}: {step.strip()} ки\n")
    ids = tok.encode(f"{question} {''.join(lines)}")
    scores = label_pair(built, ids, candidates)[:, 0]
    at = tagged(ids, tag, steps, lambda text: tok.encode("x " + text), question)
    return [(float(scores[i]), i) for i in at]


def versa(built: Built, question: str, steps: list[str]) -> Pairs:
    tok = built.tokenizer
    tag = tok.encode(" \n\n\n\n", add_special_tokens=False)
    candidates = [tok.encode(t, add_special_tokens=False)[-1] for t in ("-", "+")]
    ids = tok.encode(f"{question} \n\n" + "".join(f"{step.strip()} \n\n\n\n" for step in steps))
    scores = label_pair(built, ids, candidates)[:, 1]
    return tag_scores(built, ids, tag, steps, scores, " \n\n\n\n")


def tag_scores(
    built: Built, ids: list[int], tag: list[int], steps: list[str], scores: torch.Tensor, text: str
) -> Pairs:
    """Scores at the tag's id, where it ends a step: not those of a tag that stands in a step."""
    assert len(tag) == 1
    inside = [step.strip().count(text) for step in steps]
    found = [i for i, token in enumerate(ids) if token == tag[0]]
    assert len(found) == len(steps) + sum(inside)
    picked, at = [], 0
    for count in inside:
        at += count
        picked.append((float(scores[found[at]]), found[at]))
        at += 1
    return picked


def math_psa(built: Built, question: str, steps: list[str]) -> Pairs:
    tok = built.tokenizer
    candidates = tok.encode(" + -")
    tag = tok.encode(" \n\n\n\n\n")
    ids = tok.encode(f"{question} " + "".join(f"{step.strip()} \n\n\n\n\n " for step in steps).removesuffix(" "))
    scores = label_pair(built, ids, candidates)[:, 0]
    return tag_scores(built, ids, tag, steps, scores, " \n\n\n\n\n")


def er_prm(built: Built, question: str, steps: list[str]) -> Pairs:
    tok = built.tokenizer
    tag = tok.encode(" ки")[-1]
    candidates = [tok.encode(" +")[-1], tok.encode(" -")[-1]]
    text = f"{question} " + "".join(f"{step.strip()} ки\n" for step in steps)
    ids = tok(text.replace(" ки\n", " ки"))["input_ids"]
    scores = label_pair(built, ids, candidates)[:, 0]
    at = tagged(ids, tag, [step.strip() for step in steps], tok.encode, question)
    return [(float(scores[i]), i) for i in at]


def llemma(built: Built, question: str, steps: list[str]) -> Pairs:
    tok = built.tokenizer
    joined = "".join(f"{step.replace(chr(10) * 2, '').strip()}\n\n" for step in steps)
    text = f"# Question\n\n{question}\n\n# Solution\n\n{joined}"
    begin = tuple(tok.encode("\n\n# Solution", add_special_tokens=False)[1:])
    scoring = tuple(tok.encode("\n\n", add_special_tokens=False)[1:])
    ids, found, positions = tok.encode(text), False, []
    for start in range(len(ids)):
        found |= tuple(ids[start : start + len(begin)]) == begin
        if found and tuple(ids[start : start + len(scoring)]) == scoring:
            positions.append(start)
    # Some of these end no step: those around "# Solution", and the second and third of four line breaks in a row.
    ends, so_far = [], f"# Question\n\n{question}\n\n# Solution\n\n"
    for step in steps:
        so_far += f"{step.replace(chr(10) * 2, '').strip()}\n\n"
        ends.append(len(tok.encode(so_far)) - 2)
    assert set(ends) <= set(positions)
    scores = built.logits(ids).mean(dim=-1).sigmoid()
    return [(float(scores[i]), i) for i in ends]


def rlhflow(built: Built, question: str, steps: list[str]) -> Pairs:
    """One forward pass for each step, read three tokens before the end."""
    tok, conversation, pairs = built.tokenizer, [], []
    candidates = [tok.encode("+")[-1], tok.encode("-")[-1]]
    for k, step in enumerate(steps):
        text = question + " " + step if k == 0 else step
        conversation += [{"content": text, "role": "user"}, {"content": "+", "role": "assistant"}]
        ids = tok.apply_chat_template(conversation, tokenize=True, return_dict=False)
        pairs.append((float(built.logits(ids)[-3, candidates].softmax(-1)[0]), len(ids) - 1))
    return pairs


FOVER = """** Problem **
{problem}

** Task **
Your task is to evaluate the accuracy of each step in the provided solution to the above question. For each step, \
respond with "correct" if the reasoning is logically valid and mathematically sound, or if the step is a general \
statement or transition that does not contain reasoning. Respond with "incorrect" if the step includes any errors or \
flawed logic.

** Sotluion **
{first_step}"""


def fover(built: Built, question: str, steps: list[str]) -> Pairs:
    tok, conversation = built.tokenizer, []
    for k, step in enumerate(steps):
        text = FOVER.replace("{problem}", question).replace("{first_step}", step) if k == 0 else step
        conversation += [{"role": "user", "content": text}, {"role": "assistant", "content": "correct"}]
    text = tok.apply_chat_template(conversation, tokenize=False)
    ids = tok.encode(text, add_special_tokens=False)
    labels = [tok.encode(t, add_special_tokens=False)[0] for t in ("incorrect", "correct")]
    header = (
        "<|im_start|>assistant\n" if "<|im_start|>" in text else "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    header_ids = tok.encode(header, add_special_tokens=False)
    at = [i + len(header_ids) - 1 for i in range(len(ids)) if ids[i : i + len(header_ids)] == header_ids]
    closing = tok.encode(
        "correct<|im_end|>\n" if "<|im_start|>" in text else "correct<|eot_id|>", add_special_tokens=False
    )
    scores = built.logits(ids)[:, labels].softmax(-1)[:, 1]
    return [(float(scores[i]), i + len(closing)) for i in at]


def universal(built: Built, question: str, steps: list[str]) -> Pairs:
    tok, pairs = built.tokenizer, []
    asked = question + "\n\n###\n\nThe reference answer is: There is no reference answer for this question."
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": asked}]
    for step_idx in range(1, len(steps) + 1):
        responses = "\n\n".join(steps[:step_idx]) + "\n\n"
        query = tok.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False)
        ids = query + tok(responses)["input_ids"] + [tok.eos_token_id]
        pairs.append((float(mlp(built, built.hidden(ids))[-1, 0].sigmoid()), len(ids) - 1))
    return pairs


def pathfinder(built: Built, question: str, steps: list[str]) -> Pairs:
    """Labels are filled into the last two masks, since a step may hold the same text."""
    tok, pairs = built.tokenizer, []
    labels, mask = [tok.encode("<+>")[0], tok.encode("<->")[0]], tok.encode("<extra>")[0]
    system = (
        "You are a Math Teacher. Given a question and a student's solution, evaluate the mathematical correctness, "
        "logic consistency of the current step and whether it will lead to the correct final solution"
    )

    def ask(answer: str, last: int) -> tuple[torch.Tensor, int]:
        chat = [
            {"role": "user", "content": f"{system}\n\n Question: {question}"},
            {"role": "assistant", "content": answer},
        ]
        ids = tok.apply_chat_template(chat, tokenize=True, return_dict=False)
        at = [i - 1 for i, token in enumerate(ids) if token == mask][-last:]
        return built.logits(ids)[at][:, labels], len(ids) - 1

    for i, step in enumerate(steps):
        before = "\n\n".join(steps[:i]) + "\n\n" if i else ""
        text = f"{before}Current Step: {step} Math reasoning: "
        first, end = ask(f"{text}<extra>, Consistency: <extra>", 2)
        signs = ["<+>" if row[0] >= row[1] else "<->" for row in first]
        if "<->" in signs:
            pairs.append((0.0, end))
            continue
        second, _ = ask(f"{text}{signs[0]}, Consistency: {signs[1]}, Correctness: <extra>", 1)
        pairs.append((float(second.softmax(-1)[0, 0]), end))
    return pairs


def hrm(built: Built, question: str, steps: list[str]) -> Pairs:
    pairs, previous = [], ""
    for step in steps:
        prompt = f"Question:\n{question}\n\nLet's break it down step by step!\n\n"
        if previous:
            prompt += f"Previous reasoning:\n{previous}\n\nNow, let's focus on the current step:\n{step}"
        else:
            prompt += f"Now, let's focus on the current step:\n{step}\n"
        pairs.append((last_logit(built, built.tokenizer(prompt)["input_ids"]), -1))
        previous += step
    return pairs


def last_logit(built: Built, ids: list[int]) -> float:
    """The pooled output of a sequence classifier, the input truncated on the right."""
    with torch.no_grad():
        return float(built.model(input_ids=torch.tensor([ids[: _LIMIT[0]]])).logits[0, 0])


def tdrm(built: Built, question: str, steps: list[str]) -> Pairs:
    pairs = []
    for i in range(1, len(steps) + 1):
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "".join(steps[:i])}]
        text = built.tokenizer.apply_chat_template(messages, tokenize=False)
        z = last_logit(built, built.tokenizer(text)["input_ids"])
        pairs.append((float(torch.tensor(z).sigmoid()), -1))
    return pairs


def agent_rm(built: Built, question: str, steps: list[str]) -> Pairs:
    messages, pairs = [{"role": "user", "content": question}], []
    for step in steps:
        messages.append({"role": "assistant", "content": step})
        ids = built.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        with torch.no_grad():
            pairs.append((float(built.model(input_ids=torch.tensor([ids])).logits[0, 0]), len(ids) - 1))
    return pairs


def pqm(built: Built, question: str, steps: list[str]) -> Pairs:
    tok = built.tokenizer
    cleaned = [re.sub(r"^\s*Step \d+:", "", step).strip() for step in steps]
    lines = [f"Step {i + 1}: " + step for i, step in enumerate(cleaned)]
    answer = " [PRM]\n".join(lines) + " [PRM]"
    ids = tok.encode(f"[INST] {question} [/INST]\n{answer}", add_special_tokens=False)
    at = tagged(ids, tok.encode("[PRM]", add_special_tokens=False)[-1], cleaned, tok.encode, question)
    value = built.hidden(ids) @ built.head["v_head.summary.weight"].T + built.head["v_head.summary.bias"]
    return [(float(value[i, 0]), i) for i in at]


def masprm(built: Built, question: str, steps: list[str]) -> Pairs:
    """One forward pass for each prefix, read at the last separator."""
    tok, pairs = built.tokenizer, []
    separator = tok.encode("</step>", add_special_tokens=False)
    for i in range(1, len(steps) + 1):
        ids = tok(question + "".join(step + "</step>" for step in steps[:i]))["input_ids"]
        (at,) = [max(t for t, token in enumerate(ids) if token == separator[0])]
        pairs.append((float(built.logits(ids)[at, 0].tanh()), at))
    return pairs


def minos(built: Built, question: str, steps: list[str]) -> Pairs:
    tok = built.tokenizer
    tag = tok.encode("и")[-1]
    cleaned = [re.sub(r"^\s*Step \d+:", "", step).strip() for step in steps]
    ids = tok.encode(
        f"Human: {question}\n\nAssistant:" + "".join(f"Step {i + 1}: {s} и\n" for i, s in enumerate(cleaned))
    )
    z = built.logits(ids)[:, 0]
    at = tagged(ids, tag, cleaned, lambda text: tok.encode("x " + text), question)
    return [(float(z[i].sigmoid()), i) for i in at]


def eurus(built: Built, question: str, steps: list[str]) -> Pairs:
    tok = built.tokenizer
    answer = [s if s.lstrip()[:4].lower() == "step" else f"Step {i + 1}: {s}" for i, s in enumerate(steps)]

    def chat(n: int) -> str:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "\n\n".join(answer[:n])}]
        return tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)

    ids = tok.encode(chat(len(answer)), add_special_tokens=False)
    lasts = []
    for n in range(len(answer) + 1):
        conv = chat(n).strip()
        if n not in (0, len(answer)):
            conv += "\n\n"
        lasts.append(len(tok.encode(conv, add_special_tokens=False)) - 2)
    mask = torch.tensor([0] * lasts[0] + [1] * (len(ids) - lasts[0]))

    def logps(model: object) -> torch.Tensor:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
        return torch.gather(logits.log_softmax(-1), 1, torch.tensor(ids[1:])[:, None])[:, 0]

    raw = (logps(built.model) - logps(built.reference)) * mask[1:]
    reward = (0.001 * raw).cumsum(-1)
    return [(float(reward[n]), n + 1) for n in lasts[1:]]


VISUAL = """
You are an advanced AI assistant, designed to serve as a process supervision model. In this task, I will provide a \
problem statement followed by the first step of the solution process. For each subsequent turn, I will give you a new \
step in the solution. Your role is to assess whether the solution process is correct up to the current step.

- In the **first round**, I will input the problem and the first step of the solution process.
- In **each subsequent round**, I will provide the next step in the solution.

For each step, you should:

- Respond with **"+"** if you believe the solution process is correct up to this step.
- Respond with **"-"** if you detect any issues or errors in the process up to this step.

Please note:
- Only respond with **"+"** or **"-"**. Do not provide any additional explanations, comments, or justifications.

Your task is to verify the accuracy and correctness of each step in the given solution process.
""".strip()


def visual_prm(built: Built, question: str, steps: list[str]) -> Pairs:
    """One forward pass for each step up to where its answer would begin; a step ends behind the dummy answer."""
    tok, pairs = built.tokenizer, []
    candidates = [tok.convert_tokens_to_ids(label) for label in ("+", "-")]
    so_far = f"<|im_start|>system\n{VISUAL}<|im_end|>\n"
    for i, step in enumerate(steps):
        text = step if i else f"### Question:\n{question}\n\n### Solution Process:\n{step}"
        so_far += f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        score = float(built.logits(tok(so_far)["input_ids"])[-1, candidates].softmax(-1)[0])
        so_far += "+<|im_end|>\n"
        pairs.append((score, len(tok(so_far)["input_ids"]) - 1))
    return pairs


def ursa(built: Built, question: str, steps: list[str]) -> Pairs:
    """The steps stand in the question's own message, each with the tag behind its last visible character."""
    tok = built.tokenizer
    cleaned = [re.sub(r"^\s*Step \d+:", "", step).strip() for step in steps]
    asked = "You are given a problem and a step-by-step solution. You need to check the correctness of each step.\n"
    asked += f"Question:{question}\n" + "\n".join(f"Step {i}: {step} и" for i, step in enumerate(cleaned, 1))
    chat = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": asked + "\n†Answer: 17"},
    ]
    ids = tok.encode(tok.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    tag = tok.encode(" и", add_special_tokens=False)
    scores = (built.hidden(ids) @ built.head["score.weight"].T + built.head["score.bias"])[:, 0].sigmoid()
    return tag_scores(built, ids, tag, cleaned, scores, " и")


def agent_prm(built: Built, question: str, steps: list[str]) -> Pairs:
    return [(float(torch.tensor(logit).sigmoid()), end) for logit, end in agent_rm(built, question, steps)]


def reason_flux(built: Built, question: str, steps: list[str]) -> Pairs:
    """The whole solution so far, truncated on the right, read at its last token."""
    pairs = []
    for i in range(1, len(steps) + 1):
        ids = built.tokenizer(question + "\n\n".join(steps[:i]), truncation=True, max_length=_LIMIT[0])["input_ids"]
        reward = built.hidden(ids)[-1] @ built.head["reward_head.weight"][0] + built.head["reward_head.bias"][0]
        pairs.append((float(reward.sigmoid()), -1))
    return pairs


def probability(z: torch.Tensor) -> torch.Tensor:
    return z.softmax(-1)[:, 1]


RECIPES = {
    "Qwen/Qwen2.5-Math-PRM-7B": Recipe(("qwen",), "score-mlp", qwen_prm(SYSTEM)),
    "Qwen/Qwen2.5-Math-PRM-72B": Recipe(("qwen",), "score-mlp", qwen_prm(SYSTEM)),
    "Qwen/Qwen2.5-Math-7B-PRM800K": Recipe(("qwen",), "score-mlp", qwen_prm(SYSTEM)),
    "Gen-Verse/ReasonFlux-PRM-7B": Recipe(("qwen",), "score-mlp", qwen_prm(None)),
    "sail/ActPRM": Recipe(("qwen",), "ensemble", qwen_prm(SYSTEM)),
    "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B": Recipe(
        ("qwen",), "value-head", skywork, clean=lambda step: step.removesuffix("\n")
    ),
    "jinachris/PURE-PRM-7B": Recipe(
        ("qwen",),
        "token-classification-2",
        per_step(plain_ids, "\n\n", lambda z: z.softmax(-1) @ torch.tensor([-1.0, 1.0])),
    ),
    "SCAN-PRM": Recipe(
        ("qwen",),
        "token-classification-1",
        per_step(lambda built, q: plain_ids(built, q + "\n\n"), "\n\n", lambda z: z[:, 0].sigmoid()),
    ),
    "trl-prm": Recipe(("qwen", "llama3"), "token-classification-2", per_step(with_bos, "\n", probability)),
    "GAIR/ReasonEval-7B": Recipe(("metaspace-bos-pad",), "three-classes", reason_eval("7B")),
    "GAIR/ReasonEval-34B": Recipe(("metaspace", "metaspace-first"), "three-classes", reason_eval("34B")),
    "peiyi9979/math-shepherd-mistral-7b-prm": Recipe(("metaspace", "metaspace-first"), "tokens", math_shepherd),
    "UW-Madison-Lee-Lab/VersaPRM": Recipe(("llama3", "qwen"), "tokens", versa),
    "openreasoner/Math-psa": Recipe(("qwen",), "tokens", math_psa),
    "hanningzhang/Llama3.1-Math-PRM": Recipe(("llama3",), "tokens", er_prm),
    "ScalableMath/llemma-7b-prm-prm800k-level-1to3-hf": Recipe(("metaspace",), "one-row", llemma),
    "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data": Recipe(("llama3",), "tokens", rlhflow, clean=str.strip),
    "infly/Universal-PRM-7B": Recipe(("qwen",), "score-mlp-1", universal),
    "declare-lab/PathFinder-PRM-7B": Recipe(("qwen",), "tokens", pathfinder, seed=3),
    "HRM": Recipe(("qwen",), "sequence-classification-1", hrm, clean=str),
    "zd21/DeepSeek-TD2-PRM": Recipe(("qwen", "llama3"), "sequence-classification-1", tdrm, clean=str),
    "OpenHands/openhands-critic-4b-v1.0": Recipe(("qwen3",), "sequence-classification-27", agent_prm),
    "ToolRM-Disc-Qwen3-4B-Instruct-2507": Recipe(("qwen3",), "sequence-classification-1", agent_rm),
    "THUNLP/AgentRM-8B": Recipe(("llama3",), "sequence-classification-1", agent_rm, clean=str),
    "Windy0822/PQM": Recipe(("qwen",), "value-head", pqm),
    "MASPRM": Recipe(("qwen",), "token-classification-1", masprm, clean=str),
    "MATH-Minos": Recipe(("metaspace",), "token-classification-1", minos),
    "PRIME-RL/EurusPRM-Stage2": Recipe(("qwen",), "two-models", eurus),
    "ryokamoi/Qwen-2.5-7B-FoVer-PRM": Recipe(("qwen", "llama3"), "tokens", fover),
    "OpenGVLab/VisualPRM-8B": Recipe(("intern",), "intern-vl", visual_prm),
    "URSA-MATH/URSA-RM-8B": Recipe(("qwen",), "ursa", ursa),
    "rl-llm-agent/Llama-3.2-3B-Instruct-reward-alfworld-iter0": Recipe(
        ("llama3",), "sequence-classification-1", agent_prm, clean=str
    ),
    "Gen-Verse/ReasonFlux-PRM-1.5B": Recipe(("qwen",), "reward-head-file", reason_flux),
}

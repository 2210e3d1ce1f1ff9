"""How likely chosen tokens are to come next, by a completions server: for models that answer with a label token."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np

from stepreward.core.errors import InputError, ModelError
from stepreward.core.http.client import ServerClient
from stepreward.core.http.server import Server
from stepreward.core.runtime.flows import Propose
from stepreward.core.types import Floats
from stepreward.score.encode.recipe_text import valid

_PATH = "v1/completions"
_BY_ID = "token_id:"
_ROUNDING = 1e-3
"""Log-probabilities of two answers to one prompt differ by rounding alone."""


class NextTokens:
    """Log-probabilities of next tokens behind prompts of token ids; shared by threads.

    A prompt is one request for one token with the `top` likeliest. A chosen token that is not among those is
    requested by itself, as the only one allowed, which vLLM and others can do. A token that a server names by its text
    alone counts only where no other token has that text.

    Args:
        server: where it is, with `/v1/completions`.
        tokenizer: of the served model.
        top: most likely tokens requested; servers have limits (vLLM 20, OpenAI 5).
        sleep: waits between tries.

    Raises:
        ValueError: `top` is not positive.
    """

    def __init__(
        self, server: Server, tokenizer: Any, *, top: int = 20, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        self.server, self.tokenizer, self.top = server, tokenizer, top
        self.url = server.at(_PATH)
        self._client = ServerClient(server, ModelError, refused=InputError, sleep=sleep)

    def ask(self, prompts: Sequence[Sequence[int]], tokens: Sequence[int], start: str = "") -> tuple[Floats, int]:
        """(Q, K) log-probabilities of each token behind each prompt, and tokens that the server encoded for it.

        What the server says that it had cached is not counted. Requests run at the same time; those of one `start` go
        to the same of several servers.

        Raises:
            InputError: the server refuses a prompt, such as one past its context.
            ModelError: the server fails, or gives no probability of a token.
        """
        if not prompts:
            return np.zeros((0, len(tokens))), 0
        with ThreadPoolExecutor(min(len(prompts), self.server.places)) as pool:
            made = list(pool.map(lambda prompt: self._ask_one(list(prompt), tokens, start), prompts))
        return np.array([row for row, _ in made]), sum(paid for _, paid in made)

    def _ask_one(self, prompt: list[int], tokens: Sequence[int], start: str) -> tuple[list[float], int]:
        found, paid = self._request(prompt, {"logprobs": self.top}, start)
        # vLLM adds the token that it drew, which may be far less likely than the `top` likeliest.
        least = min(sorted(found.values(), reverse=True)[: self.top], default=0.0)
        for token in tokens:
            if token not in found:
                forced = {"logprobs": 1, "allowed_token_ids": [token]}
                alone, more = self._request(prompt, forced, start)
                paid += more
                # A server that normalises over the allowed tokens says a probability of 1: more than it can be.
                if token not in alone or alone[token] > least + _ROUNDING:
                    text = self.tokenizer.decode([token])
                    raise ModelError(
                        f"{self.url} does not tell how likely the token {text!r} ({token}) is: it is not among the "
                        f"{len(found)} likeliest, below {math.exp(least):.2g}, and the server gives no probability of "
                        "one token alone; raise top, or serve the model with vLLM"
                    )
                found[token] = alone[token]
        return [found[token] for token in tokens], paid

    def _request(self, prompt: list[int], more: Mapping[str, Any], start: str) -> tuple[dict[int, float], int]:
        """Log-probabilities by token id of one request, and the tokens it cost."""
        # Some servers divide logits by the temperature before they report log-probabilities: 1 leaves them as they are.
        body = {
            "model": self.server.model, "prompt": prompt, "max_tokens": 1, "temperature": 1.0,
            "return_tokens_as_token_ids": True, **more,
        }  # fmt: skip
        answer = self._client.json(_PATH, body, start=start)
        try:
            given = answer["choices"][0]["logprobs"]
            listed = _named_logprobs(given)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            what = f"{self.url} answered without log-probabilities: {str(answer)[:200]}"
            raise ModelError(f"{self.server.hidden(what)}; does the server give logprobs of completions?") from error
        usage = answer.get("usage") or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        found: dict[int, float] = {}
        for name, value in listed:
            token = self._token(name)
            if token is not None and math.isfinite(value):
                found[token] = value
        return found, max(0, int(usage.get("prompt_tokens") or len(prompt)) - int(cached))

    def _token(self, name: str | int) -> int | None:
        """The token that a server names; None where the name is the text of several tokens."""
        if isinstance(name, int):
            return name
        if name.startswith(_BY_ID) and name.removeprefix(_BY_ID).isdigit():
            return int(name.removeprefix(_BY_ID))
        return self._by_text.get(name)

    @cached_property
    def _by_text(self) -> dict[str, int | None]:
        """Ids of tokens by their texts, None where several have the same."""
        made: dict[str, int | None] = {}
        for token in range(len(self.tokenizer)):
            text = self.tokenizer.decode([token])
            made[text] = None if text in made else token
        return made


def _named_logprobs(given: Mapping[str, Any]) -> list[tuple[str | int, float]]:
    """Names or ids of tokens with their log-probabilities, in either form that servers give them."""
    # The form of chat answers, a list of objects, or that of completions, parallel lists.
    if "content" in given:
        (first,) = given["content"][:1]
        rows = [first, *(first.get("top_logprobs") or [])]
        return [(row["id"] if isinstance(row.get("id"), int) else row["token"], float(row["logprob"])) for row in rows]
    own = [(given["tokens"][0], float(given["token_logprobs"][0]))]
    top = (given.get("top_logprobs") or [{}])[0] or {}
    return [*own, *((name, float(value)) for name, value in top.items())]


class ServedChooser:
    """Weighs options behind a chat and the beginning of its answer by a completions server; a
    `score.judges.generative.Chooser`.

    Args:
        next_tokens: the server, with the model's tokenizer, which has a chat template.

    Raises:
        ModelError: the tokenizer has no chat template.
    """

    def __init__(self, next_tokens: NextTokens) -> None:
        if not next_tokens.tokenizer.chat_template:
            raise ModelError("a verifier that writes needs a chat, and the tokenizer has no chat template")
        self.next_tokens, self.tokenizer = next_tokens, next_tokens.tokenizer

    def choose(self, questions: Sequence[Propose], options: Sequence[str]) -> Floats:
        """(Q, O) log-probabilities of the options behind each question's prompt and prefix."""
        prompts = [chat_ids(self.tokenizer, question) for question in questions]
        made = np.zeros((len(questions), len(options)))
        for column, option in enumerate(options):
            own = plain_ids(self.tokenizer, option)
            for i, token in enumerate(own):
                found, _ = self.next_tokens.ask([ids + own[:i] for ids in prompts], [token])
                made[:, column] += found[:, 0]
        return made


def chat_ids(tokenizer: Any, question: Propose) -> list[int]:
    """Tokens of a chat by the tokenizer's template, and of the answer's beginning, each part by itself."""
    text = tokenizer.apply_chat_template(list(question.problem.messages), add_generation_prompt=True, tokenize=False)
    # The prompt's end and the answer's beginning share no token, as where a policy writes the answer.
    parts = [text, *(step.text for step in question.prefix)]
    return [i for part in parts for i in plain_ids(tokenizer, part)]


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens of a text without special ones."""
    return list(tokenizer(valid(text), add_special_tokens=False)["input_ids"]) if text else []

"""How problems and steps become token ids and where a model is read.

One record serves training and scoring, so that the two cannot disagree. By default ids are built step by step and
concatenated, never tokenised from joined text: the tokens of a step do not depend on its neighbours, so that a shared
prefix has the same tokens in every trajectory.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError, ModelError
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step
from stepreward.score.encode.encoded_tree import EncodedTree, reversed_tree, side_by_side
from stepreward.score.encode.recipe_text import RecipeText, valid
from stepreward.score.encode.record import Conversation, EncoderRecord, PerStep, WholeText

__all__ = ["EncodedTree", "EncoderRecord", "StepEncoder", "depth_first"]


class StepEncoder:
    """Builds token ids and read positions by an encoder record.

    Args:
        record: the encoder record.
        tokenizer: a transformers tokenizer.

    Raises:
        ModelError: the record demands what the tokenizer cannot give.
    """

    def __init__(self, record: EncoderRecord, tokenizer: Any) -> None:
        encoding = record.encoding
        self.record, self.tokenizer = record, tokenizer
        self.text = RecipeText(encoding, tokenizer)
        self._conversation = isinstance(encoding, Conversation)
        self._segments = self._conversation or (isinstance(encoding, PerStep) and encoding.tokenise == "segment")
        """Whether the tokenizer sees a step together with the text around it, up to the next added tokens."""
        self._padding = ""
        """The token that cuts steps where a recipe pads between them and has no separator."""
        if self._segments and encoding.template == "plain" and not encoding.separator:
            if tokenizer.pad_token is None:
                raise ModelError("segments without a separator are cut by padding: the tokenizer has no pad_token")
            self._padding = str(tokenizer.pad_token)
        self.separator_ids = self.plain(encoding.separator)
        marked = isinstance(encoding, WholeText) and encoding.tag is not None
        if isinstance(encoding, PerStep) and encoding.separator_token:
            marked = True
            if len(self.separator_ids) > 1:
                raise ModelError(
                    f"the separator {encoding.separator!r} is {len(self.separator_ids)} tokens, not one: choose "
                    "another, add it to the tokenizer, or set separator_token=False"
                )
        self.step_end = self.separator_ids[0] if marked and len(self.separator_ids) == 1 else None
        """The token that ends each step, where its separator is one."""
        self._added = sorted(getattr(tokenizer, "get_added_vocab", dict)(), key=len, reverse=True)
        self.back = self._tokens_after_read()
        """Tokens between the one that is read and the step's last."""
        self._text_ids = lru_cache(maxsize=1 << 16)(self._encode_text)
        self._cached_prompt = lru_cache(maxsize=1 << 10)(self._split_prompt)

    def plain(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text, with the tokenizer's own special tokens around it if `special`."""
        # Some tokenizers give a token to the empty text.
        if not text and not special:
            return []
        return [int(i) for i in self.tokenizer(valid(text), add_special_tokens=special)["input_ids"]]

    def _tokens_after_read(self) -> int:
        if not self.text.answer:
            return int(self.record.encoding.read == "before")
        turn = self.text.turn(Step("x"), 2)
        whole, opened = self.plain(turn), self.plain(turn.removesuffix(self.text.closing()))
        # The answer must begin a token, or no position sees the step without it.
        if whole[: len(opened)] != opened or len(whole) == len(opened):
            raise ModelError(f"the dummy answer {self.text.answer!r} shares a token with the text before it")
        return len(whole) - len(opened)

    def prompt_ids(self, problem: Problem) -> list[int]:
        """Token ids of the prompt, up to where the first step's own begin."""
        return list(self._prompt_parts(problem)[0])

    def _prompt_parts(self, problem: Problem) -> tuple[tuple[int, ...], str, str]:
        """Ids of the prompt, the text of it that is tokenised with the first step, and the added token before that."""
        return self._cached_prompt(self.text.before_content(problem) if self._conversation else self.text.head(problem))

    def _split_prompt(self, text: str) -> tuple[tuple[int, ...], str, str]:
        special = self.record.encoding.special_tokens
        if not self._segments or self._padding:
            return tuple(self.plain(text, special=special)), "", self._padding
        kept, last = self._up_to_added(text)
        if not kept:
            raise ModelError(
                "no added token is in the prompt, so its end and the first step are one for the tokenizer: "
                "take the encoding WholeText"
            )
        return tuple(self.plain(kept, special=special)), text[len(kept) :], last

    def _up_to_added(self, text: str) -> tuple[str, str]:
        """The text up to the end of its last added token, and that token."""
        # Of two that end at the same place the longer one counts, which `_added` lists first.
        best, last = 0, ""
        for token in self._added:
            end = text.rfind(token) + len(token)
            if token in text and end > best:
                best, last = end, token
        return text[:best], last

    def _segment(self, text: str, context: str) -> tuple[int, ...]:
        """Ids of a text as they are behind an added token: some tokenizers treat the start of a text otherwise."""
        if not text:
            return ()
        if not context or any(text.startswith(token) for token in self._added):
            return tuple(self.plain(text))
        # SentencePiece tokenizers put a space before the start of a text: the token that precedes it is encoded along.
        ids = self.plain(context + text)
        if ids[:1] != self.plain(context):
            raise ModelError(f"the token {context!r} does not cut the text behind it: take the encoding WholeText")
        return tuple(ids[1:])

    def check(self, step: Step) -> None:
        """Checks that a step can be encoded.

        Raises:
            InputError: it is scored and empty.
            ModelError: it has images, and the record refuses them.
        """
        self.text.refuse_images(step.images)
        if not step.text and step.kind == "action":
            raise InputError("a step has no text: every scored step needs some", remedy="drop empty steps")

    def place(self, depth: int) -> int:
        """What of a step's depth (from 1) its ids depend on."""
        encoding = self.record.encoding
        if "{n}" in encoding.step_format + encoding.later_format:
            return depth
        same = not self._segments and not (encoding.later_format or encoding.between)
        return 1 if same else min(depth, 2)

    def step_ids(self, step: Step, problem: Problem | None = None, n: int = 1) -> list[int]:
        """Token ids of a step, its separator included; never empty.

        A policy may write a blank line: that is a step like any other. One without a single character is none.

        Args:
            step: the step.
            problem: needed where the end of the prompt is tokenised with the first step.
            n: its number, from 1.

        Raises:
            InputError: a scored step has no text.
        """
        self.check(step)
        if not self._segments:
            return list(self._text_ids("", "", step.text, step.kind, self.place(n)))
        if n > 1:
            context = self._padding or self._up_to_added(self.record.encoding.separator)[1]
            ids = self._text_ids("", context, step.text, step.kind, self.place(n))
        elif problem is None:
            raise ValueError("the ids of a first step depend on the prompt: pass the problem")
        else:
            ids = self._first_ids(problem, step)
        if not ids and step.kind == "action":
            raise InputError(f"step {n} has no tokens: every scored step needs some", remedy="drop empty steps")
        return list(ids)

    def _first_ids(self, problem: Problem, step: Step) -> tuple[int, ...]:
        """Ids of the first step and of the prompt's end behind its last added token."""
        _, lead, context = self._prompt_parts(problem)
        if not self._conversation:
            return self._text_ids(lead, context, step.text, step.kind, 1)
        kept, whole = self.text.before_content(problem).removesuffix(lead), self.text.opening(problem, step)
        if not whole.startswith(kept):
            raise ModelError("the chat template rewrites the prompt for the first step: set another template")
        return self._segment(whole[len(kept) :], context)

    def _encode_text(self, lead: str, context: str, text: str, kind: str, n: int) -> tuple[int, ...]:
        encoding, step = self.record.encoding, Step(text, kind=kind)  # type: ignore[arg-type]
        if self._conversation:
            return self._segment(self.text.turn(step, n), "")
        between, body = encoding.between if n > 1 else "", self.text.body(step, n)
        if self._segments:
            return self._segment(lead + between + body + encoding.separator, context)
        lines = body.split("\n") if "lines" in encoding.clean else [body]
        return tuple(i for line in lines for i in (*self.plain(between + line), *self.separator_ids))

    def encode_tree(self, tree: StepTree) -> EncodedTree:
        """Encodes every node of a tree once; with `both_ways` also the tree of the reversed trajectories, beside it.

        Raises:
            InputError: a trajectory is longer than the record allows, or a scored step is empty.
            ModelError: the record's ids are no function of each step alone.
        """
        if not self.record.per_step:
            raise ModelError(
                f"a {self.record.encoding.kind} encoding gives no step ids of its own: encode trajectories"
            )
        prompt = np.asarray(self.prompt_ids(tree.problem), np.int64)
        if not len(prompt):
            raise InputError(f"problem {tree.problem.id!r} has an empty prompt", remedy="give it some text")
        if not self.record.both_ways:
            return self._encoded(tree, prompt)
        backward = reversed_tree(tree)
        return side_by_side(self._encoded(tree, prompt), self._encoded(backward, prompt), tree.paths, backward.paths)

    def _encoded(self, tree: StepTree, prompt: NDArray[np.int64]) -> EncodedTree:
        pieces, piece = self._distinct_ids(tree)
        pieces.append(prompt)
        enter, leave = depth_first(tree)
        # From here on arrays of nodes are in the tree's order, and arrays of tokens in depth-first order.
        order = np.argsort(enter)
        length = np.array([*map(len, pieces)], np.int64)[piece]
        start = self._first_positions(tree, length)
        ids = np.concatenate([pieces[i] for i in piece[order]])
        first = np.empty(tree.n, np.int64)
        first[order] = np.cumsum(length[order]) - length[order]
        within = np.arange(len(ids)) - np.repeat(first[order], length[order])
        # A trajectory's own length counts, not the place in the packed row.
        scored = tree.action & (start + length <= self.record.encoding.max_length)
        read = np.where(scored, self.read_index(tree.parent, first, length), -1)

        def of_tokens(values: NDArray[np.int64]) -> NDArray[np.int64]:
            """(T,) of each token its node's value."""
            return np.repeat(values[order], length[order])

        node, position = of_tokens(np.arange(tree.n)), of_tokens(start) + within
        step_first = np.where(node > 0, of_tokens(first), np.arange(len(ids)))
        return EncodedTree(ids, position, of_tokens(enter), of_tokens(leave), step_first, read, length, tree.n)

    def _distinct_ids(self, tree: StepTree) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
        """The distinct ids of a tree's steps, and (n,) which of them each node has, -1 at the root."""
        # A step is tokenised once for each place that its ids depend on, however many nodes have it.
        place = np.array([self.place(d) for d in range(int(tree.depth.max(initial=0)) + 1)], np.int64)[tree.depth]
        wide = int(place.max(initial=0)) + 1
        codes, which = np.unique(tree.step_id[1:].astype(np.int64) * wide + place[1:], return_inverse=True)
        made = [
            np.asarray(self.step_ids(tree.steps[code // wide], tree.problem, int(code % wide)), np.int64)
            for code in codes.tolist()
        ]
        return made, np.r_[-1, which]

    def _first_positions(self, tree: StepTree, length: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) position of each node's first token, by levels."""
        start = np.zeros(tree.n, np.int64)
        for level in range(1, int(tree.depth.max(initial=0)) + 1):
            nodes = np.flatnonzero(tree.depth == level)
            above = tree.parent[nodes]
            start[nodes] = start[above] + length[above]
        self.fits(int((start + length).max()), tree.problem)
        return start

    def fits(self, tokens: int, problem: Problem) -> bool:
        """Whether a step that ends at this many tokens gets a score.

        Raises:
            InputError: it does not, and the record says to refuse.
        """
        most = self.record.encoding.max_length
        if self.record.encoding.too_long == "error" and tokens > most:
            raise InputError(
                f"a trajectory of problem {problem.id!r} has {tokens} tokens, more than {most}",
                remedy="raise max_length, or set too_long='drop' to leave its last steps without a score",
            )
        return tokens <= most

    def read_index(
        self, parent: NDArray[np.integer[Any]], first: NDArray[np.int64], length: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """(n,) token at which each node would be read; before a step of one token that is its parent's last.

        Args:
            parent: (n,) parent of each node, -1 at the root, whose entry means nothing.
            first: (n,) index of each node's first token.
            length: (n,) tokens of each node.
        """
        last = first + length - 1
        return last if not self.back else np.where(length > self.back, last - self.back, last[parent])


def depth_first(tree: StepTree) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n,) depth-first numbers of the nodes, and of the node after each one's last descendant; level by level."""
    # Level by level instead of node by node: trees are wide and shallow.
    size = np.ones(tree.n, np.int64)
    levels = [np.flatnonzero(tree.depth == d) for d in range(int(tree.depth.max(initial=0)) + 1)]
    for nodes in reversed(levels[1:]):
        np.add.at(size, tree.parent[nodes], size[nodes])
    enter = np.zeros(tree.n, np.int64)
    for nodes in levels[1:]:
        # A child's number is its parent's, plus one, plus the sizes of its elder siblings' subtrees.
        ordered = nodes[np.argsort(tree.parent[nodes], kind="stable")]
        above, before = tree.parent[ordered], np.cumsum(size[ordered]) - size[ordered]
        head = np.r_[True, above[1:] != above[:-1]]
        base = np.repeat(before[head], np.diff(np.r_[np.flatnonzero(head), len(ordered)]))
        enter[ordered] = enter[above] + 1 + before - base
    return enter, enter + size

"""How problems and steps become token ids and where a model is read.

One record serves training and scoring, so that the two cannot disagree. By default ids are built step by step and
concatenated, never tokenised from joined text: the tokens of a step do not depend on its neighbours, so that a shared
prefix has the same tokens in every trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError, ModelError
from stepreward.core.tree import StepTree
from stepreward.core.types import Kind, Problem, Step
from stepreward.score.encode.encoded_tree import EncodedTree, reversed_tree, side_by_side
from stepreward.score.encode.recipe_text import RecipeText, valid
from stepreward.score.encode.record import Conversation, EncoderRecord, PerStep, WholeText

KEPT_STEPS = 1 << 16
"""Most steps whose ids are kept, as searches and samples repeat them."""
_StepText = tuple[str, str, str, Kind, str, int]
"""What the ids of a step depend on: the end of the prompt that is tokenised with it, the added token before that, its
text, its kind, its role and its place."""
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
        self._context = self._padding or self._up_to_added(encoding.separator)[1]
        """The token before every step but the first, where steps are segments."""
        self._known: dict[_StepText, tuple[int, ...]] = {}
        self._plain_context = lru_cache(maxsize=16)(self.plain)
        self._cached_prompt = lru_cache(maxsize=1 << 10)(self._split_prompt)

    def plain(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text, with the tokenizer's own special tokens around it if `special`."""
        # Some tokenizers give a token to the empty text.
        if not text and not special:
            return []
        return [int(i) for i in self.tokenizer(valid(text), add_special_tokens=special)["input_ids"]]

    def plain_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of several texts, in one call of the tokenizer."""
        some = [valid(text) for text in texts if text]
        found = iter(self.tokenizer(some, add_special_tokens=False)["input_ids"] if some else ())
        return [[int(i) for i in next(found)] if text else [] for text in texts]

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

    def _context_of(self, text: str, context: str) -> str:
        """The token before a text that is encoded along with it; "" where the text does not depend on it."""
        # SentencePiece tokenizers put a space before the start of a text, but not behind an added token.
        return "" if not text or any(text.startswith(token) for token in self._added) else context

    def _behind(self, context: str, ids: Sequence[int]) -> tuple[int, ...]:
        """The ids without those of the token that was encoded along."""
        if not context:
            return tuple(ids)
        if list(ids[:1]) != self._plain_context(context):
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
        return self.ids_of_steps([(step, n)], problem)[0]

    def ids_of_steps(self, steps: Sequence[tuple[Step, int]], problem: Problem | None = None) -> list[list[int]]:
        """`step_ids` of several steps of a problem, each with its number, in one call of the tokenizer."""
        for step, _ in steps:
            self.check(step)
        texts = [self._step_text(step, n, problem) for step, n in steps]
        found = iter(self._text_ids([text for text in texts if text is not None]))
        made = []
        for (step, n), text in zip(steps, texts, strict=True):
            ids = self._opening_ids(problem, step) if text is None and problem is not None else next(found)
            if self._segments and not ids and step.kind == "action":
                raise InputError(f"step {n} has no tokens: every scored step needs some", remedy="drop empty steps")
            made.append(list(ids))
        return made

    def _step_text(self, step: Step, n: int, problem: Problem | None) -> _StepText | None:
        """What the ids of a step depend on; None for the first of a conversation, which is rendered with the prompt."""
        if not self._segments:
            return "", "", step.text, step.kind, "", self.place(n)
        shown = (self.text.said(step), step.kind, self.text.role(step), self.place(n))
        if n > 1:
            return "", self._context, *shown
        if problem is None:
            raise ValueError("the ids of a first step depend on the prompt: pass the problem")
        if self._conversation:
            return None
        _, lead, context = self._prompt_parts(problem)
        return lead, context, *shown

    def _opening_ids(self, problem: Problem, step: Step) -> tuple[int, ...]:
        """Ids of the first step of a conversation and of the prompt's end behind its last added token."""
        _, lead, context = self._prompt_parts(problem)
        kept, whole = self.text.before_content(problem).removesuffix(lead), self.text.opening(problem, step)
        if not whole.startswith(kept):
            raise ModelError("the chat template rewrites the prompt for the first step: set another template")
        text = whole[len(kept) :]
        context = self._context_of(text, context)
        return self._behind(context, self.plain(context + text))

    def _text_ids(self, texts: Sequence[_StepText]) -> list[tuple[int, ...]]:
        """Ids of steps; those that are not known are encoded together."""
        made = {text: ids for text in texts if (ids := self._known.get(text)) is not None}
        new = [text for text in dict.fromkeys(texts) if text not in made]
        made.update(zip(new, self._encode_texts(new), strict=True))
        if len(self._known) + len(new) > KEPT_STEPS:
            self._known.clear()
        self._known.update((text, made[text]) for text in new)
        return [made[text] for text in texts]

    def _encode_texts(self, texts: Sequence[_StepText]) -> list[tuple[int, ...]]:
        if not self._segments:
            lines = [self._lines(text, kind, n) for _, _, text, kind, _, n in texts]
            found = iter(self.plain_many([line for some in lines for line in some]))
            return [tuple(i for _ in some for i in (*next(found), *self.separator_ids)) for some in lines]
        segments = [self._segment(lead, Step(text, kind, role), n) for lead, _, text, kind, role, n in texts]
        contexts = [self._context_of(one, text[1]) for one, text in zip(segments, texts, strict=True)]
        every = self.plain_many([context + one for context, one in zip(contexts, segments, strict=True)])
        return [self._behind(context, ids) for context, ids in zip(contexts, every, strict=True)]

    def _lines(self, text: str, kind: Kind, n: int) -> list[str]:
        """The parts of a step behind each of which there is a separator, as they are tokenised."""
        encoding, body = self.record.encoding, self.text.body(Step(text, kind), n)
        between = encoding.between if n > 1 else ""
        return [between + line for line in (body.split("\n") if "lines" in encoding.clean else [body])]

    def _segment(self, lead: str, step: Step, n: int) -> str:
        """A step with the text around it, up to the next added tokens."""
        if self._conversation:
            return self.text.turn(step, n)
        encoding = self.record.encoding
        return lead + (encoding.between if n > 1 else "") + self.text.body(step, n) + encoding.separator

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
        if self.record.encoding.reads_reference and len({one.problem.reference for one in tree.attempts}) > 1:
            what = f"solutions of problem {tree.problem.id!r} have different reference answers, which the prompt holds"
            raise InputError(what, remedy="give each pair of a problem and its reference an id of its own")
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
        steps = [(tree.steps[code // wide], int(code % wide)) for code in codes.tolist()]
        made = [np.asarray(ids, np.int64) for ids in self.ids_of_steps(steps, tree.problem)]
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

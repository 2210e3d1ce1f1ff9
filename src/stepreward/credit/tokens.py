"""From steps to tokens: where the tokens of each step lie in a trainer's batch, and advantages spread over them.

Arrays are NumPy or torch, (R, T) for R rows of T tokens. A trainer's row is one trajectory or several (packing).
"""

from __future__ import annotations

from dataclasses import dataclass

from array_api_compat import array_namespace, device

from stepreward.core.errors import InputError
from stepreward.credit.segments import Array


@dataclass(frozen=True)
class TokenSpans:
    """The tokens of each step: row, first token, and the token after the last; steps in order of row and place."""

    row: Array
    """(N,)."""
    start: Array
    """(N,)."""
    end: Array
    """(N,)."""
    shape: tuple[int, int]
    """(R, T)."""

    def __len__(self) -> int:
        return int(self.row.shape[0])

    @property
    def lengths(self) -> Array:
        """(N,) tokens of each step."""
        return self.end - self.start

    @property
    def offsets(self) -> Array:
        """(R + 1,) steps of each row in the flat arrays of credit, where every row is one trajectory."""
        xp = array_namespace(self.row)
        return xp.searchsorted(self.row, xp.arange(self.shape[0] + 1, device=device(self.row), dtype=self.row.dtype))


def from_mask(mask: Array, ends: Array | None = None) -> TokenSpans:
    """Finds steps as runs of the policy's own tokens, cut after tokens that end a step.

    Tokens that the policy did not write (tool output, other speakers, padding) separate the runs and belong to no step.

    Args:
        mask: (R, T), nonzero where the policy wrote the token.
        ends: (R, T), nonzero at tokens that end a step: separators, or wherever the decoded text completes one. None
            leaves runs whole, as turns of an agent are. A separator belongs to the step that it ends.
    """
    xp = array_namespace(mask)
    rows, width = int(mask.shape[0]), int(mask.shape[1])
    # Rows are joined to one flat array. A break is where the mask changes, where a row begins within a run, and after
    # a token that ends a step.
    own = xp.reshape(xp.astype(mask, xp.bool), (-1,))
    breaks = own ^ _shifted(own)
    breaks[:: max(width, 1)] |= own[:: max(width, 1)]
    if ends is not None:
        breaks |= own & _shifted(xp.reshape(xp.astype(ends, xp.bool), (-1,)) & own)
    edge = xp.full(1, rows * width, dtype=xp.int64, device=device(mask))
    place = xp.concat([xp.nonzero(breaks)[0], edge])
    # A break at one of the policy's tokens begins a step, which the next break ends.
    begins = own[place[:-1]]
    start, end = place[:-1][begins], place[1:][begins]
    first = start // max(width, 1) * width
    return TokenSpans(start // max(width, 1), start - first, end - first, (rows, width))


def _shifted(flat: Array) -> Array:
    """(M,) the entry before each, False before the first."""
    xp = array_namespace(flat)
    return xp.concat([xp.zeros_like(flat[:1]), flat[:-1]])


def to_tokens(advantages: Array, spans: TokenSpans) -> Array:
    """(R, T) the advantage of its step at each token, 0 at tokens of no step.

    Args:
        advantages: (N,).
        spans: of the same N steps.

    Raises:
        InputError: another number of advantages than steps, a span outside its row, or spans that overlap or are not in
            order of row and place.
    """
    if advantages.shape[0] != len(spans):
        raise InputError(f"{advantages.shape[0]} advantages for {len(spans)} steps", remedy="pass one a step")
    xp = array_namespace(advantages)
    rows, width = spans.shape
    lengths = spans.lengths
    if bool(xp.any((lengths < 0) | (spans.start < 0) | (spans.end > width))):
        raise InputError(f"a span lies outside its row of {width} tokens", remedy="pass 0 <= start <= end <= T")
    # The tokens alternate between gaps, which may be empty, and steps: (gap, step, gap, step, ..., gap). One `repeat`
    # then spreads all values, 0 over each gap.
    place = device(lengths)
    begins, stops = spans.row * width + spans.start, spans.row * width + spans.end
    edge = xp.asarray([rows * width], dtype=stops.dtype, device=place)
    gaps = xp.concat([begins, edge]) - xp.concat([xp.zeros_like(edge), stops])
    if bool(xp.any(gaps < 0)):
        raise InputError("spans overlap or are not in order", remedy="sort steps by row and place")
    repeats = xp.zeros(2 * len(spans) + 1, dtype=stops.dtype, device=place)
    repeats[0::2], repeats[1::2] = gaps, lengths
    values = xp.zeros(2 * len(spans) + 1, dtype=advantages.dtype, device=device(advantages))
    values[1::2] = advantages
    return xp.reshape(xp.repeat(values, repeats), spans.shape)

"""The lookahead window: later positions guessed in parallel by Jacobi iteration, which yields n-grams every step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from forelook.decoding.layout import BoolArray, IntArray
from forelook.errors import ConfigError


class LookaheadWindow:
    """N-1 rows of guesses after the current token c, which is column 0 of row 0.

    Row 0 has columns 1 .. W-1, the other rows columns 0 .. W-1. With c at position p, row r's column i guesses
    position p+r+i. All rows are seeded at once, so that the first forward already yields n-grams. Source: Fu et al.,
    arXiv 2402.02057, section 3.1.

    Args:
        window_size: W, columns guessed in parallel.
        ngram_size: N, tokens of the n-grams it yields.
        seed_ids: tokens to draw unknown guesses from, usually the prompt.
        seed: of that draw.
    """

    def __init__(self, window_size: int, ngram_size: int, seed_ids: Sequence[int], seed: int = 0) -> None:
        if window_size < 1:
            raise ConfigError("window_size", window_size, "1 or more")
        if ngram_size < 2:
            raise ConfigError("ngram_size", ngram_size, "2 or more")
        if len(seed_ids) == 0:
            raise ConfigError("seed_ids", [], "at least one token")
        self.window_size = window_size
        self.ngram_size = ngram_size
        random = np.random.default_rng(seed)
        sizes = [window_size - 1] + [window_size] * (ngram_size - 2)
        self.rows = [[seed_ids[index] for index in random.integers(len(seed_ids), size=size)] for size in sizes]
        self.offsets, self.visibility = _window_shape(window_size, ngram_size)

    def __len__(self) -> int:
        """Tokens the window adds to a step (c not among them)."""
        return len(self.offsets)

    @property
    def token_ids(self) -> list[int]:
        """The guesses row by row, in the order of a step's tail."""
        return [token for row in self.rows for token in row]

    @property
    def num_last_row(self) -> int:
        """How many of the last tokens form the row whose logits are needed (c's own come besides when N = 2)."""
        return len(self.rows[-1])

    def ngrams(self, current: int, new: Sequence[int]) -> list[tuple[int, ...]]:
        """The step's n-grams: row 0's column i (c for column 0), column i of the other rows, then ``new[i]``."""
        heads = [current, *self.rows[0]]
        return [
            (heads[column], *(row[column] for row in self.rows[1:]), new[column]) for column in range(self.window_size)
        ]

    def advance(self, new: Sequence[int]) -> None:
        """Advance by one column, however many tokens the step yielded: the rows shift up, and ``new`` is the last one.

        Advancing by the accepted tokens would keep every guess at its position, but fill as many columns with random
        tokens, which yield useless n-grams for N-1 steps. The pool is keyed by token and gains nothing by positions.
        Measured: docs/decisions.md, "The published window advances by one".

        Args:
            new: argmax at the last row, columns 0 .. W-1.
        """
        below = [*self.rows[1:], list(new)]
        self.rows = [below[0][1:], *below[1:]]


def _window_shape(window_size: int, ngram_size: int) -> tuple[IntArray, BoolArray]:
    """Position offsets from c [L], and which of the window's own tokens see which [L, L]."""
    cells = [(0, column) for column in range(1, window_size)]
    cells += [(row, column) for row in range(1, ngram_size - 1) for column in range(window_size)]
    rows = np.array([row for row, _ in cells], dtype=np.int64)
    columns = np.array([column for _, column in cells], dtype=np.int64)
    same_column = columns[:, None] == columns[None, :]
    in_row_0 = (rows[None, :] == 0) & (columns[None, :] <= columns[:, None])
    above = (rows[None, :] >= 1) & (rows[None, :] <= rows[:, None]) & same_column
    return rows + columns, in_row_0 | above

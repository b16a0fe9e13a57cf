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
        self._seed_ids = list(seed_ids)
        self._random = np.random.default_rng(seed)
        self.rows = [self._guesses(window_size - 1)]
        self.rows += [self._guesses(window_size) for _ in range(ngram_size - 2)]
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

    def advance(self, num_accepted: int, new: Sequence[int]) -> None:
        """Advance by the tokens a step yielded, so that every guess keeps its position.

        Args:
            num_accepted: tokens the step yielded, the bonus token included: at least one.
            new: argmax at the last row, columns 0 .. W-1.
        """
        shift = num_accepted - 1
        above = [*self.rows[1:], list(new)]
        moved = []
        for row in above:
            kept = row[shift:]
            moved.append(kept + self._guesses(self.window_size - len(kept)))
        self.rows = [moved[0][1:], *moved[1:]]

    def _guesses(self, count: int) -> list[int]:
        if count == 0:
            return []
        return [self._seed_ids[index] for index in self._random.integers(len(self._seed_ids), size=count)]


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

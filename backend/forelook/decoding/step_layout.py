"""What one forward pass computes, and the protocol a model offers to the decoding loops.

A *step* runs T tokens (its *tail*) against the keys and values of all committed tokens. Every tail token sees the
whole committed prefix; which tail tokens it sees is the layout's ``visibility``. After verification the loop commits
the accepted rows, and only those enter the KV cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StepLayout:
    """The tail of one step.

    Attributes:
        token_ids: [T] tokens to run.
        positions: [T] absolute positions (the committed prefix holds 0 .. num_cached-1).
        visibility: [T, T] True where the row's token sees the column's token, its own diagonal included; ``None``
            means causal. Committed tokens are always visible. Rows see only rows at or before them.
        logit_rows: [R] rows whose logits the caller needs, ascending.
    """

    token_ids: IntArray
    positions: IntArray
    visibility: BoolArray | None
    logit_rows: IntArray

    def __len__(self) -> int:
        return len(self.token_ids)


class StepModel(Protocol):
    """One sequence of a language model: the committed tokens and their keys and values.

    ``forward`` leaves the cache's committed part as it was; ``commit`` may be called once after it.
    """

    @property
    def cached_ids(self) -> Sequence[int]:
        """Token ids whose keys and values are committed, position 0 first."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of logits per row."""
        ...

    @property
    def max_positions(self) -> int:
        """Most tokens the cache holds; the tail of a step needs room in it too."""
        ...

    @property
    def tail_sizes(self) -> Sequence[int] | None:
        """Tail sizes the model runs at full speed, ascending; ``None`` when every size is as good as the next."""
        ...

    def forward(self, layout: StepLayout) -> torch.Tensor:
        """Run one step.

        Returns:
            [R, vocab_size] float32 (float64 for float64 models) logits of ``layout.logit_rows``, in their order. The
            tensor may be overwritten by the next ``forward``.
        """
        ...

    def commit(self, rows: Sequence[int]) -> None:
        """Append the given rows of the last forward's tail, in ascending order, to the committed tokens."""
        ...

    def truncate(self, length: int) -> None:
        """Forget committed tokens from position ``length`` on."""
        ...


def causal_layout(token_ids: Sequence[int] | IntArray, start: int, *, last_logits_only: bool = True) -> StepLayout:
    """A plain causal tail of consecutive tokens whose first stands at absolute position ``start``."""
    ids = np.asarray(token_ids, dtype=np.int64)
    rows = np.array([len(ids) - 1], dtype=np.int64) if last_logits_only else np.arange(len(ids), dtype=np.int64)
    return StepLayout(ids, np.arange(start, start + len(ids), dtype=np.int64), None, rows)

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
        positions: [T] absolute positions (the committed prefix has 0 .. num_cached-1).
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
        """Capacity of the cache in tokens; the tail of a step needs room in it too."""
        ...

    @property
    def tail_sizes(self) -> Sequence[int] | None:
        """Tail sizes the model runs at full speed, ascending; ``None`` if no size is special."""
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
        """Drop committed tokens from position ``length`` on."""
        ...


def causal_layout(token_ids: Sequence[int] | IntArray, start: int, *, last_logits_only: bool = True) -> StepLayout:
    """A plain causal tail of consecutive tokens, the first of them at absolute position ``start``."""
    ids = np.asarray(token_ids, dtype=np.int64)
    rows = np.array([len(ids) - 1], dtype=np.int64) if last_logits_only else np.arange(len(ids), dtype=np.int64)
    return StepLayout(ids, np.arange(start, start + len(ids), dtype=np.int64), None, rows)


class WindowTail(Protocol):
    """What a layout needs of a lookahead window, whose column 0 of row 0 is the token before the drafts."""

    @property
    def token_ids(self) -> Sequence[int]:
        """The window's tokens, row by row."""
        ...

    @property
    def offsets(self) -> IntArray:
        """[L] positions counted from the token before the drafts."""
        ...

    @property
    def visibility(self) -> BoolArray:
        """[L, L] which of the window's tokens see which."""
        ...

    @property
    def num_last_row(self) -> int:
        """How many of the last tokens need logits."""
        ...


def lay_out(
    pending: Sequence[int],
    start: int,
    draft_ids: Sequence[int] = (),
    parents: Sequence[int] = (),
    window: WindowTail | None = None,
) -> StepLayout:
    """Pending tokens, then a tree of drafts after the last of them, then a lookahead window parallel to the drafts.

    Args:
        pending: committed to the text but not yet run: one token in a decode step, more in a prefill.
        start: absolute position of the first pending token.
        draft_ids: [n] token of each draft node 1 .. n, parents before children.
        parents: [n] each node's parent: node 0 is the last pending token.
        window: guesses that see the pending tokens and each other by the window's own rules.

    Returns:
        A layout whose logit rows are node 0, the draft nodes in order, then the window's last row.
    """
    num_pending, num_drafts = len(pending), len(draft_ids)
    is_chain = all(parent == node for node, parent in enumerate(parents))
    if window is None and is_chain:
        ids = np.array([*pending, *draft_ids], dtype=np.int64)
        size = num_pending + num_drafts
        return StepLayout(ids, np.arange(start, start + size), None, np.arange(num_pending - 1, size))
    window_ids: Sequence[int] = () if window is None else window.token_ids
    first_window = num_pending + num_drafts
    size = first_window + len(window_ids)
    root = num_pending - 1
    visibility = np.zeros((size, size), dtype=np.bool_)
    if num_pending > 1:
        visibility[:num_pending, :num_pending] = np.tri(num_pending, dtype=np.bool_)
    visibility[root:, :num_pending] = True
    depths = [0]
    ancestors = [0]  # bit sets over the drafts
    for node, parent in enumerate(parents):
        depths.append(depths[parent] + 1)
        ancestors.append(ancestors[parent] | 1 << node)
    if num_drafts:
        width = (num_drafts + 7) // 8
        packed = b"".join([bits.to_bytes(width, "little") for bits in ancestors[1:]])
        rows = np.frombuffer(packed, dtype=np.uint8).reshape(num_drafts, width)
        seen = np.unpackbits(rows, axis=1, count=num_drafts, bitorder="little")
        visibility[num_pending:first_window, num_pending:first_window] = seen
    last_row_start = size
    positions = np.arange(start, start + size)
    positions[num_pending:first_window] = depths[1:]
    if window is not None:
        positions[first_window:] = window.offsets
        visibility[first_window:, first_window:] = window.visibility
        last_row_start = size - window.num_last_row
    positions[num_pending:] += start + root
    logit_rows = np.arange(root, first_window)
    if last_row_start < size:
        logit_rows = np.concatenate([logit_rows, np.arange(last_row_start, size)])
    return StepLayout(np.array([*pending, *draft_ids, *window_ids], dtype=np.int64), positions, visibility, logit_rows)

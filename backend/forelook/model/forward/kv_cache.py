"""Keys and values of one sequence: one preallocated tensor, committed rows first, then a step's tail.

The tail is written where it belongs if it is committed. Accepted rows that are already contiguous (a plain step, a
prefill, the first branch of a tree) cost no copy; others are moved up within the tensor.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch


class KVCache:
    """Room for ``capacity`` tokens, of which the first ``length`` are committed."""

    def __init__(
        self,
        *,
        num_layers: int,
        num_kv_heads: int,
        head_size: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        # Keys and values of a layer are adjacent, so that one copy writes both.
        self._storage = _zeros((num_layers, 2 * num_kv_heads, capacity, head_size), dtype, device)
        self._num_kv_heads = num_kv_heads
        self.capacity = capacity
        self.length = 0
        self._longest = 0

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of keys and values."""
        return self._storage.dtype

    @property
    def storage(self) -> torch.Tensor:
        """[layers, 2 Hkv, capacity, D]: key heads, then value heads."""
        return self._storage

    @property
    def nbytes(self) -> int:
        """Memory in bytes; on a CPU that of the longest it has been, as the rest of it has no pages yet."""
        if self._storage.device.type != "cpu":
            return self._storage.nbytes
        return self._storage.nbytes // max(self.capacity, 1) * max(self._longest, self.length)

    def tails(self, num_tokens: int) -> Sequence[torch.Tensor]:
        """Per layer the slots after the committed tokens, [2 Hkv, num_tokens, D]: key heads, then value heads."""
        return self._storage[:, :, self.length : self.length + num_tokens].unbind(0)

    def keys(self, num_tokens: int) -> Sequence[torch.Tensor]:
        """Per layer the keys of the committed tokens and of a tail, [Hkv, length + num_tokens, D]."""
        return self._storage[:, : self._num_kv_heads, : self.length + num_tokens].unbind(0)

    def values(self, num_tokens: int) -> Sequence[torch.Tensor]:
        """Per layer the values of the committed tokens and of a tail, [Hkv, length + num_tokens, D]."""
        return self._storage[:, self._num_kv_heads :, : self.length + num_tokens].unbind(0)

    def batched(self, num_tokens: int) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        """Per layer the keys and the values of the committed tokens and of a tail, [1, Hkv, length + num_tokens, D]."""
        seen = self._storage[:, None, :, : self.length + num_tokens]
        return seen[:, :, : self._num_kv_heads].unbind(0), seen[:, :, self._num_kv_heads :].unbind(0)

    def commit(self, rows: Sequence[int]) -> None:
        """Append the given rows of the tail, ascending, to the committed tokens."""
        start = self.length
        # Rows 0 .. k-1 are already in place.
        settled = 0
        while settled < len(rows) and rows[settled] == settled:
            settled += 1
        if settled < len(rows):
            self._move([start + row for row in rows[settled:]], start + settled)
        self.length = start + len(rows)

    def _move(self, sources: list[int], target: int) -> None:
        """Copy slots, ascending, to consecutive ones from ``target`` on; no target lies after its source."""
        moved = torch.tensor(sources, device=self._storage.device)
        self._storage[:, :, target : target + len(sources)] = self._storage.index_select(2, moved)

    def truncate(self, length: int) -> None:
        """Drop committed tokens from ``length`` on."""
        self._longest = max(self._longest, self.length)
        self.length = min(self.length, length)


class DeferringKVCache(KVCache):
    """A cache whose accepted rows are moved by the next step, within its captured graph, rather than at once.

    Attributes:
        max_moves: maximum number of rows left to the next step; more are moved at once. Chosen, not measured.
    """

    max_moves = 32
    _pending: tuple[list[int], int] | None = None

    def take_moves(self) -> tuple[list[int], list[int]]:
        """Slots to copy from and to; the caller copies them, all reads before any write."""
        if self._pending is None:
            return [], []
        (sources, target), self._pending = self._pending, None
        return sources, list(range(target, target + len(sources)))

    def flush(self) -> None:
        """Make the pending moves, before the cache is read in another way."""
        if self._pending is not None:
            (sources, target), self._pending = self._pending, None
            super()._move(sources, target)

    def _move(self, sources: list[int], target: int) -> None:
        self.flush()
        if len(sources) > self.max_moves:
            super()._move(sources, target)
        else:
            self._pending = sources, target


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeroed memory; on a CPU it has no pages until they are written.

    Zeroed rather than empty: a masked column is multiplied by zero, and uninitialized memory may contain NaN. Torch
    would write the zeros, and a cache with room for every answer is many times what most prompts need.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or nbytes == 0:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, nbytes), dtype=dtype).view(shape)

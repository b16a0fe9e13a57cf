"""Keys and values of one sequence: one preallocated tensor, committed rows first, a step's tail right behind them.

The tail is written where it will stand if it is committed: accepted rows that are already contiguous (a plain step,
a prefill, the first branch of a tree) cost no copy, others are moved up within the tensor.
"""

from __future__ import annotations

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
        # Keys and values of a layer stand together, so that one copy writes both. Zeroed rather than empty: a masked
        # column is multiplied by zero, and garbage may hold NaN.
        self._storage = torch.zeros(num_layers, 2 * num_kv_heads, capacity, head_size, dtype=dtype, device=device)
        self._num_kv_heads = num_kv_heads
        self.capacity = capacity
        self.length = 0

    @property
    def dtype(self) -> torch.dtype:
        """Of keys and values."""
        return self._storage.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return self._storage.nbytes

    def tails(self, num_tokens: int) -> Sequence[torch.Tensor]:
        """Per layer the room behind the committed tokens, [2 Hkv, num_tokens, D]: key heads, then value heads."""
        return self._storage[:, :, self.length : self.length + num_tokens].unbind(0)

    def keys(self, num_tokens: int) -> Sequence[torch.Tensor]:
        """Per layer the keys of the committed tokens and of a tail, [Hkv, length + num_tokens, D]."""
        return self._storage[:, : self._num_kv_heads, : self.length + num_tokens].unbind(0)

    def values(self, num_tokens: int) -> Sequence[torch.Tensor]:
        """Per layer the values of the committed tokens and of a tail, [Hkv, length + num_tokens, D]."""
        return self._storage[:, self._num_kv_heads :, : self.length + num_tokens].unbind(0)

    def commit(self, rows: Sequence[int]) -> None:
        """Keep the given rows of the tail, ascending, behind the committed tokens."""
        start = self.length
        # Rows 0 .. k-1 stand where they belong already.
        settled = 0
        while settled < len(rows) and rows[settled] == settled:
            settled += 1
        if settled < len(rows):
            moved = torch.tensor(rows[settled:], device=self._storage.device) + start
            target = slice(start + settled, start + len(rows))
            self._storage[:, :, target] = self._storage.index_select(2, moved)
        self.length = start + len(rows)

    def truncate(self, length: int) -> None:
        """Forget committed tokens from ``length`` on."""
        self.length = min(self.length, length)

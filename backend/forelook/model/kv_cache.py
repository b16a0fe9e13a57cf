"""Keys and values of one sequence: one preallocated tensor, committed rows first, a step's tail right behind them.

The tail is written where it will stand if it is committed: accepted rows that are already contiguous (a plain step,
a prefill, the first branch of a tree) cost no copy, others are moved up within the tensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class KVCache:
    """Room for ``capacity`` tokens.

    Attributes:
        keys: per layer [num_kv_heads, capacity, head_size].
        values: likewise.
        length: committed tokens.
    """

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
        shape = (num_layers, 2, num_kv_heads, capacity, head_size)
        # Zeroed rather than empty: masked columns are multiplied by zero, and garbage may hold NaN.
        self._storage = torch.zeros(shape, dtype=dtype, device=device)
        self.keys = [self._storage[layer, 0] for layer in range(num_layers)]
        self.values = [self._storage[layer, 1] for layer in range(num_layers)]
        self.capacity = capacity
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return self._storage.nbytes

    def commit(self, rows: Sequence[int]) -> None:
        """Keep the given rows of the tail behind the committed tokens."""
        start = self.length
        # Rows 0 .. k-1 stand where they belong already.
        settled = 0
        while settled < len(rows) and rows[settled] == settled:
            settled += 1
        if settled < len(rows):
            moved = torch.tensor(rows[settled:], device=self._storage.device) + start
            target = slice(start + settled, start + len(rows))
            self._storage[:, :, :, target] = self._storage.index_select(3, moved)
        self.length = start + len(rows)

    def truncate(self, length: int) -> None:
        """Forget committed tokens from ``length`` on."""
        self.length = min(self.length, length)

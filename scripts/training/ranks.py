"""Data-parallel training: each rank makes and computes its own share of a step's samples; gradients are added up.

Two ranks of one thread each are a third faster than one rank of two threads: what does not thread well, such as making
samples and the small operators, then runs twice at once. Started by ``torchrun``, which sets ``WORLD_SIZE``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ranks:
    """A place among the processes of a run; one process alone needs no group.

    Attributes:
        rank: from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: str) -> Ranks:
        """The group that ``torchrun`` describes in the environment, or this process alone without one."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    def leave(self) -> None:
        """End the group; no rank can be waited for afterwards."""
        if self.size > 1:
            torch.distributed.destroy_process_group()

    def add_up(self, values: Tensor) -> None:
        """Replace a tensor by the sum of those of all ranks."""
        if self.size > 1:
            torch.distributed.all_reduce(values)

    def largest(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The largest of each value over the ranks, so that all of them decide alike."""
        return self._reduced(values, device, "MAX")

    def sums(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The sum of each value over the ranks."""
        return self._reduced(values, device, "SUM")

    def _reduced(self, values: Sequence[float], device: torch.device, how: str) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        if self.size > 1:
            torch.distributed.all_reduce(tensor, op=getattr(torch.distributed.ReduceOp, how))
        return [float(value) for value in tensor.tolist()]

"""How the ranks of lookahead parallelism are started. Imports no torch, because the command line builds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forelook.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RankSource:
    """The ranks of a group.

    Attributes:
        num_ranks: number of ranks, this process included.
        command: starts another rank, with options appended that say which. Empty if torchrun started all ranks.
    """

    num_ranks: int
    command: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.num_ranks < 2:
            raise ConfigError("devices", self.num_ranks, "2 or more, or left out for a single one")


def torchrun_rank(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """The rank of this process and the number of ranks, if torchrun started it as one of several."""
    try:
        rank, size = int(environ["RANK"]), int(environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return None
    return (rank, size) if "MASTER_ADDR" in environ and size > 1 and 0 <= rank < size else None

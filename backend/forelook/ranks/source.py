"""Where the ranks of lookahead parallelism come from. Imports no torch: the command line describes them with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forelook.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RankSource:
    """The ranks of a group.

    Attributes:
        num_ranks: how many, this process included.
        command: starts another rank: options that say which one are added. Empty where torchrun started them all.
    """

    num_ranks: int
    command: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.num_ranks < 2:
            raise ConfigError("devices", self.num_ranks, "2 or more, or left out for a single one")


def torchrun_rank(environ: Mapping[str, str]) -> tuple[int, int] | None:
    """The rank of this process and the number of ranks, where torchrun started it as one of several."""
    try:
        rank, size = int(environ["RANK"]), int(environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return None
    return (rank, size) if "MASTER_ADDR" in environ and size > 1 and 0 <= rank < size else None

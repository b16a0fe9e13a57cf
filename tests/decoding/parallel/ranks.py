"""Groups of ranks for tests: followers as threads where only results matter, as processes where one must die."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from forelook.decoding.layout import StepModel
from forelook.decoding.parallel.decoder import ParallelDecoder
from forelook.decoding.parallel.follower import follow
from forelook.decoding.parallel.group import RankGroup
from forelook.errors import RankLostError

from tests.fakes import RandomTransformer


class ThreadedRanks:
    """Rank 0 in the caller's thread, every other rank in a thread of its own; gloo connects them as it does processes.

    Args:
        folder: for the store.
        size: number of ranks.
        make_model: (rank, max positions) → the rank's model.
        timeout_s: rank 0's.
    """

    def __init__(
        self, folder: Path, size: int, make_model: Callable[[int, int], StepModel], *, timeout_s: float = 20.0
    ) -> None:
        self.size = size
        self.models: dict[int, list[StepModel]] = {rank: [] for rank in range(size)}
        self._make_model = make_model
        self._timeout_s = timeout_s
        self._store = str(folder / f"store-{size}-{id(self)}")
        self.orders: list[tuple[int, str]] = []
        self.threads = [threading.Thread(target=self._follow, args=(rank,), daemon=True) for rank in range(1, size)]
        for thread in self.threads:
            thread.start()
        self.group = self._join(0)
        self.decoder = ParallelDecoder(self.group)

    def new_model(self, rank: int = 0, max_positions: int = 512) -> StepModel:
        model = self._make_model(rank, max_positions)
        self.models[rank].append(model)
        return model

    def close(self) -> None:
        self.group.close()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive(), "a follower stayed though rank 0 is gone"

    def _obey(self, rank: int, order: str) -> str:
        self.models[rank].clear()  # as those of a replica that is let go
        self.orders.append((rank, order))
        return "same"

    def _join(self, rank: int) -> RankGroup:
        return RankGroup(dist.FileStore(self._store, self.size), rank, self.size, timeout_s=self._timeout_s)

    def _follow(self, rank: int) -> None:
        group = self._join(rank)
        try:
            follow(
                group,
                lambda max_positions: self.new_model(rank, max_positions),
                load=lambda: self._obey(rank, "load"),
                unload=lambda: self._obey(rank, "unload"),
            )
        except RankLostError:
            group.close()


def follower_process(store: str, rank: int, size: int) -> None:
    torch.set_num_threads(1)
    group = RankGroup(dist.FileStore(store, size), rank, size, timeout_s=30)
    try:
        follow(group, lambda max_positions: RandomTransformer(3, max_positions=max_positions))
    except RankLostError:
        raise SystemExit(3) from None


@contextmanager
def rank_processes(
    folder: Path, size: int, *, timeout_s: float
) -> Iterator[tuple[RankGroup, list[multiprocessing.Process]]]:
    """Rank 0's group, and the processes of the others; what is left of them ends with the block."""
    store = str(folder / "store")
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=follower_process, args=(store, rank, size), daemon=True) for rank in range(1, size)
    ]
    for process in processes:
        process.start()
    group = RankGroup(dist.FileStore(store, size), 0, size, timeout_s=60)
    group.set_timeout(timeout_s)
    try:
        yield group, processes
    finally:
        group.close()
        for process in processes:
            process.kill()
            process.join()

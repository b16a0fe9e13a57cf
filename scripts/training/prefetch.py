"""Samples made ahead by worker processes: one process makes about as many tokens per second as a GPU trains on."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from multiprocessing.pool import AsyncResult

from forelook.model.token_healing import TokenHealer

from training.samples import Sample, SampleMaker, batch_of

_CHUNK = 32  # samples per message; chosen, not measured
_CHUNKS_AHEAD = 4  # per worker; chosen, not measured


class Prefetcher:
    """Gives the same batches as its maker.

    Start it before a GPU is used: its processes are forked, so that they share the corpus.

    Attributes:
        healer: of the maker.

    Args:
        maker: makes the samples.
        num_workers: processes.
    """

    def __init__(self, maker: SampleMaker, num_workers: int) -> None:
        self.healer: TokenHealer = maker.healer
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # of a forked process
        self._pool = multiprocessing.get_context("fork").Pool(num_workers, _start, (maker,))
        self._num_ahead = _CHUNKS_AHEAD * num_workers
        self._pending: deque[AsyncResult[list[Sample]]] = deque()
        self._made: deque[Sample] = deque()
        # The numbers of the next sample to give and of the next one to order.
        self._given = self._ordered = self._stride = 0

    def make(self, number: int) -> Sample:
        """The sample of a number."""
        return self._pool.apply(_make, (number, 1, 1))[0]

    def batch(self, first: int, num_tokens: int, stride: int = 1) -> tuple[list[Sample], int]:
        """As :meth:`training.samples.SampleMaker.batch`; a batch that does not follow the last one waits."""
        if (first, stride) != (self._given, self._stride):
            self._pending.clear()
            self._made.clear()
            self._given, self._ordered, self._stride = first, first, stride
        samples, self._given = batch_of(lambda _number: self._next(), first, num_tokens, stride)
        return samples, self._given

    def close(self) -> None:
        """End the processes."""
        self._pool.terminate()
        self._pool.join()

    def _next(self) -> Sample:
        while len(self._pending) < self._num_ahead:
            self._pending.append(self._pool.apply_async(_make, (self._ordered, self._stride, _CHUNK)))
            self._ordered += self._stride * _CHUNK
        if not self._made:
            self._made.extend(self._pending.popleft().get())
        return self._made.popleft()


_makers: list[SampleMaker] = []
"""Of a worker process."""


def _start(maker: SampleMaker) -> None:
    _makers[:] = [maker]


def _make(first: int, stride: int, count: int) -> list[Sample]:
    return [_makers[0].make(first + stride * number) for number in range(count)]

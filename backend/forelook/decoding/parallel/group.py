"""The group of ranks: a few integers exchanged per step over torch.distributed, and lost ranks detected.

Gloo listens on the loopback address only, because token ids are users' text. Rank 0 waits for the others a bounded
time; they wait for its requests without a limit. A process that dies closes its connections, which every waiting rank
detects at once; a process that hangs is detected after ``timeout_s``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import AllgatherOptions, BroadcastOptions

from forelook.errors import RankLostError

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_NO_TIMEOUT = timedelta(days=3650)
_MESSAGE_INTS = 512  # of the first part of a message; chosen, not measured
_CANCELLED = "cancelled"


class RankGroup:
    """One process among several ranks.

    Every method is a collective except ``cancel`` and ``is_cancelled``: all ranks call the same ones in the same order.

    Args:
        store: where the ranks find each other; all of them must reach it.
        rank: of this process; 0 leads.
        size: number of ranks.
        device: of this rank's model; NCCL exchanges ids between CUDA devices, gloo between others.
        timeout_s: how long rank 0 waits for the others within a request, including a prefill that only they need.

    Raises:
        RankLostError: a rank did not join in time.
    """

    def __init__(
        self, store: Store, rank: int, size: int, *, device: torch.device | None = None, timeout_s: float = 60.0
    ) -> None:
        self.rank = rank
        self.size = size
        self._store = store
        self._timeout = timedelta(seconds=timeout_s) if rank == 0 else _NO_TIMEOUT
        self._posted: Any = None
        self._is_closed = False
        self._device = torch.device("cpu")
        try:
            store.set_timeout(timedelta(seconds=timeout_s))
            if rank == 0:
                store.set(_CANCELLED, "0")
            self._control: Any = _gloo(prefixed("control", store), rank, size, self._timeout)
            self._steps: Any = self._control
            if device is not None and device.type == "cuda":
                self._device = device
                self._steps = _nccl(prefixed("steps", store), rank, size)
            self.exchange([rank])  # barrier: wait until every rank has joined
        except (RuntimeError, dist.DistError) as error:
            raise RankLostError(f"rank {rank} of {size}: the group is incomplete ({_first_line(error)})") from error

    def set_timeout(self, timeout_s: float) -> None:
        """Rank 0: how long to wait for the others from now on; joining may have its own timeout."""
        self._timeout = timedelta(seconds=timeout_s)

    def exchange(self, values: Sequence[int], *, timeout_s: float | None = None) -> list[list[int]]:
        """Send every rank's values to every rank; returns [size][len(values)].

        Args:
            values: this rank's; as many on every rank.
            timeout_s: replaces the group's timeout for this call.
        """
        if timeout_s is not None:
            usual, self._timeout = self._timeout, timedelta(seconds=timeout_s)
            try:
                return self.exchange(values)
            finally:
                self._timeout = usual
        self._finish_posted()
        mine = torch.tensor(values, dtype=torch.int64, device=self._device)
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        self._wait(lambda: self._steps.allgather([everyone], [mine], self._timed(AllgatherOptions())))
        rows: list[list[int]] = torch.stack(everyone).tolist()
        return rows

    def compare_weights(self, weights: str, *, timeout_s: float | None = None) -> None:
        """Make sure that every rank runs the same weights; they may differ where files changed between two loads.

        Args:
            weights: names this rank's weights; a hash of 63 bits is compared.
            timeout_s: see ``exchange``.

        Raises:
            RankLostError: they differ.
        """
        mark = int.from_bytes(hashlib.sha256(weights.encode()).digest()[:8], "big") >> 1
        marks = [values[0] for values in self.exchange([mark], timeout_s=timeout_s)]
        others = [str(rank) for rank, other in enumerate(marks) if other != marks[0]]
        if others:
            self.close()
            raise RankLostError(f"other weights than rank 0 has were loaded by rank {', '.join(others)}; retry")

    def post(self, values: Sequence[int]) -> None:
        """Join an exchange without waiting for the others; the next call of any kind waits for it."""
        self._finish_posted()
        mine = torch.tensor(values, dtype=torch.int64, device=self._device)
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        self._posted = (
            self._begin(lambda: self._steps.allgather([everyone], [mine], self._timed(AllgatherOptions()))),
            mine,
            everyone,
        )

    def send(self, values: Sequence[int]) -> None:
        """Rank 0: send integers to the other ranks."""
        self._finish_posted()
        first = torch.zeros(_MESSAGE_INTS, dtype=torch.int64)
        first[0] = len(values)
        head = values[: _MESSAGE_INTS - 1]
        first[1 : 1 + len(head)] = torch.tensor(head, dtype=torch.int64)
        self._wait(lambda: self._control.broadcast([first], self._timed(BroadcastOptions())))
        if len(head) < len(values):
            rest = torch.tensor(values[len(head) :], dtype=torch.int64)
            self._wait(lambda: self._control.broadcast([rest], self._timed(BroadcastOptions())))

    def receive(self) -> list[int]:
        """Other ranks: wait for rank 0's next message, without a limit."""
        self._finish_posted()
        first = torch.zeros(_MESSAGE_INTS, dtype=torch.int64)
        self._wait(lambda: self._control.broadcast([first], self._timed(BroadcastOptions())))
        length = int(first[0])
        values: list[int] = first[1 : min(length + 1, _MESSAGE_INTS)].tolist()
        if len(values) < length:
            rest = torch.zeros(length - len(values), dtype=torch.int64)
            self._wait(lambda: self._control.broadcast([rest], self._timed(BroadcastOptions())))
            values += rest.tolist()
        return values

    def cancel(self, request: int) -> None:
        """Rank 0: cancel a request's prefill on the other ranks."""
        self._guarded(lambda: self._store.set(_CANCELLED, str(request)))

    def is_cancelled(self, request: int) -> bool:
        """Whether rank 0 has cancelled it."""
        return bool(self._guarded(lambda: self._store.get(_CANCELLED)) == str(request).encode())

    def close(self) -> None:
        """Leave; ranks that wait for this one get a RankLostError, and so do calls of this rank's other threads."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._device.type == "cuda":
            self._steps.abort()
        # gloo closes its connections, which the others wait on, only when the last reference is dropped
        self._steps = self._control = self._posted = None

    # --- collectives

    def _timed(self, options: Any) -> Any:
        options.timeout = self._timeout
        return options

    def _finish_posted(self) -> None:
        if self._posted is not None:
            posted, self._posted = self._posted, None
            self._wait(lambda: posted[0])

    def _begin(self, start: Any) -> Any:
        if self._is_closed:
            raise RankLostError(f"rank {self.rank} has left its group; start the group again")
        return self._guarded(start)

    def _wait(self, start: Any) -> None:
        work = self._begin(start)
        if self._device.type != "cuda":
            self._guarded(lambda: work.wait(self._timeout))
            return
        # NCCL's own watchdog would end the process, and the service with it: poll instead, and abort.
        deadline_s = time.monotonic() + self._timeout.total_seconds()
        while not self._guarded(work.is_completed):
            if time.monotonic() > deadline_s:
                self._lost(f"no answer for {self._timeout.total_seconds():.0f} s")
        self._guarded(work.wait)

    def _guarded(self, call: Any) -> Any:
        try:
            return call()
        except (RuntimeError, dist.DistError) as error:
            self._lost(_first_line(error), error)
        except AttributeError as error:
            if not self._is_closed:
                raise
            self._lost("this rank has left", error)  # closed by another thread meanwhile

    def _lost(self, reason: str, error: BaseException | None = None) -> None:
        self.close()
        raise RankLostError(
            f"rank {self.rank} of {self.size} lost contact with another rank ({reason}); "
            "retry, the group is being restarted"
        ) from error


def prefixed(prefix: str, store: Store) -> Store:
    """A namespace within a store."""
    return dist.PrefixStore(prefix, store)  # type: ignore[attr-defined]  # torch's stubs leave it out


def _gloo(store: Store, rank: int, size: int, timeout: timedelta) -> Any:
    # Created directly, because init_process_group cannot set the address that gloo listens on.
    gloo: Any = dist.ProcessGroupGloo
    options = gloo._Options()  # noqa: SLF001
    options._devices = [gloo.create_device(hostname="127.0.0.1")]  # noqa: SLF001
    options._timeout = timeout  # noqa: SLF001
    return gloo(store, rank, size, options)


def _nccl(store: Store, rank: int, size: int) -> Any:
    nccl: Any = dist.ProcessGroupNCCL
    options = nccl.Options()
    options._timeout = _NO_TIMEOUT  # noqa: SLF001
    return nccl(store, rank, size, options)


def _first_line(error: BaseException) -> str:
    """Torch's message without source location and advice."""
    line = str(error).strip().partition("\n")[0]
    return line.rpartition("] ")[2].partition(" This is")[0].rstrip(". ") or type(error).__name__

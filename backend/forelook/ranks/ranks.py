"""Processes that decode together: started, watched, and restarted when one dies.

While the group is incomplete, at the start and after a death, this process decodes alone: completions are slower but
the same. The request that a death interrupts ends with a RankLostError.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore, Store

from forelook.completion.engine.drafting import Drafting
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.costs import COMMON_COSTS, StepCostEstimate
from forelook.decoding.drafting.drafter import Drafter
from forelook.decoding.layout import StepModel
from forelook.decoding.loop import decode
from forelook.decoding.parallel.decoder import ParallelDecoder, shared_costs
from forelook.decoding.parallel.follower import follow
from forelook.decoding.parallel.group import RankGroup
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.errors import ConfigError, RankLostError
from forelook.local.identity import BackendIdentity, UserPaths
from forelook.model.default_model import load_user_model
from forelook.model.loading import LoadedModel, choose_device
from forelook.model.memory import release_memory
from forelook.ranks.source import RankSource

logger = logging.getLogger("forelook.server")
# All of these are chosen, not measured.
_POLL_S = 0.2
_LOADING_TIMEOUT_S = 1800.0
_STEP_TIMEOUT_S = 60.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


class Ranks:
    """Rank 0's view of its group.

    Args:
        source: how the other ranks are started.
        step_timeout_s: how long to wait for them within a request.
    """

    def __init__(self, source: RankSource, *, step_timeout_s: float = _STEP_TIMEOUT_S) -> None:
        self._source = source
        self._step_timeout_s = step_timeout_s
        self._device = torch.device("cpu")
        self._decoder: ParallelDecoder | None = None
        self._weights = ""
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lost = threading.Event()
        self._closing = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the group is complete."""
        return self._decoder is not None

    @property
    def process_ids(self) -> list[int]:
        """Process ids of the ranks that this process started."""
        return [process.pid for process in self._processes]

    def prepare(self, device: str) -> None:
        """Check that the machine has a device per rank and limit this rank to its part of the CPU; before loading.

        Raises:
            ConfigError: fewer devices than ranks.
        """
        self._device = rank_device(device, 0)
        num_ranks, on_cuda = self._source.num_ranks, self._device.type == "cuda"
        available = torch.cuda.device_count() if on_cuda else os.cpu_count() or 1
        if num_ranks > available:
            what = "CUDA devices" if on_cuda else "CPU cores"
            raise ConfigError("devices", num_ranks, f"at most the {available} {what} of this machine")
        share_cpu(self._device, num_ranks)

    def shared(self, drafting: Drafting) -> Drafting:
        """Start gathering the group in a thread; returns drafting with the loop and the step costs of the group."""
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, name="forelook-ranks", daemon=True)
            self._keeper.start()
            atexit.register(self.close)  # dismiss the other ranks when the process ends
        costs = COMMON_COSTS if drafting.budget is None else drafting.budget.costs
        budget = StepBudget(StepCostEstimate(shared_costs(costs, self._source.num_ranks)))
        return replace(drafting, budget=budget, loop=self.decode, costs_path=None, prefill_path=None)

    def decode(
        self, request: DecodeRequest, model: StepModel, drafter: Drafter, stats: DecodingStats | None = None
    ) -> Iterator[list[int]]:
        """``loop.decode``, with the group where it is complete.

        Raises:
            RankLostError: a rank died or hangs; the group is restarted.
        """
        decoder = self._decoder
        loop = decode if decoder is None else decoder.decode
        try:
            yield from loop(request, model, drafter, stats)
        except RankLostError as error:
            self._handle_loss(error)
            raise

    def unload(self) -> None:
        """Make the other ranks free their weights, as this one has."""
        if self._decoder is not None:
            try:
                self._decoder.unload()
            except RankLostError as error:
                self._handle_loss(error)

    def load(self, load: Callable[[], LoadedModel]) -> LoadedModel:
        """Load this rank's model while the other ranks load theirs. If they fail, this one decodes alone afterwards.

        Args:
            load: loads it.
        """
        decoder = self._decoder
        try:
            if decoder is not None:
                decoder.load()
        except RankLostError as error:
            self._handle_loss(error)
            decoder = None
        try:
            model = load()
            self._weights = model.fingerprint
            return model
        finally:
            if decoder is not None:
                try:
                    decoder.wait_until_loaded(self._weights, _LOADING_TIMEOUT_S)
                except RankLostError as error:
                    self._handle_loss(error)

    def _handle_loss(self, error: RankLostError) -> None:
        logger.error("%s", error)
        self._decoder = None
        self._lost.set()

    def close(self) -> None:
        """End the other ranks; this process continues alone."""
        self._closing.set()
        self._lost.set()
        if self._keeper is not None:
            self._keeper.join(10.0)

    # --- the keeper's thread

    def _keep(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            self._lost.clear()
            if self._closing.is_set():  # asked after the clear, which may have dropped what `close` set
                return
            group: RankGroup | None = None
            try:
                with tempfile.TemporaryDirectory(prefix="forelook-ranks-") as folder:
                    group = self._gather(Path(folder))
                    group.set_timeout(self._step_timeout_s)
                    group.compare_weights(self._weights)
                    logger.info("%d ranks decode together", self._source.num_ranks)
                    pause_s = _FIRST_PAUSE_S
                    self._decoder = ParallelDecoder(group)
                    self._watch()
            except (RankLostError, OSError) as error:
                logger.error("%s", error)  # noqa: TRY400 - expected, no traceback
            finally:
                decoder, self._decoder = self._decoder, None
                if decoder is not None and self._closing.is_set():
                    with contextlib.suppress(RankLostError):
                        decoder.dismiss()
                if group is not None:
                    group.close()
                self._end_processes()
            if not self._source.command:
                return  # torchrun ends this process too, and restarts all of them
            if not self._closing.wait(pause_s):
                logger.info("restarting the ranks")
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _gather(self, folder: Path) -> RankGroup:
        size, device = self._source.num_ranks, self._device
        if not self._source.command:
            return RankGroup(_torchrun_store(), 0, size, device=device, timeout_s=_LOADING_TIMEOUT_S)
        for rank in range(1, size):
            command = [*self._source.command, "--rank", f"{rank}/{size}", "--folder", str(folder)]
            # a rank exits at the end of its standard input, however this process ends
            # Not in the working folder: `-m` would import its modules in place of others.
            process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            self._processes.append(process)
        deadline_s = time.monotonic() + _LOADING_TIMEOUT_S
        while len(list(folder.glob("loaded-*"))) < size - 1:
            self._look_after_processes()
            if time.monotonic() > deadline_s:
                raise RankLostError(f"the other ranks did not load the model within {_LOADING_TIMEOUT_S:.0f} s")
            if self._lost.wait(_POLL_S):
                raise RankLostError("closing")
        return RankGroup(_file_store(folder, size), 0, size, device=device, timeout_s=_STEP_TIMEOUT_S)

    def _watch(self) -> None:
        while not self._lost.wait(_POLL_S):
            self._look_after_processes()

    def _look_after_processes(self) -> None:
        for process in self._processes:
            status = process.poll()
            if status is not None:
                raise RankLostError(f"the rank of process {process.pid} exited with status {status}")

    def _end_processes(self) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(2.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()


def rank_device(device: str, rank: int) -> torch.device:
    """The device of a rank: the n-th of its kind.

    Raises:
        ConfigError: there is no such device, or the setting names a single device.
    """
    if ":" in device:
        raise ConfigError("device", device, "'auto', 'cpu' or 'cuda' where several devices are used")
    chosen = choose_device(device)
    return choose_device(f"cuda:{rank}") if chosen.type == "cuda" else chosen


def share_cpu(device: torch.device, num_ranks: int) -> None:
    """Limit this rank to its part of the cores, if it runs on the CPU."""
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_ranks))


def follow_rank_zero(rank: int, size: int, folder: Path | None, identity: BackendIdentity, paths: UserPaths) -> None:
    """Serve as a rank other than 0 until rank 0 exits.

    Args:
        rank: of this process.
        size: number of ranks.
        folder: where rank 0 waits; ``None`` under torchrun.
        identity: what rank 0 serves; this rank uses the device of its number.
        paths: the user's folders.

    Raises:
        ModelError: the model cannot be loaded.
        RankLostError: a rank is lost.
    """
    torch_device = rank_device(identity.device, rank)
    share_cpu(torch_device, size)
    replica = _Replica(lambda: load_user_model(replace(identity, device=str(torch_device)), paths))
    weights = replica.load()
    if folder is None:
        store, timeout_s = _torchrun_store(), _LOADING_TIMEOUT_S
    else:
        (folder / f"loaded-{rank}").touch()
        store, timeout_s = _file_store(folder, size), _STEP_TIMEOUT_S
    group = RankGroup(store, rank, size, device=torch_device, timeout_s=timeout_s)
    group.compare_weights(weights)
    follow(group, replica.new_sequence, load=replica.load, unload=replica.unload)


class _Replica:
    """A rank's model, loaded and unloaded as rank 0 orders."""

    def __init__(self, load: Callable[[], LoadedModel]) -> None:
        self._load = load
        self._model: LoadedModel | None = None

    def load(self) -> str:
        if self._model is None:
            self._model = self._load()
        return self._model.fingerprint

    def unload(self) -> None:
        self._model = None
        release_memory()
        logger.info("unloaded; reloads with rank 0")

    def new_sequence(self, max_positions: int) -> StepModel:
        self.load()
        assert self._model is not None
        return self._model.new_sequence(max_positions)


def _file_store(folder: Path, size: int) -> Store:
    # A file in a private folder: a store on TCP would listen on every address of the machine.
    return FileStore(str(folder / "store"), size)


def _torchrun_store() -> Store:
    store: Store = next(iter(dist.rendezvous("env://")))[0]  # type: ignore[attr-defined]  # torch's stubs leave it out
    return store

"""Learns in idle time which tokens the model puts after those that matter to its users."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from forelook.decoding.drafting.sources.successors import SuccessorSeeds, ask_successors
from forelook.decoding.layout import IntArray, StepModel
from forelook.errors import ForelookError
from forelook.model.loading import LoadedModel
from forelook.model.successor_file import read_successors, successors_path, write_successors

logger = logging.getLogger(__name__)

# Chosen, not measured.
QUIET_S = 0.5  # after a request or an edit
SLICE_S = 0.025  # a request waits for one slice at most
_TOO_SLOW_S = 4 * SLICE_S  # learning ends where single tokens take longer than this, …
_MAX_SLOW = 3  # … so many times in a row: one may have met a busy machine
_MAX_SECONDS = 30.0  # of slices per process
_FIRST_IDS = 1 << 14  # ids of a vocabulary that are its most frequent tokens, as BPE numbers them
_MAX_SLICE_TOKENS = 256


class SuccessorLearning:
    """What the model says after single tokens, asked in slices: no request waits for it, and none needs it.

    The tokens of open documents come first, then those of the pools, the most frequent first, then the first ids of the
    vocabulary. What the model says depends on no document; only the order of the questions does.

    Attributes:
        seeds: what is known; grows.
        path: file of the seeds; ``None`` keeps them in memory.

    Args:
        seeds: to continue with.
        start_ids: what the model reads before each token.
        path: file of the seeds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        seeds: SuccessorSeeds,
        start_ids: list[int],
        path: Path | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.seeds = seeds
        self.path = path
        self._start_ids = start_ids
        self._clock = clock
        self._sequence: StepModel | None = None
        self._waiting: deque[int] = deque()
        self._num_wanted = 0
        self._has_new_text = True
        self._slice_tokens = 1
        self._num_slow = 0
        self._left_s = _MAX_SECONDS
        self._is_saved = True

    @classmethod
    def of(cls, model: LoadedModel, cache_dir: Path | None) -> SuccessorLearning:
        """Continue with what an earlier process learned of a model.

        Args:
            model: its vocabulary and start token count.
            cache_dir: folder of the file; ``None`` to keep nothing.
        """
        bos = model.config.bos_token_id
        # Without anything before it a token gets what a first token gets, whatever it is.
        # measured: docs/decisions.md, "What a lone token is asked after"
        start_ids = model.tokenizer.encode("\n") if bos is None else [bos]
        vocab_size = model.config.vocab_size
        path = None if cache_dir is None else successors_path(cache_dir, model.fingerprint, start_ids)
        seeds = None if path is None else read_successors(path, vocab_size)
        return cls(seeds or SuccessorSeeds(vocab_size), start_ids, path)

    @property
    def has_work(self) -> bool:
        """Whether there may be a token to ask about."""
        return self._left_s > 0 and (bool(self._waiting) or self._has_new_text)

    @property
    def share(self) -> float:
        """How much of what was wanted is known."""
        return 1.0 - len(self._waiting) / max(1, self._num_wanted)

    def text_changed(self) -> None:
        """Documents or pools may have tokens that were not asked about."""
        self._has_new_text = True

    def run_slice(self, model: LoadedModel, count_uses: Callable[[int], IntArray]) -> bool:
        """Ask about some tokens, in one forward; returns whether there were any.

        Args:
            model: the loaded model.
            count_uses: vocabulary size → [V] how much each token matters in documents and pools.
        """
        if not self._waiting and self._has_new_text:
            self._choose(count_uses(len(self.seeds.token_ids)))
        if not self._waiting or self._left_s <= 0:
            return False
        started_s = self._clock()
        try:
            self._ask(model)
        except BaseException as error:  # whatever fails here is not tried again: everything works without it
            self._left_s = 0.0
            if not isinstance(error, ForelookError):
                raise
            logger.warning("the model is not asked about further tokens: %s", error)
            return False
        self._spend(self._clock() - started_s)
        return True

    def _choose(self, uses: IntArray) -> None:
        self._has_new_text = False
        is_wanted = (uses > 0) & ~self.seeds.is_known
        wanted = np.flatnonzero(is_wanted)
        first = np.flatnonzero(~self.seeds.is_known[:_FIRST_IDS] & ~is_wanted[:_FIRST_IDS])
        self._waiting.extend(wanted[np.argsort(-uses[wanted], kind="stable")].tolist())
        self._waiting.extend(first.tolist())
        self._num_wanted = len(self._waiting)

    def _ask(self, model: LoadedModel) -> None:
        if self._sequence is None:
            positions = min(model.max_positions, len(self._start_ids) + _MAX_SLICE_TOKENS)
            self._sequence = model.new_sequence(positions)
            if self._sequence.tail_sizes is not None:
                # larger than any captured step: capturing one would take several slices
                self._slice_tokens = _MAX_SLICE_TOKENS
        room = self._sequence.max_positions - len(self._start_ids)
        tokens = [self._waiting.popleft() for _ in range(min(self._slice_tokens, room, len(self._waiting)))]
        self.seeds.add(tokens, *ask_successors(self._sequence, self._start_ids, tokens))
        self._is_saved = False

    def _spend(self, seconds: float) -> None:
        self._left_s -= seconds
        self._num_slow = self._num_slow + 1 if seconds > _TOO_SLOW_S and self._slice_tokens == 1 else 0
        if self._num_slow == _MAX_SLOW:
            self._left_s = 0.0
        elif self._sequence is not None and self._sequence.tail_sizes is None:
            if seconds > SLICE_S:
                self._slice_tokens = max(1, self._slice_tokens // 2)
            elif seconds < SLICE_S / 2:
                self._slice_tokens = min(_MAX_SLICE_TOKENS, 2 * self._slice_tokens)

    def release(self) -> None:
        """Free the memory of the model, which is unloaded."""
        self._sequence = None

    @property
    def has_unsaved(self) -> bool:
        """Whether ``save`` has something to write."""
        return self.path is not None and not self._is_saved

    def save(self) -> None:
        """Keep what is known for the next start.

        Raises:
            OSError: the file cannot be written.
        """
        if self.path is not None and not self._is_saved:
            write_successors(self.path, self.seeds)
            self._is_saved = True

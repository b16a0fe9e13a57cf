"""Learns in idle time which tokens the model puts after those that matter to its users."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from forelook.decoding.drafting.draft import ID_BITS, pair_of
from forelook.decoding.drafting.sources.successors import SuccessorSeeds, ask_pair_successors, ask_successors
from forelook.decoding.layout import IntArray, StepModel
from forelook.errors import ForelookError
from forelook.model.loading import LoadedModel
from forelook.model.pair_file import read_pairs
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
_MIN_SECOND = 0.05  # a pair of tokens is asked about where the model gives its second one at least this probability
_MAX_PAIRS = 1 << 16
_TEXT_PAIRS = 1 << 14  # chosen at a time: about as many as there is time for
_ID_MASK = (1 << ID_BITS) - 1


def no_pairs() -> IntArray:
    """No pairs of tokens."""
    return np.zeros(0, dtype=np.int64)


class SuccessorLearning:
    """What the model says after one and two tokens, asked in slices: no request waits for it, and none needs it.

    The tokens of open documents come first, then those of the pools, the most frequent first; then their pairs, in the
    same order; then the first ids of the vocabulary, and each of these together with the likeliest of what the model
    said after it. What the model says depends on no document; only the order of the questions does. Pairs stay in
    memory: those of a text tell much of it, also after it was excluded.

    Attributes:
        seeds: what is known; grows.
        start_ids: what the model reads before each token.
        path: file of the seeds; ``None`` keeps them in memory.

    Args:
        seeds: to continue with.
        start_ids: kept as the attribute.
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
        self.start_ids = start_ids
        self._clock = clock
        self._sequence: StepModel | None = None
        self._tokens: deque[int] = deque()
        self._groups: deque[tuple[int, list[int]]] = deque()  # pairs of the text: a token, and what follows it there
        self._first_ids: deque[int] = deque()
        self._likely: deque[int] = deque()  # tokens whose likely successors make pairs
        self._likely_left = True
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
        seeds = (None if path is None else read_successors(path, vocab_size)) or SuccessorSeeds(vocab_size)
        if model.pairs_path is not None:
            seeds.published = read_pairs(model.pairs_path, vocab_size)
        return cls(seeds, start_ids, path)

    @property
    def has_work(self) -> bool:
        """Whether there may be something to ask about."""
        return self._left_s > 0 and (self._num_waiting > 0 or self._has_new_text)

    @property
    def _num_waiting(self) -> int:
        return len(self._tokens) + len(self._groups) + len(self._first_ids) + len(self._likely)

    @property
    def share(self) -> float:
        """How much of what was wanted is known."""
        return 1.0 - self._num_waiting / max(1, self._num_wanted)

    def text_changed(self) -> None:
        """Documents or pools may have tokens that were not asked about."""
        self._has_new_text = True

    def run_slice(
        self, model: LoadedModel, count_uses: Callable[[int], IntArray], pairs_in_use: Callable[[], IntArray] = no_pairs
    ) -> bool:
        """Ask about some tokens, in one forward; returns whether there were any.

        Args:
            model: the loaded model.
            count_uses: vocabulary size → [V] how much each token matters in documents and pools.
            pairs_in_use: the pairs of tokens in documents and pools, those that matter most first.
        """
        if not self._tokens and self._has_new_text:
            self._choose(count_uses(len(self.seeds.token_ids)), pairs_in_use())
        if self._left_s <= 0 or self._num_waiting == 0:
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

    def _choose(self, uses: IntArray, pairs: IntArray) -> None:
        self._has_new_text = False
        is_known = self.seeds.is_known
        is_wanted = (uses > 0) & ~is_known
        wanted = np.flatnonzero(is_wanted)
        self._tokens = deque(wanted[np.argsort(-uses[wanted], kind="stable")].tolist())
        groups: dict[int, list[int]] = {}
        for pair in pairs[~self.seeds.knows_pairs(pairs)][:_TEXT_PAIRS].tolist():
            groups.setdefault(pair >> ID_BITS, []).append(pair & _ID_MASK)
        self._groups = deque(groups.items())
        self._first_ids = deque(np.flatnonzero(~is_known[:_FIRST_IDS] & ~is_wanted[:_FIRST_IDS]).tolist())
        if self._likely_left:
            self._likely = deque(range(min(_FIRST_IDS, len(uses))))
            self._likely_left = False
        self._num_wanted = self._num_waiting

    def _ask(self, model: LoadedModel) -> None:
        if self._sequence is None:
            positions = min(model.max_positions, len(self.start_ids) + _MAX_SLICE_TOKENS)
            self._sequence = model.new_sequence(positions)
            if self._sequence.tail_sizes is not None:
                # larger than any captured step: capturing one would take several slices
                self._slice_tokens = _MAX_SLICE_TOKENS
        room = min(self._slice_tokens, self._sequence.max_positions - len(self.start_ids))
        tokens = self._tokens or (self._first_ids if not self._groups else None)
        if tokens:
            ids = [tokens.popleft() for _ in range(min(room, len(tokens)))]
            self.seeds.add(ids, *ask_successors(self._sequence, self.start_ids, ids))
            self._is_saved = False
        elif groups := self._next_groups(room):
            self.seeds.add_pairs(*ask_pair_successors(self._sequence, self.start_ids, groups))
        if self.seeds.num_pairs >= _MAX_PAIRS:
            self._groups.clear()
            self._likely.clear()

    def _next_groups(self, room: int) -> list[tuple[int, list[int]]]:
        """The next pairs, by their first tokens: one at least, then as many as fit into ``room`` rows."""
        chosen: list[tuple[int, list[int]]] = []
        for _ in range(_MAX_SLICE_TOKENS):
            if self._groups:
                first, seconds = self._groups.popleft()
            elif self._likely:
                first = self._likely.popleft()
                seconds = [token for token, probability in self.seeds.of(first) if probability >= _MIN_SECOND]
                seconds = [token for token in seconds if not self.seeds.knows_pair(pair_of(first, token))]
            else:
                break
            most = max(1, room - 1)
            if len(seconds) > most:
                self._groups.appendleft((first, seconds[most:]))
            if seconds:
                chosen.append((first, seconds[:most]))
                room -= 1 + len(chosen[-1][1])
            if room < 2:
                break
        return chosen

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

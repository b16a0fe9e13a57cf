"""A decode step with fixed addresses and sizes, so that it can be captured once and replayed.

The tail is padded to one of a few sizes. One buffer of pinned memory contains everything that changes from step to
step, the number of committed tokens included, and reaches the device in one copy. The step is plain torch code. It is
captured as a CUDA graph on a GPU and runs uncaptured elsewhere, with the same numbers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from forelook.decoding.layout import IntArray, StepLayout
from forelook.model.forward.kv_cache import DeferringKVCache
from forelook.model.forward.layers import LlamaWeights, new_cache, normalize_heads_
from forelook.model.forward.llama import LlamaSequence
from forelook.model.forward.step_ops import StepOps
from forelook.model.memory import out_of_memory_named

TAIL_SIZES = (1, 8, 16, 32, 64, 128)
"""Sizes a tail is padded to. Up to about 64 tokens a GPU's step takes as long as reading its weights.

Chosen, not measured."""

Step = Callable[[], None]
Prepare = Callable[[Step], Step]
"""Prepares a step for many runs: captures it on a GPU. It may run the step in doing so."""


def run_as_it_is(step: Step) -> Step:
    """Prepares a step where nothing is captured."""
    return step


class StepInputs:
    """The inputs of one step of T padded tokens, in pinned memory and on the device.

    Attributes:
        token_ids, positions, logit_rows: [T] int64; logit rows are padded with 0.
        move_sources, move_targets: [max_moves] int64 slots of the cache; padded with the spare slot onto itself.
        prefix_length: [1] int32.
        visible: [T, T] bool; a padded row sees itself.

    Args:
        num_tokens: T.
        device: where the step runs.
        spare_slot: a slot of the cache that no move has as its target.
    """

    def __init__(self, num_tokens: int, device: torch.device, spare_slot: int) -> None:
        moves = DeferringKVCache.max_moves
        num_words = 3 * num_tokens + 2 * moves + 1
        num_bytes = 8 * num_words + num_tokens * num_tokens
        self._device = device
        self._host = torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._buffer = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
        self._uploaded: torch.cuda.Event | None = None
        words = self._buffer[: 8 * num_words].view(torch.int64)
        self._padding = (0, 0, 0, spare_slot, spare_slot, 0)
        sizes = [num_tokens, num_tokens, num_tokens, moves, moves, 1]
        (self.token_ids, self.positions, self.logit_rows, self.move_sources, self.move_targets, prefix) = torch.split(
            words, sizes
        )
        self.prefix_length = prefix.view(torch.int32)[:1]  # the low half of a little-endian word
        self.visible = self._buffer[8 * num_words :].view(torch.bool).view(num_tokens, num_tokens)
        host = self._host.numpy()
        self._words = np.split(host[: 8 * num_words].view(np.int64), np.cumsum(sizes)[:-1])
        self._visible = host[8 * num_words :].view(np.bool_).reshape(num_tokens, num_tokens)
        self._causal = np.tri(num_tokens, dtype=np.bool_)
        self._alone = np.eye(num_tokens, dtype=np.bool_)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self._buffer.nbytes

    def write(self, layout: StepLayout, prefix_length: int, moves: tuple[list[int], list[int]]) -> None:
        """Pad a layout and send it to the device."""
        if self._uploaded is not None:
            self._uploaded.synchronize()  # the previous copy may still be reading
        count = len(layout)
        parts: tuple[Sequence[int] | IntArray, ...] = (layout.token_ids, layout.positions, layout.logit_rows, *moves)
        for words, values, padding in zip(self._words, (*parts, (prefix_length,)), self._padding, strict=True):
            words[: len(values)] = values
            words[len(values) :] = padding
        # Padded rows see themselves: a row that sees nothing would become NaN.
        np.copyto(self._visible, self._alone)
        self._visible[:count, :count] = self._causal[:count, :count] if layout.visibility is None else layout.visibility
        self._upload()

    def write_idle(self, prefix_length: int) -> None:
        """Inputs of a step that writes only after ``prefix_length`` and moves nothing, to run during preparation."""
        self.write(_IDLE, prefix_length, ([], []))

    def _upload(self) -> None:
        self._buffer.copy_(self._host, non_blocking=True)
        if self._device.type == "cuda":
            self._uploaded = self._uploaded or torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._uploaded.record()


_ZERO = np.zeros(1, dtype=np.int64)
_IDLE = StepLayout(_ZERO, _ZERO, None, _ZERO)


def run_trunk(weights: LlamaWeights, ops: StepOps, cache: Tensor, inputs: StepInputs, hidden_rows: Tensor) -> None:
    """Everything of a step but its head.

    Args:
        weights: the model.
        ops: the operators between its matrix products.
        cache: [layers, 2 Hkv, capacity, D]; the rows accepted before are moved, the tail's are written.
        inputs: the step.
        hidden_rows: [T, C] receives the last hidden states of the logit rows.
    """
    config, dtype = weights.config, weights.dtype
    cache.index_copy_(2, inputs.move_targets, cache.index_select(2, inputs.move_sources))
    hidden = weights.embedding.rows(inputs.token_ids)  # [T, C]
    if config.embedding_multiplier != 1.0:
        hidden = hidden * config.embedding_multiplier
    update: Tensor | None = None
    num_rotated = config.num_heads + config.num_kv_heads
    for index, layer in enumerate(weights.layers):
        hidden, normed = ops.add_norm(hidden, update, config.residual_multiplier, layer.attention_norm)
        qkv = layer.qkv(normed)
        if layer.head_norm is not None:
            heads = qkv.view(len(qkv), -1, config.head_size)[:, :num_rotated]
            normalize_heads_(heads, layer.head_norm, config.norm_eps)
        queries = ops.rotate_and_store(qkv, weights.rotations, inputs.positions, cache[index], inputs.prefix_length)
        attended = ops.attend(queries, cache[index], inputs.prefix_length, inputs.visible, config.attention_scale)
        update = layer.output(attended.to(dtype))
        hidden, normed = ops.add_norm(hidden, update, config.residual_multiplier, layer.mlp_norm)
        update = layer.down(ops.gate(layer.gate_up(normed)))
    hidden = hidden if update is None else hidden + update * config.residual_multiplier
    torch.index_select(hidden, 0, inputs.logit_rows, out=hidden_rows)


def run_head(weights: LlamaWeights, hidden_rows: Tensor, logits: Tensor) -> None:
    """[R, C] hidden states → [R, V] logits."""
    config = weights.config
    projected = weights.head(weights.final_norm(hidden_rows))
    if config.logits_divisor == 1.0:
        logits.copy_(projected)
    else:
        torch.div(projected.to(logits.dtype), config.logits_divisor, out=logits)


class StepSpace:
    """What the sequences of one model share: a step's outputs, the prepared heads, and how to prepare a step.

    Args:
        weights: the model.
        ops: the operators between its matrix products.
        prepare: captures a step, or returns it unchanged.
        on_prepare: called with a line for users before a step is prepared, and with an empty one afterwards.
    """

    def __init__(
        self,
        weights: LlamaWeights,
        ops: StepOps,
        prepare: Prepare = run_as_it_is,
        on_prepare: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.weights = weights
        self.ops = ops
        self.prepare = prepare
        self.on_prepare = on_prepare
        most, device = TAIL_SIZES[-1], weights.device
        wide = torch.float64 if weights.dtype == torch.float64 else torch.float32
        self.hidden_rows = torch.zeros(most, weights.config.hidden_size, dtype=weights.dtype, device=device)
        self.logits = torch.zeros(most, weights.config.vocab_size, dtype=wide, device=device)
        self._heads: dict[int, Step] = {}

    @property
    def nbytes(self) -> int:
        """Size of the shared outputs in bytes."""
        return self.hidden_rows.nbytes + self.logits.nbytes

    def prepared(self, line: str, step: Step) -> Step:
        """Prepare a step for many runs; capturing takes some tenths of a second."""
        self.on_prepare(line)
        try:
            return self.prepare(step)
        finally:
            self.on_prepare("")

    def run_head(self, num_rows: int) -> Tensor:
        """[num_rows, V] logits of the first hidden rows."""
        size = padded_size(num_rows)
        head = self._heads.get(size)
        if head is None:
            weights, rows, logits = self.weights, self.hidden_rows[:size], self.logits[:size]
            head = self._heads[size] = self.prepared(
                f"Preparing the logits of {size} tokens", lambda: run_head(weights, rows, logits)
            )
        head()
        return self.logits[:num_rows]


def padded_size(num_tokens: int) -> int:
    """The smallest size of at least ``num_tokens``."""
    return TAIL_SIZES[bisect_left(TAIL_SIZES, num_tokens)]


class BucketedSequence(LlamaSequence):
    """A sequence that pads its steps to :data:`TAIL_SIZES`.

    Larger steps, as in a prefill, and those beyond the window of a model that has one, run unpadded.
    """

    def __init__(self, space: StepSpace, max_positions: int | None = None) -> None:
        """Allocate the cache; a step is prepared when one of its size first runs.

        Args:
            space: shared with the model's other sequences.
            max_positions: maximum number of tokens; the model's own maximum by default.

        Raises:
            ConfigError: more positions than the model has, or none.
            InsufficientMemoryError: the cache does not fit.
        """
        super().__init__(space.weights, max_positions)
        self._space = space
        self._steps: dict[int, tuple[StepInputs, Step]] = {}

    @property
    def tail_sizes(self) -> Sequence[int] | None:
        """Sizes that run at full speed; others are padded to the next."""
        return TAIL_SIZES

    def repeat_step(self, num_tokens: int, num_rows: int) -> None:
        """Queue the last step of this size again with the same inputs, to time the device's part alone.

        Call it only while no accepted row is waiting to be moved.
        """
        with torch.inference_mode():
            self._steps[padded_size(num_tokens)][1]()
            self._space.run_head(num_rows)

    def _new_cache(self, max_positions: int) -> DeferringKVCache:
        # Padded rows are written too: leave room for them after the last position.
        self._slots = new_cache(DeferringKVCache, self._weights, max_positions + TAIL_SIZES[-1])
        return self._slots

    def _run(self, layout: StepLayout) -> Tensor:
        window = self._weights.config.window
        if len(layout) > TAIL_SIZES[-1] or (window is not None and int(layout.positions.max()) >= window):
            # A captured step sees the whole prefix.
            with torch.inference_mode():
                self._slots.flush()
            return super()._run(layout)
        size = padded_size(len(layout))
        with torch.inference_mode(), out_of_memory_named(f"a step of {size} tokens"):
            inputs, step = self._steps.get(size) or self._prepared(size)
            length, moves = self._slots.length, self._slots.take_moves()
            try:
                inputs.write(layout, length, moves)
                step()
            except BaseException:
                # It is unknown whether the rows accepted before have been moved: run them again.
                self.truncate(min(moves[1], default=length))
                raise
            return self._space.run_head(len(layout.logit_rows))

    def _prepared(self, size: int) -> tuple[StepInputs, Step]:
        space = self._space
        inputs = StepInputs(size, self._weights.device, self._slots.capacity - 1)
        rows = space.hidden_rows[:size]
        # Capturing runs the step to warm up: let it write after all committed tokens, and move nothing.
        inputs.write_idle(self._slots.capacity - size)
        # The step refers to what it needs, not to the sequence: its cache must not wait for the garbage collector.
        weights, ops, storage = space.weights, space.ops, self._slots.storage
        step = space.prepared(
            f"Preparing steps of {size} tokens", lambda: run_trunk(weights, ops, storage, inputs, rows)
        )
        self._steps[size] = inputs, step
        return self._steps[size]

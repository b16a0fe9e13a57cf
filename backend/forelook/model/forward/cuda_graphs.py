"""Capturing a step as a CUDA graph: its few hundred kernels are then one launch, without a gap on the host."""

from __future__ import annotations

import logging
import time

import torch

from forelook.model.forward.static_step import Step

logger = logging.getLogger(__name__)
_NUM_WARM_UPS = 2  # chosen, not measured
_MIN_FREE_BYTES = 256 * 2**20
"""With less free memory a step is not captured: a graph keeps its activations. Chosen, not measured."""


class CudaGraphs:
    """Prepares steps by capturing them. All graphs of a model share one memory pool: only one runs at a time.

    Args:
        device: where the steps run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self.num_captured = 0

    def __call__(self, step: Step) -> Step:
        """Capture a step; if memory is short, return it uncaptured: slower, with the same numbers."""
        free_bytes, _ = torch.cuda.mem_get_info(self._device)
        if free_bytes < _MIN_FREE_BYTES:
            logger.warning("a step runs uncaptured: only %d MiB are free", free_bytes >> 20)
            return step
        started_s = time.perf_counter()
        try:
            graph = self._capture(step)
        except torch.OutOfMemoryError:
            logger.warning("a step runs uncaptured: out of memory while capturing it")
            torch.cuda.empty_cache()
            return step
        self.num_captured += 1
        logger.info("captured a step in %.2f s, %d so far", time.perf_counter() - started_s, self.num_captured)
        replay: Step = graph.replay
        return replay

    def _capture(self, step: Step) -> torch.cuda.CUDAGraph:
        # Libraries choose kernels and allocate workspaces at first use, which a capture does not allow.
        current = torch.cuda.current_stream(self._device)
        side_stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        side_stream.wait_stream(current)
        with torch.cuda.stream(side_stream):
            for _ in range(_NUM_WARM_UPS):
                step()
        current.wait_stream(side_stream)
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device), torch.cuda.graph(graph, pool=self._pool):
            step()
        return graph

"""One formula for all percentiles that are reported."""

from __future__ import annotations

import math

import pytest
from forelook.completion.engine.metrics import EngineMetrics
from forelook.finish_reason import FinishReason
from forelook.percentiles import percentile
from forelook.protocol.messages import CompletionResult, RequestStats
from forelook.server.metrics import LatencyWindow
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(("percent", "expected"), [(1, 1.0), (50, 2.0), (75, 3.0), (76, 4.0), (100, 4.0)])
def test_the_nearest_rank_is_taken(percent: int, expected: float) -> None:
    assert percentile([4.0, 2.0, 1.0, 3.0], percent) == expected


def test_without_samples_there_is_no_percentile() -> None:
    assert percentile([], 50) is None


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.integers(1, 100))
def test_enough_samples_do_not_exceed_it_and_it_is_the_smallest_such(samples: list[int], percent: int) -> None:
    value = percentile(samples, percent)
    assert value is not None
    needed = math.ceil(len(samples) * percent / 100)
    assert sum(sample <= value for sample in samples) >= needed > sum(sample < value for sample in samples)


def test_engine_and_server_report_the_same_percentiles_of_the_same_latencies() -> None:
    engine, server = EngineMetrics(), LatencyWindow()
    for latency_ms in (1.0, 2.0, 3.0, 4.0):
        engine.add_result(CompletionResult((), FinishReason.MAX_TOKENS, stats=RequestStats(total_ms=latency_ms)))
        server.add(latency_ms)
    reported = engine.to_dict()["latency_ms"]
    assert reported == {name: server.summary()[f"{name}_ms"] for name in ("p50", "p95", "p99")}
    assert reported == {"p50": 2.0, "p95": 4.0, "p99": 4.0}

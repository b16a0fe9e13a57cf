"""The metrics: Prometheus reads them, they count what happened, and the dashboard asks only for what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from forelook.protocol.messages import EngineState, Status
from forelook.server.metrics import BUCKETS_S, ServerMetrics
from forelook.server.prometheus import PREFIX, Metric, Sample, exposition, metrics_of, resident_bytes

from tests.server.http.harness import http_running

DASHBOARD = Path(__file__).resolve().parents[2] / "docs" / "team" / "grafana-dashboard.json"
READY = Status(EngineState.READY, model="fake", device="cpu", dtype="float32")


def values_of(text: str) -> dict[str, float]:
    """The samples by name and labels, read without a library."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_a_histogram_is_cumulative_and_ends_with_all() -> None:
    server = ServerMetrics()
    for ms in (4, 10, 11, 60_000):
        server.completion("suggested", ms)
    server.completion("RequestCancelledError")
    values = values_of(exposition(metrics_of(server, READY, {})))

    def bucket(bound: str) -> float:
        return values[f'forelook_answer_seconds_bucket{{interface="editor",le="{bound}"}}']

    assert [bucket(bound) for bound in ("0.005", "0.01", "0.02", "10", "+Inf")] == [1, 2, 3, 3, 4]
    assert values['forelook_answer_seconds_count{interface="editor"}'] == 4
    assert values['forelook_answer_seconds_sum{interface="editor"}'] == pytest.approx(60.025)
    assert values['forelook_answers_total{interface="editor",outcome="suggested"}'] == 4
    assert values['forelook_answers_total{interface="editor",outcome="RequestCancelledError"}'] == 1
    assert list(BUCKETS_S) == sorted(set(BUCKETS_S))


def test_labels_are_escaped() -> None:
    text = exposition([Metric("a", "gauge", "An a.", [Sample({"b": 'c"\\\nd'}, 1)])])
    assert text == '# HELP forelook_a An a.\n# TYPE forelook_a gauge\nforelook_a{b="c\\"\\\\\\nd"} 1\n'


async def test_prometheus_reads_what_a_real_engine_did(tmp_path: Path) -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="needs prometheus-client")
    async with http_running(tmp_path) as server:
        body = {"prompt": "value_3 = ", "max_tokens": 8}
        assert (await server.ask("/v1/completions", body)).status == 200
        assert (await server.ask("/v1/completions", {"prompt": 5})).status == 400
        answer = await server.ask("/metrics")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert (await server.ask("/metrics", key="wrong" * 10)).status == 401
    text = answer.body.decode()
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    found = {(sample.name, *sorted(sample.labels.values())): sample.value
             for family in families.values() for sample in family.samples}  # fmt: skip
    assert found["forelook_ready",] == 1
    assert found["forelook_requests_total", "openai"] == 2
    assert found["forelook_answers_total", "answered", "openai"] == 1
    assert found["forelook_answer_seconds_count", "openai"] == 1
    assert found["forelook_tokens_total", "generated"] == 8
    assert 0 < found["forelook_decode_steps_total",] <= 8
    assert 0 < found["forelook_device_busy_seconds_total", "requests"] < 10
    assert found["forelook_waiting_requests",] == 0
    assert found["forelook_pools",] >= 1
    empty = [name for name, family in families.items() if not family.samples]
    assert empty == ["forelook_rejections"], "every figure of the engine has a value"
    assert "value_3" not in text


def test_the_memory_is_that_of_this_process() -> None:
    resident = resident_bytes()
    if resident is None:
        pytest.skip("needs /proc")
    assert 2**24 < resident < 2**36


def names_of(metrics: list[Metric]) -> set[str]:
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {PREFIX + metric.name + part for metric in metrics for part in parts.get(metric.kind, ("",))}


def test_the_dashboard_asks_only_for_metrics_that_exist() -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    metrics = metrics_of(ServerMetrics(), READY, {})
    exist = names_of(metrics)
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked = [set(re.findall(r"\bforelook_\w+", expression)) for expression in expressions]
    assert len(expressions) >= 12
    assert all(asked)
    assert set().union(*asked) - exist == set()
    shown = {name.removeprefix(PREFIX).removesuffix("_bucket") for name in set().union(*asked)}
    left_out = {"build_info", "connections_total", "cached_prompts", "users", "pools", "pool_bytes", "uptime_seconds"}
    unseen = {metric.name for metric in metrics} - shown - left_out
    assert unseen == set(), "a metric that no panel shows"


def test_the_labels_of_the_dashboard_exist() -> None:
    server = ServerMetrics()
    labels = {"interface", "outcome", "reason", "kind", "work", "part", "le", "version", "job", "instance", "replica"}
    text = DASHBOARD.read_text("utf-8")
    used = set(re.findall(r"by \(([\w, ]+)\)", text)) | set(re.findall(r"[{,](\w+)=~?\\\"", text))
    names = {name.strip() for group in used for name in group.split(",")}
    assert names
    assert names <= labels
    assert {"requests_total", "rejections_total"} <= {metric.name for metric in metrics_of(server, READY, {})}

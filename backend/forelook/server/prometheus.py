"""The figures of one server in Prometheus' text format: counts, times and sizes, never text nor the names of anything.

The format is a page of rules, and all figures exist already; a client library would bring a second set of counters.
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format, version 0.0.4.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forelook import __version__
from forelook.protocol.messages import EngineState, Status
from forelook.server.metrics import BUCKETS_S, ServerMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric.

    Attributes:
        labels: names and values.
        value: of the metric.
        suffix: of the metric's name, for the parts of a histogram.
    """

    labels: Mapping[str, str]
    value: float
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric and its samples.

    Attributes:
        name: without the prefix of all metrics.
        kind: ``counter``, ``gauge`` or ``histogram``.
        text: what it is, on one line.
    """

    name: str
    kind: str
    text: str
    samples: Sequence[Sample]


PREFIX = "forelook_"
# Name, kind, what it is, and for each label's value the path of the figure in the engine's statistics.
_ENGINE: tuple[tuple[str, str, str, str, Mapping[str, str]], ...] = (
    ("tokens_total", "counter", "Tokens, by what became of them.", "kind", {
        "prompt": "prompt_tokens", "prefilled": "prefill_tokens", "generated": "generated_tokens",
        "drafted": "drafted_tokens", "accepted": "accepted_tokens",
    }),
    ("forwards_total", "counter", "Forward passes of the model.", "work", {
        "answers": "forwards", "cancelled": "cancelled_forwards", "ahead": "background_forwards",
    }),
    ("decode_steps_total", "counter", "Decode steps; generated tokens per step is the gain of drafting.", "", {
        "": "decode_steps",
    }),
    ("suggestions_total", "counter", "Suggestions that were answered in the editor protocol.", "", {"": "suggestions"}),
    ("suggestions_used_total", "counter", "Suggestions accepted at least in part, over all starts.", "", {
        "": "usage.used",
    }),
    ("device_busy_seconds_total", "counter", "Time the device worked; ahead is work that requests pre-empt.", "work", {
        "requests": "worked_ms.requests", "ahead": "worked_ms.ahead",
    }),
    ("request_part_seconds_total", "counter", "Time of answered requests, by part.", "part", {
        "queue": "spent_ms.queue", "prompt": "spent_ms.prompt", "prefill": "spent_ms.prefill",
        "decode": "spent_ms.decode", "total": "spent_ms.total",
    }),
    ("waiting_requests", "gauge", "Requests that wait for the device.", "", {"": "num_waiting"}),
    ("open_documents", "gauge", "Documents that editors have open.", "", {"": "num_documents"}),
    ("users", "gauge", "Users since the start.", "", {"": "num_users"}),
    ("cached_prompts", "gauge", "Prompts in the KV caches.", "", {"": "num_cached_prompts"}),
    ("kv_cache_bytes", "gauge", "Memory of the KV caches.", "", {"": "kv_cache_bytes"}),
    ("pools", "gauge", "Workspaces whose n-gram pool is open.", "", {"": "num_pools"}),
    ("pool_tokens", "gauge", "Tokens in the open n-gram pools.", "", {"": "pool_tokens"}),
    ("pool_bytes", "gauge", "Memory of the open n-gram pools.", "", {"": "pool_bytes"}),
)  # fmt: skip


def metrics_of(server: ServerMetrics, status: Status, engine: Mapping[str, Any]) -> list[Metric]:
    """All metrics of a server.

    Args:
        server: what the server counted.
        status: the model's state.
        engine: the engine's statistics; empty while it starts, and then its metrics have no samples.
    """
    found = [
        Metric("build_info", "gauge", "The version.", [Sample({"version": __version__}, 1)]),
        Metric("ready", "gauge", "Whether requests are answered.", [_one(status.state is EngineState.READY)]),
        Metric("uptime_seconds", "gauge", "Time since the start.", [_one(server.uptime_s)]),
        Metric("connections", "gauge", "Open connections of the editor protocol.", [_one(server.num_connections)]),
        Metric("connections_total", "counter", "Connections since the start.", [_one(server.num_connections_total)]),
        Metric(
            "requests_total", "counter", "Requests for text.",
            [Sample({"interface": name}, count) for name, count in sorted(server.requests.items())],
        ),
        Metric(
            "answers_total", "counter", "Answers, by interface and outcome.",
            [
                Sample({"interface": name, "outcome": outcome}, count)
                for (name, outcome), count in sorted(server.answers.items())
            ],
        ),
        Metric("answer_seconds", "histogram", "Time from a request to its answer.", list(_histograms(server))),
        Metric(
            "rejections_total", "counter", "What was refused without trying, by reason.",
            [Sample({"reason": reason}, count) for reason, count in sorted(server.rejections.items())],
        ),
        Metric("internal_errors_total", "counter", "Unexpected errors.", [_one(server.num_internal_errors)]),
    ]  # fmt: skip
    resident = resident_bytes()
    samples = [] if resident is None else [_one(resident)]
    found.append(Metric("resident_memory_bytes", "gauge", "Memory of the process.", samples))
    for name, kind, text, label, paths in _ENGINE:
        scale = 1e-3 if name.endswith("_seconds_total") else 1  # the engine counts milliseconds
        values = {key: value for key, path in paths.items() if (value := _figure(engine, path)) is not None}
        samples = [Sample({label: key} if label else {}, value * scale) for key, value in values.items()]
        found.append(Metric(name, kind, text, samples))
    return found


def exposition(metrics: Sequence[Metric]) -> str:
    """The metrics as text."""
    lines: list[str] = []
    for metric in metrics:
        name = PREFIX + metric.name
        lines += [f"# HELP {name} {metric.text}", f"# TYPE {name} {metric.kind}"]
        for sample in metric.samples:
            labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
            lines.append(f"{name}{sample.suffix}{'{' + labels + '}' if labels else ''} {_number(sample.value)}")
    return "\n".join(lines) + "\n"


def resident_bytes() -> int | None:
    """Memory of this process; ``None`` where the system does not say it in a file."""
    if sys.platform != "linux":
        return None
    import resource

    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()


def _one(value: float) -> Sample:
    return Sample({}, value)


def _histograms(server: ServerMetrics) -> Iterator[Sample]:
    for interface, histogram in sorted(server.latencies.items()):
        labels, total = {"interface": interface}, 0
        for bound, count in zip((*BUCKETS_S, None), histogram.counts, strict=True):
            total += count
            yield Sample({**labels, "le": "+Inf" if bound is None else f"{bound:g}"}, total, "_bucket")
        yield Sample(labels, histogram.sum_s, "_sum")
        yield Sample(labels, total, "_count")


def _figure(stats: Mapping[str, Any], path: str) -> float | None:
    value: Any = stats
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else str(int(value))

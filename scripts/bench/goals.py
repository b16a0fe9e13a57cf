"""Goals of the benchmarks: each with its bar, so that those that were missed are listed next to those reached."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

from bench.tables import Result, markdown

Value = Callable[[Result], "float | None"]


@dataclass(frozen=True)
class Goal:
    """One bar.

    Attributes:
        measure: what is judged.
        sign: ``"≤"`` or ``"≥"``.
        bar: the limit.
        value: result → what was measured; ``None`` or an error of a missing key where it was not.
        unit: after both figures.
    """

    measure: str
    sign: str
    bar: float
    value: Value
    unit: str = ""

    def judged(self, result: Result) -> tuple[float | None, bool | None]:
        """Return the measured value and whether it reaches the bar."""
        try:
            value = self.value(result)
        except (KeyError, IndexError, ValueError, statistics.StatisticsError):
            value = None
        if value is None or math.isnan(value):
            return None, None
        return value, value <= self.bar if self.sign == "≤" else value >= self.bar


def at(*keys: str | int) -> Value:
    """Return a value that lies at these keys."""

    def value(result: Result) -> float | None:
        found: Any = reduce(lambda inner, key: inner[key], keys, result)
        return None if found is None else float(found)

    return value


def _ends_by_itself(result: Result) -> float | None:
    raw, truncated = (float(result["cuts"]["middle"][kind]["exact_match"]) for kind in ("raw", "truncated"))
    return raw / truncated if truncated else None


def _ratio(dataset: str, pair: str) -> Value:
    """The clean prompts' median, of decoding alone."""

    def value(result: Result) -> float | None:
        (run,) = [run for run in result.get("runs", [result]) if run["dataset"] == dataset]
        ratio = run["clean"]["ratios"][pair]["decode"]
        return float(ratio["median"]) if ratio["num"] else None

    return value


def _over_data_sets(pair: str, choose: Callable[[list[float]], float]) -> Value:
    def value(result: Result) -> float | None:
        medians = [
            run["clean"]["ratios"][pair]["decode"]["median"]
            for run in result.get("runs", [result])
            if run["clean"]["ratios"].get(pair, {}).get("decode", {}).get("num")
        ]
        return choose(medians) if medians else None

    return value


def _replayed(kind: str, *rivals: str, own: str = "pool_warm") -> Value:
    def value(result: Result) -> float | None:
        ratios = []
        for found in result["repositories"]:
            if found["repo"] in result["report"]:
                rates = {name: method["tokens_per_step"] for name, method in found[kind].items()}
                ratios.append(rates[own] / max(rates[name] for name in rivals if name in rates))
        return statistics.fmean(ratios)

    return value


def _same_file(result: Result) -> float:
    servers = result["peers"]["servers"]
    return float(servers["llama-server"]["p50_ms"] / servers["forelook, same file"]["p50_ms"])


def _first_starts(result: Result) -> float | None:
    found = result["first_suggestions"]
    return max(float(model["beyond_s"]) for model in found) if found else None


def _decoding() -> tuple[Goal, ...]:
    own, plain = "forelook/autoregressive", "autoregressive/hf_greedy"
    return (
        Goal("autoregressive / HF greedy, median of the data sets", "≥", 2.5,
             _over_data_sets(plain, statistics.median), "×"),
        Goal("forelook / autoregressive, HumanEval", "≥", 2.3, _ratio("humaneval", own), "×"),
        Goal("forelook / autoregressive, ClassEval", "≥", 2.3, _ratio("classeval", own), "×"),
        Goal("forelook / autoregressive, infilling, cold", "≥", 1.6, _ratio("humaneval-infilling", own), "×"),
        Goal("forelook / autoregressive, warm workspace", "≥", 1.8, _ratio("workspace", own), "×"),
        Goal("forelook / autoregressive, the worst data set", "≥", 0.97, _over_data_sets(own, min), "×"),
        Goal("forelook / HF prompt lookup, the worst data set", "≥", 1.5,
             _over_data_sets("forelook/hf_prompt_lookup", min), "×"),
    )  # fmt: skip


def _latency(p50_ms: float, p95_ms: float) -> tuple[Goal, ...]:
    own = ("engines", "forelook")
    return (
        Goal("new request, p50", "≤", p50_ms, at(*own, "p50_ms"), " ms"),
        Goal("new request, p95", "≤", p95_ms, at(*own, "p95_ms"), " ms"),
        Goal("cache hit, p99", "≤", 10, at(*own, "hit_p99_ms"), " ms"),
    )


def _paper(pairs: dict[str, tuple[str, float]]) -> tuple[Goal, ...]:
    return tuple(
        Goal(f"{title}, the worst data set", "≥", bar, _over_data_sets(pair, min), "×")
        for title, (pair, bar) in pairs.items()
    )


_PAIRS = ("prompt_lookup",)
_BEST = ("published", "suffix_decoding", "token_recycling")
GOALS: dict[str, tuple[Goal, ...]] = {
    "latency": (
        *_latency(60, 200),
        Goal("hf_greedy / forelook, median session", "≥", 4, at("ratios", "hf_greedy / forelook", "median"), "×"),
    ),
    "latency-human": _latency(60, 200),
    "latency-editing": _latency(60, 200),
    "latency-folder": _latency(60, 200),
    "latency-default": _latency(100, 350),
    "latency-qwen": _latency(150, 500),
    "http": (
        Goal("over the editor protocol, p50", "≤", 3, at("overhead", "overhead_p50_ms", "http"), " ms"),
        Goal("new connection over the editor protocol, p50", "≤", 3,
             at("overhead", "overhead_p50_ms", "http, new connection"), " ms"),
        Goal("prompt tokens after a warming, same cursor, maximum", "≤", 16, at("warming", "same cursor", "max")),
        Goal("the same, one character later", "≤", 16, at("warming", "one character later", "max")),
        Goal("p95 next to a flood over p95 alone", "≤", 2, at("fairness", "p95_ratio"), "×"),
    ),
    "http-peers": (
        Goal("llama-server / Forelook, request to answer, p50", "≥", 1,
             at("peers", "ratios", "llama-server", "p50_ms"), "×"),
        Goal("the same, p95", "≥", 1, at("peers", "ratios", "llama-server", "p95_ms"), "×"),
        Goal("llama-server / Forelook with the same file, p50", "≥", 1, _same_file, "×"),
    ),
    "startup": (
        Goal("first answer to initialize, median", "≤", 500, at("median_ms"), " ms"),
        Goal("first suggestion beyond load and prefill, the slowest model", "≤", 1, _first_starts, " s"),
    ),
    "decoding": _decoding(),
    "paper": _paper({
        "forelook / autoregressive": ("forelook/autoregressive", 0.97),
        "forelook / transformers' prompt lookup": ("forelook/hf_prompt_lookup", 1.5),
    }),
    "paper-int8": _paper({"forelook / autoregressive": ("forelook/autoregressive", 0.97)}),
    "parallel": (
        Goal("lookahead parallel over one rank", "≤", 0.65, at("lookahead_parallel_ratio"), "×"),
    ),
    "pool": (
        Goal("indexed per second at a million tokens", "≥", 1e6, at("sizes", -1, "index_tokens_per_s")),
        Goal("lookup at a million tokens, p50", "≤", 50, at("sizes", -1, "lookup_p50_us"), " µs"),
        Goal("lookup at a million tokens, p99", "≤", 150, at("sizes", -1, "lookup_p99_us"), " µs"),
        Goal("bytes per token", "≤", 40, at("sizes", -1, "bytes_per_token")),
        Goal("restore of a million tokens", "≤", 0.3, at("sizes", -1, "restore_s"), " s"),
        Goal("decode step during indexing over an idle one", "≤", 1.2, at("step_ratio"), "×"),
        Goal("a step outside its forward, a million tokens", "≤", 0.35, at("host", "host_step_ms"), " ms"),
    ),
    "replay": (
        Goal("warm / prompt lookup, lines kept", "≥", 1.5, _replayed("methods", *_PAIRS), "×"),
        Goal("warm / prompt lookup, lines deleted", "≥", 1.5, _replayed("methods_replaced_deleted", *_PAIRS), "×"),
        Goal("all that Forelook drafts from / prompt lookup, kept", "≥", 1.5,
             _replayed("methods", *_PAIRS, own="forelook"), "×"),
        Goal("the same, deleted", "≥", 1.5, _replayed("methods_replaced_deleted", *_PAIRS, own="forelook"), "×"),
        Goal("warm / the best of the published methods, kept", "≥", 1.2, _replayed("methods", *_BEST), "×"),
        Goal("warm / the best of the published methods, deleted", "≥", 1.2,
             _replayed("methods_replaced_deleted", *_BEST), "×"),
    ),
    "quality-default": (
        Goal("exact match, line", "≥", 0.33, at("cuts", "line", "shown", "exact_match")),
        Goal("exact match, indented", "≥", 0.33, at("cuts", "indented", "shown", "exact_match")),
        Goal("exact match, middle", "≥", 0.62, at("cuts", "middle", "shown", "exact_match")),
        Goal("edit similarity, indented", "≥", 0.64, at("cuts", "indented", "shown", "edit_similarity")),
        Goal("edit similarity, middle", "≥", 0.80, at("cuts", "middle", "shown", "edit_similarity")),
        Goal("keystrokes saved, twice the first starter model's", "≥", 0.36, at("keystrokes", "saved_share")),
    ),
    "quality-ends": (
        Goal("a middle ends by itself: raw exact match over truncated", "≥", 0.6, _ends_by_itself),
    ),
}  # fmt: skip


def judged_goals(name: str, result: Result) -> Iterator[tuple[Goal, float | None, bool | None]]:
    """Yield the goals of a benchmark with what was measured and whether it was reached."""
    for goal in GOALS.get(name, ()):
        yield (goal, *goal.judged(result))


def goal_lines(name: str, result: Result) -> list[str]:
    """Return the table of a benchmark's goals; nothing where it has none."""
    words = {True: "reached", False: "**missed**", None: "not measured"}
    rows = [
        (goal.measure, f"{goal.sign} {_number(goal.bar)}{goal.unit}",
         "" if value is None else f"{_number(value)}{goal.unit}", words[reached])
        for goal, value, reached in judged_goals(name, result)
    ]  # fmt: skip
    return ["", *markdown(("goal", "bar", "measured", ""), rows)] if rows else []


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"

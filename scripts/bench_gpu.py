"""The GPU path against the memory-bandwidth floor, transformers and itself uncaptured; random weights, real shapes.

    python3 scripts/bench_gpu.py --json FILE [--shape 7b]        on a machine with a CUDA device; ``make bench-gpu``
    python3 scripts/bench_gpu.py --smoke                         the same code on a CPU, with tiny shapes

Needs torch and transformers; imports forelook from this checkout and downloads no weights. A step's floor is the bytes
of weights and committed keys and values it must read, over the copy bandwidth measured in the same run. Methods that
are compared take turns. With random weights the tokens per step of lookahead mean nothing; the step times do.

The measurements come in the order of their weight. After each, ``--json`` has all that is measured, so that an end from
outside loses nothing; after ``--minutes`` no further one is started, and the result names those left out. One that
fails does not stop the others. The last line is one JSON object.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "backend")]

import torch
from bench.arguments import benchmark_parser
from bench.gpu import (
    copy_bandwidth,
    measure_attention,
    measure_compiled_transformers,
    measure_generation,
    measure_grid,
    measure_host_gap,
    measure_transformers,
)
from bench.gpu_model import SHAPES, Plan, make_plan, random_weights
from bench.plots import Line, Panel, draw
from bench.results import print_result, write_result
from bench.tables import print_rows
from forelook.model.forward.layers import LlamaWeights
from forelook.model.forward.step_ops import choose_step_ops

FLAT = 1.15  # a step of T tokens is in the flat window where it costs at most this much of one of 1


def must_reach(report: dict[str, Any], plan: Plan) -> list[dict[str, Any]]:
    """Return the goals for 7B shapes in bfloat16, each with its bar and the measured value; none where it is open."""
    grid = {(row["prefix"], row["tail"]): row for row in report.get("grid", [])}
    wide = 64 if 64 in plan.tails else plan.tails[-1]
    one, many = grid.get((plan.prefix, 1), {}), grid.get((plan.prefix, wide), {})
    steps = {row["name"]: row["step_ms"] for row in report.get("attention", []) if row["step_ms"]}
    found = report.get("transformers", {})
    values: list[tuple[str, str, float, float | None]] = [
        ("captured T=1 step over the floor, prefix 1 k", "<=", 1.25, one.get("over_floor")),
        ("T=64 step over T=1", "<=", 1.15, _ratio(many.get("captured"), one.get("captured"))),
        ("HF eager step (its default attention) over ours", ">=", 5.0,
         _ratio(found.get("HF sdpa"), found.get("ours next to HF sdpa"))),
        ("host gap between steps, ms", "<=", 0.3, report.get("host_gap", {}).get("host_gap_ms")),
        ("masked attention over the best, same captured step, T=64, prefix 4 k", ">=", 1.2,
         _ratio(steps.get("masked"), min(steps.values(), default=None))),
    ]  # fmt: skip
    is_judged = plan.device.type == "cuda" and report["shape"] == "7b"
    return [
        {
            "measure": name,
            "bar": f"{sign} {bar:g}",
            "value": value,
            "reached": None if value is None or not is_judged else (value <= bar if sign == "<=" else value >= bar),
        }
        for name, sign, bar, value in values
    ]


def _ratio(upper: object, lower: object) -> float | None:
    return upper / lower if isinstance(upper, float) and isinstance(lower, float) and lower > 0 else None


def figures(report: dict[str, Any]) -> list[dict[str, str]]:
    """Return the figures without a bar that were measured, by name."""
    found: list[tuple[str, str]] = []
    if "copy_gb_per_s" in report:
        found.append(("copy bandwidth", f"{report['copy_gb_per_s']:.0f} GB/s"))
    by_prefix: dict[int, list[dict[str, Any]]] = {}
    for row in report.get("grid", []):
        by_prefix.setdefault(row["prefix"], []).append(row)
    for prefix, rows in sorted(by_prefix.items()):
        limit = FLAT * next(row["captured"] for row in rows if row["tail"] == 1)
        flat = rows[0]["tail"]
        for row in rows:
            if row["captured"] > limit:
                break
            flat = row["tail"]
        found.append((f"flat window, prefix {prefix}: the largest T within {FLAT:g} of T=1", str(flat)))
        steps = ", ".join(f"{row['tail']}: {row['captured']:.2f}" for row in rows)
        found.append((f"captured step, prefix {prefix}, ms by T", steps))
    found += [
        (f"attention {row['name']}, captured step, ms", f"{row['step_ms']:.2f}")
        for row in report.get("attention", [])
        if row["step_ms"]
    ]
    for name, value in report.get("transformers", {}).items():
        found.append((f"{name}, one token", f"{value:.2f} ms" if isinstance(value, float) else value))
    generation = report.get("generation", {})
    if "autoregressive" in generation:
        speed = generation["autoregressive"]["decode_tokens_per_s"]
        found.append(("decode speed, autoregressive, captured", f"{speed:.0f} tokens/s"))
    return [{"measure": name, "figure": figure} for name, figure in found]


class Run:
    """Measures one thing after the other, and writes after each what there is.

    Args:
        report: where the figures go.
        plan: what is measured.
        json_path: the file of the result.
        seconds: start no measurement after this time.
    """

    def __init__(self, report: dict[str, Any], plan: Plan, json_path: Path | None, seconds: float) -> None:
        self._report, self._plan, self._json_path = report, plan, json_path
        self._deadline = time.monotonic() + seconds
        self._report["left_out"] = {}

    def measure(self, name: str, call: Callable[[], Any], *, into: str | None = None) -> None:
        """Add what a call returns to the report: as a new entry, or to the entry ``into``."""
        left_out = self._report["left_out"]
        if time.monotonic() > self._deadline:
            left_out[name] = "no time was left"
            return
        started_s = time.monotonic()
        try:
            found = call()
        except Exception as error:  # noqa: BLE001 - a part that fails must not cost the others' figures
            left_out[name] = f"fails: {type(error).__name__}: {str(error)[:120]}"
        else:
            if into is None:
                self._report[name] = found
            elif isinstance(found, list):
                self._report.setdefault(into, []).extend(found)
            else:
                self._report.setdefault(into, {}).update(found)
        if self._plan.device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"{name}: {time.monotonic() - started_s:.1f} s {left_out.get(name, '')}", flush=True)
        self.write()

    def write(self) -> None:
        """Write what is measured so far."""
        self._report["must_reach"] = must_reach(self._report, self._plan)
        self._report["figures"] = figures(self._report)
        write_result("gpu", self._report, self._json_path, self._report["device"])


def measure_all(run: Run, plan: Plan, weights: LlamaWeights, *, transformers: bool) -> None:
    """Run the measurements, the weightiest first."""
    bandwidth: list[float] = []

    def copy() -> float:
        bandwidth.append(copy_bandwidth(plan))
        return bandwidth[0] / 1e9

    def attention_of_step() -> str:
        ops = choose_step_ops(plan.config, plan.device, plan.dtype)
        return f"{ops.attention_name}: {ops.reason}"

    def grid(prefix: int) -> None:
        run.measure(f"grid, prefix {prefix}", lambda: measure_grid(plan, weights, bandwidth[0], [prefix]), into="grid")

    def theirs(name: str) -> None:
        if transformers:
            run.measure(f"HF {name}", lambda: measure_transformers(plan, weights, name), into="transformers")

    run.measure("copy_gb_per_s", copy)
    run.measure("step_attention", attention_of_step)
    grid(plan.prefix)
    run.measure("host_gap", lambda: measure_host_gap(plan, weights))
    theirs("sdpa")
    run.measure("attention", lambda: measure_attention(plan, weights))
    run.measure("generation", lambda: measure_generation(plan, weights))
    for prefix in plan.prefixes:
        if prefix != plan.prefix:
            grid(prefix)
    theirs("eager")
    theirs("flash_attention_2")
    if transformers:
        run.measure("HF compiled", lambda: measure_compiled_transformers(plan, weights), into="transformers")


def show(report: dict[str, Any]) -> None:
    print(f"{report['device']}, torch {torch.__version__}, {report['dtype']}, shape {report['shape']}")
    for title in ("grid", "attention", "figures", "must_reach"):
        print(f"\n{title}")
        print_rows(report.get(title, []))


def plot(report: dict[str, Any], folder: Path) -> None:
    lines: list[Line] = []
    for number, prefix in enumerate(sorted({row["prefix"] for row in report.get("grid", [])})):
        rows = [row for row in report["grid"] if row["prefix"] == prefix]
        tails = [row["tail"] for row in rows]
        lines.append((f"prefix {prefix}", tails, [row["captured"] for row in rows], f"C{number}o-"))
        lines.append((None, tails, [row["floor_ms"] for row in rows], f"C{number}:"))
    title = f"Step time, {report['shape']}, {report['device']}"
    panel = Panel("tokens of the step, T", "ms; dotted: the bandwidth floor", lines, title, "log")
    try:
        draw(folder / "step_time.png", panel)
    except ImportError:
        print("no plots: matplotlib is not installed")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--shape", choices=tuple(SHAPES), help="7b by default, tiny with --smoke")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=6.0, help="start no measurement after this time")
    parser.add_argument("--plots", type=Path, metavar="DIR")
    parser.add_argument("--without-transformers", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, few repeats, on a CPU where there is no GPU")
    options = parser.parse_args(arguments)
    plan = make_plan(
        options.shape or ("tiny" if options.smoke else "7b"),
        device_name=options.device,
        dtype=options.dtype,
        repeats=options.repeats,
        smoke=options.smoke,
    )
    is_cuda = plan.device.type == "cuda"
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(plan.device) if is_cuda else f"CPU {platform.machine()}",
        "dtype": str(plan.dtype).removeprefix("torch."),
        "shape": plan.shape,
    }
    run = Run(report, plan, options.json, 60 * options.minutes)
    with torch.inference_mode():
        weights = random_weights(plan)
    report["weight_bytes"] = weights.nbytes
    measure_all(run, plan, weights, transformers=not options.without_transformers)
    run.write()
    show(report)
    if options.plots is not None:
        plot(report, options.plots)
    print_result("gpu", report, options.json, report["device"])
    return 0


if __name__ == "__main__":
    sys.exit(main())

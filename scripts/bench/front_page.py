"""What README.md and the default model's card say of measurements: written from the results, region by region."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from bench.goals import GOALS, judged_goals
from bench.results import REPOSITORY
from bench.suite import replaced
from bench.tables import Result, markdown

Results = Mapping[str, Result]
README = "README.md"
CARD = "backend/forelook/default_model/README.md"


def read_results(folder: Path) -> dict[str, Result]:
    """Return the results by name."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}


def figures(results: Results) -> list[str]:
    """Return README's table: a row per figure that was measured, a line for those that were not."""
    rows: list[tuple[str, str]] = []
    missing: list[str] = []
    for needed, title, cell in _ROWS:
        if all(name in results for name in needed):
            rows.append((title, cell(results)))
        else:
            missing.append(title)
    used = sorted({name for needed, _, _ in _ROWS for name in needed if name in results})
    lines = [_machines([results[name] for name in used]), "", *markdown(("measure", "figure"), rows)]
    if missing:
        lines += ["", f"Not run yet: {'; '.join(missing)}."]
    return [*lines, "", _goals(results)]


def _machines(results: Iterable[Result]) -> str:
    origins = [result["provenance"] for result in results]
    machines = " and ".join(sorted({f"{origin['cores']} cores of {origin['cpu']}" for origin in origins}))
    dates = sorted({origin["date"] for origin in origins})
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{machines[:1].upper()}{machines[1:]}, no GPU, {days}; commits and commands are in docs/benchmarks.md."


def _goals(results: Results) -> str:
    judged = [reached for name in GOALS if name in results for _, _, reached in judged_goals(name, results[name])]
    reached, missed = judged.count(True), judged.count(False)
    return (
        f"Of the goals that were measured, {reached} were reached and {missed} missed: docs/benchmarks.md lists each."
    )


def _latency(name: str, engine: str) -> Callable[[Results], str]:
    def cell(results: Results) -> str:
        found = results[name]["engines"][engine]
        return f"{found['p50_ms']:.0f} / {found['p95_ms']:.0f} ms"

    return cell


def _ratios(name: str, pair: str, *datasets: str, part: str = "") -> Callable[[Results], str]:
    def cell(results: Results) -> str:
        result = results[name]
        runs = {run["dataset"]: run for run in result.get("runs", [result])}
        texts = []
        for dataset in datasets:
            run = runs.get(dataset)
            ratio = None if run is None else (run[part] if part else run)["ratios"].get(pair, {}).get("decode")
            texts.append(f"{ratio['median']:.2f}×" if ratio and ratio["num"] else "–")
        return " / ".join(texts)

    return cell


def _steps(*datasets: str) -> Callable[[Results], str]:
    def cell(results: Results) -> str:
        runs = {run["dataset"]: run for run in results["paper-steps"]["runs"]}
        shown = [runs[name]["methods"].get("forelook", {}).get("tokens_per_step") if name in runs else None
                 for name in datasets]  # fmt: skip
        return " / ".join("–" if value is None else f"{value:.2f}" for value in shown)

    return cell


def _idle(results: Results) -> str:
    found = results["idle"]
    last = max(row["minute"] for row in found["minutes"])
    cells = [
        f"{row['process']} {row['cpu_s_per_minute']:.2f} s of CPU, {row['resident_mib']:.0f} MiB"
        for row in found["minutes"]
        if row["minute"] == last
    ]
    return "; ".join(cells)


def _session(results: Results) -> str:
    places = results["session"]["places"]
    ratios = [found["ratios"]["session/cold"] for found in places.values()]
    return " / ".join(f"{ratio['median']:.2f}× (n = {ratio['num']})" for ratio in ratios)


def _peers(results: Results) -> str:
    first = next(iter(results["peers"]["datasets"].values()))
    part = first["clean"] if first["clean"]["num_prompts"] else first
    return "; ".join(f"{pair} {ratio:.2f}×" for pair, ratio in part["ratios"].items()) or "–"


def _exact(results: Results) -> str:
    parts = []
    for name in ("quality-default", "quality"):
        cuts = results[name]["cuts"]
        parts.append(" / ".join(f"{cuts[cut]['shown']['exact_match']:.0%}" for cut in ("line", "middle")))
    return f"{parts[0]}; the bundled model {parts[1]}"


_ROWS: tuple[tuple[tuple[str, ...], str, Callable[[Results], str]], ...] = (
    (("latency-default",), "keystroke → suggestion, default model, new request, p50 / p95",
     _latency("latency-default", "forelook")),
    (("latency",), "keystroke → suggestion, bundled 7M model, new request, p50 / p95", _latency("latency", "forelook")),
    (("latency",), "the same prompts in transformers' greedy loop", _latency("latency", "hf_greedy")),
    (("latency",), "typed text that continues the suggestion, p99, no forward",
     lambda results: f"{results['latency']['engines']['forelook']['hit_p99_ms']:.1f} ms"),
    (("startup",), "language server's first answer after start, median",
     lambda results: f"{results['startup']['median_ms']:.0f} ms"),
    (("paper-steps",), "tokens per step, default model, HumanEval / GSM8K / MT-Bench / infilling",
     _steps("humaneval", "gsm8k", "mtbench", "humaneval-infilling")),
    (("paper",), "decode speed over our own autoregressive loop, default model, HumanEval / MT-Bench / infilling",
     _ratios("paper", "forelook/autoregressive", "humaneval", "mtbench", "humaneval-infilling")),
    (("paper",), "the same over transformers' greedy decoding",
     _ratios("paper", "forelook/hf_greedy", "humaneval", "mtbench", "humaneval-infilling")),
    (("decoding",), "decode speed over our own loop, bundled model, HumanEval / infilling",
     _ratios("decoding", "forelook/autoregressive", "humaneval", "humaneval-infilling")),
    (("decoding",), "the same for prompts with non-repetitive output",
     _ratios("decoding", "forelook/autoregressive", "humaneval", "humaneval-infilling", part="clean")),
    (("peers",), "decode speed against other engines, HumanEval", _peers),
    (("session",), "tokens per step at the 1st / 10th / 100th suggestion of a session, over a cold start", _session),
    (("quality-default", "quality"), "exactly right: a whole line / the rest of a line, HumanEval", _exact),
    (("idle",), "an idle minute, default model", _idle),
)  # fmt: skip


def quality_bullet(results: Results) -> list[str]:
    """Return the sentence of README on the default model's quality."""
    default, bundled = results["quality-default"]["cuts"], results["quality"]["cuts"]

    def share(cuts: Result, cut: str, *, has_interval: bool = False) -> str:
        shown = cuts[cut]["shown"]
        low, high = shown["exact_match_interval"]
        interval = f" ({100 * low:.0f} to {100 * high:.0f})" if has_interval else ""
        return f"{shown['exact_match']:.0%}{interval}"

    lines, model = f"{default['line']['num_problems']} lines", "codellama/CodeLlama-7b-hf"
    lines_right, rests_right = (share(default, cut, has_interval=True) for cut in ("line", "middle"))
    return [
        "- You want the quality of a large hosted model. The default model has 135M parameters and predicts",
        f"  {lines_right} of whole lines and {rests_right} of",
        f"  rests of a line exactly (Python, {lines}, with 95% intervals; the bundled one {share(bundled, 'line')} and",
        f"  {share(bundled, 'middle')}).",
        f"  On a GPU, use `--model {model}`.",
    ]


def card_quality(results: Results) -> list[str]:
    """Return the card's table of exact match and similarity."""
    names = {"line": "start of the missing line", "indented": "behind its indentation", "middle": "space in its middle"}
    bundled, own = results["quality"]["cuts"], results["quality-default"]["cuts"]

    def cell(found: Result, *, has_interval: bool = True) -> str:
        shown = found["shown"]
        low, high = shown["exact_match_interval"]
        interval = f" [{100 * low:.1f}, {100 * high:.1f}]" if has_interval else ""
        return f"{100 * shown['exact_match']:.1f}%{interval} / {shown['edit_similarity']:.3f}"

    rows = [(title, cell(bundled[cut]), cell(own[cut])) for cut, title in names.items()]
    counts = [" / ".join(str(cuts[cut]["num_problems"]) for cut in names) for cuts in (bundled, own)]
    return markdown(("cursor", f"starter model ({counts[0]})", f"this adapter ({counts[1]})"), rows)


REGIONS: dict[str, dict[str, tuple[tuple[str, ...], Callable[[Results], list[str]]]]] = {
    README: {"figures": ((), figures), "quality-note": (("quality", "quality-default"), quality_bullet)},
    CARD: {"card-quality": (("quality", "quality-default"), card_quality)},
}
"""Page → region → the results it needs and its lines."""


def updated_pages(results: Results) -> dict[Path, str]:
    """Return the texts of the pages with all their regions written again."""
    pages: dict[Path, str] = {}
    for name, regions in REGIONS.items():
        path = REPOSITORY / name
        text = path.read_text("utf-8")
        for region, (needed, lines) in regions.items():
            if all(result in results for result in needed):
                text = replaced(text, region, lines(results))
        pages[path] = text
    return pages

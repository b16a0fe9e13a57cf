"""README's three pictures, drawn from the results on a transparent background, in colors for light and dark pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forelook.model.catalogue import DEFAULT_MODEL, find_model
from forelook.model.config import parse_config
from forelook.model.loading import STARTER_MODEL_PATH
from forelook.model.memory import num_parameters

from bench.tables import Result

Results = Mapping[str, Result]
INK = "#7a828c"
COLORS = ("#3b82c4", "#c9772b", "#2f9470", "#a8599b", "#7a828c")
PICTURES = ("latency", "tokens-per-step", "quality")
Data = dict[str, Any]


def latency_data(results: Results) -> Data | None:
    """Return label → [share, milliseconds] of new requests, of each engine of the two models."""
    models = {"latency-default": "default model", "latency": "bundled 7M model"}
    lines: dict[str, list[tuple[float, float]]] = {}
    for name, model in models.items():
        for engine, found in results.get(name, {}).get("engines", {}).items():
            samples = sorted(found.get("new_ms") or [])
            points = [((index + 1) / len(samples), value) for index, value in enumerate(samples)]
            points = points or [(share / 100, found[f"p{share}_ms"]) for share in (50, 95, 99)]
            lines[f"{engine}, {model}"] = [(round(share, 4), value) for share, value in points if value]
    return {"lines": lines} if lines else None


def steps_data(results: Results) -> Data | None:
    """Return method → tokens per step by data set, of the default model."""
    if "paper-steps" not in results:
        return None
    titles = {
        "hf_prompt_lookup": "transformers' prompt lookup",
        "lookahead_published": "lookahead as published",
        "forelook": "forelook",
        "forelook_warm": "forelook, warm",
    }
    runs = [run for run in results["paper-steps"]["runs"] if run["methods"]]
    bars = {
        title: [run["methods"].get(name, {}).get("tokens_per_step") for run in runs] for name, title in titles.items()
    }
    return {"datasets": [run["dataset"] for run in runs], "bars": bars}


def quality_data(results: Results) -> Data | None:
    """Return cut → [parameters, exact match, its interval] of the bundled and the default model."""
    if not {"quality", "quality-default"} <= results.keys():
        return None
    row = find_model(DEFAULT_MODEL)
    assert row is not None
    starter = json.loads((STARTER_MODEL_PATH / "config.json").read_text("utf-8"))
    sizes = {"quality": num_parameters(parse_config(starter, "config.json")), "quality-default": row.num_parameters}
    points = {
        cut: [
            (size, results[name]["cuts"][cut]["shown"]["exact_match"],
             *results[name]["cuts"][cut]["shown"]["exact_match_interval"])
            for name, size in sizes.items()
        ]
        for cut in ("line", "indented", "middle")
    }  # fmt: skip
    return {"points": points}


DATA = dict(zip(PICTURES, (latency_data, steps_data, quality_data), strict=True))


def draw_all(results: Results, folder: Path) -> list[str]:
    """Write the pictures that have results, as SVG; return their names.

    The data of a picture are part of its file, so that a test can compare them with the results.

    Raises:
        ImportError: matplotlib is not installed.
    """
    drawn = []
    for name, data_of in DATA.items():
        data = data_of(results)
        if data is not None:
            _draw(name, data, folder / f"{name}.svg")
            drawn.append(name)
    return drawn


def _draw(name: str, data: Data, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")  # no display
    from matplotlib import pyplot as plt

    parts = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color")
    style = {
        **dict.fromkeys(parts, INK), "font.size": 10, "font.family": "sans-serif", "svg.fonttype": "none",
        "svg.hashsalt": "forelook", "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure, axis = plt.subplots(figsize=(7.6, 3.6))
        {"latency": _latency, "tokens-per-step": _steps, "quality": _quality}[name](axis, data)
        axis.grid(alpha=0.35, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncol=3)
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"Date": None, "Creator": None, "Description": json.dumps(data)}
        figure.savefig(path, transparent=True, bbox_inches="tight", metadata=metadata)
        plt.close(figure)


def _latency(axis: Any, data: Data) -> None:
    for number, (label, points) in enumerate(data["lines"].items()):
        style = "o--" if len(points) <= 3 else "-"
        color = COLORS[number % len(COLORS)]
        axis.plot([ms for _, ms in points], [100 * share for share, _ in points], style, label=label, color=color)
    axis.set(xscale="log", xlabel="milliseconds from keystroke to suggestion, new requests", ylabel="% answered")
    for each in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
        each("{x:.0f}")
    axis.tick_params(axis="x", which="both", labelsize=8)


def _steps(axis: Any, data: Data) -> None:
    width = 0.8 / len(data["bars"])
    for number, (label, values) in enumerate(data["bars"].items()):
        places = [index + (number - (len(data["bars"]) - 1) / 2) * width for index in range(len(values))]
        axis.bar(places, [value or 0 for value in values], width, label=label, color=COLORS[number])
    axis.set_xticks(range(len(data["datasets"])), data["datasets"])
    axis.axhline(1, color=INK, linewidth=1)
    axis.set(ylabel="tokens per step, default model")


def _quality(axis: Any, data: Data) -> None:
    names = {"line": "a whole line", "indented": "a line behind its indentation", "middle": "the rest of a line"}
    for number, (cut, points) in enumerate(data["points"].items()):
        sizes = [size * (1 + 0.03 * (number - 1)) for size, *_ in points]
        exact = [100 * value for _, value, *_ in points]
        errors = [[100 * (value - low) for _, value, low, _ in points],
                  [100 * (high - value) for _, value, _, high in points]]  # fmt: skip
        axis.errorbar(sizes, exact, errors, fmt="o-", capsize=3, label=names[cut], color=COLORS[number])
    axis.set(xscale="log", xlabel="parameters", ylabel="% exactly right, HumanEval", ylim=(0, None))
    axis.set_xticks([points[0] for points in data["points"]["line"]],
                    [f"{points[0] / 1e6:.0f} M" for points in data["points"]["line"]])  # fmt: skip
    axis.minorticks_off()

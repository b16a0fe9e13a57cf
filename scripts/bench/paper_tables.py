"""Tables of the paper's experiments: ours, with the published figures next to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench import published
from bench.summary import shown
from bench.tables import Result, markdown

_NAMES = {
    "hf_prompt_lookup": "transformers' prompt lookup",
    "lookahead_published": "published",
    "forelook": "forelook",
    "forelook_warm": "forelook, warm",
}


def _cell(part: Mapping[str, Any], pair: str) -> str | None:
    ratio = part["ratios"].get(pair, {}).get("decode")
    return shown(ratio) if ratio and ratio["num"] else None


def _prompts(run: Mapping[str, Any]) -> str:
    """The number of prompts, of clean ones, and of those with an answer where some had none."""
    answered = run.get("num_answered", run["num_prompts"])
    empty = f", {answered} answered" if answered < run["num_prompts"] else ""
    return f"{run['num_prompts']} ({run['clean']['num_prompts']}){empty}"


def _paper(dataset: str) -> str:
    plain, flash = published.SPEED_UP_7B.get(dataset), published.WITH_FLASH_ATTENTION.get(dataset)
    parts = [] if plain is None else [f"{plain:.2f}"]
    return ", ".join([*parts, *([] if flash is None else [f"{flash:.2f} with FlashAttention"])])


def paper(result: Result) -> list[str]:
    """Render speed-ups per data set; published ones are over transformers' greedy decoding on a GPU."""
    pairs = {
        "forelook / transformers' greedy": "forelook/hf_greedy",
        "forelook / autoregressive": "forelook/autoregressive",
        "forelook / transformers' prompt lookup": "forelook/hf_prompt_lookup",
        "published / autoregressive": "lookahead_published/autoregressive",
        "autoregressive / transformers' greedy": "autoregressive/hf_greedy",
    }
    kept = {title: pair for title, pair in pairs.items() if any(pair in run["ratios"] for run in result["runs"])}
    temperatures = len({run["temperature"] for run in result["runs"]}) > 1
    head = ["data set", *(["temperature"] if temperatures else []), "model", "format", "prompts (clean)",
            "tokens per step", *kept, "paper: lookahead / transformers' greedy"]  # fmt: skip
    rows = []
    for run in result["runs"]:
        figures = run["methods"].get("forelook") or run["methods"].get("lookahead_published") or {}
        row = [run["dataset"], *([f"{run['temperature']:g}"] if temperatures else []), run["model"], run["format"],
               _prompts(run), figures.get("tokens_per_step")]  # fmt: skip
        rows.append([*row, *(_cell(run, pair) for pair in kept.values()), _paper(run["dataset"])])
    note = f"Decoding alone, {result['max_new_tokens']} new tokens, medians of paired ratios [95%]. Paper: "
    return [note + f"{published.HARDWARE}.", "", *markdown(head, rows)]


def steps(result: Result) -> list[str]:
    """Render tokens per step by data set and method."""
    names = [name for name in _NAMES if any(name in run["methods"] for run in result["runs"])]
    temperatures = any(run["temperature"] for run in result["runs"])
    head = ["data set", *(["temperature"] if temperatures else []), "model", "prompts (clean)",
            *(_NAMES[name] for name in names), *(f"{_NAMES[name]}, clean" for name in names),
            "outputs equal to autoregressive ones"]  # fmt: skip
    rows = []
    for run in result["runs"]:
        shares = [run["methods"][name]["identical_share"] for name in names if name in run["methods"]]
        rows.append([
            run["dataset"], *([f"{run['temperature']:g}"] if temperatures else []), run["model"],
            _prompts(run),
            *(run["methods"].get(name, {}).get("tokens_per_step") for name in names),
            *(run["clean"]["methods"].get(name, {}).get("tokens_per_step") for name in names),
            f"{min(shares):.0%}" if shares else None,
        ])  # fmt: skip
    window = ", ".join(map(str, result["published"]))
    note = (
        f"Tokens per step, {result['max_new_tokens']} new tokens, {result['runs'][0]['dtype']}; published: W, N, G = "
        f"{window}; forelook: at most {result['max_drafts']} drafts, nothing learned in "
        "idle time. The token that ends an answer is a step and no token, also of an empty one."
    )
    return [note, "", *markdown(head, rows)]


def ablation(result: Result) -> list[str]:
    """Render step compression by W, N, G, reference and pool, the fit of α and f, and the published figures."""
    timed = bool(result["is_timed"])
    head = ["W, N, G", "tokens of a full step", "mean tokens of a step", "no reference", "prompt as reference",
            "no reference, warm pool", "prompt as reference, warm pool",
            *(["speed-up, no reference"] if timed else []), "paper: speed-up (step compression)"]  # fmt: skip
    cells: dict[tuple[int, int, int], dict[tuple[bool, bool], Mapping[str, Any]]] = {}
    for setting in result["settings"]:
        key = (setting["window_size"], setting["ngram_size"], setting["max_candidates"])
        cells.setdefault(key, {})[setting["prompt_as_reference"], setting["warm_pool"]] = setting
    rows = []
    for (window, ngram, candidates), found in sorted(cells.items()):
        plain = found[False, False]
        order = ((False, False), (True, False), (False, True), (True, True))
        compressions = [found[key]["step_compression"] if key in found else None for key in order]
        rows.append([
            f"{window}, {ngram}, {candidates}", plain["nominal_tail_tokens"], plain["mean_tail_tokens"],
            *(None if value is None else f"{value:.3f}" for value in compressions),
            *([plain["speedup"]] if timed else []), _published(window, ngram, candidates),
        ])  # fmt: skip
    fits = [
        f"{title}: α = {fit['alpha']}, f = {fit['f']} (root mean square error {fit['rmse']})"
        for title, fit in result["fits"].items()
        if fit is not None
    ]
    note = (
        f"{result['dataset']}, {result['model']}, {result['dtype']}, {result['num_run']} prompts × "
        f"{result['max_new_tokens']} tokens; outputs that differ from autoregressive ones: "
        f"{result['num_outputs_different']}. Paper: MT-Bench, {published.HARDWARE}; prompt lookup alone "
        f"{published.PROMPT_LOOKUP_7B_MTBENCH}."
    )
    lines = [note, "", *markdown(head, rows)]
    if fits:
        lines += ["", f"S = (f − 1 + E(α, W = G, N)) / f, fitted to the settings with W = G: {'; '.join(fits)}."]
    return [*lines, "", *_growth(cells)]


def lade(result: Result) -> list[str]:
    """Render each setting of the authors' code next to ours, and the methods without a setting."""
    timed = bool(result["is_timed"])
    head = ["method", "steps", "tokens per step", "the same, median prompt", "clean prompts", "equal to autoregressive",
            *(["ms per step", "tokens/s"] if timed else [])]  # fmt: skip
    lines: list[str] = []
    for name, data in result["datasets"].items():
        rows = []
        for method, row in data["methods"].items():
            clean = data["clean"]["methods"].get(method, {})
            times = [shown(row["ms_per_step"]), shown(row["tokens_per_s"])] if timed else []
            rows.append([method, row["num_steps"], row["tokens_per_step"], shown(row["tokens_per_step_by_prompt"]),
                         clean.get("tokens_per_step"), f"{row['identical_share']:.0%}", *times])  # fmt: skip
        title = f"{name}, {data['num_prompts']} prompts ({data['clean']['num_prompts']} clean):"
        lines += [title, "", *markdown(head, rows), "", *_against_lade(data["ratios"], timed=timed)]
    peer = result["peer"]
    theirs = "without lade" if peer is None else f"lade {peer['lade']} with transformers {peer['transformers']}"
    note = (
        f"{result['model']}, {result['dtype']}, {result['max_new_tokens']} new tokens; {theirs}. Names end with W, "
        "N, G; `prompt`: as reference. "
        + ("Times are of decoding alone, medians of prompts [95%]." if timed else "Steps alone were counted.")
    )
    return [note, "", *lines[:-1]]


def _against_lade(ratios: Mapping[str, Mapping[str, Any]], *, timed: bool) -> list[str]:
    if not ratios:
        return []
    head = ["ours / lade", "steps of lade per step of ours", *(["speed"] if timed else [])]
    rows = [[pair, shown(row["steps"]), *([shown(row["speed"])] if timed else [])] for pair, row in ratios.items()]
    return [*markdown(head, rows), ""]


def _published(window: int, ngram: int, candidates: int) -> str | None:
    parts = []
    for reference in (False, True):
        figures = published.ABLATION_7B_MTBENCH.get((window, ngram, candidates, reference))
        if figures is not None:
            speedup, compression = figures
            shown_compression = "" if compression is None else f" ({compression:.2f})"
            parts.append(f"{speedup:.2f}{shown_compression}{' with reference' if reference else ''}")
    return ", ".join(parts) or None


def _growth(cells: Mapping[tuple[int, int, int], Mapping[tuple[bool, bool], Mapping[str, Any]]]) -> list[str]:
    """One line: how much step compression each doubling of a step's tokens brings, where W = G and N is the same."""
    by_size: dict[int, list[tuple[int, float]]] = {}
    for (window, ngram, candidates), found in cells.items():
        if window == candidates:
            setting = found[False, False]
            by_size.setdefault(ngram, []).append((setting["nominal_tail_tokens"], setting["step_compression"]))
    parts = []
    for ngram, points in sorted(by_size.items()):
        points.sort()
        pairs = [f"{tokens} → {compression:.2f}" for tokens, compression in points]
        parts.append(f"N = {ngram}: {', '.join(pairs)}")
    return [f"Tokens of a full step → step compression, no reference, cold pool: {'; '.join(parts)}."]

"""Tables of results: rows for a terminal, and the Markdown of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench import published
from bench.summary import shown

Result = Mapping[str, Any]


def print_rows(rows: Iterable[Mapping[str, object]]) -> None:
    """Print a table with a column per key; intervals as ``median [low, high]``, ``None`` as an empty cell."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  " + "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)), flush=True)


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return shown(value)
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table; ``None`` is an empty cell."""
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join("" if cell is None else str(cell) for cell in row) + " |" for row in cells]


def measured(result: Result) -> str:
    """Return when, where and on which commit a result was measured."""
    origin = result["provenance"]
    commit = f"{origin['commit']}{' with local changes' if origin['is_dirty'] else ''}"
    machine = f"{origin['cores']} cores of {origin['cpu']}, {origin['system']}"
    versions = f"Python {origin['python']}, torch {origin['torch']}, transformers {origin['transformers']}"
    return f"{origin['date']}, commit {commit}; {machine}, {versions}."


def decoding(result: Result) -> list[str]:
    """Render decode speed per data set, once over all prompts and once over the clean ones."""
    head = ("data set", "prompts", "tokens per step", "forelook / autoregressive", "the same, end to end",
            "forelook / HF prompt lookup", "autoregressive / HF greedy", "published / autoregressive")  # fmt: skip
    pairs = (
        ("forelook/autoregressive", "decode"),
        ("forelook/autoregressive", "end_to_end"),
        ("forelook/hf_prompt_lookup", "decode"),
        ("autoregressive/hf_greedy", "decode"),
        ("lookahead_published/autoregressive", "decode"),
    )
    runs = result.get("runs", [result])
    lines: list[str] = []
    for title, parts in (
        ("All prompts:", [(run["dataset"], run) for run in runs]),
        (
            "*Clean* prompts, whose output has no token 8-gram three times:",
            [(run["dataset"], run["clean"]) for run in runs],
        ),
    ):
        rows = [
            (name, part["num_prompts"], part["methods"]["forelook"]["tokens_per_step"],
             *(shown(part["ratios"][pair][kind]) if pair in part["ratios"] else None for pair, kind in pairs))
            for name, part in parts
            if "forelook" in part["methods"]
        ]  # fmt: skip
        lines += [title, "", *markdown(head, rows), ""]
    return lines[:-1]


def latency(result: Result) -> list[str]:
    """Render keystroke to reply of all engines."""
    engines = result["engines"]
    rows = [
        ("requests: new / hit / kept / cancelled", "{num_new} / {num_hit} / {num_kept} / {num_cancelled}"),
        ("new request p50 / p95 / p99, ms", "{p50_ms} / {p95_ms} / {p99_ms}"),
        ("cache hit p50 / p99, ms", "{hit_p50_ms} / {hit_p99_ms}"),
        ("prefill tokens, suffix unchanged, p50 / p95", "{same_suffix_prefill_p50} / {same_suffix_prefill_p95}"),
        ("prefill tokens, suffix changed, p95", "{other_prefill_p95}"),
        ("forwards per 100 keys (cancelled)", "{forwards_per_100_keys} ({cancelled_forwards_per_100_keys})"),
        ("CPU seconds per 1000 keys", "{cpu_s_per_1000_keys}"),
        ("answered with text", "{answered_with_text_share}"),
    ]
    table = markdown(
        ("measure", *engines),
        [(name, *(template.format_map(_short(engine)) for engine in engines.values())) for name, template in rows],
    )
    ratios = [
        f"{pair}: median session {ratio['median']}× ({ratio['range'][0]} to {ratio['range'][1]}, "
        f"{ratio['sessions']} sessions)."
        for pair, ratio in result["ratios"].items()
    ]
    return [*table, *([""] if ratios else []), *ratios]


def _short(figures: Result) -> dict[str, object]:
    """Return figures with three digits, and a dash for what was not measured."""

    def text(value: float) -> str:
        return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"

    return {
        name: "–" if value is None else text(value) if isinstance(value, float) else value
        for name, value in figures.items()
    }


def quality(result: Result) -> list[str]:
    """Render exact match, edit similarity and pass@1 of infilling."""

    def share(score: Result, name: str) -> str | None:
        if score[name] is None:
            return None
        low, high = score[f"{name}_interval"]
        return f"{100 * score[name]:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"

    rows = [
        (where, figures["num_problems"], kind, share(figures[kind], "exact_match"), figures[kind]["edit_similarity"],
         share(figures[kind], "pass_at_1"))
        for where, figures in result.get("cuts", {}).items()
        for kind in ("raw", "truncated", "unguarded", "shown")
        if kind in figures
    ]  # fmt: skip
    lines = markdown(("cut", "n", "answer", "exact match", "edit similarity", "pass@1"), rows) if rows else []
    if "keystrokes" in result:
        keys = result["keystrokes"]
        share = f"{100 * keys['saved_share']:.0f}% ({keys['accepted']} accepted, {keys['characters']:,} characters)"
        functions = f"{keys['num_functions']} functions typed key by key"
        lines += [*([""] if lines else []), f"Keystrokes saved on {functions}, right suggestions accepted: {share}."]
    return lines


def parallel(result: Result) -> list[str]:
    """Render a step on one rank and on all, per method."""
    rows = [
        (title, name, f"{value:.1f}", result["ratio_to_one_rank"][title][name])
        for title, row in result["median_ms"].items()
        for name, value in row.items()
    ]
    paper = "; ".join(f"{name} {low} to {high}×" for name, (low, high) in published.PARALLEL_8_GPUS.items())
    lines = markdown(("step", "method", "ms", "ratio to one rank"), rows)
    return [*lines, "", f"Paper, speed-up on 8 A100 over one, 7 B, HumanEval and ClassEval: {paper}."]


def pool(result: Result) -> list[str]:
    """Render the pool's costs by size, and its effect on a decode step."""
    rows = [
        (f"{size['num_tokens']:,}", f"{size['index_tokens_per_s'] / 1e6:.1f} M",
         f"{size['lookup_p50_us']:.0f} / {size['lookup_p99_us']:.0f}", size["bytes_per_token"],
         f"{1e3 * size['restore_s']:.0f} ms")
        for size in result["sizes"]
    ]  # fmt: skip
    head = ("tokens", "indexed per second", "lookup p50 / p99, µs", "bytes per token", "restore")
    notes = f"A decode step during indexing takes {result['step_ratio']} times an idle one."
    if "lookup" in result:
        notes += f" Lookups were {result['lookup']}."
    if "host" in result:
        host = result["host"]
        notes += (
            f" With {host['num_tokens']:,} tokens in the pool, a step of the default model takes"
            f" {host['host_step_ms']} ms outside its forward ({host['num_prompts']} prompts)."
        )
    return [*markdown(head, rows), "", notes]


def replay(result: Result) -> list[str]:
    """Render tokens per step on real edits, repositories that constants were tuned on apart from the reported ones."""
    lines: list[str] = []
    titles = {"methods": "Replaced lines kept", "methods_replaced_deleted": "Replaced lines deleted"}
    if result.get("model") is not None:
        titles = {"methods": f"Output of {result['model']}", "methods_clean": "Its output without loops"}
    for kind, title in titles.items():
        for part in ("report", "tune"):
            rows = [_replay_row(found, kind) for found in result["repositories"] if found["repo"] in result[part]]
            if not rows:
                continue
            names = [name for name in rows[0] if name != "repo"]
            figures = {name: sum(row[name] for row in rows) / len(rows) for name in names}
            table = [[row["repo"], *(f"{value:.2f}" for value in list(row.values())[1:])] for row in rows]
            table.append(["mean", *(f"{value:.2f}" for value in figures.values())])
            notes = {"report": "; nothing was tuned on these", "tune": "; constants were tuned on these"}
            lines += ["", f"{title}{notes[part] if result['tune'] else ''}:", ""]
            lines += markdown(("repository (edits)", *list(rows[0])[1:]), table)
    return lines[1:]


def _replay_row(found: Result, kind: str) -> dict[str, Any]:
    """One repository's tokens per step, and what a warm pool is to the others."""
    figures = {name.replace("_", " "): method["tokens_per_step"] for name, method in found[kind].items()}
    row: dict[str, Any] = {"repo": f"{found['repo']} ({found['num_edits']})", **figures}
    warm = figures.get("pool warm")
    if warm is not None and "prompt lookup" in figures:
        row["warm / lookup"] = warm / figures["prompt lookup"]
    published = [figures[name] for name in ("published", "suffix decoding", "token recycling") if name in figures]
    if warm is not None and published:
        row["warm / best published"] = warm / max(published)
    return row


def startup(result: Result) -> list[str]:
    """Render the time to the first answer of the language server, and of models at their first start."""
    extremes = f"{result['min_ms']:.0f} to {result['max_ms']:.0f}"
    median = f"**{result['median_ms']:.0f} ms**"
    lines = [f"Median of {result['runs']} starts {median} ({extremes}); goal {result['bar_ms']:.0f}."]
    models = result.get("first_suggestions", [])
    if not models:
        return lines
    rows = [
        (model["model"], model["dtype"], model["prompt_tokens"], model["load_s"], model["prefill_s"],
         model["answered_s"], f"**{model['beyond_s']:.2f}** ({model['beyond_max_s']:.2f})", model["beyond_cpu_s"],
         model["bar_s"])
        for model in models
    ]  # fmt: skip
    head = ("first start of", "dtype", "prompt tokens", "load, s", "prefill, s", "to the first answer, s",
            "beyond load and prefill: median (most)", "the same, processor time", "goal")  # fmt: skip
    return [*lines, "", f"Medians of {result['model_runs']} first starts:", "", *markdown(head, rows)]


def peers(result: Result) -> list[str]:
    """Render steps, prompts and decode speed of Forelook, transformers and llama.cpp."""
    lines: list[str] = []
    for title, table in (("One step, ms by its tokens:", "steps"), ("Prompts, tokens/s by length:", "prefill")):
        sizes = list(dict.fromkeys(size for row in result[table].values() for size in row))
        rows = [(name, *(row.get(size) for size in sizes)) for name, row in result[table].items()]
        lines += [title, "", *markdown(("method", *sizes), rows), ""]
    head = (
        "method",
        "tokens/s",
        "tokens per step",
        "ms per step",
        "identical to its own greedy",
        "first token p50, ms",
    )
    keys = ("tokens_per_s", "tokens_per_step", "ms_per_step", "identical_share", "first_token_ms_p50")
    for name, data in result["datasets"].items():
        part = data["clean"] if data["clean"]["num_prompts"] else data
        rows = [(method, *(row[key] for key in keys)) for method, row in part["methods"].items()]
        lines += [f"{name}, {part['num_prompts']} clean prompts of {data['num_prompts']}, after the first token:", ""]
        lines += [*markdown(head, rows), ""]
        lines += [f"{pair}: {ratio:.2f}×." for pair, ratio in part["ratios"].items()]
        lines += [""]
    return lines[:-1]


def forward(result: Result) -> list[str]:
    """Render the time of one step by prefix and tail."""
    rows = [
        (prefix, tail, medians["forelook"], medians.get("transformers"))
        for prefix, tails in result["median_ms"].items()
        for tail, medians in tails.items()
    ]
    return [f"{result['dtype']}, median ms:", "", *markdown(("prefix", "tail", "forelook", "transformers"), rows)]


def http(result: Result) -> list[str]:
    """Render the cost of the HTTP interface: beside the editor protocol, after a warming, next to a flood."""
    rows: list[tuple[object, ...]] = []
    if "overhead" in result:
        found = result["overhead"]
        rows += [
            (f"{name} over the editor protocol, new request, p50", f"{value:+.2f} ms", "≤ 3 ms")
            for name, value in found["overhead_p50_ms"].items()
        ]
    if "warming" in result:
        rows += [
            (f"prompt tokens after a warming, {name}: p50 / maximum", f"{found['p50']:.0f} / {found['max']}", "≤ 16")
            for name, found in result["warming"].items()
            if name != "warming"
        ]
    if "fairness" in result:
        found = result["fairness"]
        alone, beside = (found["others"][name]["p95_ms"] for name in ("alone", "beside"))
        title = f"{found['connections']} connections of {found['keys']} keys, one flooding: the others' p95"
        rows.append((title, f"{beside:.0f} ms, alone {alone:.0f} ms: {found['p95_ratio']:.2f}×", "≤ 2×"))
    return markdown(("measure", "figure", "goal"), rows)


def http_peers(result: Result) -> list[str]:
    """Render an editor client's requests to Forelook, and to another server on the same weights."""
    found = result["peers"]
    first, ratios = next(iter(found["servers"])), found["ratios"]
    rows = [
        (name, each["requests"], f"{each['p50_ms']:.0f} / {each['p95_ms']:.0f} ms", each["tokens"],
         each["ms_per_token"], f"{found['same_answers_as_last'][name]:.0%}",
         *(f"{ratio:.2f}×" for ratio in ratios.get(name, {}).values()))
        for name, each in found["servers"].items()
    ]  # fmt: skip
    over = f"over {first}:"
    names = ("server", "requests", "request to answer p50 / p95", "tokens per answer", "ms per token",
             f"answers of {[*found['servers']][-1]}", f"{over} p50", "p95", "ms per token")  # fmt: skip
    return markdown(names, rows)


def load(result: Result) -> list[str]:
    """Render typists on one server, what the simulation says of the same, and the clusters that it sizes."""
    runs = [
        (
            real["typists"],
            f"{real['p50_ms']:.0f} / {real['p95_ms']:.0f} ms",
            f"{modeled['p50_ms']:.0f} / {modeled['p95_ms']:.0f} ms",
            f"{real['in_time_share']:.0%} / {modeled['in_time_share']:.0%}",
            "" if real.get("busy_share") is None else f"{real['busy_share']:.0%} / {modeled['busy_share']:.0%}",
            real.get("all_forwards_per_suggestion") or "",
            real["fairness"]["jain"],
        )
        for real, modeled in zip(result["runs"], result["simulated"], strict=True)
        if real["p50_ms"] is not None and modeled["p50_ms"] is not None
    ]
    names = ("typists", "key to answer p50 / p95", "simulated", "answered before the next key, measured / simulated",
             "device busy, measured / simulated", "forwards per suggestion", "fairness (Jain)")  # fmt: skip
    lines = markdown(names, runs)
    if result["sizes"]:
        speeds = list(dict.fromkeys(row["service_p50_ms"] for row in result["sizes"]))
        cells = {(row["typists"], row["service_p50_ms"]): row for row in result["sizes"]}
        typists = list(dict.fromkeys(row["typists"] for row in result["sizes"]))
        rows = [(number, *(_cluster(cells[number, speed]) for speed in speeds)) for number in typists]
        keep = f"{result['keep']:.0%}"
        lines += ["", f"Simulated: replicas that keep {keep} of the answers in time that a typist alone has.", ""]
        lines += markdown(("typists", *(f"{speed:g} ms of the device per request" for speed in speeds)), rows)
    return lines


def _cluster(row: Mapping[str, Any]) -> str:
    return "no number" if row["replicas"] is None else f"{row['replicas']} (p95 {row['p95_ms']:.0f} ms)"

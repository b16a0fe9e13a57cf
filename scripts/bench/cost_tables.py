"""Tables of costs: steps of larger shapes, a session's suggestions, an idle backend, a GPU."""

from __future__ import annotations

from bench.summary import shown
from bench.tables import Result, markdown


def shapes(result: Result) -> list[str]:
    """Render steps and prompts of random weights, per shape and format."""
    rows = []
    for shape, found in result["shapes"].items():
        for name, form in found["formats"].items():
            steps = [f"{tails[name]:.1f}" for tails in found["step_ms"].values()]
            rows.append((f"{shape} ({found['num_parameters'] / 1e9:.2f} B)", name.removesuffix(f" {form}"), form,
                         *steps, f"{found['prompt_tokens_per_s'][name]:.0f}"))  # fmt: skip
    tails = next(iter(result["shapes"].values()))["step_ms"]
    head = ("shape", "engine", "format", *(f"step of {tail}, ms" for tail in tails), "prompt, tokens/s")
    return [f"Median steps after {result['prefix']} cached tokens:", "", *markdown(head, rows)]


def session(result: Result) -> list[str]:
    """Render tokens per step at places of a session."""
    rows = [
        (place, found["num_suggestions"],
         *(f"{found['tokens_per_step'][name]:.2f}" for name in ("cold", "pool", "session")),
         *(shown(found["ratios"][name]) for name in ("pool/cold", "session/cold")))
        for place, found in result["places"].items()
        if found["num_suggestions"]
    ]  # fmt: skip
    head = ("suggestion", "n", "cold", "workspace's pool", "the same, with earlier suggestions", "pool / cold",
            "with earlier suggestions / cold")  # fmt: skip
    note = (
        f"Tokens per step (the one that ends an answer is a step and no token), {result['model']} in "
        f"{result['dtype']}; sessions run: {result['num_sessions']}, in {result['files_per_session']} files of "
        f"`{result['folder']}` each, to the last place: {result['num_long']}; at most {result['max_drafts']} drafts, "
        f"{result['max_new_tokens']} tokens per suggestion; median paired ratios [95%]:"
    )
    return [note, "", *markdown(head, rows)]


def window(result: Result) -> list[str]:
    """Render when a lookahead window pays, by the cost of a further token in a step."""
    rows = []
    for kind, name_of in (("simulated", "{}"), ("timed", "this machine")):
        for dataset, found in result.get(kind, {}).items():
            for slope, one in found.items() if kind == "simulated" else [("", found)]:
                shut, auto, opened = (one["variants"][name] for name in ("shut", "auto", "open"))
                rows.append(
                    (dataset, name_of.format(slope), f"{one['num_prompts']} ({one['num_clean']})",
                     *(variant["tokens_per_step"] for variant in (shut, auto, opened)),
                     f"{auto['open_share']:.0%}", auto["drafts_with_window"], auto["drafts_without"],
                     shown(one["speed"]["auto"]), shown(one["speed"]["open"]))
                )  # fmt: skip
    head = ("data set", "cost of a further token", "prompts (clean)", "tokens per step, shut", "the product", "open",
            "steps with a window", "drafts in these", "in the others", "speed of the product / shut",
            "open / shut")  # fmt: skip
    simulated = ""
    if "simulated" in result:
        different = sum(
            variant["num_outputs_different"]
            for found in result["simulated"].values()
            for one in found.values()
            for variant in one["variants"].values()
        )
        simulated = (
            "costs are shares of a plain step, simulated in float32, whose outputs differ from autoregressive ones in "
            f"{different} cases; "
        )
    note = f"{result['model']}, {result['max_new_tokens']} new tokens; {simulated}median paired ratios [95%]:"
    return [note, "", *markdown(head, rows)]


def idle(result: Result) -> list[str]:
    """Render memory and processor time of each idle minute."""
    rows = [
        (row["minute"], row["process"], f"{row['cpu_s_per_minute']:.2f}", f"{row['wakeups_per_minute']:.0f}",
         f"{row['resident_mib']:.0f}")
        for row in result["minutes"]
    ]  # fmt: skip
    head = ("minute", "process", "CPU seconds per minute", "wake-ups per minute", "resident, MiB")
    note = f"{result['model']}, one document, after one suggestion; {result['measured_s']:.0f} s were measured:"
    return [note, "", *markdown(head, rows)]


def gpu(result: Result) -> list[str]:
    """Render the GPU's rows; what a time limit left out is open."""
    rows = [
        (row["measure"], row["bar"], "open" if row["value"] is None else f"{row['value']:.3g}",
         {True: "reached", False: "**missed**", None: ""}[row["reached"]])
        for row in result["must_reach"]
    ]  # fmt: skip
    lines = [f"{result['device']}, {result['shape']} shapes, {result['dtype']}:", ""]
    lines += markdown(("measure", "goal", "measured", ""), rows)
    figures = result.get("figures", [])
    if figures:
        lines += ["", *markdown(("measure", "figure"), [(row["measure"], row["figure"]) for row in figures])]
    left = result.get("left_out", {})
    if left:
        lines += ["", "Left out: " + "; ".join(f"{name} ({why})" for name, why in left.items()) + "."]
    return lines

"""Every figure on README.md, the pages of docs/ and the models' cards is found again in the results, or is none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from bench import front_page, front_plots, goals, suite

MARKS = re.compile(r"<!-- begin: ([\w-]+) -->.*?<!-- end: \1 -->", re.DOTALL)
FENCES = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
UNITS = r"ms|µs|s|MiB|MB|GB|kB|%|×|tokens/s|tokens per step|GB/s|MB/s"
FIGURE = re.compile(rf"(?<![\w.])\d[\d.,]*\s?(?:{UNITS})(?!\w)")

QUOTED: tuple[tuple[str, str, str, tuple[Any, ...], str], ...] = (
    ("docs/benchmarks.md", "120 tokens per step, 64 on each", "parallel", ("tokens_per_step",), "{}"),
    ("docs/benchmarks.md", "120 tokens per step, 64 on each", "parallel", ("tokens_per_rank", 0), "{}"),
    ("docs/team.md", "6 to 50% busy", "load", ("runs", 0, "busy_share"), "{:.0%}"),
    ("docs/team.md", "6 to 50% busy", "load", ("runs", 3, "busy_share"), "{:.0%}"),
    ("docs/team.md", "4 to 39% in the simulation", "load", ("simulated", 0, "busy_share"), "{:.0%}"),
    ("docs/team.md", "4 to 39% in the simulation", "load", ("simulated", 3, "busy_share"), "{:.0%}"),
)
"""Page, sentence, result, keys of the value, its format."""

NOT_MEASURED: dict[str, tuple[str, ...]] = {
    "README.md": (
        "a 93 MB wheel",
        "default model's base (93 MB;",
        "about 250 MB with a CPU build",
        "torch wheel includes CUDA (about 3 GB)",
    ),
    "docs/team.md": ("on average (30 s)",),
    "docs/clients/zed.md": ("Zed gives a suggestion about 300 ms",),
    "docs/training.md": (
        "with a 95% interval",
        "64 MB for example",
        "| 2 MB without `starter_model`",
        "| 98 MB: 60 and 38 |",
        "| 23 MB: 15 and 8 |",
        "`run/adapter` (23 MB,",
        "`run/state.pt` (140 MB)",
    ),
    "docs/benchmarks.md": ("bootstrap 95% interval", "Brackets are 95% Wilson intervals"),
}
"""Page → phrases around figures that are sizes, limits or statistics' names."""

LIMITS = {"docs/language-server.md", "docs/protocol.md", "docs/http.md", "docs/style.md", "docs/confidence.md"}
"""Pages whose figures are the product's settings and limits."""
NOT_JUDGED = {
    "docs/decisions.md": "what was measured when something was decided",
    "docs/benchmarks/archive.md": "measured by hand or on earlier days",
    "backend/forelook/starter_model/README.md": "its training and the corpora, measured when the weights were made",
}
CARD_SECTIONS = {
    "What it contains", "How it was made", "Data", "Figures", "Bits per byte", "When it is silent",
    "Quality against tokens", "The row of the ending token", "Limits",
}  # fmt: skip
"""Sections of the default model's card with figures of its training, besides the table that is written."""


@pytest.fixture(scope="module")
def results(repository: Path) -> dict[str, Any]:
    return dict(front_page.read_results(repository / "docs" / "benchmarks" / "results"))


def pages(repository: Path) -> dict[str, str]:
    found = [repository / "README.md", *repository.glob("docs/**/*.md"), *repository.glob("backend/**/README.md")]
    return {path.relative_to(repository).as_posix(): path.read_text("utf-8") for path in found}


def test_the_tables_are_those_of_the_results(repository: Path) -> None:
    page = (repository / "docs" / "benchmarks.md").read_text("utf-8")
    assert suite.updated(page, suite.SUITE, repository / "docs" / "benchmarks" / "results") == page, (
        "run python scripts/write_benchmarks.py"
    )


def test_readme_and_card_say_what_the_results_say(results: Mapping[str, Any]) -> None:
    for path, text in front_page.updated_pages(results).items():
        assert path.read_text("utf-8") == text, f"{path.name}: run python scripts/write_benchmarks.py"


def test_a_figure_that_changes_is_noticed(results: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(results))
    changed["latency"]["engines"]["forelook"]["p50_ms"] += 100
    changed["quality-default"]["cuts"]["line"]["shown"]["exact_match"] += 0.2
    for path, text in front_page.updated_pages(changed).items():
        assert text != path.read_text("utf-8")


def test_pictures_hold_the_data_of_the_results(repository: Path, results: Mapping[str, Any]) -> None:
    readme = (repository / "README.md").read_text("utf-8")
    for name, data_of in front_plots.DATA.items():
        assert f"docs/images/{name}.svg" in readme
        picture = (repository / "docs" / "images" / f"{name}.svg").read_text("utf-8")
        found = re.search(r"<dc:description>(.*?)</dc:description>", picture, re.DOTALL)
        assert found is not None
        text = found.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        assert json.loads(text) == json.loads(json.dumps(data_of(results))), (
            f"{name}: run python scripts/write_benchmarks.py"
        )
        assert "fill: #ffffff" not in picture, "an opaque background is a bright box on a dark page"


@pytest.mark.parametrize("background", ["#ffffff", "#0d1117"])
def test_colors_are_seen_on_light_and_dark_pages(background: str) -> None:
    for color in (front_plots.INK, *front_plots.COLORS):
        light, dark = sorted((luminance(color), luminance(background)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, f"{color} on {background}"


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_figures_in_prose_are_quoted_from_a_result_or_are_none(repository: Path) -> None:
    unknown = []
    for name, text in pages(repository).items():
        if name in LIMITS or name in NOT_JUDGED or name == front_page.CARD:
            continue
        rest = FENCES.sub("", MARKS.sub("", text))
        phrases = [*NOT_MEASURED.get(name, ())]
        phrases += [phrase for page, phrase, *_ in QUOTED if page == name]
        for phrase in dict.fromkeys(phrases):
            assert phrase in rest, f"{name} no longer says {phrase!r}; drop it from the table"
            rest = rest.replace(phrase, "")
        unknown += [f"{name}: {line.strip()[:90]}" for line in rest.splitlines() if FIGURE.search(line)]
    assert not unknown, "\n".join(["write these from a result, or name them in a table of this test:", *unknown])


@pytest.mark.parametrize(("page", "phrase", "result", "keys", "form"), QUOTED)
def test_a_quoted_figure_is_in_its_result(
    page: str, phrase: str, result: str, keys: tuple[Any, ...], form: str, results: Mapping[str, Any], repository: Path
) -> None:
    assert phrase in (repository / page).read_text("utf-8")
    value = reduce(lambda inner, key: inner[key], keys, results[result])
    assert form.format(value).removesuffix("%") in re.findall(r"\d[\d.]*", phrase)


def test_the_card_has_no_section_of_figures_that_is_not_named(repository: Path) -> None:
    text = MARKS.sub("", (repository / front_page.CARD).read_text("utf-8"))
    sections = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)[1:]
    with_figures = {title for title, body in zip(sections[::2], sections[1::2], strict=True) if FIGURE.search(body)}
    assert with_figures - {"The default model's adapter"} <= CARD_SECTIONS


def test_each_missed_goal_is_next_to_those_reached(results: Mapping[str, Any], repository: Path) -> None:
    page = (repository / "docs" / "benchmarks.md").read_text("utf-8")
    for name, result in results.items():
        for goal, value, reached in goals.judged_goals(name, result):
            word = {True: "reached", False: "**missed**", None: "not measured"}[reached]
            rows = [line for line in suite.region(page, name).splitlines() if line.startswith(f"| {goal.measure} |")]
            assert len(rows) == 1, f"{name}: {goal.measure}"
            assert rows[0].endswith(f"| {word} |"), value

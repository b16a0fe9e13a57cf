"""A session of suggestions in a few files of a workspace: what the pool, and what earlier suggestions, bring."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from forelook.model.loading import LoadedModel

from bench.datasets import BenchPrompt, workspace_prompts
from bench.methods import MethodSettings, OurMethods, Run, fixed_budget
from bench.summary import median_interval

NAMES = ("cold", "pool", "session")


@dataclass(frozen=True)
class SessionPlan:
    """What to run.

    Attributes:
        folder: the workspace, of Python files.
        places: suggestion number → numbers on either side of it that count with it.
        num_sessions: of as many suggestions as the second largest place needs.
        num_long: of these, those that reach the largest place.
        num_files: files that a session works in.
        max_new_tokens, prompt_tokens: limits of a suggestion.
        max_drafts: drafts per step, a fixed budget.
    """

    folder: Path
    places: Mapping[int, int]
    num_sessions: int
    num_long: int
    num_files: int
    max_new_tokens: int
    prompt_tokens: int
    max_drafts: int

    def length(self, number: int) -> int:
        """Number of suggestions of a session."""
        ends = sorted(place + around for place, around in self.places.items())
        return ends[-1] if number < self.num_long or len(ends) == 1 else ends[-2]

    def place_of(self, number: int) -> int | None:
        """The place that a suggestion counts for."""
        return next((place for place, around in self.places.items() if abs(number - place) <= around), None)


@dataclass
class Tally:
    """Runs at one place, by method, in pairs."""

    runs: dict[str, list[Run]] = field(default_factory=lambda: {name: [] for name in NAMES})

    def figures(self) -> dict[str, Any]:
        """Return tokens per step by method, and the paired ratios to a cold start; empty answers are left out."""
        kept = [index for index, run in enumerate(self.runs["cold"]) if run.token_ids]
        rates = {name: [runs[index].tokens_per_step for index in kept] for name, runs in self.runs.items()}
        pooled = {
            name: round(
                sum(len(runs[index].token_ids) for index in kept) / sum(runs[index].num_steps for index in kept), 3
            )
            for name, runs in self.runs.items()
            if kept
        }
        ratios = {
            f"{name}/cold": median_interval([own / cold for own, cold in zip(rates[name], rates["cold"], strict=True)])
            for name in NAMES[1:]
        }
        same = sum(len({runs[index].token_ids for runs in self.runs.values()}) == 1 for index in kept)
        return {
            "num_suggestions": len(kept),
            "num_empty": len(self.runs["cold"]) - len(kept),
            "num_outputs_equal": same,
            "tokens_per_step": pooled,
            "ratios": ratios if kept else {},
        }


def session_prompts(plan: SessionPlan, model: LoadedModel, number: int) -> list[BenchPrompt]:
    """Return the prompts of a session, in files that its number chooses."""
    chooser = random.Random(number)
    names = [
        str(path.relative_to(plan.folder))
        for path in sorted(plan.folder.rglob("*.py"))
        if path.read_text("utf-8", "replace").count("\n") > 60
    ]
    files = chooser.sample(names, min(plan.num_files, len(names)))
    return workspace_prompts(
        plan.folder,
        model,
        limit=plan.length(number),
        max_new_tokens=plan.max_new_tokens,
        seed=number,
        only=files,
    )


def run_sessions(plan: SessionPlan, model: LoadedModel) -> Iterator[dict[int, Tally]]:
    """Run the sessions, and yield what is counted so far after each.

    ``cold`` knows the prompt alone, ``pool`` also the workspace's files, ``session`` also what the earlier suggestions
    of the session taught. Outputs are the same in all three; only the steps differ.
    """
    tallies = {place: Tally() for place in plan.places}
    limited = replace(model, max_positions=plan.prompt_tokens + plan.max_new_tokens)
    settings = MethodSettings(plan.max_new_tokens)
    budget = fixed_budget(plan.max_drafts)
    for number in range(plan.num_sessions):
        cold, pool, session = (OurMethods(limited, settings, budget=budget, learns=False) for _ in NAMES)
        for index, prompt in enumerate(session_prompts(plan, limited, number), start=1):
            warm = session.forelook_warm(prompt)
            place = plan.place_of(index)
            if place is None:
                continue
            runs = tallies[place].runs
            runs["session"].append(warm)
            runs["cold"].append(cold.forelook(replace(prompt, documents=None)))
            runs["pool"].append(pool.forelook(prompt))
        yield tallies


def result_of(tallies: Mapping[int, Tally], names: Sequence[int]) -> dict[str, Any]:
    """Return the figures by place."""
    return {str(place): tallies[place].figures() for place in names}

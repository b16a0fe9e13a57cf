"""The replay with a real model in the loop: at the cursors of real edits it writes on, and every method drafts that."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forelook.decoding.autoregressive import autoregressive
from forelook.decoding.drafting.budget import StepBudget
from forelook.decoding.drafting.calibration import Calibrations
from forelook.decoding.drafting.costs import StepCosts
from forelook.decoding.drafting.drafter import Drafter
from forelook.decoding.drafting.sources.pool import PoolSource
from forelook.decoding.drafting.tree_drafter import DraftMemory, TreeDrafter
from forelook.decoding.limits import Limits
from forelook.decoding.loop import decode
from forelook.decoding.ngrams.pool import NgramPool
from forelook.decoding.request import DecodeRequest
from forelook.decoding.stats import DecodingStats
from forelook.model.loading import LoadedModel

from bench.datasets import has_repetition
from bench.history import Edit, Encoder, Repository
from bench.replay import ReplaySettings, Tally, corpus_of, last_edits, prompt_of, rival, sync
from bench.rivals import SEPARATOR, Corpus, MethodDrafter, RecyclingTable


def flat_costs(max_tokens: int) -> StepCosts:
    """A device on which a step costs the same whatever it carries."""
    return StepCosts((1, max_tokens), (1.0, 1.0 + 1e-6 * max_tokens), (0.0, 0.0))


@dataclass
class ModelContest:
    """All methods on what a model writes at the same cursors.

    Attributes:
        model: decodes greedily.
        settings: of the replay; ``prompt_tokens`` is what methods see, the model sees the text before the cursor.
        num_seen: tokens of it that the model sees.
    """

    model: LoadedModel
    settings: ReplaySettings
    num_seen: int = 512
    tallies: dict[str, Tally] = field(default_factory=dict)
    clean: dict[str, Tally] = field(default_factory=dict)
    num_different: int = 0
    outputs: Corpus = field(default_factory=Corpus)
    table: RecyclingTable = field(default_factory=RecyclingTable)
    memory: DraftMemory = field(default_factory=DraftMemory)
    calibrations: Calibrations = field(default_factory=Calibrations)

    def __post_init__(self) -> None:
        self.sequence = self.model.new_sequence(self.num_seen + self.settings.edit_tokens + 4 * self.settings.budget)
        self.boundaries = frozenset(self.model.tokenizer.special_ids)

    def run(self, edit: Edit, pool: NgramPool, workspace: Corpus) -> None:
        """Let the model write at one cursor with each method."""
        start = [] if self.model.config.bos_token_id is None else [self.model.config.bos_token_id]
        limits = Limits(self.settings.edit_tokens, self.model.stop_token_ids)
        request = DecodeRequest(
            [*start, *edit.before[-self.num_seen :]],
            limits,
            context=edit.before,
            after=edit.after,
            boundary_ids=self.boundaries,
        )
        if not request.prompt_ids:
            return
        self.sequence.truncate(0)
        expected = [token for tokens in autoregressive(request, self.sequence) for token in tokens]
        is_clean = not has_repetition(expected)
        for name in self.settings.chosen:
            if name in ("pool_session", "pool_libraries", "forelook"):
                continue
            drafter = self._drafter(name, edit, request, pool, workspace)
            stats = DecodingStats()
            started_s = time.perf_counter()
            output = [token for tokens in decode(request, self.sequence, drafter, stats) for token in tokens]
            self.num_different += output != expected
            tally = Tally(
                len(output),
                stats.num_steps,
                stats.num_drafted_tokens,
                stats.num_accepted_tokens,
                time.perf_counter() - started_s - stats.forward_s,
            )
            self.tallies[name] = self.tallies.get(name, Tally()) + tally
            if is_clean:
                self.clean[name] = self.clean.get(name, Tally()) + tally
        self.outputs.extend([SEPARATOR, *expected])

    def _drafter(self, name: str, edit: Edit, request: DecodeRequest, pool: NgramPool, workspace: Corpus) -> Drafter:
        settings, budget = self.settings, self.settings.budget
        prompt = prompt_of(edit, edit.after, settings.prompt_tokens)
        if name in ("pool_cold", "pool_warm"):
            is_warm = name == "pool_warm"
            return TreeDrafter(
                request,
                self.sequence,
                sources=[PoolSource(pool, edit.path)] if is_warm else [],
                budget=StepBudget(flat_costs(budget + 1), max_draft_tokens=budget, seconds_per_draft=0.0),
                memory=self.memory if is_warm else DraftMemory(calibrations=self.calibrations),
            )
        num_choices = self.table.num_kept if name == "token_recycling" else 1
        corpora = (self.outputs, workspace)
        return MethodDrafter(rival(name, prompt, settings, settings.edit_tokens, corpora, self.table), num_choices)


def run_with_model(path: Path, name: str, settings: ReplaySettings, model: LoadedModel) -> dict[str, Any]:
    """Replay the cursors of the last edits of a repository with a model, which continues the text before each.

    Args:
        path: a git repository.
        name: its name in the result.
        settings: of the replay; ``edit_tokens`` is the length of each output.
        model: decodes greedily; every method's output is compared with its plain one.
    """
    repository = Repository(path)
    encoder = Encoder(model.tokenizer.encode)
    contest = ModelContest(model, settings)
    pool, held = NgramPool(1 << 22), dict[str, str]()
    num_edits = 0
    for tree, edits in last_edits(repository, encoder, settings):
        if not edits:
            continue
        sync(pool, held, tree, repository, encoder)
        workspace, numbers = corpus_of(tree, repository, encoder)
        for edit in edits:
            workspace.hide(numbers.get(edit.path))
            contest.run(edit, pool, workspace)
            num_edits += 1
            print(f"{name}: {num_edits} edits", file=sys.stderr, flush=True)
    repository.close()
    return {
        "repo": name,
        "num_edits": num_edits,
        "num_outputs_different": contest.num_different,
        "methods": {method: tally.summary() for method, tally in contest.tallies.items()},
        "methods_clean": {method: tally.summary() for method, tally in contest.clean.items()},
    }

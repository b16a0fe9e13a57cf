"""Draft sources on real edits against an oracle that knows the next token: methods, tallies and the replay."""

from __future__ import annotations

import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from forelook.decoding.drafting.budget import CostCurve
from forelook.decoding.drafting.calibration import AcceptanceCalibration
from forelook.decoding.drafting.draft import DraftSource
from forelook.decoding.drafting.sources.pool import PoolSource
from forelook.decoding.drafting.sources.prompt import PromptSource
from forelook.decoding.drafting.tree import CandidateTree, DraftTree
from forelook.decoding.lookahead.published_pool import PublishedPool
from forelook.decoding.ngrams.index import BORDER
from forelook.decoding.ngrams.pool import NgramPool
from forelook.workspace.pool import ACCEPTED_WEIGHT

from bench.history import Edit, Encoder, Repository, edits_of, is_wanted

METHODS = ("prompt_lookup", "published", "pool_cold", "pool_warm", "pool_session")
SEPARATOR = -2
"""Separates the halves of a prompt, as a sentinel would; equals no token."""
ACCEPTED = "\0accepted"
"""Key of the output of a commit's earlier edits."""
FLOOR = 0.004
"""Least probability of a drafted path; an oracle's step costs the same whatever it carries. Chosen, not measured."""


@dataclass(frozen=True)
class ReplaySettings:
    """Settings of a replay.

    Attributes:
        repo: a git repository.
        name: its name in the result.
        commits: number of commits: the newest that edit code.
        budget: maximum number of draft tokens per step.
        prompt_tokens: length of prompts.
        edit_tokens: maximum number of tokens generated per edit.
        lookup_ngram: ``max_matching_ngram_size`` of prompt lookup; 2 is transformers' default.
        published_n, published_g: N and G of published lookahead; the budget cuts what does not fit.
    """

    repo: Path
    name: str
    commits: int = 100
    budget: int = 15
    prompt_tokens: int = 4096
    edit_tokens: int = 256
    lookup_ngram: int = 2
    published_n: int = 5
    published_g: int = 15


@dataclass
class Tally:
    """Counts of one method."""

    num_tokens: int = 0
    num_steps: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    seconds: float = 0.0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def tokens_per_step(self) -> float:
        return self.num_tokens / max(1, self.num_steps)

    def summary(self) -> dict[str, float]:
        return {
            "tokens_per_step": round(self.tokens_per_step, 4),
            "accepted_share": round(self.num_accepted / max(1, self.num_drafted), 4),
            "num_drafted": self.num_drafted,
            "num_accepted": self.num_accepted,
            "draft_us_per_step": round(1e6 * self.seconds / max(1, self.num_steps)),
        }


class Method(Protocol):
    """Drafts for one edit."""

    def draft(self) -> DraftTree: ...

    def learn(self, accepted: list[int]) -> None: ...


def prompt_of(edit: Edit, after: list[int], num_tokens: int) -> list[int]:
    """Return an editor's prompt: suffix, then prefix, which gets three quarters where both are long."""
    for_before = max(num_tokens * 3 // 4, num_tokens - len(after))
    before = edit.before[-for_before:]
    return [*after[: max(0, num_tokens - len(before))], SEPARATOR, *before]


class PromptLookup:
    """transformers' ``PromptLookupCandidateGenerator``, in numpy."""

    def __init__(self, prompt: Sequence[int], max_ngram: int, num_output_tokens: int, room: int) -> None:
        self._ids = np.full(len(prompt) + room, SEPARATOR, dtype=np.int64)
        self._ids[: len(prompt)] = prompt
        self._length = len(prompt)
        self._max_ngram = max_ngram
        self._num_output_tokens = num_output_tokens

    def draft(self) -> DraftTree:
        tree = DraftTree()
        ids, length = self._ids, self._length
        for size in range(min(self._max_ngram, length - 1), 0, -1):
            ends = np.arange(size - 1, length - 1)
            for back in range(size):
                ends = ends[ids[ends - back] == ids[length - 1 - back]]
            if len(ends):
                start = int(ends[0]) + 1
                chain = ids[start : min(start + self._num_output_tokens, length)].tolist()
                tree.add_path(chain)
                break
        return tree

    def learn(self, accepted: list[int]) -> None:
        self._ids[self._length : self._length + len(accepted)] = accepted
        self._length += len(accepted)


class Published:
    """The verification branch of published lookahead decoding with the prompt as reference."""

    def __init__(self, prompt: Sequence[int], ngram_size: int, max_candidates: int, budget: int) -> None:
        self._pool = PublishedPool(ngram_size, max_candidates)
        self._pool.insert_text(prompt, frozenset((SEPARATOR,)))
        self._size = ngram_size
        self._tail = list(prompt[-ngram_size:])
        self._budget = budget

    def draft(self) -> DraftTree:
        tree = DraftTree()
        for candidate in self._pool.candidates(self._tail[-1]):
            tree.add_path(candidate, self._budget)
        return tree

    def learn(self, accepted: list[int]) -> None:
        text = self._tail + accepted
        self._pool.insert_text(text[max(0, len(self._tail) - self._size + 1) :], frozenset((SEPARATOR,)))
        self._tail = text[-self._size :]


class PoolMethod:
    """Forelook's sources in one tree, calibrated online."""

    def __init__(
        self, sources: Sequence[DraftSource], context: Sequence[int], calibration: AcceptanceCalibration, budget: int
    ) -> None:
        self._sources = sources
        self._context = list(context)
        self._calibration = calibration
        self._budget = budget
        self._candidates: CandidateTree | None = None

    def draft(self) -> DraftTree:
        candidates = self._candidates = CandidateTree(self._calibration, self._budget, FLOOR)
        for source in self._sources:
            for draft in source.propose(self._context, max_candidates=self._budget, max_length=self._budget):
                candidates.add(draft)
        # The oracle's steps cost the same whatever they carry, so every draft that is allowed pays.
        return candidates.select(CostCurve.of([1.0] * (self._budget + 1)), self._budget).tree

    def learn(self, accepted: list[int]) -> None:
        assert self._candidates is not None
        self._candidates.learn(accepted)
        self._context += accepted
        for source in self._sources:
            source.extend(accepted)


def replay(method: Method, target: Sequence[int], tally: Tally) -> None:
    """Generate ``target`` with the drafts of a method."""
    done = 0
    started_s = time.perf_counter()
    while done < len(target):
        tree = method.draft()
        node, depth = 0, 0
        while done + depth < len(target):
            child = tree.children[node].get(target[done + depth])
            if child is None:
                break
            node, depth = child, depth + 1
        accepted = target[done : done + depth + 1]  # bonus token included
        tally.num_steps += 1
        tally.num_drafted += len(tree)
        tally.num_accepted += depth
        tally.num_tokens += len(accepted)
        done += len(accepted)
        method.learn(list(accepted))
    tally.seconds += time.perf_counter() - started_s


def sync(pool: NgramPool, held: dict[str, str], tree: dict[str, str], repository: Repository, encoder: Encoder) -> None:
    """Bring the pool from the files of one tree to those of another."""
    for path in [path for path in held if path not in tree]:
        pool.remove_document(path)
        del held[path]
    for path, blob in tree.items():
        if held.get(path) == blob or not is_wanted(path):
            continue
        tokens = encoder.blob(repository, blob)
        if tokens is None:
            pool.remove_document(path)
        else:
            pool.set_document(path, tokens)
        held[path] = blob
    pool.settle()


@dataclass
class Contest:
    """All methods on the same edits, with one treatment of replaced lines."""

    deletes_replaced: bool
    calibrations: dict[str, AcceptanceCalibration] = field(default_factory=lambda: defaultdict(AcceptanceCalibration))
    replacing: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    inserting: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))

    def run(self, edit: Edit, pools: dict[str, NgramPool], settings: ReplaySettings) -> None:
        after = edit.after_deleted if self.deletes_replaced else edit.after
        prompt = prompt_of(edit, after, settings.prompt_tokens)
        budget = settings.budget
        for name in METHODS:
            if name == "prompt_lookup":
                room = len(edit.added) + budget
                method: Method = PromptLookup(prompt, settings.lookup_ngram, budget, room)
            elif name == "published":
                method = Published(prompt, settings.published_n, settings.published_g, budget)
            else:
                sources = [PromptSource(edit.before, after), PoolSource(pools.get(name) or NgramPool(), edit.path)]
                method = PoolMethod(sources, edit.before, self.calibrations[name], budget)
            replay(method, edit.added, (self.replacing if edit.replaces else self.inserting)[name])

    def summary(self) -> dict[str, dict[str, float]]:
        found = {name: (self.replacing[name] + self.inserting[name]).summary() for name in METHODS}
        for name, summary in found.items():
            summary["insertions_tokens_per_step"] = round(self.inserting[name].tokens_per_step, 4)
        return found


def run(settings: ReplaySettings) -> dict[str, object]:
    """Replay the last commits that edit code, the oldest of them first."""
    repository = Repository(settings.repo)
    encoder = Encoder()
    read = (
        (tree := repository.tree(parent), edits_of(repository, encoder, parent, commit, tree, settings.edit_tokens))
        for commit, parent in repository.commits()
    )
    chosen = list(itertools.islice((found for found in read if found[1]), settings.commits))
    if not chosen:
        raise SystemExit(f"{settings.name}: no commit edits code; name another repository")
    contests = (Contest(deletes_replaced=False), Contest(deletes_replaced=True))
    pools = {name: NgramPool(1 << 22) for name in ("pool_warm", "pool_session")}
    held: dict[str, dict[str, str]] = {name: {} for name in pools}
    num_edits = num_tokens = 0
    for number, (tree, edits) in enumerate(reversed(chosen), 1):
        for name, pool in pools.items():
            sync(pool, held[name], tree, repository, encoder)
        session = pools["pool_session"]
        session.set_document(ACCEPTED, [])
        session.set_weight(ACCEPTED, ACCEPTED_WEIGHT)
        for edit in edits:
            num_edits += 1
            num_tokens += len(edit.added)
            for contest in contests:
                contest.run(edit, pools, settings)
            num_accepted = session.num_tokens_of(ACCEPTED)
            session.replace_tokens(ACCEPTED, num_accepted, num_accepted, [BORDER, *edit.added])
        if number % 20 == 0:
            print(f"{number}/{len(chosen)} commits, {num_edits} edits", file=sys.stderr, flush=True)
    repository.close()
    methods, deleted = (contest.summary() for contest in contests)
    return {
        "repo": settings.name,
        "num_edits": num_edits,
        "num_tokens": num_tokens,
        "num_pool_tokens": pools["pool_warm"].num_tokens,
        "methods": methods,
        "methods_replaced_deleted": deleted,
    }

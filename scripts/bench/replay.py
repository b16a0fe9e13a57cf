"""Draft sources on real edits against an oracle that knows the next token: methods, tallies and the replay."""

from __future__ import annotations

import itertools
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forelook.decoding.drafting.budget import CostCurve
from forelook.decoding.drafting.calibration import AcceptanceCalibration
from forelook.decoding.drafting.draft import DraftOrigin, DraftSource
from forelook.decoding.drafting.sources.pool import PoolSource
from forelook.decoding.drafting.sources.prompt import PromptSource
from forelook.decoding.drafting.sources.successors import SuccessorSeeds, SuccessorTable, ending_of, ending_then
from forelook.decoding.drafting.tree import CandidateTree, DraftTree, Selection
from forelook.decoding.ngrams.index import BORDER
from forelook.decoding.ngrams.pool import NgramPool
from forelook.model.loading import LoadedModel
from forelook.model.pair_file import read_pairs
from forelook.workspace.pool import ACCEPTED_WEIGHT

from bench.history import Edit, Encoder, Repository, edits_of, is_wanted
from bench.libraries import Libraries
from bench.rivals import (
    SEPARATOR,
    Corpus,
    Method,
    PromptLookup,
    Published,
    RecyclingTable,
    Row,
    SuffixDecoding,
    TokenRecycling,
    recycling_shape,
)

RIVALS = ("prompt_lookup", "published", "suffix_decoding", "suffix_workspace", "token_recycling")
METHODS = (*RIVALS, "pool_cold", "pool_warm", "pool_session", "pool_libraries", "forelook")
KINDS = ("methods", "methods_replaced_deleted")
"""The two treatments of replaced lines, as a result names them: kept, deleted."""
_POOLS = {"pool_libraries": "pool_warm", "forelook": "pool_session"}
_WITH_LIBRARIES = frozenset({"pool_libraries", "forelook"})
ACCEPTED = "\0accepted"
"""Key of the output of a commit's earlier edits."""
FLOOR = 0.004
"""Least probability of a drafted path; an oracle's step costs the same whatever it carries. Chosen, not measured."""


@dataclass(frozen=True)
class ReplaySettings:
    """Settings of a replay.

    Attributes:
        commits: number of commits: the newest that edit code.
        edits: maximum number of edits, evenly spread over those commits; 0 for all.
        budget: maximum number of draft tokens per step.
        prompt_tokens: length of prompts.
        edit_tokens: maximum number of tokens generated per edit.
        lookup_ngram: ``max_matching_ngram_size`` of prompt lookup; 2 is transformers' default.
        published_n, published_g: N and G of published lookahead; the budget cuts what does not fit.
        suffix_factor: α of SuffixDecoding, drafts per token matched.
        suffix_depth: its longest pattern.
        methods: the methods to run, separated by commas; all by default.
    """

    commits: int = 100
    edits: int = 0
    budget: int = 15
    prompt_tokens: int = 4096
    edit_tokens: int = 256
    lookup_ngram: int = 2
    published_n: int = 5
    published_g: int = 15
    suffix_factor: float = 4.0
    suffix_depth: int = 64
    methods: str = ",".join(METHODS)

    def __post_init__(self) -> None:
        unknown = [name for name in self.chosen if name not in METHODS]
        if unknown:
            raise SystemExit(f"invalid --methods: {', '.join(unknown)} (expected some of {', '.join(METHODS)})")

    @property
    def chosen(self) -> tuple[str, ...]:
        """The methods to run."""
        return tuple(self.methods.split(","))


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


def prompt_of(edit: Edit, after: list[int], num_tokens: int) -> list[int]:
    """Return an editor's prompt: suffix, then prefix, which gets three quarters where both are long."""
    for_before = max(num_tokens * 3 // 4, num_tokens - len(after))
    before = edit.before[-for_before:]
    return [*after[: max(0, num_tokens - len(before))], SEPARATOR, *before]


def rival(
    name: str,
    prompt: list[int],
    settings: ReplaySettings,
    num_tokens: int,
    corpora: tuple[Corpus, Corpus],
    table: RecyclingTable,
) -> Method:
    """Return a published method for one edit.

    Args:
        name: one of ``RIVALS``.
        prompt: what it sees.
        settings: of the replay.
        num_tokens: of the output at most.
        corpora: earlier outputs, and the workspace.
        table: of Token Recycling.
    """
    budget, room = settings.budget, num_tokens + settings.budget
    if name == "prompt_lookup":
        return PromptLookup(prompt, settings.lookup_ngram, budget, room)
    if name == "published":
        return Published(prompt, settings.published_n, settings.published_g, budget)
    if name == "token_recycling":
        return TokenRecycling(prompt, table, recycling_shape(budget))
    searched = corpora[:1] if name == "suffix_decoding" else corpora
    factor, depth = settings.suffix_factor, settings.suffix_depth
    return SuffixDecoding(prompt, searched, factor=factor, max_depth=depth, budget=budget, room=room)


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
        return self._select(candidates, CostCurve.of([1.0] * (self._budget + 1)))

    def _select(self, candidates: CandidateTree, curve: CostCurve) -> DraftTree:
        return candidates.select(curve, self._budget).tree

    def learn(self, accepted: list[int], rows: Sequence[Row]) -> None:
        del rows
        assert self._candidates is not None
        self._candidates.learn(accepted)
        self._context += accepted
        for source in self._sources:
            source.extend(accepted)


class ForelookMethod(PoolMethod):
    """The same with successors, which the oracle's choices teach as a model's rows do.

    Args:
        own: the source of the prompt and the output.
        others: further sources.
        context: the text before the cursor.
        calibration: of its drafts, kept over all edits.
        budget: maximum number of draft tokens.
        successors: kept over all edits.
    """

    def __init__(
        self,
        own: PromptSource,
        others: Sequence[DraftSource],
        context: Sequence[int],
        calibration: AcceptanceCalibration,
        budget: int,
        successors: SuccessorTable,
    ) -> None:
        super().__init__([own, *others], context, calibration, budget)
        self._successors = successors
        self._present = own.vocabulary
        self._ending = ending_of(context)
        self._selection: Selection | None = None

    def _select(self, candidates: CandidateTree, curve: CostCurve) -> DraftTree:
        selection = self._selection = candidates.select(
            curve, self._budget, ending=self._ending, successors=self._successors, present=self._present
        )
        return selection.tree

    def learn(self, accepted: list[int], rows: Sequence[Row]) -> None:
        super().learn(accepted, rows)
        assert self._selection is not None
        for row in rows:
            self._successors.learn(self._selection.endings[row.node], row.token_ids, (1.0,))
        self._present.update(accepted)
        for token in accepted:
            self._ending = ending_then(self._ending, token)


def replay(method: Method, target: Sequence[int], tally: Tally) -> None:
    """Generate ``target`` with the drafts of a method."""
    done = 0
    started_s = time.perf_counter()
    while done < len(target):
        tree = method.draft()
        node, depth = 0, 0
        rows: list[Row] = []
        while done + depth < len(target):
            token = target[done + depth]
            rows.append(Row(node, (token,)))
            child = tree.children[node].get(token)
            if child is None:
                break
            node, depth = child, depth + 1
        accepted = target[done : done + depth + 1]  # bonus token included
        tally.num_steps += 1
        tally.num_drafted += len(tree)
        tally.num_accepted += depth
        tally.num_tokens += len(accepted)
        done += len(accepted)
        method.learn(list(accepted), rows)
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
    """All methods on the same edits, with one treatment of replaced lines.

    Attributes:
        settings: of the replay.
        deletes_replaced: whether replaced lines are gone before the edit.
        successors: of ``forelook``.
    """

    settings: ReplaySettings
    deletes_replaced: bool
    successors: SuccessorTable
    calibrations: dict[str, AcceptanceCalibration] = field(default_factory=lambda: defaultdict(AcceptanceCalibration))
    replacing: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    inserting: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    outputs: Corpus = field(default_factory=Corpus)
    table: RecyclingTable = field(default_factory=RecyclingTable)

    def run(self, edit: Edit, pools: dict[str, NgramPool], workspace: Corpus, libraries: NgramPool) -> None:
        """Generate one edit with each method."""
        for name in self.settings.chosen:
            tally = (self.replacing if edit.replaces else self.inserting)[name]
            replay(self._method(name, edit, pools, workspace, libraries), edit.added, tally)
        self.outputs.extend([SEPARATOR, *edit.added])

    def _method(
        self, name: str, edit: Edit, pools: dict[str, NgramPool], workspace: Corpus, libraries: NgramPool
    ) -> Method:
        settings, budget = self.settings, self.settings.budget
        after = edit.after_deleted if self.deletes_replaced else edit.after
        prompt = prompt_of(edit, after, settings.prompt_tokens)
        if name in RIVALS:
            return rival(name, prompt, settings, len(edit.added), (self.outputs, workspace), self.table)
        pool = pools.get(_POOLS.get(name, name)) or NgramPool()
        own = PromptSource(edit.before, after)
        sources: list[DraftSource] = [PoolSource(pool, edit.path)]
        if name in _WITH_LIBRARIES:
            sources.append(PoolSource(libraries, origin=DraftOrigin.DEPENDENCY))
        calibration = self.calibrations[name]
        if name == "forelook":
            return ForelookMethod(own, sources, edit.before, calibration, budget, self.successors)
        return PoolMethod([own, *sources], edit.before, calibration, budget)

    def summary(self) -> dict[str, dict[str, float]]:
        """The figures of each method."""
        found = {name: (self.replacing[name] + self.inserting[name]).summary() for name in self.settings.chosen}
        for name, summary in found.items():
            summary["insertions_tokens_per_step"] = round(self.inserting[name].tokens_per_step, 4)
        return found


def spread(edits: Sequence[list[Edit]], limit: int) -> list[list[Edit]]:
    """At most ``limit`` edits, evenly spread; the edits of a commit stay together."""
    total = sum(map(len, edits))
    if limit == 0 or total <= limit:
        return list(edits)
    kept = {index * total // limit for index in range(limit)}
    numbers = itertools.count()
    return [[edit for edit in found if next(numbers) in kept] for found in edits]


def last_edits(
    repository: Repository, encoder: Encoder, settings: ReplaySettings
) -> list[tuple[dict[str, str], list[Edit]]]:
    """Tree before, and edits, of the last commits that edit code, the oldest of them first."""
    read = (
        (tree := repository.tree(parent), edits_of(repository, encoder, parent, commit, tree, settings.edit_tokens))
        for commit, parent in repository.commits()
    )
    chosen = list(itertools.islice((found for found in read if found[1]), settings.commits))[::-1]
    kept = spread([edits for _, edits in chosen], settings.edits)
    return [(tree, edits) for (tree, _), edits in zip(chosen, kept, strict=True)]


def corpus_of(tree: dict[str, str], repository: Repository, encoder: Encoder) -> tuple[Corpus, dict[str, int]]:
    """The files of a tree as a corpus, and the number of each in it."""
    texts = ((file, encoder.blob(repository, blob)) for file, blob in tree.items() if is_wanted(file))
    wanted = {file: tokens for file, tokens in texts if tokens is not None}
    return Corpus(list(wanted.values())), {file: number for number, file in enumerate(wanted)}


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a replay.

    Attributes:
        encode: by default the starter model's.
        seeds: the model's choices that are known before the first edit.
    """

    encode: Callable[[str], list[int]] | None = None
    seeds: SuccessorSeeds | None = None

    @classmethod
    def of(cls, model: LoadedModel) -> Vocabulary:
        """A model's tokens, and the pairs that are published with it."""
        seeds = SuccessorSeeds(model.config.vocab_size)
        if model.pairs_path is not None:
            seeds.published = read_pairs(model.pairs_path, model.config.vocab_size)
        return cls(model.tokenizer.encode, seeds)


def run(path: Path, name: str, settings: ReplaySettings, vocabulary: Vocabulary = Vocabulary()) -> dict[str, Any]:
    """Replay the last commits of a repository that edit code, the oldest of them first.

    Args:
        path: a git repository.
        name: its name in the result.
        settings: of the replay.
        vocabulary: of all methods.
    """
    repository = Repository(path)
    encoder = Encoder(vocabulary.encode)
    chosen = last_edits(repository, encoder, settings)
    if not chosen:
        raise SystemExit(f"{name}: no commit edits code; name another repository")
    contests = tuple(
        Contest(settings, deletes_replaced, SuccessorTable(vocabulary.seeds)) for deletes_replaced in (False, True)
    )
    wanted_pools = {_POOLS.get(name, name) for name in settings.chosen}
    pools: dict[str, NgramPool] = {
        pool: NgramPool(1 << 22) for pool in ("pool_warm", "pool_session") if pool in wanted_pools
    }
    libraries = Libraries(encoder)
    held: dict[str, dict[str, str]] = {pool: {} for pool in pools}
    num_edits = num_tokens = 0
    for number, (tree, edits) in enumerate(chosen, 1):
        if not edits:
            continue
        for pool_name, pool in pools.items():
            sync(pool, held[pool_name], tree, repository, encoder)
        workspace, numbers = Corpus(), dict[str, int]()
        if "suffix_workspace" in settings.chosen:
            workspace, numbers = corpus_of(tree, repository, encoder)
        session = pools.get("pool_session", NgramPool())
        session.set_document(ACCEPTED, [])
        session.set_weight(ACCEPTED, ACCEPTED_WEIGHT)
        for edit in edits:
            num_edits += 1
            num_tokens += len(edit.added)
            workspace.hide(numbers.get(edit.path))  # the prompt has it, as the treatment leaves it
            if not _WITH_LIBRARIES.isdisjoint(settings.chosen) and edit.path in tree:
                libraries.open(edit.path, repository.blob(tree[edit.path]).decode())
            for contest in contests:
                contest.run(edit, pools, workspace, libraries.pool)
            num_accepted = session.num_tokens_of(ACCEPTED)
            session.replace_tokens(ACCEPTED, num_accepted, num_accepted, [BORDER, *edit.added])
        if number % 20 == 0:
            print(f"{name}: {number}/{len(chosen)} commits, {num_edits} edits", file=sys.stderr, flush=True)
    repository.close()
    figures = dict(zip(KINDS, (contest.summary() for contest in contests), strict=True))
    return {"repo": name, "num_edits": num_edits, "num_tokens": num_tokens, **figures}

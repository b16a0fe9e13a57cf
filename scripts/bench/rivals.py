"""Training-free drafting as others published it, over token ids alone: the methods that the replay compares with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

import numpy as np
import numpy.typing as npt
from forelook.decoding.drafting.drafter import StepPlan, StepRows, StepState
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.lookahead.published_pool import PublishedPool
from forelook.decoding.stats import DecodingStats
from forelook.decoding.verification import Verified

SEPARATOR = -2
"""Separates the halves of a prompt, and texts of a corpus, as a sentinel would; equals no token."""
_NO_TOKEN = -3


@dataclass(frozen=True)
class Row:
    """What the model says at one row of a step: an oracle knows its choice alone.

    Attributes:
        node: of the draft tree, 0 the token before the drafts.
        token_ids: the likeliest tokens, best first.
    """

    node: int
    token_ids: tuple[int, ...]


class Method(Protocol):
    """Drafts for one edit."""

    def draft(self) -> DraftTree:
        """The next step's drafts."""

    def learn(self, accepted: list[int], rows: Sequence[Row]) -> None:
        """Learn from a step: its output, bonus token included, and what the model said."""


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

    def learn(self, accepted: list[int], rows: Sequence[Row] = ()) -> None:
        del rows
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

    def learn(self, accepted: list[int], rows: Sequence[Row] = ()) -> None:
        del rows
        text = self._tail + accepted
        self._pool.insert_text(text[max(0, len(self._tail) - self._size + 1) :], frozenset((SEPARATOR,)))
        self._tail = text[-self._size :]


class Corpus:
    """Texts in which a suffix tree would be built: all places of a pattern, and how often what follows it does.

    Occurrences in a list of places stand for the counts of the tree's nodes, so no tree is needed.
    """

    def __init__(self, texts: Sequence[Sequence[int] | npt.NDArray[np.int32]] = (), room: int = 0) -> None:
        parts = [np.asarray([*[SEPARATOR] * bool(number), *text], dtype=np.int32) for number, text in enumerate(texts)]
        fixed = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        self._num_fixed = self._length = len(fixed)
        self._ids = np.full(len(fixed) + room + 1, SEPARATOR, dtype=np.int32)
        self._ids[: len(fixed)] = fixed
        self._order = np.argsort(fixed, kind="stable")
        self._sorted = fixed[self._order]
        ends = np.cumsum([0, *map(len, parts)])
        self._ranges = list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
        self._hidden = (0, 0)

    def hide(self, number: int | None) -> None:
        """Leave one of the texts out of what is found, or none."""
        self._hidden = (0, 0) if number is None else self._ranges[number]

    def extend(self, token_ids: Sequence[int]) -> None:
        end = self._length + len(token_ids)
        if end >= len(self._ids):
            grown = np.full(2 * end + 1024, SEPARATOR, dtype=np.int32)
            grown[: self._length] = self._ids[: self._length]
            self._ids = grown
        self._ids[self._length : end] = token_ids
        self._length = end

    def places(self, token: int) -> npt.NDArray[np.int64]:
        """Where a token is, the last place of the corpus left out: nothing follows it."""
        low, high = np.searchsorted(self._sorted, [token, token + 1])
        tail = self._ids[self._num_fixed : self._length - 1]
        grown = np.flatnonzero(tail == token) + self._num_fixed
        fixed = self._order[low:high]
        fixed = fixed[(fixed < self._hidden[0]) | (fixed >= self._hidden[1])]
        return np.concatenate([fixed[fixed < self._length - 1], grown])

    def nested(self, context: Sequence[int], max_depth: int) -> list[tuple[int, npt.NDArray[np.int64]]]:
        """(longest pattern, its places) of each different set of places that the context's ends have, longest last."""
        places = self.places(context[-1])
        found: list[tuple[int, npt.NDArray[np.int64]]] = []
        for length in range(1, min(max_depth, len(context)) + 1):
            if not len(places):
                break
            longer = places[:0]
            if length < len(context):
                inside = places[places >= length]
                longer = inside[self._ids[inside - length] == context[-1 - length]]
            if len(longer) < len(places) or length == max_depth:
                found.append((length, places))
            places = longer
        return found

    def following(self, places: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int64]]:
        """Next token → its places."""
        tokens = self._ids[places + 1]
        inside = (tokens != SEPARATOR) & (places + 1 < self._length)
        places, tokens = places[inside] + 1, tokens[inside]
        if len(places) == 1:
            return {int(tokens[0]): places}
        order = np.argsort(tokens, kind="stable")
        tokens, places = tokens[order], places[order]
        cuts = np.flatnonzero(tokens[1:] != tokens[:-1]) + 1
        return {int(tokens[part[0]]): places[part] for part in np.split(np.arange(len(tokens)), cuts) if len(part)}


class SuffixDecoding:
    """SuffixDecoding (Oliaro et al., arXiv 2411.04975): a tree of the request's text and one of earlier texts.

    For each end of the context that occurs, a tree of at most ``factor`` times its length grows best-first by the
    product of branch frequencies; the tree with the largest sum of them is verified.

    Args:
        prompt: of the request.
        corpora: what else is searched; earlier outputs as published.
        factor: α, drafts per token matched.
        max_depth: longest pattern.
        budget: maximum number of drafts.
        room: number of tokens of the output.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        corpora: Sequence[Corpus],
        *,
        factor: float,
        max_depth: int,
        budget: int,
        room: int,
    ) -> None:
        self._local = Corpus([prompt], room)
        self._corpora = (self._local, *corpora)
        self._context = list(prompt[-max_depth:])
        self._factor, self._max_depth, self._budget = factor, max_depth, budget

    def draft(self) -> DraftTree:
        best, best_score = DraftTree(), 0.0
        for corpus in self._corpora:
            for length, places in corpus.nested(self._context, self._max_depth):
                tree, score = self._grow(corpus, places, min(self._budget, max(1, int(self._factor * length))))
                if score > best_score:
                    best, best_score = tree, score
        return best

    @staticmethod
    def _grow(corpus: Corpus, places: npt.NDArray[np.int64], size: int) -> tuple[DraftTree, float]:
        tree, score = DraftTree(), 0.0
        heap: list[tuple[float, int, int, int, npt.NDArray[np.int64]]] = []
        node, probability, ticket = 0, 1.0, 0
        while True:
            total = len(places)
            for token, after in corpus.following(places).items():
                ticket += 1
                heappush(heap, (-probability * len(after) / total, ticket, node, token, after))
            if not heap or len(tree) == size:
                return tree, score
            negative, _, parent, token, places = heappop(heap)
            probability = -negative
            score += probability
            node = tree.add_child(parent, token)

    def learn(self, accepted: list[int], rows: Sequence[Row] = ()) -> None:
        del rows
        self._local.extend(accepted)
        self._context = (self._context + accepted)[-self._max_depth :]


class RecyclingTable:
    """Token Recycling's matrix: per token the successors that the model thought likeliest last; outlives requests."""

    def __init__(self, num_kept: int = 8) -> None:
        self.num_kept = num_kept
        self._rows: dict[int, list[int]] = {}

    def put(self, token: int, successors: Sequence[int]) -> None:
        """The latest candidates come first; of an oracle, which names one, earlier ones stay behind it."""
        known = self._rows.get(token, [])
        self._rows[token] = [*successors, *(old for old in known if old not in successors)][: self.num_kept]

    def of(self, token: int) -> list[int]:
        return self._rows.get(token, [])


def recycling_shape(budget: int, num_kept: int = 8) -> list[tuple[int, ...]]:
    """The ranks along each path of a static tree of ``budget`` nodes, parents first.

    The published tree of 80 nodes was found by experiment and is wide near its root, where ranks matter; a smaller
    one is made of the paths with the largest product of what a rank is worth. Those values are chosen, not measured.
    """
    worth = [0.62 * 0.36**rank + 0.01 for rank in range(num_kept)]
    heap: list[tuple[float, tuple[int, ...]]] = [(-value, (rank,)) for rank, value in enumerate(worth)]
    heap.sort()
    chosen: list[tuple[int, ...]] = []
    while len(chosen) < budget:
        negative, path = heappop(heap)
        chosen.append(path)
        for rank, value in enumerate(worth):
            heappush(heap, (negative * value, (*path, rank)))
    return chosen


class TokenRecycling:
    """Token Recycling (Luo et al., arXiv 2408.08696): a static tree filled from the table, row by row.

    Args:
        prompt: of the request; its pairs are learned, as the logits of its prefill are.
        table: shared by all requests.
        shape: of the tree.
    """

    def __init__(self, prompt: Sequence[int], table: RecyclingTable, shape: Sequence[tuple[int, ...]]) -> None:
        self._table, self._shape = table, shape
        self._last = prompt[-1] if len(prompt) else _NO_TOKEN
        for token, following in itertools.pairwise(prompt):
            if SEPARATOR not in (token, following):
                table.put(token, [following])
        self._tree = DraftTree()

    def draft(self) -> DraftTree:
        tree = self._tree = DraftTree()
        nodes: dict[tuple[int, ...], int] = {(): 0}
        for path in self._shape:
            parent = nodes.get(path[:-1])
            if parent is None:
                continue
            successors = self._table.of(self._last if parent == 0 else tree.token_ids[parent - 1])
            if path[-1] < len(successors):
                nodes[path] = tree.add_child(parent, successors[path[-1]])
        return tree

    def learn(self, accepted: list[int], rows: Sequence[Row]) -> None:
        for row in rows:
            token = self._last if row.node == 0 else self._tree.token_ids[row.node - 1]
            self._table.put(token, row.token_ids)
        self._last = accepted[-1]


class MethodDrafter:
    """A method of this module as the drafter of a real model's decode loop.

    It learns the likeliest tokens of each accepted row, and of a rejected one the best: the loop gives no others.

    Args:
        method: of one request.
        num_choices: likeliest tokens per row that it learns from.
    """

    recipe = None

    def __init__(self, method: Method, num_choices: int = 1) -> None:
        self.num_choices = num_choices
        self._method = method

    def plan(self, state: StepState) -> StepPlan:
        tree = self._method.draft()
        ends = [node for node, token in enumerate(tree.token_ids) if token == SEPARATOR]  # no token of the model
        tree.keep_first(min([len(tree), state.max_tokens, *ends]))
        return StepPlan(tree)

    def learn(self, plan: StepPlan, verified: Verified, rows: StepRows, stats: DecodingStats, forward_s: float) -> None:
        del plan, stats, forward_s
        if verified.token_ids:
            said = [Row(node, (best,)) for node, best in enumerate(rows.argmax)]
            for node, found in rows.likeliest.items():
                said[node] = Row(node, found.token_ids)
            self._method.learn(verified.token_ids, said)

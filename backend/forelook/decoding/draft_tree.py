"""Draft tokens of one step: all sources' guesses merged into one trie, the best of them chosen for the step."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from forelook.decoding.calibration import AcceptanceCalibration
from forelook.decoding.drafts import Draft, DraftOrigin
from forelook.decoding.successors import SUCCESSOR_CONTEXT, SuccessorTable


class DraftTree:
    """A trie of draft tokens; node 0 is the token before them, and a node's number exceeds its parent's.

    Attributes:
        token_ids: [n] tokens of nodes 1 .. n.
        parents: [n] their parents.
        children: [n+1] per node, token id → child.
    """

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.parents: list[int] = []
        self.children: list[dict[int, int]] = [{}]

    def __len__(self) -> int:
        """Number of draft nodes; node 0 is not counted."""
        return len(self.token_ids)

    def add_child(self, parent: int, token_id: int) -> int:
        """The parent's child with this token, made if there is none."""
        node = self.children[parent].get(token_id)
        if node is None:
            node = len(self.children)
            self.children[parent][token_id] = node
            self.children.append({})
            self.token_ids.append(token_id)
            self.parents.append(parent)
        return node

    def add_path(self, token_ids: Sequence[int], max_nodes: int | None = None) -> None:
        """Merge one chain from node 0, as far as it needs no more than ``max_nodes`` nodes in all."""
        node = 0
        for token_id in token_ids:
            if max_nodes is not None and len(self) >= max_nodes and token_id not in self.children[node]:
                return
            node = self.add_child(node, token_id)


class CandidateTree:
    """Every guess for one step, each with the calibrated acceptance of its token given its parent.

    Where several sources guess the same token the most confident one counts; all of them are judged by the outcome.

    Args:
        calibration: turns a guess into a probability and learns from outcomes.
        max_depth: most drafts in a row.
        floor: guesses whose path is less probable than this are not worth a node.
    """

    def __init__(self, calibration: AcceptanceCalibration, max_depth: int, floor: float) -> None:
        self._calibration = calibration
        self._max_depth = max_depth
        self._floor = floor
        self._token_ids = [-1]
        self._parents = [0]
        self._conditionals = [1.0]
        self._cells: list[list[int]] = [[]]  # best first
        self._children: list[dict[int, int]] = [{}]

    def add(self, draft: Draft) -> None:
        """Merge a draft as far as its path stays probable enough."""
        probabilities = self._calibration.probabilities
        node = 0
        path_probability = 1.0
        for token, cell in zip(draft.token_ids[: self._max_depth], self._calibration.cells(draft), strict=False):
            conditional = probabilities[cell]
            node = self._add_child(node, token, cell, conditional)
            path_probability *= max(conditional, self._conditionals[node])
            if path_probability < self._floor:
                return

    def _add_child(self, parent: int, token: int, cell: int, conditional: float) -> int:
        node = self._children[parent].get(token)
        if node is None:
            node = len(self._token_ids)
            self._children[parent][token] = node
            self._token_ids.append(token)
            self._parents.append(parent)
            self._conditionals.append(conditional)
            self._cells.append([cell])
            self._children.append({})
        elif cell not in self._cells[node]:
            if conditional > self._conditionals[node]:
                self._conditionals[node] = conditional
                self._cells[node].insert(0, cell)
            else:
                self._cells[node].append(cell)
        return node

    def select(
        self,
        max_nodes: int,
        *,
        last_ids: tuple[int, ...] = (),
        successors: SuccessorTable | None = None,
        is_allowed: Callable[[list[int], int], bool] | None = None,
    ) -> tuple[DraftTree, list[float]]:
        """Choose the most probable paths, best first.

        Args:
            max_nodes: most draft nodes.
            last_ids: the tokens before the drafts, at most three, for ``successors``.
            successors: further guesses, asked at each node chosen.
            is_allowed: whether a token may follow a path; it and what is below it is left out otherwise.

        Returns:
            The tree, and the probability of each of its nodes, which never rises along the list.
        """
        tree = DraftTree()
        chosen: list[float] = []
        places = {0: 0}
        heap: list[tuple[float, int]] = []
        endings: dict[int, tuple[int, ...]] = {0: last_ids}
        paths: dict[int, list[int]] = {0: []}
        depths = {0: 0}
        node, probability = 0, 1.0
        while True:
            depth = depths[node]
            if depth < self._max_depth:
                if successors is not None:
                    for token, cell in successors.successors(endings[node]).items():
                        self._add_child(node, token, cell, self._calibration.probabilities[cell])
                conditionals = self._conditionals
                # each guess is calibrated alone: a weaker one has only what the stronger ones leave
                left = 1.0
                for child in sorted(self._children[node].values(), key=conditionals.__getitem__, reverse=True):
                    share = conditionals[child] * left
                    child_probability = probability * share
                    if child_probability < self._floor:
                        break
                    left -= share
                    heapq.heappush(heap, (-child_probability, child))
            if is_allowed is not None:
                while heap and not is_allowed(paths[self._parents[heap[0][1]]], self._token_ids[heap[0][1]]):
                    heapq.heappop(heap)
            if not heap or len(chosen) >= max_nodes:
                return tree, chosen
            negative, node = heapq.heappop(heap)
            probability = -negative
            token, parent = self._token_ids[node], self._parents[node]
            places[node] = tree.add_child(places[parent], token)
            chosen.append(probability)
            depths[node] = depths[parent] + 1
            if successors is not None:
                endings[node] = (*endings[parent], token)[-SUCCESSOR_CONTEXT:]
            if is_allowed is not None:
                paths[node] = [*paths[parent], token]

    def learn(self, target_ids: Sequence[int]) -> None:
        """Judge the guesses after every token of the path that the target took."""
        node: int | None = 0
        for target in target_ids:
            if node is None:
                return
            for token, child in self._children[node].items():
                for cell in self._cells[child]:
                    self._calibration.observe(cell, token == target)
            node = self._children[node].get(target)

    def origins(self, tree: DraftTree) -> list[DraftOrigin]:
        """The origin each node of a chosen tree is owed to."""
        candidates = [0]
        found = []
        for token, parent in zip(tree.token_ids, tree.parents, strict=True):
            node = self._children[candidates[parent]][token]
            candidates.append(node)
            found.append(self._calibration.origin(self._cells[node][0]))
        return found


def pruned(tree: DraftTree, num_nodes: int) -> DraftTree:
    """The tree's first nodes."""
    if num_nodes == len(tree):
        return tree
    smaller = DraftTree()
    for token, parent in zip(tree.token_ids[:num_nodes], tree.parents[:num_nodes], strict=True):
        smaller.add_child(parent, token)
    return smaller

"""Draft tokens of one step: all sources' guesses merged into one trie, the best of them chosen for the step."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from forelook.decoding.calibration import AcceptanceCalibration
from forelook.decoding.drafts import Draft
from forelook.decoding.step_budget import CostCurve
from forelook.decoding.successors import Ending, SuccessorTable


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

    def keep_first(self, num_nodes: int) -> None:
        """Drop all but the first nodes."""
        for node in range(len(self), num_nodes, -1):
            del self.children[self.parents.pop()][self.token_ids.pop()]
            del self.children[node]


@dataclass(frozen=True, slots=True)
class Selection:
    """The drafts chosen for a step.

    Attributes:
        tree: the drafts.
        probabilities: [n] of each node to be accepted; they never rise along the list.
        cells: [n] the calibration cell each node is owed to.
    """

    tree: DraftTree
    probabilities: list[float]
    cells: list[int]


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
        curve: CostCurve,
        max_nodes: int,
        *,
        ending: Ending | None = None,
        successors: SuccessorTable | None = None,
        is_allowed: Callable[[list[int], int], bool] | None = None,
    ) -> Selection:
        """Choose the most probable paths, best first, as many as make the step yield most tokens per second.

        Args:
            curve: what a step with so many drafts costs.
            max_nodes: most draft nodes.
            ending: the tokens before the drafts, for ``successors``.
            successors: further guesses, asked at each node chosen.
            is_allowed: whether a token may follow a path; it and what is below it is left out otherwise.
        """
        tree = DraftTree()
        chosen: list[float] = []
        chosen_nodes: list[int] = []
        seconds, slopes = curve.seconds, curve.slopes
        max_nodes = min(max_nodes, len(seconds) - 1)
        expected = 1.0
        best_size, best_rate = 0, 1.0 / seconds[0]
        heap: list[tuple[float, int]] = []
        places = {0: 0}
        depths = {0: 0}
        endings = {0: ending}
        paths: dict[int, list[int]] = {0: []}
        node, probability = 0, 1.0
        while True:
            if depths[node] < self._max_depth:
                here = endings[node]
                if successors is not None and here is not None:
                    self._add_successors(node, successors.successors(here))
                self._push_children(node, probability, heap)
            if is_allowed is not None:
                while heap and not is_allowed(paths[self._parents[heap[0][1]]], self._token_ids[heap[0][1]]):
                    heapq.heappop(heap)
            size = len(chosen)
            # no later guess is likelier than the next one: stop where even a run of such could not raise the rate
            if not heap or size >= max_nodes or -heap[0][0] <= best_rate * slopes[size]:
                break
            negative, node = heapq.heappop(heap)
            probability = -negative
            token, parent = self._token_ids[node], self._parents[node]
            places[node] = tree.add_child(places[parent], token)
            depths[node] = depths[parent] + 1
            before = endings[parent]
            endings[node] = None if before is None else before.then(token)
            if is_allowed is not None:
                paths[node] = [*paths[parent], token]
            chosen.append(probability)
            chosen_nodes.append(node)
            expected += probability
            if expected > best_rate * seconds[size + 1]:
                best_size, best_rate = size + 1, expected / seconds[size + 1]
        tree.keep_first(best_size)
        return Selection(tree, chosen[:best_size], [self._cells[node][0] for node in chosen_nodes[:best_size]])

    def _add_successors(self, node: int, found: dict[int, int]) -> None:
        probabilities = self._calibration.probabilities
        for token, cell in found.items():
            self._add_child(node, token, cell, probabilities[cell])

    def _push_children(self, node: int, probability: float, heap: list[tuple[float, int]]) -> None:
        """Rank a node's guesses: each was calibrated alone, so a weaker one has only what the stronger ones leave."""
        conditionals = self._conditionals
        children: Iterable[int] = self._children[node].values()
        if len(self._children[node]) > 1:
            children = sorted(children, key=conditionals.__getitem__, reverse=True)
        for child in children:
            path_probability = probability * conditionals[child]
            if path_probability < self._floor:
                return
            heapq.heappush(heap, (-path_probability, child))
            probability -= path_probability

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

"""Draft tokens of one step: all sources' guesses merged into one trie, the best of them chosen for the step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from forelook.decoding.drafting.budget import CostCurve
from forelook.decoding.drafting.calibration import AcceptanceCalibration
from forelook.decoding.drafting.draft import Draft
from forelook.decoding.drafting.sources.successors import Ending, SuccessorTable, ending_then


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
        """The parent's child with this token; created if there is none."""
        node = self.children[parent].get(token_id)
        if node is None:
            node = len(self.children)
            self.children[parent][token_id] = node
            self.children.append({})
            self.token_ids.append(token_id)
            self.parents.append(parent)
        return node

    def add_path(self, token_ids: Sequence[int], max_nodes: int | None = None) -> None:
        """Merge one chain from node 0, as far as the tree stays within ``max_nodes`` nodes."""
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
        cells: [n] the calibration cell that each node comes from.
        endings: [n+1] the last tokens before each node's successors, node 0 first; empty without ``successors``.
    """

    tree: DraftTree
    probabilities: list[float]
    cells: list[int]
    endings: list[Ending]


class CandidateTree:
    """Every guess for one step, each with the calibrated acceptance of its token given its parent.

    If several sources guess the same token, the most confident one counts; the outcome calibrates all of them.

    Args:
        calibration: turns a guess into a probability and learns from outcomes.
        max_depth: maximum number of drafts in a row.
        floor: guesses whose path is less probable than this are not worth a node.
    """

    def __init__(self, calibration: AcceptanceCalibration, max_depth: int, floor: float) -> None:
        self._calibration = calibration
        self._max_depth = max_depth
        self._floor = floor
        self._token_ids = [-1]
        self._conditionals = [1.0]
        self._cells = [-1]  # the most confident one's
        self._other_cells: dict[int, list[int]] = {}
        self._children: list[dict[int, int]] = [{}]

    def add(self, draft: Draft) -> None:
        """Merge a draft as far as its path stays probable enough."""
        probabilities, conditionals = self._calibration.probabilities, self._conditionals
        children = self._children
        floor, depth_left = self._floor, self._max_depth
        node = 0
        path_probability = 1.0
        for token, cell in zip(draft.token_ids, self._calibration.cells_of(draft), strict=False):
            if depth_left == 0:
                return
            depth_left -= 1
            conditional = probabilities[cell]
            child = children[node].get(token)
            if child is None:
                child = self._new_child(node, token, cell, conditional)
            else:
                self._merge(child, cell, conditional)
                conditional = conditionals[child]
            node = child
            path_probability *= conditional
            if path_probability < floor:
                return

    def _new_child(self, parent: int, token: int, cell: int, conditional: float) -> int:
        node = len(self._token_ids)
        self._children[parent][token] = node
        self._token_ids.append(token)
        self._conditionals.append(conditional)
        self._cells.append(cell)
        self._children.append({})
        return node

    def _merge(self, node: int, cell: int, conditional: float) -> None:
        """One more guess of a node's token: the most confident one counts."""
        best = self._cells[node]
        others = self._other_cells.get(node)
        if cell == best or (others is not None and cell in others):
            return
        if conditional > self._conditionals[node]:
            self._conditionals[node] = conditional
            self._cells[node] = cell
            cell = best
        if others is None:
            self._other_cells[node] = [cell]
        else:
            others.append(cell)

    def select(
        self,
        curve: CostCurve,
        max_nodes: int,
        *,
        ending: Ending | None = None,
        successors: SuccessorTable | None = None,
        present: Collection[int] = (),
        is_allowed: Callable[[list[int], int], bool] | None = None,
    ) -> Selection:
        """Choose the most probable paths, best first, as many as maximize tokens per second.

        Args:
            curve: cost of a step by its number of drafts.
            max_nodes: maximum number of draft nodes.
            ending: the tokens before the drafts, for ``successors``.
            successors: further guesses, looked up at each chosen node.
            present: tokens that the text around the cursor has, for ``successors``.
            is_allowed: whether a token may follow a path; otherwise its whole branch is left out.
        """
        tree = DraftTree()
        chosen: list[float] = []
        cells: list[int] = []
        seconds, slopes, floor = curve.seconds, curve.slopes, self._floor
        token_ids, all_cells, conditionals = self._token_ids, self._cells, self._conditionals
        max_nodes = min(max_nodes, len(seconds) - 1)
        expected = 1.0
        best_size, best_rate = 0, 1.0 / seconds[0]
        # (-probability of the path, candidate, its parent's place in the tree)
        heap: list[tuple[float, int, int]] = []
        # by place in the tree, which is a draft node's number
        depths = [0]
        endings = [] if ending is None else [ending]
        paths: list[list[int]] = [[]]
        node, place, probability = 0, 0, 1.0
        while True:
            if depths[place] < self._max_depth:
                if successors is not None and endings:
                    # what calibrates them is the root's guesses; deeper ones count only where they can be chosen
                    least = 0.0 if node == 0 else floor / probability
                    self._add_successors(node, successors.successors(endings[place], present), least)
                # A guess was calibrated among its siblings, so its probability counts as it is; but all have one.
                left = 1.0
                children: Iterable[int] = self._children[node].values()
                if len(self._children[node]) > 1:
                    children = sorted(children, key=conditionals.__getitem__, reverse=True)
                for child in children:
                    conditional = min(conditionals[child], left)
                    path_probability = probability * conditional
                    if path_probability < floor:
                        break
                    heappush(heap, (-path_probability, child, place))
                    left -= conditional
            if is_allowed is not None:
                while heap and not is_allowed(paths[heap[0][2]], token_ids[heap[0][1]]):
                    heappop(heap)
            size = len(chosen)
            # no later guess is likelier than the next one: stop where even a run of such could not raise the rate
            if not heap or size >= max_nodes or -heap[0][0] <= best_rate * slopes[size]:
                break
            negative, node, parent = heappop(heap)
            probability = -negative
            token = token_ids[node]
            place = tree.add_child(parent, token)
            depths.append(depths[parent] + 1)
            if endings:
                endings.append(ending_then(endings[parent], token))
            if is_allowed is not None:
                paths.append([*paths[parent], token])
            chosen.append(probability)
            cells.append(all_cells[node])
            expected += probability
            if expected > best_rate * seconds[size + 1]:
                best_size, best_rate = size + 1, expected / seconds[size + 1]
        tree.keep_first(best_size)
        return Selection(tree, chosen[:best_size], cells[:best_size], endings[: best_size + 1])

    def _add_successors(self, node: int, found: list[tuple[int, int]], least: float) -> None:
        """Merge guesses after a node, new tokens only from a probability on."""
        probabilities = self._calibration.probabilities
        children = self._children[node]
        for token, cell in found:
            child = children.get(token)
            if child is not None:
                self._merge(child, cell, probabilities[cell])
            elif probabilities[cell] >= least:
                self._new_child(node, token, cell, probabilities[cell])

    def learn(self, target_ids: Sequence[int]) -> None:
        """Calibrate the guesses after every token of the path that the target took."""
        observe, cells, others = self._calibration.observe, self._cells, self._other_cells
        node: int | None = 0
        for target in target_ids:
            if node is None:
                return
            children = self._children[node]
            for token, child in children.items():
                accepted = token == target
                observe(cells[child], accepted)
                for cell in others.get(child, ()):
                    observe(cell, accepted)
            node = children.get(target)

"""Which rank computes what of a step: window columns and draft branches partitioned over ranks.

Every rank runs the current token and as much of the window's row 0 as its columns see (the shared row); everything
else is run once. Source: lookahead parallelism of Fu et al., arXiv 2402.02057, section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forelook.decoding.drafting.drafter import StepPlan
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.layout import BoolArray, IntArray
from forelook.decoding.lookahead.window import LookaheadWindow


class WindowPart:
    """Some columns of a lookahead window, and what they see of row 0.

    Args:
        window: the whole window.
        columns: the rank's; consecutive.
    """

    def __init__(self, window: LookaheadWindow, columns: range) -> None:
        size, num_rows = window.window_size, window.ngram_size - 1
        cells = list(range(columns.stop - 1))  # row 0 begins with column 1
        for row in range(1, num_rows):
            start = size - 1 + (row - 1) * size
            cells += range(start + columns.start, start + columns.stop)
        chosen = np.array(cells, dtype=np.int64)
        ids = window.token_ids
        self.token_ids: list[int] = [ids[cell] for cell in cells]
        self.offsets: IntArray = window.offsets[chosen]
        self.visibility: BoolArray = window.visibility[np.ix_(chosen, chosen)]
        first = size - window.num_last_row  # with N = 2 the last row is row 0, whose column 0 is the current token
        self.last_row = range(max(columns.start, first) - first, columns.stop - first)

    @property
    def num_last_row(self) -> int:
        """How many of the last tokens need logits; ``last_row`` has their places in the window's last row."""
        return len(self.last_row)


@dataclass(frozen=True, slots=True)
class PlanPart:
    """One rank's part of a step.

    Attributes:
        tree: its branches; ancestors that they share with other ranks' branches are in both.
        nodes: [n] the plan's node of each of the tree's nodes 1 .. n.
        window: its columns, or none.
    """

    tree: DraftTree
    nodes: list[int]
    window: WindowPart | None

    @property
    def num_rows(self) -> int:
        """Rows that need logits: the current token, the drafts, the window's last row."""
        return 1 + len(self.nodes) + (0 if self.window is None else self.window.num_last_row)

    @property
    def num_tokens(self) -> int:
        """Tokens besides the pending ones."""
        return len(self.nodes) + (0 if self.window is None else len(self.window.token_ids))


def partition_plan(plan: StepPlan, num_ranks: int, num_tree_ranks: int | None = None) -> list[PlanPart]:
    """Partition a step; all ranks compute the same partition.

    Args:
        plan: the whole step.
        num_ranks: of the group.
        num_tree_ranks: how many of them, from rank 0 on, verify drafts; all by default.
    """
    windows = _partition_window(plan.window, num_ranks)
    loads = [0 if window is None else len(window.token_ids) for window in windows]
    owned = _partition_tree(plan.tree, loads[:num_tree_ranks])
    owned += [set() for _ in range(num_ranks - len(owned))]
    return [_part(plan.tree, nodes, window) for nodes, window in zip(owned, windows, strict=True)]


def _partition_window(window: LookaheadWindow | None, num_ranks: int) -> list[WindowPart | None]:
    if window is None:
        return [None] * num_ranks
    # The last columns see most of row 0, so where columns do not divide evenly the first ranks have one more.
    least, more = divmod(window.window_size, num_ranks)
    parts: list[WindowPart | None] = []
    start = 0
    for rank in range(num_ranks):
        stop = start + least + (rank < more)
        part = WindowPart(window, range(start, stop)) if stop > start else None
        parts.append(part if part is not None and part.token_ids else None)
        start = stop
    return parts


def _partition_tree(tree: DraftTree, loads: list[int]) -> list[set[int]]:
    """Each branch to the rank that has least to run with it; the longest branches first."""
    owned: list[set[int]] = [set() for _ in loads]
    paths = []
    for leaf in range(1, len(tree) + 1):
        if tree.children[leaf]:
            continue
        path = [leaf]
        while (parent := tree.parents[path[-1] - 1]) != 0:
            path.append(parent)
        paths.append(path)
    paths.sort(key=len, reverse=True)
    for path in paths:
        totals = [load + sum(node not in mine for node in path) for load, mine in zip(loads, owned, strict=True)]
        rank = totals.index(min(totals))
        loads[rank] = totals[rank]
        owned[rank].update(path)
    return owned


def _part(tree: DraftTree, owned: set[int], window: WindowPart | None) -> PlanPart:
    part = DraftTree()
    places = {0: 0}
    nodes = sorted(owned)  # parents come before their children
    for node in nodes:
        places[node] = part.add_child(places[tree.parents[node - 1]], tree.token_ids[node - 1])
    return PlanPart(part, nodes, window)


def join_argmax(plan: StepPlan, parts: Sequence[PlanPart], argmax: Sequence[Sequence[int]]) -> list[int]:
    """The whole step's argmax, in the order of an unpartitioned layout's rows, from each rank's."""
    num_nodes = len(plan.tree)
    joined = [0] * (1 + num_nodes + (0 if plan.window is None else plan.window.num_last_row))
    joined[0] = argmax[0][0]
    for part, values in zip(parts, argmax, strict=True):
        for node, value in zip(part.nodes, values[1:], strict=False):
            joined[node] = value
        if part.window is not None:
            for cell, value in zip(part.window.last_row, values[1 + len(part.nodes) :], strict=True):
                joined[1 + num_nodes + cell] = value
    return joined

"""Random step plans."""

from __future__ import annotations

from forelook.decoding.drafting.drafter import StepPlan
from forelook.decoding.drafting.tree import DraftTree
from forelook.decoding.lookahead.window import LookaheadWindow
from hypothesis import strategies as st


@st.composite
def plans(draw: st.DrawFn) -> StepPlan:
    tree = DraftTree()
    for path in draw(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), max_size=12)):
        tree.add_path(path)
    window = None
    if draw(st.booleans()):
        window = LookaheadWindow(draw(st.integers(1, 9)), draw(st.integers(2, 6)), [5, 6, 7])
        if len(window) == 0:
            window = None
    return StepPlan(tree, window)

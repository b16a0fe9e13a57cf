"""A budget has a limit per user and one for all, and room again when something shrinks."""

from __future__ import annotations

import pytest
from forelook.budgets import ByteBudget, text_bytes
from forelook.errors import LimitError


def test_each_user_and_all_together_have_a_limit() -> None:
    budget = ByteBudget("texts", "close some", 100, 150)
    budget.resize("a", 0, 100)
    with pytest.raises(LimitError, match="texts would take 101 bytes of memory, over the limit of 100 for yours"):
        budget.resize("a", 50, 51)
    budget.resize("b", 0, 50)
    with pytest.raises(LimitError, match="151 bytes of memory, over the limit of 150 for all users'"):
        budget.resize("b", 50, 51)
    assert (budget.used("a"), budget.used("b"), budget.used()) == (100, 50, 150)
    budget.resize("a", 100, 0)
    budget.resize("b", 50, 51)
    assert (budget.used("a"), budget.used()) == (0, 51)


def test_shrinking_succeeds_over_the_limit_too() -> None:
    budget = ByteBudget("texts", "close some", 100, 100)
    budget.resize("a", 0, 100)
    budget.resize("a", 90, 80)
    assert budget.used() == 90


def test_wide_characters_take_more_memory() -> None:
    assert 1000 <= text_bytes("a" * 1000) < 1100
    assert 4000 <= text_bytes("\U0001f600" * 1000) < 4100

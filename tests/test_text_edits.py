"""Many edits give the text that editing a string gives, and the time per edit hardly grows with the text."""

from __future__ import annotations

import random
import time

from forelook.text_edits import EditableText
from hypothesis import given
from hypothesis import strategies as st


@given(st.text(max_size=3000), st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.text(max_size=40)), max_size=60))
def test_edits_in_any_order_give_the_text_that_a_string_gives(text: str, edits: list[tuple[float, float, str]]) -> None:
    edited = EditableText(text)
    for first, second, new in edits:
        start, end = sorted((int(first * len(text)), int(second * len(text))))
        assert edited[start:end] == text[start:end]
        text = text[:start] + new + text[end:]
        edited.replace(start, end, new)
        assert len(edited) == len(text)
    assert str(edited) == text


def test_chunks_are_split_and_joined_by_large_edits() -> None:
    text = "".join(chr(97 + i % 26) for i in range(50_000))
    edited, random_ = EditableText(text), random.Random(1)
    for _ in range(300):
        start = random_.randrange(len(text) + 1)
        end = min(len(text), start + random_.choice([0, 1, 5000, 20_000]))
        new = "x" * random_.choice([0, 3, 8000])
        text = text[:start] + new + text[end:]
        edited.replace(start, end, new)
        assert edited[start : start + 50] == text[start : start + 50]
    assert str(edited) == text


def test_the_time_per_edit_does_not_grow_with_the_text() -> None:
    def seconds(length: int, order: list[float]) -> float:
        started_s = time.process_time()
        edited = EditableText("x" * length)
        for share in order:
            start = int(share * (length - 10))
            edited.replace(start, start + 1, "y")
        return time.process_time() - started_s

    shares = [i / 20_000 for i in range(20_000)]
    shuffled = random.Random(2).sample(shares, len(shares))
    for order in (shares, shares[::-1], shuffled):
        # Copying the text per edit would take 16 times as long in the longer one; square roots give 4.
        assert seconds(8_000_000, order) < 10 * max(0.02, seconds(500_000, order))

"""Documents: the editor's changes as edits, and the smallest edit between two texts."""

from __future__ import annotations

from forelook_lsp.mirror import Document, Mirror, Part, smallest_edit
from forelook_lsp.positions import Lines
from hypothesis import given
from hypothesis import strategies as st

TEXTS = st.text(alphabet="ab\n🙂", max_size=30)


@given(TEXTS, TEXTS)
def test_the_smallest_edit_turns_one_text_into_the_other_and_touches_no_common_end(old: str, new: str) -> None:
    edit = smallest_edit(old, new)
    assert old[: edit.start] + edit.text + old[edit.end :] == new
    removed = old[edit.start : edit.end]
    if removed and edit.text:
        assert removed[0] != edit.text[0]
        assert removed[-1] != edit.text[-1]


def test_a_range_the_wrong_way_round_is_put_right() -> None:
    document = Document("file:///a", "python", 1, Lines("abc\ndef"), "w")
    part = Part(document, document.lines, 0, 1)
    part.apply(Mirror().edit_of(part, (1, 1, 0, 1, "x")))
    assert document.text == "axef"


def test_an_insertion_into_a_huge_text_replaced_whole_is_one_small_edit() -> None:
    old = "x = 1\n" * 500_000
    document = Document("file:///a", "python", 1, Lines(old), "w")
    part = Part(document, document.lines, 0, 1)
    edit = Mirror().edit_of(part, old[:1_500_000] + "!" + old[1_500_000:])
    assert (edit.end - edit.start, len(edit.text)) == (0, 1)

"""``check``: what a person sees in the editor when the model says something at a cursor."""

from __future__ import annotations

from forelook.completion.cursor.cleanup import clean, to_suggestion
from forelook.completion.cursor.stopping import find_end, look_around, wants_block
from forelook.languages import language_for
from forelook.protocol.messages import Suggestion

CURSOR = "‸"


def suggest(
    language_id: str,
    before: str,
    after: str,
    model_text: str,
    *,
    invoked: bool = False,
    interrupted: bool = False,
    ended: bool = False,
    piece: int | None = None,
) -> Suggestion | None:
    """The edit for a model that would say ``model_text``, handed over ``piece`` characters at a time."""
    cursor = look_around(language_for(language_id), before, after)
    multi_line = wants_block(cursor, invoked=invoked)
    raw = model_text
    stopped = False
    if piece is not None:
        for size in range(piece, len(model_text) + piece, piece):
            if find_end(cursor, model_text[:size], multi_line=multi_line) is not None:
                raw, stopped = model_text[:size], True
                break
    cleaned = clean(
        cursor,
        raw,
        multi_line=multi_line,
        interrupted=interrupted and not stopped,
        ended=ended and not stopped,
        invoked=invoked,
    )
    return None if cleaned is None else to_suggestion(cursor, cleaned, len(before))


def apply(text: str, edit: Suggestion | None) -> str:
    return text if edit is None else text[: edit.start] + edit.text + text[edit.end :]


def check_edit(text: str, offset: int, edit: Suggestion) -> None:
    """The promises every suggestion keeps: in one line, around the cursor, deleting nothing that was typed."""
    assert edit.start <= offset <= edit.end
    assert "\n" not in text[edit.start : edit.end]
    assert "\r" not in edit.text
    typed = text[edit.start : offset]
    assert edit.text.startswith(typed)
    assert is_subsequence(text[offset : edit.end], edit.text[len(typed) :])
    assert edit.text[len(typed) :].strip()


def is_subsequence(small: str, large: str) -> bool:
    position = 0
    for character in small:
        position = large.find(character, position) + 1
        if position == 0:
            return False
    return True


def check(
    language_id: str,
    document: str,
    model_text: str,
    expect: str | None,
    *,
    invoked: bool = False,
    interrupted: bool = False,
) -> None:
    """Assert what a document becomes.

    Args:
        language_id: LSP's language id.
        document: the text, with ``‸`` at the cursor.
        model_text: the text the model would generate without a stop rule.
        expect: the document once the suggestion is accepted, ``‸`` at its end; ``None`` when there must be none.
        invoked: whether the user asked.
        interrupted: whether generation was truncated.
    """
    before, after = document.split(CURSOR)
    for piece in (None, 1, 3):
        edit = suggest(language_id, before, after, model_text, invoked=invoked, interrupted=interrupted, piece=piece)
        if edit is None:
            assert expect is None, f"no suggestion (in pieces of {piece}), expected {expect!r}"
            continue
        check_edit(before + after, len(before), edit)
        end = edit.start + len(edit.text)
        result = apply(before + after, edit)
        result = result[:end] + CURSOR + result[end:]
        assert result == expect, f"in pieces of {piece}: {result!r} is not {expect!r}"

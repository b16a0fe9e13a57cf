"""Text comes out of a token stream as soon as it is certain, and never changes."""

from __future__ import annotations

from itertools import pairwise

from forelook.model.text_stream import TextStream
from forelook.model.tokenizer import CodeTokenizer
from hypothesis import given, settings
from hypothesis import strategies as st


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30), cuts=st.lists(st.integers(0, 60), max_size=6), skip=st.integers(0, 5))
def test_pieces_join_to_the_whole_text_however_tokens_arrive(
    starter_tokenizer: CodeTokenizer, text: str, cuts: list[int], skip: int
) -> None:
    ids = starter_tokenizer.encode(text)
    forced = text[:skip].encode()
    stream = TextStream(starter_tokenizer, skip=forced)
    bounds = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    pieces = [stream.push(ids[start:end]) for start, end in pairwise(bounds)]
    assert "".join(pieces) + stream.finish() == text[skip:]


def test_incomplete_character_waits_for_its_bytes(codellama_tokenizer: CodeTokenizer) -> None:
    stream = TextStream(codellama_tokenizer)
    ids = codellama_tokenizer.encode("é🦙")
    texts = [stream.push([token_id]) for token_id in ids]
    assert "\ufffd" not in "".join(texts)
    assert "".join(texts) == "é🦙"
    assert texts[-1] == "🦙"


def test_unfinished_character_at_the_end_becomes_a_replacement(codellama_tokenizer: CodeTokenizer) -> None:
    stream = TextStream(codellama_tokenizer)
    assert stream.push(codellama_tokenizer.encode("🦙")[:2]) == ""
    assert stream.finish() == "\ufffd"
